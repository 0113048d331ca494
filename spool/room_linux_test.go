package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where there is no room for the copy the start changes nothing, so that the earlier
// version can go on.
func TestTakeOverWithoutRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: only root may mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tollbridge-test", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("skipped: no small file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	state, old := filepath.Join(dir, "state.db"), filepath.Join(dir, "journal.db")
	if err := os.CopyFS(dir, os.DirFS(oldSpool(t))); err != nil {
		t.Fatal(err)
	}
	db := sqlOpen(old)
	_, err := db.Exec("INSERT INTO journal_group (last, first, time, data) VALUES (17, 17, 0, zeroblob(?))", 12<<20)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	db = sqlOpen(state)
	_, err = db.Exec("DROP TABLE opening; PRAGMA user_version = 9")
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "journal.making-1") // by who was killed in it: to be deleted, so it is room
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "half"), make([]byte, 2<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	contents := func() string {
		t.Helper()
		a, err1 := os.ReadFile(state)
		b, err2 := os.ReadFile(old)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return string(a) + string(b)
	}
	before := contents()
	fill := func(spare int64) { // takes all octets but those
		t.Helper()
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		free, err := FreeSpace(dir)
		if err == nil {
			err = syscall.Fallocate(int(f.Fd()), 0, 0, free-spare)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	fill(18 << 20)
	for range 2 {
		if _, err := Open(dir, Config{}); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "journal.db: disk is full: free ") || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("it starts without room, or says %v", err)
		}
		if contents() != before {
			t.Error("a start without room has changed state.db or journal.db")
		}
	}

	// The 12 MiB of the journal and 8 beside fit if what was left is deleted. But
	// others take the room while it copies.
	fill(19 << 20)
	copying := stopInCopy(t)
	ended := copying.opening(t, dir, Config{})
	fill(1 << 20)
	copying.release()
	if err := <-ended; !errors.Is(err, ErrFull) {
		t.Errorf("without room it copies: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "journal.making*")); err != nil || len(left) > 0 {
		t.Errorf("a copy that failed leaves %v (%v)", left, err)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Config{})
	if st, err := s.Stats(t.Context()); err != nil || st.Damaged != 3 || st.Last != 17 {
		t.Errorf("%+v, %v: want up to 17, three set aside", st, err)
	}
}
