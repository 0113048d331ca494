package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tollbridge/spool/journal"
)

// Of the journal, for those who have a Spool.
type (
	Journal = journal.Journal
	Reader  = journal.Reader
	Keep    = journal.Keep
)

// ErrTrimmed says that a position was trimmed from the journal.
var ErrTrimmed = journal.ErrTrimmed

func (s *Spool) journalDir() string { return filepath.Join(s.dir, "journal") }

// openJournal takes the journal's lease and opens it, within a transaction of
// state.db, so only while that has our epoch: nobody can replace us meanwhile, and
// nothing is taken back from who did.
func (s *Spool) openJournal(cfg Config) error {
	if err := s.takeOver(); err != nil {
		return err
	}
	return s.asHolder(func() error {
		err := journal.Take(s.journalDir(), s.Epoch())
		if err == nil {
			s.journal, err = journal.Open(s.journalDir(), cfg.journal(s.Epoch(), s.fence.fall, s.checkpoint.position))
		}
		return err
	})
}

func (c Config) journal(epoch uint64, fenced func(), after uint64) journal.Config {
	return journal.Config{GroupSize: c.GroupSize, Segment: c.Segment, MaxDelay: c.MaxDelay, Memory: c.Memory, Recent: c.Recent,
		Epoch: epoch, Fenced: fenced, After: after, Log: c.Log}
}

// openJournalReadOnly opens the journal for looking at it.
func (s *Spool) openJournalReadOnly(cfg Config) (err error) {
	s.journal, err = journal.OpenReadOnly(s.journalDir(), cfg.journal(0, nil, 0))
	if errors.Is(err, fs.ErrNotExist) {
		advice := "a daemon makes one"
		if _, old := os.Stat(s.oldJournal()); old == nil {
			advice = "an earlier version has left journal.db: start the daemon once, which takes it over"
		}
		return &fileError{file: s.journalDir(), advice: "no journal is there: " + advice, err: err}
	}
	return err
}
