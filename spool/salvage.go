package spool

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tollbridge/internal/crashpoint"
)

// A Salvage is what was saved of a damaged database and what was not. It is
// logged, and lies beside the damaged file, with ".json" added to its name.
type Salvage struct {
	File   string          `json:"file"`    // that goes on in its place
	Kept   string          `json:"damaged"` // the damaged one, kept for people
	Found  string          `json:"found"`   // what was wrong
	Tables []SalvagedTable `json:"tables"`
}

// A SalvagedTable is one table of a damaged database.
type SalvagedTable struct {
	Name   string   `json:"name"`
	Rows   int      `json:"rows"`             // saved
	Hollow []string `json:"hollow,omitempty"` // keys of rows whose content is lost: it is empty now
	Lost   []string `json:"lost,omitempty"`   // ranges of keys between which rows may be lost
}

// whole reports whether all of a table was saved.
func (t *SalvagedTable) whole() bool { return len(t.Hollow)+len(t.Lost) == 0 }

// Crash argument.
//
// The damaged file keeps its name, and counts, until the new one is whole. That
// is made as FILE.salvage: all tables, what mend makes of them, synced, without
// a write-ahead log; and the report is synced, with its name, without which the
// damaged file's second name would be taken for a part of a salvage of before.
// Then that gets its second name, after which one rename puts the new one into its place. Who is
// killed before that has changed nothing: a FILE.salvage that is found beside a
// FILE is never whole for certain, and is deleted. Before all else the damaged
// file's write-ahead log is merged into it, so that there is no moment at which
// one of them could be without the other, or the new file with that of the old.

// salvage saves into a new database all that can be read of a damaged one, row
// by row, and puts it into its place. Nobody has it open. What is lost is named
// by its key. The error is a failure of the disk, or ErrDamaged, where what is
// left is of no use; the damaged database is then where it was.
func salvage(file string, pageSize int, schema schema, damage error, log *slog.Logger) (*Salvage, error) {
	s := &Salvage{File: file, Found: damage.Error(), Kept: freeName(file)}
	log.Error("database is damaged: saving what can be read", "file", file, "error", damage)
	err := s.save(pageSize, schema)
	if err == nil {
		err = s.replace()
	}
	if err != nil {
		err = explain(file, err)
		if !passes(err) {
			err = &fileError{file: file, is: ErrDamaged, advice: restore(file), err: err}
		}
		return nil, errors.Join(err, removeDatabase(s.making()))
	}
	for _, t := range s.Tables {
		if !t.whole() {
			log.Error("part of a damaged database is lost", "file", file, "table", t.Name, "saved_rows", t.Rows,
				"hollow", strings.Join(t.Hollow, ", "), "lost_between", strings.Join(t.Lost, ", "))
		}
	}
	log.Warn("database is salvaged and goes on", "file", file, "damaged_file", s.Kept)
	return s, nil
}

// Names of damaged files that are kept: FILE.damaged-TIME.
const (
	damagedInfix = ".damaged-"
	damagedTime  = "20060102T150405Z"
)

// freeName returns a name for a damaged file that nothing is kept under.
func freeName(file string) string {
	for at := time.Now().UTC(); ; at = at.Add(time.Second) {
		name := file + damagedInfix + at.Format(damagedTime)
		_, kept := os.Lstat(name)
		_, reported := os.Lstat(name + ".json")
		if kept != nil && reported != nil {
			return name
		}
	}
}

// making is the name of the new database until it is whole.
func (s *Salvage) making() string { return s.File + ".salvage" }

// clearSalvage deletes what a salvage that was killed has left of its new
// database. Programs of before moved the damaged database away first and
// reported last: where one was killed in between, FILE is missing or a part of
// it, which nothing of it tells. That is refused.
func clearSalvage(file string) error {
	if err := removeDatabase((&Salvage{File: file}).making()); err != nil {
		return explain(file, err)
	}
	beside, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return explain(file, err)
	}
	for _, e := range beside {
		name := filepath.Join(filepath.Dir(file), e.Name())
		kept := strings.TrimSuffix(strings.TrimSuffix(name, "-wal"), "-shm")
		at, ok := strings.CutPrefix(kept, file+damagedInfix)
		if _, err := time.Parse(damagedTime, at); !ok || err != nil {
			continue
		}
		if _, err := os.Stat(kept + ".json"); errors.Is(err, os.ErrNotExist) {
			advice := fmt.Sprintf("rename %s back to it, with its -wal if there is one, or move that elsewhere if this one is known to be whole", kept)
			return &fileError{file: file, is: ErrDamaged, advice: advice, err: errors.New("an earlier version was killed while it salvaged it")}
		}
	}
	return nil
}

// removeDatabase deletes a database that nobody has open, if there is one.
func removeDatabase(file string) error {
	var first error
	for _, suffix := range []string{"-wal", "-shm", "-journal", ""} {
		if err := os.Remove(file + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			first = cmp.Or(first, err)
		}
	}
	return first
}

