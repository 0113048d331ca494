package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Damage, or a disk that does not read?
//
// SQLite takes some of what a disk fails to read for damage. To salvage a
// database that is whole would lose what a failing disk does not give out just
// then. So a database counts as damaged only if two looks, one after the other,
// find the very same damage, and all of its octets could be read in between.
// Everything else is a failure of the disk: Open returns ErrIO and touches
// nothing. A salvage that meets one ends in the same way.

// looks is how often a database is looked at before Open gives up on a disk.
const looks = 4

// An opener opens databases for writing.
type opener struct {
	log       *slog.Logger
	checkTime time.Duration // the most that looking for damage may take
	fence     *fence        // what their transactions check; nil without a lease
	alone     bool          // no other process has them open: they may be salvaged
	joined    func(*writer) // told of each one that has the epoch, before it is looked at for damage; nil for nobody
}

// soleOpener is for a database that is its process's alone.
func soleOpener() *opener {
	cfg := Config{}.withDefaults()
	return &opener{log: cfg.Log, checkTime: cfg.CheckTime, alone: true}
}

// both opens a database for writing, looks for damage, and opens it once more
// for readers. A damaged one is salvaged; salvaged says so. One that another
// process may be writing, or salvaging, is refused: the salvage would take it
// from under that process.
func (o *opener) both(file string, pageSize int, schema schema) (w *writer, r *sql.DB, salvaged *Salvage, err error) {
	if o.alone {
		if err := clearSalvage(file); err != nil {
			return nil, nil, nil, err
		}
	}
	damage, err := proveDamage(file, o.log, func() (err error) {
		w, r, err = o.checked(file, pageSize, schema)
		return err
	}, func() error { return readWhole(file, o.log) })
	if damage == nil || err != nil {
		return w, r, nil, err
	}
	if !o.alone {
		return nil, nil, nil, inOtherHands(file, damage)
	}
	telling(o.log, "saving what can be read", file, func() { salvaged, err = salvage(file, pageSize, schema, damage, o.log) })
	if err != nil {
		return nil, nil, nil, err
	}
	w, r, err = o.checked(file, pageSize, schema)
	return w, r, salvaged, err
}

// inOtherHands is the error for damage that can't be mended beside another process.
func inOtherHands(file string, damage error) error {
	return &fileError{file: file, is: ErrDamaged, advice: "another process has the state directory open: end it and start again, which saves what can be read",
		err: errors.New(damage.Error())}
}

// proveDamage looks at a file until it is found whole, or damaged for certain:
// damage says how then, and err is nil. read reads all of the file.
func proveDamage(file string, log *slog.Logger, look, read func() error) (damage, err error) {
	var before error // found by the look before, after which all could be read
	for range looks {
		err = look()
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrIO) {
			return nil, err
		}
		if errors.Is(err, ErrDamaged) && before != nil && before.Error() == err.Error() {
			return err, nil
		}
		log.Warn("looking once more whether it is damaged", "file", file, "error", err)
		before = err
		if e := read(); e != nil {
			before, err = nil, e
		}
	}
	if errors.Is(err, ErrIO) {
		return nil, err
	}
	return nil, &fileError{file: file, is: ErrIO, advice: kernelLog, err: fmt.Errorf("it does not read the same twice: %w", errors.New(err.Error()))}
}

// readWhole reads a database with its write-ahead log and returns what can't be
// read. Nobody of this process may have it open: to close a file gives up the
// locks that SQLite has on it.
func readWhole(file string, log *slog.Logger) (err error) {
	telling(log, "reading all of it", file, func() {
		for _, name := range []string{file, file + "-wal"} {
			f, e := os.Open(name)
			if errors.Is(e, fs.ErrNotExist) {
				continue
			}
			if e == nil {
				_, e = io.Copy(io.Discard, f)
				e = errors.Join(e, f.Close())
			}
			if e != nil {
				err = &fileError{file: name, is: ErrIO, advice: kernelLog, err: e}
				return
			}
		}
	})
	return err
}

// tellEvery is how often those who wait for a start are told what takes long.
const tellEvery = 2 * time.Second

// telling logs, while f runs, what it does with a file, how large that is, and
// for how long it has been at it.
func telling(log *slog.Logger, what, file string, f func()) {
	begun, done := time.Now(), make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				log.Info(what, "file", file, "octets", onDisk(file), "for", time.Since(begun).Round(time.Second))
			}
		}
	})
	f()
	close(done)
	g.Wait()
}

// checked opens a database for writing and for readers, if it is whole.
func (o *opener) checked(file string, pageSize int, schema schema) (*writer, *sql.DB, error) {
	w, err := openWriter(file, pageSize, schema, o.fence)
	if err != nil {
		return nil, nil, err
	}
	w.log = o.log
	if o.joined != nil {
		o.joined(w)
	}
	// Who salvages makes the new file and reads the epoch then; we have written
	// the epoch and look for the file now. So one sees the other.
	if _, err := os.Stat((&Salvage{File: file}).making()); err == nil && !o.alone {
		w.close()
		return nil, nil, inOtherHands(file, errors.New("it is being salvaged"))
	}
	r, err := openReader(file, schema)
	if err != nil {
		w.close()
		return nil, nil, err
	}
	var whole bool
	telling(o.log, "looking for damage", file, func() { whole, err = quickCheck(r, file, o.checkTime) })
	if err != nil {
		r.Close()
		w.close()
		return nil, nil, err
	}
	if !whole {
		o.log.Info("too large to be looked through whole at a start", "file", file, "limit", o.checkTime)
	}
	return w, r, nil
}

// unread matches what quick_check says of a page that it could not get.
var unread = regexp.MustCompile(`failed to get page|unable to get the page. error code=(\d+)`)

// isUnread reports whether a verdict of quick_check is about a failure to read.
func isUnread(verdict string) bool {
	m := unread.FindStringSubmatch(verdict)
	if m == nil || m[1] == "" {
		return m != nil
	}
	code, err := strconv.Atoi(m[1])
	return err == nil && code&0xff == int(sqlite3.ErrIoErr)
}

// quickCheck looks for damage, for at most limit; a file too large to be
// looked through in that time passes. It reports whether it got to the end.
func quickCheck(db *sql.DB, file string, limit time.Duration) (whole bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var verdict string
	err = db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict)
	switch {
	case ctx.Err() != nil:
		return false, nil
	case err != nil:
		return false, explain(file, err)
	case verdict == "ok":
		return true, nil
	case isUnread(verdict):
		return false, &fileError{file: file, is: ErrIO, advice: kernelLog, err: errors.New(verdict)}
	}
	return false, &fileError{file: file, is: ErrDamaged, advice: restore(file), err: errors.New(verdict)}
}
