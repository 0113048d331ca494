package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// oldGroup encodes Messages as earlier versions stored them in journal.db.
func oldGroup(first uint64, messages ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, uint32(len(messages)))
	b = binary.BigEndian.AppendUint64(b, uint64(noon.UnixNano()))
	for _, m := range messages {
		b = append(b, byte(acct.EntryMessage), 0, 7, byte(len(m))) // no time since, session 7
		b = append(b, m...)
	}
	sum := crc32.Checksum(binary.BigEndian.AppendUint64(nil, first), castagnoli)
	return binary.BigEndian.AppendUint32(b, crc32.Update(sum, castagnoli, b))
}

// oldSpool makes a state directory as an earlier version left it: entries 11 to 16
// are kept; 13 was set aside, and the group of 15 is damaged.
func oldSpool(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir, Config{})
	mustCommit(t, s, acct.Batch{Position: 12, Needed: 11})
	epoch := s.Epoch()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	w, err := openWriter(filepath.Join(dir, "journal.db"), 32<<10, journalSchema, nil)
	if err != nil {
		t.Fatal(err)
	}
	damaged := oldGroup(15, "n15")
	damaged[20]++
	err = w.transact(func() error {
		group := "INSERT INTO journal_group (last, first, time, data) VALUES (?, ?, ?, ?)"
		return errors.Join(
			w.setMeta(metaTrimmed, 10),
			w.setMeta(metaLeaseEpoch, int64(epoch)),
			w.exec(group, 12, 11, noon.UnixNano(), oldGroup(11, "n11", "n12")),
			w.exec(group, 14, 14, noon.UnixNano(), oldGroup(14, "n14")),
			w.exec(group, 15, 15, noon.UnixNano(), damaged),
			w.exec(group, 16, 16, noon.UnixNano(), oldGroup(16, "n16")),
			w.exec("INSERT INTO damaged (last, first, found, reason, data) VALUES (13, 13, 1, 'for the test', x'0102')"),
			w.exec("INSERT INTO opening (position, time, data) VALUES (12, 5, x'03')"),
		)
	})
	if err = errors.Join(err, w.close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// took sees that a spool has all that the old one had.
func took(t *testing.T, dir string) {
	t.Helper()
	var lines bytes.Buffer
	s := open(t, dir, Config{Log: testLog(&lines)})
	j := s.Journal()
	r := j.Reader(10)
	var got []string
	for len(got) < 4 {
		es, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if e.Kind != acct.EntryMessage || e.Time != noon.UnixNano() || e.Session != 7 {
				t.Errorf("entry %+v", e)
			}
			got = append(got, fmt.Sprint(e.Position, " ", string(e.Data)))
		}
	}
	if want := "[11 n11 12 n12 14 n14 16 n16]"; fmt.Sprint(got) != want {
		t.Errorf("entries are %v, want %s", got, want)
	}
	if _, err := j.Read(t.Context(), 10); !errors.Is(err, ErrTrimmed) {
		t.Errorf("Read(10): %v, want ErrTrimmed", err)
	}
	if p, err := j.Append(acct.EntryTick, 0, 0, nil); err != nil || p != 17 {
		t.Errorf("position %d, %v, want 17", p, err)
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Damaged != 2 || st.First != 11 || st.Last != 16 {
		t.Errorf("%+v, %v: want 11 to 16, two set aside", st, err)
	}
	if data, err := s.OpeningData(t.Context(), 12); err != nil || string(data) != "\x03" {
		t.Errorf("the opening is %x, %v", data, err)
	}
	if problems, err := s.Verify(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("verify: %v, %v", problems, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "journal.making*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(left, filepath.Join(dir, "journal.db"), filepath.Join(dir, "journal.db-wal")) {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "journal.db"+takenOver)); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The journal of an earlier version is taken over at the start, whole.
func TestTakesOverAnOldJournal(t *testing.T) {
	dir := oldSpool(t)
	if _, err := OpenReadOnly(dir); err == nil || !strings.Contains(err.Error(), "start the daemon once, which takes it over") {
		t.Errorf("who only looks at it gets %v", err)
	}
	took(t, dir)
	took2 := open(t, dir, Config{}) // and is not again
	if p := took2.Journal().Appended(); p != 16 {
		t.Errorf("opened again it ends at %d", p)
	}
}

// A take-over that is cut off at any moment is done anew, or ended.
func TestTakeOverCutOff(t *testing.T) {
	for _, row := range []struct {
		name string
		left func(t *testing.T, dir string) // in a directory with the old journal
	}{
		{"while the copy was made", func(t *testing.T, dir string) {
			making := filepath.Join(dir, "journal.making-1")
			if err := errors.Join(os.Mkdir(making, 0o700), os.WriteFile(filepath.Join(making, "00000001-000001-00000000000000000011-00000000.segment"), []byte("half"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}},
		{"before the old one was moved away", func(t *testing.T, dir string) {
			kept := t.TempDir()
			if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := open(t, dir, Config{}).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(kept, "journal.db"), filepath.Join(dir, "journal.db")); err != nil {
				t.Fatal(err)
			}
		}},
		{"with an empty directory in its place", func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "journal"), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := oldSpool(t)
			row.left(t, dir)
			took(t, dir)
		})
	}
}

// A stop is a log whose writer waits, once, at a line.
type stop struct {
	slog.Handler
	line    string
	once    sync.Once
	at      chan struct{} // closed when it waits
	release func()        // lets it go on
	waits   chan struct{}
}

// stopInCopy returns a stop at the line of a copy's damaged group.
func stopInCopy(t *testing.T) *stop { return stopAt(t, "journal group is damaged and set aside") }

// stopAt returns a stop, which lets go at the test's end at the latest.
func stopAt(t *testing.T, line string) *stop {
	s := &stop{Handler: slog.DiscardHandler, line: line, at: make(chan struct{}), waits: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.waits) })
	t.Cleanup(s.release)
	return s
}

func (s *stop) Enabled(context.Context, slog.Level) bool { return true }

func (s *stop) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.line {
		s.once.Do(func() {
			close(s.at)
			<-s.waits
		})
	}
	return nil
}

// opening opens a spool with a lease, in the background, and waits until it stops.
func (s *stop) opening(t *testing.T, dir string, cfg Config) (ended <-chan error) {
	t.Helper()
	result := make(chan error, 1)
	cfg.Log = slog.New(s)
	go func() {
		s, err := Open(dir, cfg)
		if err == nil {
			err = s.Close()
		}
		result <- err
	}()
	select {
	case <-s.at:
	case err := <-result:
		t.Fatalf("it does not come to %q: %v", s.line, err)
	case <-time.After(time.Minute):
		t.Fatalf("it takes too long to come to %q", s.line)
	}
	return result
}

// Who is stopped while it takes a journal over, and replaced by another that does it
// anew, takes nothing from that one.
func TestTakeOverIsFenced(t *testing.T) {
	t.Run("while it copies", func(t *testing.T) {
		dir := oldSpool(t)
		first, second := stopInCopy(t), stopInCopy(t)
		firstEnded := first.opening(t, dir, Config{Lease: time.Hour})
		secondEnded := second.opening(t, dir, Config{Lease: time.Hour})
		first.release()
		if err := <-firstEnded; !errors.Is(err, ErrFenced) {
			t.Errorf("who was replaced ends with %v", err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "journal.making*")); err != nil || len(left) != 1 {
			t.Errorf("%v are there (%v), not only that of the one that copies", left, err)
		}
		second.release()
		if err := <-secondEnded; err != nil {
			t.Errorf("who replaced it: %v", err)
		}
		took(t, dir)
	})
	for _, row := range []struct {
		name       string
		done, next func(*Spool) error
	}{
		{"before it opens the old one", func(*Spool) error { return nil }, (*Spool).copyJournal},
		{"before the copy is put in place", (*Spool).copyJournal, (*Spool).putInPlace},
		{"before the old one is moved away", (*Spool).copyJournal, (*Spool).moveOldAway},
		{"before it clears", (*Spool).copyJournal, (*Spool).clearMaking},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := oldSpool(t)
			old, aside := filepath.Join(dir, "journal.db"), filepath.Join(t.TempDir(), "journal.db")
			if err := os.Rename(old, aside); err != nil {
				t.Fatal(err)
			}
			first, err := Open(dir, Config{Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if err := errors.Join(os.RemoveAll(first.journalDir()), os.Rename(aside, old)); err != nil {
				t.Fatal(err)
			}
			if err := row.done(first); err != nil {
				t.Fatal(err)
			}
			second := stopInCopy(t)
			ended := second.opening(t, dir, Config{Lease: time.Hour})
			if err := row.next(first); !errors.Is(err, ErrFenced) {
				t.Errorf("who was replaced goes on: %v", err)
			}
			second.release()
			if err := <-ended; err != nil {
				t.Errorf("who replaced it: %v", err)
			}
			_ = row.next(first) // has nothing left that it could do
			if _, err := os.Stat(old); err == nil {
				t.Error("who was replaced has made an old journal anew")
			}
			unlock(first.lock)
			first.lock = nil
			took(t, dir)
		})
	}
}