// replace reports, keeps the damaged database under another name, and puts the
// new one, which is whole, into its place.
func (s *Salvage) replace() error {
	dir := filepath.Dir(s.File)
	report, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.Kept+".json", append(report, '\n'), 0o600); err != nil {
		return err
	}
	if err := errors.Join(syncFile(s.Kept+".json"), syncFile(s.making()), syncDir(dir)); err != nil {
		return err
	}
	// Both are merged and empty. SQLite removes them where nobody reads beside us.
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(s.File + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := keep(s.File, s.Kept); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	crashpoint.At(crashpoint.SalvageWhole)
	if err := os.Rename(s.making(), s.File); err != nil {
		return err
	}
	return syncDir(dir)
}

// keep gives a file a second name; where a file system has no such thing (FAT,
// some of FUSE), a copy of it, synced.
func keep(file, name string) error {
	err := os.Link(file, name)
	if err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	from, e := os.Open(file)
	if e != nil {
		return errors.Join(err, e)
	}
	defer from.Close()
	to, e := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if e != nil {
		return errors.Join(err, e)
	}
	_, e = io.Copy(to, from)
	if e = errors.Join(e, to.Sync(), to.Close()); e != nil {
		return errors.Join(err, e, os.Remove(name))
	}
	return nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// save copies what can be read of s.File into a new database.
func (s *Salvage) save(pageSize int, schema schema) (err error) {
	src := sql.OpenDB(newSalvaged(s.File))
	defer func() { err = errors.Join(err, src.Close()) }()
	src.SetMaxOpenConns(1)
	if v, err := version(src, s.File, schema); err != nil {
		return err
	} else if v == 0 {
		return errors.New("it has no tables left")
	}
	if err := mergeLog(src, s.File); err != nil {
		return err
	}
	if err := removeDatabase(s.making()); err != nil {
		return err
	}
	dst, err := openWriter(s.making(), pageSize, schema, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.close()) }()
	var names []string
	err = dst.query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name", func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		names = append(names, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		t, err := newRescue(src, dst, name)
		if err == nil {
			err = dst.transact(t.copy)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		s.Tables = append(s.Tables, t.SalvagedTable)
		crashpoint.At(crashpoint.Salvaging)
	}
	if err := s.mend(dst, schema); err != nil {
		return err
	}
	return dst.standAlone()
}

// mergeLog copies the write-ahead log of a database into it, and empties it.
func mergeLog(db *sql.DB, file string) error {
	var busy, frames, merged int
	if err := db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &merged); err != nil {
		return err
	}
	if busy != 0 {
		return &fileError{file: file, is: ErrBusy, advice: "end the other program that has it open", err: errors.New("its write-ahead log can't be merged")}
	}
	return nil
}

// standAlone merges the write-ahead log and does without one from then on.
func (w *writer) standAlone() error {
	for _, s := range w.stmt {
		s.Close()
	}
	clear(w.stmt)
	var mode string
	if err := w.conn.QueryRowContext(context.Background(), "PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
		return explain(w.file, err)
	}
	if mode != "delete" {
		return explain(w.file, fmt.Errorf("its journal mode stays %q", mode))
	}
	return nil
}

// booked are the tables that hold amounts of the books.
var booked = []string{"ledger", "record_page", "session", "suspended"}

// mend makes what was saved of state.db fit to go on, or says that it is not.
func (s *Salvage) mend(dst *writer, schema schema) error {
	if schema.name != stateSchema.name {
		return nil
	}
	ctx := context.Background()
	var names int
	err := dst.conn.QueryRowContext(ctx, "SELECT count(*) FROM meta WHERE name IN (?, ?, ?, ?, ?, ?)",
		metaCreated, metaEpoch, metaHashKey, metaOriginStateID, metaNextRecord, metaNextSuspended).Scan(&names)
	if err != nil {
		return err
	}
	if names < 6 {
		return errors.New("what the spool is can't be read any more")
	}
	if err := resumable(ctx, dst.conn); err != nil {
		return err
	}
	return dst.transact(func() error {
		if slices.ContainsFunc(s.Tables, func(t SalvagedTable) bool { return !t.whole() }) {
			// Sessions may be lost that have used the next Session-Ids.
			if err := errors.Join(dst.raise(metaEpoch), dst.raise(metaOriginStateID)); err != nil {
				return err
			}
		}
		for _, t := range s.Tables {
			if t.whole() {
				continue
			}
			if t.Name == "settled" || t.Name == "sent" {
				if err := dst.setMeta(metaSettledLost, 1); err != nil {
					return err
				}
			}
			if slices.Contains(booked, t.Name) {
				if err := dst.loseAmounts(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// loseAmounts notes that of all rows that the ledger may have had by now amounts
// are missing, within a transaction. Later rows are whole.
func (w *writer) loseAmounts(ctx context.Context) error {
	var last sql.NullInt64
	if err := w.conn.QueryRowContext(ctx, "SELECT max(interval) FROM ledger").Scan(&last); err != nil {
		return err
	}
	return w.setMeta(metaAmountsLost, max(last.Int64, time.Now().Unix()))
}

// raise gives a number that comes from the clock a higher value, within a
// transaction.
func (w *writer) raise(name string) error {
	was, err := metaNumber(context.Background(), w.conn, name)
	if err != nil {
		return err
	}
	return w.setMeta(name, max(was+1, int64(uint32(time.Now().Unix()))))
}
