// Package spool is what is durable of Tollbridge: the journal, the pipeline's
// checkpoint, the outbox of accounting records, the ledger, and the CDRs of
// the accounting application, in one directory. It knows no network.
//
//	lock      held by the daemon that has the spool open
//	journal/  the journal, in files of its own (package journal)
//	state.db  checkpoint, sessions, suspense, ledger, identities, outbox
//	cdr.db    the CDRs
package spool

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"tollbridge/spool/journal"
)

// A Config sets up a Spool. The zero Config is ready to use.
type Config struct {
	GroupSize int           // octets of a journal group; 0 means 256 KiB
	Segment   int64         // octets of a file of the journal; 0 means 32 MiB
	MaxDelay  time.Duration // how long an entry waits for company; 0 means 10 ms
	Memory    int           // octets that may wait to be made durable; 0 means 16 MiB
	Recent    int           // octets of durable groups kept in memory for readers; 0 means 16 MiB
	Lease     time.Duration // its term: take the lease over (see Await), from a holder that still has the spool open too, and show life from then on; 0 is without one
	CheckTime time.Duration // the most that looking for damage may take at Open, per file; 0 means 10 s
	Log       *slog.Logger  // nil discards
}

func (c Config) withDefaults() Config {
	c.GroupSize = orDefault(c.GroupSize, 256<<10)
	c.MaxDelay = orDefault(c.MaxDelay, 10*time.Millisecond)
	c.Memory = orDefault(c.Memory, 16<<20)
	c.Recent = orDefault(c.Recent, 16<<20)
	c.CheckTime = orDefault(c.CheckTime, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// A Spool is the state of one daemon. Its methods are safe for use by any
// goroutines.
type Spool struct {
	dir     string
	log     *slog.Logger
	lock    *os.File // nil when read only, or another's still; the goroutine's that beats, while one does
	w       *writer  // of state.db; nil when read only
	r       *sql.DB  // of state.db
	meta    Meta
	fence   *fence // nil when read only
	opener  *opener
	journal *journal.Journal
	outbox  *Outbox // nil when read only

	checkpoint checkpoint // guarded by w.mu
	time       int64      // of the checkpoint, Unix nanoseconds; likewise

	life int64 // the beat, as it was shown last; of the goroutine that beats
}

// Open opens the spool in dir, making the directory if there is none, and
// keeps every other process from opening it. Another process that has it open
// is ErrInUse; a file of another program ErrNotDatabase; one of a newer
// version of this program ErrNewer; a file found damaged ErrDamaged.
func Open(dir string, cfg Config) (*Spool, error) {
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explain(filepath.Join(dir, "lock"), err)
	}
	s := &Spool{dir: dir, log: cfg.Log}
	if err := s.open(cfg); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Spool) open(cfg Config) error {
	err := checkFileSystem(s.dir, fileSystemOf(s.dir), cfg.Lease > 0, cfg.Log)
	if err != nil {
		return err
	}
	if s.lock, err = lock(s.dir); err != nil && !(cfg.Lease > 0 && errors.Is(err, ErrInUse)) {
		return err // with a lease it is the fence that counts, not the lock
	}
	epoch, err := s.latestEpoch()
	if err != nil {
		return err
	}
	if err := s.roomToTakeOver(); err != nil {
		return err
	}
	s.fence = newFence(epoch + 1)
	s.opener = &opener{log: cfg.Log, checkTime: cfg.CheckTime, fence: s.fence, alone: s.lock != nil}
	state := s.state()
	if cfg.Lease > 0 {
		s.opener.joined = func(w *writer) {
			if w.file == state {
				w.heart = s.startHeart(w, cfg.Lease)
			}
		}
	}
	if s.w, s.r, _, err = s.opener.both(state, statePage, stateSchema); err != nil {
		return err
	}
	if err := initMeta(s.w, time.Now()); err != nil {
		return err
	}
	if s.meta, err = loadMeta(context.Background(), s.r, state); err != nil {
		return err
	}
	if err := s.loadCheckpoint(); err != nil {
		return err
	}
	if err := s.openJournal(cfg); err != nil {
		return err
	}
	if s.outbox, err = openOutbox(s, state); err != nil {
		return err
	}
	// SQLite syncs what is in its files. That the files are there, and the
	// directory, is for us to sync.
	return errors.Join(syncDir(s.dir), syncDir(filepath.Dir(s.dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // a parent that may be searched but not read: not made by us
		}
		return explain(dir, err)
	}
	defer d.Close()
	return explain(dir, d.Sync())
}

func (s *Spool) state() string { return filepath.Join(s.dir, "state.db") }

// OpenReadOnly opens the spool in dir for looking at it, whether or not a
// daemon has it open. Methods that write return ErrReadOnly, and Outbox nil.
// Its Journal ends where it ended then.
func OpenReadOnly(dir string) (*Spool, error) {
	cfg := Config{}.withDefaults()
	s := &Spool{dir: dir, log: cfg.Log}
	if err := s.openReadOnly(cfg); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Spool) openReadOnly(cfg Config) error {
	state := s.state()
	var err error
	if s.r, err = openReader(state, stateSchema); err != nil {
		return err
	}
	if s.meta, err = loadMeta(context.Background(), s.r, state); err != nil {
		return err
	}
	return s.openJournalReadOnly(cfg)
}

// Close closes all files and gives the lock back. The journal's Run must
// have returned; calls that still wait fail with ErrClosed.
func (s *Spool) Close() error {
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	if s.journal != nil {
		keep(s.journal.Close())
	}
	// The last connection copies the WAL into the database and removes it,
	// so the writer closes after the readers.
	if s.r != nil {
		keep(s.r.Close())
	}
	if s.w != nil {
		keep(s.w.close())
	}
	if s.lock != nil {
		unlock(s.lock)
	}
	return first
}

// Dir returns the directory.
func (s *Spool) Dir() string { return s.dir }

// Meta returns what the spool is since its creation.
func (s *Spool) Meta() Meta { return s.meta }

// Journal returns the spool's journal, always the same.
func (s *Spool) Journal() *journal.Journal { return s.journal }

// Outbox returns the spool's outbox, always the same; nil after OpenReadOnly.
func (s *Spool) Outbox() *Outbox { return s.outbox }
