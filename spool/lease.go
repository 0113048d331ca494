package spool

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"tollbridge/spool/journal"
)

// Fencing argument.
//
// The one who writes has a lease: an epoch, in table meta of every database,
// that is its own. Every transaction looks at the epoch of its database first,
// in the transaction itself, under SQLite's write lock. Who takes the lease
// over writes an epoch higher than that of any into state.db, then into each
// other one when it opens that, and migrates, checks and reads a database only
// after that. A damaged one is salvaged only where the lock says that nobody
// else has it: the new file would leave an old holder, and what it checks,
// behind with the old one. So a holder that was
// stopped, or cut off, for however long, commits nothing to it from then on: a
// transaction of it is either before the new epoch, and seen by the new holder,
// or refused. What it had told exporters to be durable was committed before,
// and what it had marked as maybe sent carries the T flag.
//
// No clock is compared with another: a holder counts up a beat, and who waits
// takes over when the beat has stood still for the term, by its own clock. A
// holder that is only slow is fenced as well, which costs time and nothing
// else.

// Names of rows in table meta, of all databases or of state.db.
const (
	metaLeaseEpoch = "lease epoch"
	metaLeaseBeat  = "lease beat"
)

// beats is how often in its term a holder shows that it is alive.
const beats = 4

// A fence is what the writers of a spool check.
type fence struct {
	epoch  int64
	joined sync.Map // files that have the epoch already, by us
	once   sync.Once
	fenced chan struct{} // closed when a higher epoch was found
}

// check returns ErrFenced where the epoch of w's database is not that of f. It
// wants to be called within a transaction.
func (f *fence) check(w *writer) error {
	s, err := w.prepare("SELECT value FROM meta WHERE name = ?")
	if err != nil {
		return err
	}
	var epoch int64
	if err := s.QueryRowContext(context.Background(), metaLeaseEpoch).Scan(&epoch); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if epoch == f.epoch {
		return nil
	}
	f.fall()
	return ErrFenced
}

// fall says that a higher epoch was found.
func (f *fence) fall() { f.once.Do(func() { close(f.fenced) }) }

func newFence(epoch int64) *fence { return &fence{epoch: epoch, fenced: make(chan struct{})} }

// latestEpoch returns the highest epoch of the spool's stores, since each may
// have been restored from a backup older than the others.
func (s *Spool) latestEpoch() (latest int64, err error) {
	epoch, err := journal.Epoch(s.journalDir())
	if err != nil {
		return 0, err
	}
	latest = int64(epoch)
	for file, schema := range map[string]schema{s.state(): stateSchema, s.oldJournal(): journalSchema, cdrFile(s.dir): cdrSchema, creditFile(s.dir): creditSchema} {
		epoch, err := epochBeside(file, schema)
		if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotDatabase) || errors.Is(err, ErrIO) {
			s.log.Warn("no epoch of the lease can be read", "file", file, "error", err) // who opens it mends or refuses it
			continue
		} else if err != nil {
			return 0, err
		}
		latest = max(latest, epoch)
	}
	return latest, nil
}

// epochBeside returns the epoch of a database of any version that this process
// has not open; 0 where there is none. It may write: what a crash left
// unfinished is rolled back first, which a reader must not.
func epochBeside(file string, schema schema) (int64, error) {
	r := openBeside(file)
	if r == nil {
		return 0, nil
	}
	defer r.Close()
	if v, err := version(r, file, schema); err != nil || v == 0 {
		return 0, err
	}
	epoch, err := metaNumber(context.Background(), r, metaLeaseEpoch)
	return epoch, explain(file, err)
}

// openBeside opens a database of any version for reading, which a crash may have left
// unfinished, and another process may have open; nil where there is none.
func openBeside(file string) *sql.DB {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return sql.OpenDB(connector{file, "mode=rw", newReader(file, false).pragmas})
}

