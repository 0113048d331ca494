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

// A holder that was stopped between its look for the end and its first segment, and
// goes on after it was replaced, leaves to who replaced it what was acknowledged.
func TestJournalLateBegin(t *testing.T) {
	dir := t.TempDir()
	first, err := take(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, first)
	one := appendAll(t, first, "acknowledged")
	stop()
	late, goOn := looked(t, dir)

	// The first was under way still.
	g := newGroup(one+1, 2, nil)
	g.append(acct.EntryMessage, 2, 0, []byte("told to nobody"))
	g.seal()
	if err := errors.Join(first.disk.write(first.out, g), first.out.sync()); err != nil {
		t.Fatal(err)
	}

	j := open(t, dir, Config{})
	if err := goOn(); !errors.Is(err, ErrFenced) {
		t.Errorf("the late holder begins: %v", err)
	}
	if es, err := j.Reader(0).Next(t.Context()); err != nil || string(es[0].Data) != "acknowledged" {
		t.Errorf("who replaced it reads %v, %v", es, err)
	}
	if _, err := os.Stat(newSegment(dir, late.latest).path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its segment is still there: %v", err)
	}
}

// looked is a journal in the middle of Open, under a new epoch: goOn is the rest
// of it, from its first segment on.
func looked(t *testing.T, dir string) (j *Journal, goOn func() error) {
	t.Helper()
	epoch, err := Epoch(dir)
	if err == nil {
		err = Take(dir, epoch+1)
	}
	if err != nil {
		t.Fatal(err)
	}
	j = newJournal(dir, Config{Epoch: epoch + 1}.withDefaults())
	if j.lease, err = openLease(dir, epoch+1, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	void, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	j.next = j.durable + 1
	rest, err := j.uncertain()
	if err != nil {
		t.Fatal(err)
	}
	return j, func() error {
		if err := j.begin(j.certain.first, rest); err != nil {
			return err
		}
		return j.clear(void)
	}
}

// A segment that a holder begins after it was replaced, before what that one has
// trimmed, does not bring those positions back, nor is what it lacks of them taken
// for damage.
func TestJournalLateSegment(t *testing.T) {
	for _, row := range []struct {
		name string
		late func(t *testing.T, dir string) (goOn func() error)
	}{
		{"the first of one that opens", func(t *testing.T, dir string) func() error {
			_, goOn := looked(t, dir)
			return goOn
		}},
		{"the next of one that runs", func(t *testing.T, dir string) func() error {
			j := open(t, dir, Config{Segment: 512})
			stop := run(t, j)
			appendAll(t, j, "fills its segment")
			stop()
			return func() error {
				resume(t, j)
				if _, err := j.Append(acct.EntryMessage, 1, 0, []byte("late")); err != nil {
					return err
				}
				return j.flush(t.Context())
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			goOn := row.late(t, dir)
			j := open(t, dir, Config{Segment: 1024})
			stop := run(t, j)
			last := appendAll(t, j, "2", "3", "4", "5", "6", "7", "8", "9")
			if err := j.Trim(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			stop()
			first := j.segments[0].first // positions come back with their segment at most
			if err := goOn(); !errors.Is(err, ErrFenced) {
				t.Errorf("the late holder goes on: %v", err)
			}
			k, err := OpenReadOnly(dir, Config{}.withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			if now := k.Stats().First; now != first || first < last-1 {
				t.Errorf("positions from %d on are there, they were trimmed below %d", now, last)
			}
			if err := k.Verify(t.Context(), func(err error) { t.Error(err) }); err != nil {
				t.Error(err)
			}
		})
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
