package spool

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tollbridge/internal/crashpoint"
	"tollbridge/spool/journal"
)

// Earlier versions had the journal in a SQLite database, journal.db: a row for
// each group, in the encoding that groups have still, one for each that was set
// aside, and the openings.
//
// Crash argument. All of it is written, durably, to another directory first, and
// the openings to state.db; then one rename makes that the journal. Who is killed
// before has changed nothing that counts, and it is done anew. Who is killed after
// it finds a journal, and only has to move the old one out of the way. It is kept
// for people.

func (s *Spool) oldJournal() string { return filepath.Join(s.dir, "journal.db") }

// takenOver is what the name of an old journal that was taken over ends in.
const takenOver = ".taken-over"

// takeOver makes the journal out of that of an earlier version, if there is one.
func (s *Spool) takeOver() error {
	if _, err := os.Stat(s.oldJournal()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	list, err := os.ReadDir(s.journalDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(s.journalDir(), err)
	}
	if len(list) == 0 {
		if err := os.Remove(s.journalDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explain(s.journalDir(), err)
		}
		telling(s.log, "taking the journal over", s.oldJournal(), func() { err = s.copyJournal() })
		if err != nil {
			return doing(err, "take over the journal of an earlier version")
		}
	}
	crashpoint.At(crashpoint.JournalTaken)
	for _, suffix := range []string{"-wal", "-shm", ""} {
		err := os.Rename(s.oldJournal()+suffix, s.oldJournal()+takenOver+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explain(s.oldJournal()+suffix, err)
		}
	}
	s.log.Info("the journal of an earlier version is taken over: what is left of it may be deleted", "file", s.oldJournal()+takenOver)
	return syncDir(s.dir)
}

// copyJournal makes the journal out of journal.db.
func (s *Spool) copyJournal() (err error) {
	file := s.oldJournal()
	w, r, _, err := s.opener.both(file, statePage, journalSchema)
	if err != nil {
		return err
	}
	old := database{file, w, r}
	defer func() { err = errors.Join(err, old.Close()) }()
	ctx := context.Background()
	trimmed, err := metaNumber(ctx, r, metaTrimmed)
	if err != nil {
		return explain(file, err)
	}
	making := s.journalDir() + ".making"
	if err := os.RemoveAll(making); err != nil {
		return explain(making, err)
	}
	b, err := journal.Build(making, s.Epoch(), uint64(trimmed))
	if err != nil {
		return err
	}
	if err := errors.Join(s.copyGroups(ctx, r, b), b.Close()); err != nil {
		return err
	}
	if err := s.copyOpenings(ctx, r); err != nil {
		return err
	}
	crashpoint.At(crashpoint.JournalTaking)
	if err := os.Rename(making, s.journalDir()); err != nil {
		return explain(making, err)
	}
	return syncDir(s.dir)
}

// copyGroups copies groups, and what was set aside, from an old journal.
func (s *Spool) copyGroups(ctx context.Context, r *sql.DB, b *journal.Builder) error {
	visit := func(query string, take func(first, last uint64, data []byte) error) error {
		rows, err := r.QueryContext(ctx, query)
		if err != nil {
			return explain(s.oldJournal(), err)
		}
		return explain(s.oldJournal(), each(rows, func(rows *sql.Rows) error {
			var first, last int64
			var data sql.RawBytes
			if err := rows.Scan(&first, &last, &data); err != nil {
				return err
			}
			return take(uint64(first), uint64(last), data)
		}))
	}
	err := visit("SELECT first, last, data FROM journal_group ORDER BY last", func(first, last uint64, data []byte) error {
		err := b.Add(first, data)
		if errors.Is(err, ErrDamaged) {
			s.log.Error("journal group is damaged and set aside", "first", first, "last", last, "error", err)
			return b.SetAside(first, last, data)
		}
		return err
	})
	if err != nil {
		return err
	}
	return visit("SELECT first, last, data FROM damaged ORDER BY last", b.SetAside)
}

// copyOpenings copies the openings of an old journal to state.db.
func (s *Spool) copyOpenings(ctx context.Context, r *sql.DB) error {
	rows, err := r.QueryContext(ctx, "SELECT position, time, data FROM opening")
	if err != nil {
		return explain(s.oldJournal(), err)
	}
	return s.w.transact(func() error {
		return each(rows, func(rows *sql.Rows) error {
			var position, time int64
			var data []byte
			if err := rows.Scan(&position, &time, &data); err != nil {
				return explain(s.oldJournal(), err)
			}
			return s.w.exec("INSERT OR IGNORE INTO opening (position, time, data) VALUES (?, ?, ?)", position, time, data)
		})
	})
}
