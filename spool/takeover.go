package spool

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
//
// Fencing argument. Each holder of the lease writes to a directory of its own, named
// by its epoch. It gets the journal's name, and the old journal loses its own,
// within transactions of state.db that find the epoch still there, as is what
// earlier holders left deleted: a holder that was stopped, and replaced, renames and
// deletes nothing that is its heir's.

func (s *Spool) oldJournal() string { return filepath.Join(s.dir, "journal.db") }

const (
	takenOver  = ".taken-over"     // what the name of an old journal that was taken over ends in
	makingName = "journal.making-" // before the epoch of who makes the journal of an old one
)

func (s *Spool) making() string {
	return filepath.Join(s.dir, makingName+strconv.FormatUint(s.Epoch(), 10))
}

// takeOver makes the journal out of that of an earlier version, if there is one.
func (s *Spool) takeOver() error {
	if err := s.clearMaking(); err != nil {
		return err
	}
	switch there, err := s.oldJournalCounts(); {
	case err != nil:
		return err
	case there:
		telling(s.log, "taking the journal over", s.oldJournal(), func() { err = s.makeJournal() })
		if err != nil {
			return doing(err, "take over the journal of an earlier version")
		}
	}
	if _, err := os.Stat(s.oldJournal()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	crashpoint.At(crashpoint.JournalTaken)
	return s.moveOldAway()
}

// oldJournalCounts reports whether the journal is that of an earlier version, and
// was not taken over.
func (s *Spool) oldJournalCounts() (bool, error) {
	if _, err := os.Stat(s.oldJournal()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	list, err := os.ReadDir(s.journalDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, explain(s.journalDir(), err)
	}
	return len(list) == 0, nil
}

// makings returns the directories that were to become the journal, and did not.
func (s *Spool) makings() (dirs []string, err error) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, explain(s.dir, err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), makingName) {
			dirs = append(dirs, filepath.Join(s.dir, e.Name()))
		}
	}
	return dirs, nil
}

// clearMaking deletes what earlier holders of the lease began to make.
func (s *Spool) clearMaking() error {
	dirs, err := s.makings()
	if len(dirs) == 0 || err != nil {
		return err
	}
	return s.asHolder(func() error {
		for _, dir := range dirs {
			if err := os.RemoveAll(dir); err != nil {
				return explain(dir, err)
			}
		}
		return nil
	})
}

// makeJournal makes the journal out of journal.db. Where it can't, it leaves nothing
// behind that takes room.
func (s *Spool) makeJournal() error {
	err := s.copyJournal()
	if err == nil {
		err = s.putInPlace()
	}
	if err == nil {
		return nil
	}
	// Who replaced us may have deleted what we wrote to: then that is the cause.
	if fenced := s.asHolder(func() error { return nil }); errors.Is(fenced, ErrFenced) {
		err = fenced
	}
	if left := os.RemoveAll(s.making()); left != nil {
		err = errors.Join(err, explain(s.making(), left))
	}
	return err
}

// putInPlace makes what was made the journal.
func (s *Spool) putInPlace() error {
	return s.asHolder(func() error {
		if err := os.Remove(s.journalDir()); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
			return explain(s.journalDir(), err)
		}
		crashpoint.At(crashpoint.JournalTaking)
		if err := os.Rename(s.making(), s.journalDir()); err != nil {
			return explain(s.making(), err)
		}
		return syncDir(s.dir)
	})
}

// moveOldAway takes the name of a journal that was taken over from it.
func (s *Spool) moveOldAway() error {
	err := s.asHolder(func() error {
		for _, suffix := range []string{"-wal", "-shm", ""} {
			err := os.Rename(s.oldJournal()+suffix, s.oldJournal()+takenOver+suffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return explain(s.oldJournal()+suffix, err)
			}
		}
		return syncDir(s.dir)
	})
	if err == nil {
		s.log.Info("the journal of an earlier version is taken over: what is left of it may be deleted", "file", s.oldJournal()+takenOver)
	}
	return err
}

// copyJournal copies journal.db to the directory that is to be the journal, and its
// openings to state.db.
func (s *Spool) copyJournal() (err error) {
	file := s.oldJournal()
	var old database
	// Where we are not the holder any more it may be gone, and must not be made anew.
	err = s.asHolder(func() (err error) {
		old, _, err = s.opener.openDatabase(file, statePage, journalSchema)
		return err
	})
	if old.r != nil {
		defer func() { err = errors.Join(err, old.Close()) }()
	}
	if err != nil {
		return err
	}
	ctx := context.Background()
	trimmed, err := metaNumber(ctx, old.r, metaTrimmed)
	if err != nil {
		return explain(file, err)
	}
	b, err := journal.Build(s.making(), s.Epoch(), uint64(trimmed))
	if err != nil {
		return err
	}
	if err := errors.Join(s.copyGroups(ctx, old.r, b), b.Close()); err != nil {
		return err
	}
	return s.copyOpenings(ctx, old.r)
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
