package spool

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A child that is being started has the files of its parent open for a moment,
// the lock's too; a spool that is closed is free all the same.
func TestCloseUnlocksWhatAChildHasOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(s.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !free(dir) {
		t.Error("the spool is closed and still locked")
	}
	if s, err = Open(dir, Config{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
