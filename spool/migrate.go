package spool

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

//go:embed migrations
var migrations embed.FS

// A schema is a kind of database and the steps that lead to its newest
// version; the first makes version 1 of an empty file.
type schema struct {
	name  string
	id    int32 // PRAGMA application_id, so that no other program's file is taken
	steps []string
}

var (
	stateSchema   = embedded("state", 0x54427374)   // "TBst"
	journalSchema = embedded("journal", 0x54426a6e) // "TBjn"
	cdrSchema     = embedded("cdr", 0x54426364)     // "TBcd"
	creditSchema  = embedded("credit", 0x54426372)  // "TBcr"
)

// absent says what it means that there is no file of the schema.
func (s schema) absent() string {
	switch s.name {
	case cdrSchema.name:
		return "no CDRs were stored here; a daemon with server.listen stores those that it is sent"
	case creditSchema.name:
		return "there was no credit control here; a daemon with creditControl.peers has it"
	}
	return "no spool is there; a daemon makes one"
}

// embedded returns the schema of migrations/name, whose files are numbered
// 0001, 0002 and so on.
func embedded(name string, id int32) schema {
	files, err := fs.Glob(migrations, path.Join("migrations", name, "*.sql"))
	if err != nil || len(files) == 0 {
		panic("spool: internal error: no migrations of " + name)
	}
	slices.Sort(files)
	s := schema{name: name, id: id}
	for i, f := range files {
		if want := fmt.Sprintf("%04d_", i+1); path.Base(f)[:5] != want {
			panic("spool: internal error: migration " + f + " is not number " + want)
		}
		text, err := migrations.ReadFile(f)
		if err != nil {
			panic("spool: internal error: " + err.Error())
		}
		s.steps = append(s.steps, string(text))
	}
	return s
}

// A querier is a connection or a pool of them.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// version returns the schema version of a database, 0 for an empty one. It
// refuses a database of another kind and one of a newer program.
func version(q querier, file string, s schema) (int, error) {
	var id, v, objects int
	ctx := context.Background()
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return 0, explain(file, err)
	}
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, explain(file, err)
	}
	if err := q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return 0, explain(file, err)
	}
	switch {
	case v == 0 && objects == 0:
		return 0, nil
	case int32(id) != s.id:
		return 0, &fileError{file: file, advice: elsewhere, err: ErrNotDatabase}
	case v > len(s.steps):
		return 0, &fileError{file: file, advice: fmt.Sprintf("schema version %d, this program knows up to %d: install the newer one again", v, len(s.steps)), err: ErrNewer}
	}
	return v, nil
}

// known checks that a database opened for reading is of s's newest version:
// only the daemon migrates.
func known(q querier, file string, s schema) error {
	v, err := version(q, file, s)
	if err != nil {
		return err
	}
	if v < len(s.steps) {
		return explain(file, fmt.Errorf("schema version %d, this program wants %d: start the daemon once, which migrates it", v, len(s.steps)))
	}
	return nil
}

// migrate brings w's database to the newest version of s, each step in a
// transaction of its own. Earlier holders of the lease are shut out before.
func migrate(w *writer, s schema, f *fence) error {
	v, err := version(w.conn, w.file, s)
	if err != nil {
		return err
	}
	made := v == 0
	if !made {
		if err := f.join(w); err != nil {
			return err
		}
	}
	for ; v < len(s.steps); v++ {
		err := w.transact(func() error {
			// PRAGMAs take no parameters. Both numbers are ours.
			for _, q := range []string{
				s.steps[v],
				fmt.Sprintf("PRAGMA application_id = %d", s.id),
				fmt.Sprintf("PRAGMA user_version = %d", v+1),
			} {
				if _, err := w.conn.ExecContext(context.Background(), q); err != nil {
					return fmt.Errorf("migrate %s to version %d: %w", s.name, v+1, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if made {
		return f.join(w)
	}
	return nil
}
