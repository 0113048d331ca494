package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process has the spool open.
var ErrInUse = errors.New("in use")

// lock takes the exclusive lock of the spool in dir, held until the file is
// closed or the process ends, however it ends. The file names the process for
// people; the lock itself is flock's.
func lock(dir string) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explain(name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32)) // for the message only
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &inUseError{dir, strings.TrimSpace(string(holder))}
		}
		return nil, explain(name, err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(pid), 0)
	}
	if err != nil {
		f.Close()
		return nil, explain(name, err)
	}
	return f, nil
}

// unlock gives a lock back and closes its file. To close it is not enough: a
// child that another goroutine starts has the file open until it executes.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // fails only where the file is closed
	f.Close()                                 // nothing was written through it since lock
}

type inUseError struct{ dir, pid string }

func (e *inUseError) Error() string {
	pid := e.pid
	if pid == "" {
		pid = "(unknown)"
	}
	return fmt.Sprintf("spool: %s is in use by process %s", e.dir, pid)
}

func (e *inUseError) Is(target error) bool { return target == ErrInUse }
