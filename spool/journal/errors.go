package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"tollbridge/asm/acct"
)

// What callers may branch on.
var (
	ErrFull     = errors.New("disk is full")   // free space; what waits is kept and tried again
	ErrIO       = errors.New("the disk fails") // an input or output error; likewise
	ErrDamaged  = errors.New("damaged")        // stored octets fail their check
	ErrFenced   = errors.New("another process has taken over: this one may write no more")
	ErrReadOnly = errors.New("the spool is open for reading only") // by OpenReadOnly
	ErrClosed   = errors.New("closed")
	ErrNone     = errors.New("no journal is there")

	// ErrTrimmed says that a position was trimmed from the journal. It matches
	// acct.ErrNoEntry.
	ErrTrimmed = fmt.Errorf("trimmed: %w", acct.ErrNoEntry)
)

// explain says which file err is about and what to do.
func explain(file string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: free some space on its file system: %w", file, ErrFull, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%s: %w: raise the limit of open files: %w", file, ErrIO, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: check owner and permissions of %s: %w", file, filepath.Dir(file), err)
	case mayPass(err):
		return fmt.Errorf("%s: %w: look into the kernel's log: %w", file, ErrIO, err)
	}
	return fmt.Errorf("%s: %w", file, err)
}

// mayPass reports whether err is a failure of the system that time may mend. A
// volume that is reached over a network fails with other numbers than EIO.
func mayPass(err error) bool {
	var number syscall.Errno
	return errors.As(err, &number) && !slices.Contains(lasting, number)
}

// lasting are the failures that are a program's, or of how files are set up.
var lasting = []syscall.Errno{syscall.EACCES, syscall.EBADF, syscall.EEXIST, syscall.EFBIG, syscall.EINVAL, syscall.EISDIR,
	syscall.ELOOP, syscall.ENAMETOOLONG, syscall.ENOENT, syscall.ENOTDIR, syscall.EPERM, syscall.EROFS}

// passes reports whether a failure to write may pass by itself, so that what was
// to be written is kept and tried again.
func passes(err error) bool { return errors.Is(err, ErrFull) || errors.Is(err, ErrIO) }

// A damagedError is a stretch of a segment that failed its check: a group, or
// what lies where groups should. It matches acct.ErrNoEntry too: its entries
// can't be had.
type damagedError struct {
	span
	octets []byte
	err    error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("journal: positions %d to %d: %v", e.first, e.last, e.err)
}

func (e *damagedError) Unwrap() []error { return []error{ErrDamaged, acct.ErrNoEntry, e.err} }