// join makes the transactions of w count for as long as those of f do, and
// those of earlier holders not any more. A nil fence joins none.
func (f *fence) join(w *writer) error {
	if f == nil {
		return nil
	}
	_, again := f.joined.Load(w.file)
	err := w.transact(func() error {
		// Somebody else may have been first; then both would have the same.
		now, err := metaNumber(context.Background(), w.conn, metaLeaseEpoch)
		if err != nil {
			return err
		}
		if now > f.epoch || now == f.epoch && !again {
			return ErrFenced
		}
		return w.setMeta(metaLeaseEpoch, f.epoch)
	})
	if err != nil {
		return fmt.Errorf("spool: take the lease over: %w", err)
	}
	f.joined.Store(w.file, true)
	w.fence = f
	return nil
}

// OpenCDRs is the function of that name for the CDRs beside the spool: they are
// the holder's of its lease alone.
func (s *Spool) OpenCDRs() (*CDRs, error) {
	return s.opener.cdrs(s.dir)
}

// OpenCredit is the function of that name, likewise.
func (s *Spool) OpenCredit() (*Credit, error) {
	return s.opener.credit(s.dir)
}

// Epoch returns the fencing epoch of the lease; 0 of a spool that is read only.
func (s *Spool) Epoch() uint64 {
	if s.fence == nil {
		return 0
	}
	return uint64(s.fence.epoch)
}

// Hold shows, until ctx ends, that the holder of the lease is alive, for those
// who Await with that term; 0 is for nobody. A spool opened with a lease has shown it
// from the start, and Hold goes on with that. It returns ErrFenced as soon as any
// transaction found that this spool is not the holder any more.
func (s *Spool) Hold(ctx context.Context, term time.Duration) error {
	s.w.heart.stop()
	if term > 0 {
		if err := s.showLife(s.w); err != nil {
			return err
		}
	}
	return s.beat(ctx, s.w, term)
}

// asHolder calls f within a transaction of state.db, so while we have the lease and
// nobody can take it. The error is that of f, ErrFenced where f was not called since
// the lease is not ours any more, or says that the transaction failed.
func (s *Spool) asHolder(f func() error) error {
	var failed error
	err := s.w.transact(func() error {
		failed = f()
		return failed
	})
	return cmp.Or(failed, err)
}

// Await returns when nobody alive holds the lease of the spool in dir: its
// holder's beat has stood still for term, or for half of it while no process of
// this machine has the lock: a holder that has just replaced one that hung has
// it not yet. Open then takes the lease over.
func Await(ctx context.Context, dir string, term time.Duration, log *slog.Logger) error {
	look := time.NewTicker(term / beats)
	defer look.Stop()
	var last [2]int64
	since, told := time.Now(), false
	for {
		unlocked := free(dir)
		now, err := lease(ctx, dir)
		switch {
		case unlocked && (errors.Is(err, os.ErrNotExist) || halfMade(err)):
			return nil // there is no spool yet
		case err != nil && ctx.Err() == nil:
			log.Warn("the lease can't be read", "error", err)
			since = time.Now() // nothing is known of the holder
		case now != last:
			last, since = now, time.Now()
		case unlocked && time.Since(since) >= term/2:
			return nil
		case time.Since(since) >= term:
			log.Warn("the holder of the lease shows no life: taking over", "epoch", now[0], "for", time.Since(since).Round(time.Millisecond))
			return nil
		}
		if !told {
			told = true
			log.Info("standing by: another process has the state directory", "data", dir, "epoch", now[0], "term", term)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}

// halfMade reports whether a database can't be read since its making was cut
// off, which who opens it takes back.
func halfMade(err error) bool {
	var se sqlite3.Error
	return errors.As(err, &se) && se.ExtendedCode == sqlite3.ErrReadonlyRollback
}

// free reports whether no process of this machine has the spool open.
func free(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer unlock(f)
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// lease reads epoch and beat.
func lease(ctx context.Context, dir string) (now [2]int64, err error) {
	file := filepath.Join(dir, "state.db")
	r, err := openReader(file, stateSchema)
	if err != nil {
		return now, err
	}
	defer r.Close()
	for i, name := range []string{metaLeaseEpoch, metaLeaseBeat} {
		if now[i], err = metaNumber(ctx, r, name); err != nil {
			return now, explain(file, err)
		}
	}
	return now, nil
}
