package journal

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// A holder that was stopped while it opened the journal, and goes on after it was
// replaced, takes nothing from who replaced it.
func TestJournalLateOpen(t *testing.T) {
	dir := t.TempDir()
	if err := Take(dir, 2); err != nil {
		t.Fatal(err)
	}
	late := newJournal(dir, Config{Epoch: 2}.withDefaults())
	var err error
	if late.lease, err = openLease(dir, 2, nil); err != nil {
		t.Fatal(err)
	}
	if err := Take(dir, 3); err != nil {
		t.Fatal(err)
	}
	j, err := Open(dir, Config{Epoch: 3}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, j)
	appendAll(t, j, "one")
	making := j.latest.next(3, 2)
	if err := os.WriteFile(newSegment(dir, making).path+".making", nil, 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := late.load(); !errors.Is(err, ErrFenced) {
		t.Errorf("the late holder loads: %v", err)
	}
	if paths, err := late.unfinished(); err != nil || len(paths) != 0 {
		t.Errorf("the late holder would delete %v, %v", paths, err)
	}
	last := appendAll(t, j, "two", "three")
	stop()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if k := open(t, dir, Config{}); k.Durable() != last {
		t.Errorf("acknowledged up to %d, found up to %d", last, k.Durable())
	}
}

// A segment that is gone already, by a holder that was replaced or before its
// directory could be synced, is trimmed.
func TestJournalTrimsWhatIsGone(t *testing.T) {
	j := open(t, t.TempDir(), Config{Segment: 1024})
	stop := run(t, j)
	last := appendAll(t, j, "1", "2", "3", "4", "5", "6", "7", "8")
	stop()
	if len(j.segments) < 3 {
		t.Fatalf("%d segments", len(j.segments))
	}
	if err := os.Remove(j.segments[0].path); err != nil {
		t.Fatal(err)
	}
	if err := j.Trim(t.Context(), last); err != nil {
		t.Error(err)
	}
	if first := j.Stats().First; first < j.segments[0].first || len(j.segments) > 2 {
		t.Errorf("first is %d, of %d segments", first, len(j.segments))
	}
}

// What is committed while a Reader finds that nothing follows is not passed over.
func TestJournalReaderBesideCommits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 600 {
		j, err := take(t.TempDir(), Config{After: 5, MaxDelay: 1})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, j)
		appended := make(chan error, 1)
		go func() { _, err := j.Append(acct.EntryMessage, 1, 0, []byte("x")); appended <- err }()
		for begun := time.Now(); time.Since(begun) < time.Duration(i%200)*time.Microsecond; { // another moment each time
		}
		es, err := j.Reader(0).Next(ctx)
		if err := errors.Join(err, <-appended); err != nil {
			t.Fatal(err)
		}
		if es[0].Position != 6 {
			t.Fatalf("position %d is read first", es[0].Position)
		}
		stop()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// appendAll appends Messages, each of which is durable before the next, and returns
// the position of the last.
func appendAll(tb testing.TB, j *Journal, data ...string) (last uint64) {
	tb.Helper()
	for _, d := range data {
		var err error
		if last, err = j.Append(acct.EntryMessage, 1, 0, []byte(d)); err == nil {
			err = j.Wait(tb.Context(), last)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return last
}
