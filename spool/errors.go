package spool

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/mattn/go-sqlite3"

	"tollbridge/spool/journal"
)

// What callers may branch on. Of the journal too are those that it defines.
var (
	ErrFull        = journal.ErrFull
	ErrIO          = journal.ErrIO
	ErrBusy        = errors.New("another program has it locked")  // what waits is kept and tried again
	ErrNotDatabase = errors.New("not a database of this program") // another file bears the name
	ErrDamaged     = journal.ErrDamaged
	ErrNewer       = errors.New("written by a newer version") // of this program
	ErrReadOnly    = journal.ErrReadOnly
	ErrFenced      = journal.ErrFenced
	ErrClosed      = journal.ErrClosed
)

// A fileError is a failure of one file of the spool: while doing what, which
// sentinel it is, what to do about it, and the cause.
type fileError struct {
	what   string // "" for none
	file   string
	is     error // nil for none
	advice string
	err    error
}

func (e *fileError) Error() string {
	text := "spool: "
	if e.what != "" {
		text += e.what + ": "
	}
	text += e.file + ": "
	if e.is != nil {
		text += e.is.Error() + ": "
	}
	if e.advice != "" {
		text += e.advice + ": "
	}
	return text + e.err.Error()
}

func (e *fileError) Unwrap() []error {
	if e.is == nil {
		return []error{e.err}
	}
	return []error{e.is, e.err}
}

// explain says which file err is about and what to do.
func explain(file string, err error) error {
	if err == nil {
		return nil
	}
	var known *fileError
	if errors.As(err, &known) {
		return err
	}
	e := &fileError{file: file, err: err}
	var se sqlite3.Error
	switch {
	case errors.As(err, &se):
		switch se.Code {
		case sqlite3.ErrFull:
			e.is, e.advice = ErrFull, "free some space on its file system"
		case sqlite3.ErrIoErr:
			e.is, e.advice = ErrIO, kernelLog
		case sqlite3.ErrNotADB:
			e.is, e.advice = ErrNotDatabase, elsewhere
		case sqlite3.ErrCorrupt:
			e.is, e.advice = ErrDamaged, restore(file)
		case sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrPerm, sqlite3.ErrAuth:
			e.advice = permissions(file)
			if halfMade(se) {
				e.advice = "start the daemon, which takes back what a power cut left half written"
			}
		case sqlite3.ErrBusy, sqlite3.ErrLocked:
			e.is, e.advice = ErrBusy, "end the other program that has it open"
		}
	case errors.Is(err, fs.ErrPermission):
		e.advice = permissions(file)
	case errors.Is(err, sql.ErrConnDone), err.Error() == "sql: database is closed":
		e.err = ErrClosed
	}
	return e
}

// passes reports whether a failure to write may pass by itself, so that what
// was to be written is kept and tried again. That is safe after a failed sync
// too: SQLite takes what it wrote to the WAL for not written, and writes and
// syncs it whole once more at the same place.
func passes(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrIO) || errors.Is(err, ErrBusy)
}

// What to do about it.
const (
	elsewhere = "move it away, or name another directory"
	kernelLog = "look into the kernel's log"
)

func restore(file string) string {
	return "stop the daemon, keep a copy of " + filepath.Dir(file) + ", and restore it from a backup"
}

func permissions(file string) string {
	return "check owner and permissions of " + filepath.Dir(file)
}

// doing says what failed with err.
func doing(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if e, ok := err.(*fileError); ok { //nolint:errorlint // only the outermost: what is wrapped is not ours to change
		c := *e
		c.what = what
		if e.what != "" {
			c.what += ": " + e.what
		}
		return &c
	}
	return fmt.Errorf("spool: %s: %w", what, err)
}
