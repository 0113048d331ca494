package journal

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Allocate implements file. Where the file system can't, a full disk is met when
// it is written.
func (f osFile) Allocate(from, to int64) error {
	err := again(func() error { return unix.Fallocate(int(f.Fd()), 0, from, to-from) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// SyncData implements file: of what the kernel knows about it only what is needed
// to read the data is synced too.
func (f osFile) SyncData() error {
	return again(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// again calls f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
