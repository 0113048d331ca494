package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func appendOne(tb testing.TB, j *Journal, data string) uint64 {
	tb.Helper()
	p, err := j.Append(acct.EntryMessage, noon.UnixNano(), 1, []byte(data))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func next(tb testing.TB, r *Reader) []string {
	tb.Helper()
	es, err := r.Next(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, fmt.Sprintf("%d %s", e.Position, e.Data))
	}
	return out
}

func equal(tb testing.TB, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Fatalf("got %q, want %q", got, want)
	}
}

func TestJournalSurvivesRestart(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	stop := run(t, s.Journal())
	for i := range 3 {
		if p := appendOne(t, s.Journal(), "x"); p != uint64(i+1) {
			t.Fatalf("position %d, want %d", p, i+1)
		}
	}
	if err := s.Journal().Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	stop()
	s = reopen(t, s, Config{})
	if p := appendOne(t, s.Journal(), "y"); p != 4 {
		t.Errorf("after a restart position %d, want 4", p)
	}
	run(t, s.Journal())()
	r := s.Journal().Reader(2)
	equal(t, next(t, r), []string{"3 x"})
	equal(t, next(t, r), []string{"4 y"})
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after the last entry: %v, want ErrClosed", err)
	}
}

func TestJournalRunEndsDurable(t *testing.T) {
	s := open(t, t.TempDir(), Config{MaxDelay: time.Hour})
	stop := run(t, s.Journal())
	last := appendOne(t, s.Journal(), "x")
	stop()
	if got := s.Journal().Durable(); got != last {
		t.Errorf("durable up to %d, want %d", got, last)
	}
	if _, err := s.Journal().Append(acct.EntryTick, 0, 0, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Run: %v, want ErrClosed", err)
	}
	if err := s.Journal().Wait(t.Context(), last+1); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after Run: %v, want ErrClosed", err)
	}
}

func TestJournalGroups(t *testing.T) {
	s := open(t, t.TempDir(), Config{GroupSize: 1000, MaxDelay: time.Hour})
	j := s.Journal()
	appendOne(t, j, "small")
	appendOne(t, j, strings.Repeat("big", 1000)) // larger than a group
	appendOne(t, j, "small")
	var got []int
	for _, g := range append(j.sealed, j.open) {
		got = append(got, int(g.count))
	}
	if !slices.Equal(got, []int{1, 1, 1}) {
		t.Errorf("groups of %d entries, want the big one alone", got)
	}
	stop := run(t, j)
	// A sealed group does not wait for MaxDelay, and takes the open one along.
	if err := j.Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	stop()
	e, err := j.Read(t.Context(), 2)
	if err != nil || len(e.Data) != 3000 {
		t.Errorf("read %d octets, %v; want 3000", len(e.Data), err)
	}
}

func TestJournalHoldsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir(), Config{MaxDelay: time.Hour, Memory: 3000}).Journal()
		begun := time.Now()
		data := make([]byte, 900)
		appended := make(chan error, 4)
		go func() {
			for range 4 {
				_, err := j.Append(acct.EntryMessage, 0, 0, data)
				appended <- err
			}
		}()
		synctest.Wait()
		if n := len(appended); n != 3 {
			t.Fatalf("%d entries taken, want the three that Memory has room for", n)
		}
		run(t, j)
		for range 4 {
			if err := <-appended; err != nil {
				t.Error(err)
			}
		}
		if waited := time.Since(begun); waited >= time.Hour {
			t.Errorf("held up for %v, as if company could come", waited)
		}
	})
}

func TestJournalSlowReader(t *testing.T) {
	s := open(t, t.TempDir(), Config{GroupSize: 100, Recent: 500})
	j := s.Journal()
	r := j.Reader(0)
	stop := run(t, j)
	var want, got []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("%d entry %d", i+1, i))
		appendOne(t, j, fmt.Sprintf("entry %d", i))
	}
	stop() // the writer never waited for the reader
	for len(got) < len(want) {
		got = append(got, next(t, r)...)
	}
	equal(t, got, want)
	if st := j.Stats(); st.FromDisk == 0 || st.Entries != 200 || st.Held != 0 {
		t.Errorf("%+v: want reads from the disk, 200 entries, none held", st)
	}
	fast := j.Reader(199)
	before := j.Stats().FromDisk
	equal(t, next(t, fast), want[199:])
	if j.Stats().FromDisk != before {
		t.Error("the newest group was read from the disk")
	}
}

// TestJournalMemoryIsUsedAgain, but not while a Reader has entries of it, and
// never what Read returned, however much is appended meanwhile.
func TestJournalMemoryIsUsedAgain(t *testing.T) {
	const size = 1000
	j := open(t, t.TempDir(), Config{GroupSize: size, Recent: size}).Journal()
	run(t, j)
	fill := func(what string) {
		for range 4 {
			var last uint64
			for range 20 {
				last = appendOne(t, j, strings.Repeat(what, 100))
			}
			if err := j.Wait(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}
	}
	newest := func(r *Reader) []acct.Entry {
		last := appendOne(t, j, strings.Repeat("a", 100))
		if err := j.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		r.after = last - 1
		es, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return es
	}
	intact := func(e acct.Entry) {
		t.Helper()
		if string(e.Data) != strings.Repeat("a", 100) {
			t.Fatalf("entry %d has become %q", e.Position, e.Data)
		}
	}

	r := j.Reader(0)
	es := newest(r)
	held := r.held
	read, err := j.Read(t.Context(), es[0].Position)
	if err != nil {
		t.Fatal(err)
	}
	fill("b")
	intact(es[0])
	if !held.dropped || held.readers != 2 {
		t.Fatalf("the group has %d readers, dropped %v; want 2 of one that is dropped", held.readers, held.dropped)
	}
	es = newest(r)
	other := r.held
	fill("c")
	intact(es[0])
	intact(read)
	newest(r) // and lets the other one go
	if held.readers != 1 || other.readers != 0 || !other.dropped {
		t.Errorf("%d and %d readers; want 1, of what Read returned, and 0", held.readers, other.readers)
	}
	if n := len(j.rooms); n == 0 || n > maxRooms {
		t.Errorf("%d groups' memory waits to be used again, want 1 to %d", n, maxRooms)
	}
}

func TestJournalTrim(t *testing.T) {
	var lines bytes.Buffer
	s := open(t, t.TempDir(), Config{GroupSize: 50, Log: testLog(&lines)})
	j := s.Journal()
	stop := run(t, j)
	for i := range 300 {
		appendOne(t, j, fmt.Sprintf("a somewhat longer entry %d", i))
	}
	if err := j.Wait(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	stop()
	s = reopen(t, s, Config{GroupSize: 50, Log: testLog(&lines)})
	j = s.Journal()
	if err := j.Trim(t.Context(), 150); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(t.Context(), 149); !errors.Is(err, ErrTrimmed) || !errors.Is(err, acct.ErrNoEntry) {
		t.Errorf("Read(149): %v, want ErrTrimmed", err)
	}
	if e, err := j.Read(t.Context(), 150); err != nil || string(e.Data) != "a somewhat longer entry 149" {
		t.Errorf("Read(150): %q, %v", e.Data, err)
	}
	if _, err := j.Reader(10).Next(t.Context()); !errors.Is(err, ErrTrimmed) {
		t.Errorf("a reader behind what was trimmed: %v, want ErrTrimmed", err)
	}
	if err := j.Trim(t.Context(), 1<<40); err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{"journal group committed", "trim begin", "trim done"} {
		if !strings.Contains(lines.String(), say) {
			t.Errorf("the log does not say %q", say)
		}
	}
	s = reopen(t, s, Config{})
	if p := appendOne(t, s.Journal(), "after"); p != 301 {
		t.Errorf("all trimmed, opened again: position %d, want 301", p)
	}
	run(t, s.Journal())()
	equal(t, next(t, s.Journal().Reader(300)), []string{"301 after"})
}

func TestJournalFileDoesNotGrow(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	j := s.Journal()
	run(t, j)
	data := make([]byte, 64<<10)
	round := func() {
		for range 64 {
			if _, err := j.Append(acct.EntryMessage, 0, 0, data); err != nil {
				t.Fatal(err)
			}
		}
		j.mu.Lock()
		last := j.next - 1
		j.mu.Unlock()
		if err := j.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if err := j.Trim(t.Context(), last+1); err != nil {
			t.Fatal(err)
		}
	}
	pages := func() (n int) {
		if err := s.jr.QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	round()
	before := pages()
	for range 5 {
		round()
	}
	if after := pages(); after > before+before/4 {
		t.Errorf("%d pages after the first round, %d after the sixth", before, after)
	}
}

func TestJournalBehindCheckpoint(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	mustCommit(t, s, acct.Batch{Position: 40})
	s = reopen(t, s, Config{}) // as if the journal had been lost
	if p := appendOne(t, s.Journal(), "x"); p != 41 {
		t.Errorf("position %d, want 41: one behind the checkpoint", p)
	}
}

func TestJournalDamagedGroup(t *testing.T) {
	var lines bytes.Buffer
	s := open(t, t.TempDir(), Config{GroupSize: 1})
	stop := run(t, s.Journal())
	for i := range 5 {
		appendOne(t, s.Journal(), fmt.Sprint(i))
	}
	stop()
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "journal.db")
	execute(t, file, "UPDATE journal_group SET data = zeroblob(length(data)) WHERE last = 2")
	execute(t, file, "UPDATE journal_group SET data = substr(data, 1, 10) WHERE last = 5")

	ro, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := ro.Journal().Reader(0)
	equal(t, next(t, r), []string{"1 0"})
	equal(t, next(t, r), []string{"3 2"})
	ro.Close()

	s = open(t, dir, Config{GroupSize: 1, Log: testLog(&lines)})
	j := s.Journal()
	if _, err := j.Read(t.Context(), 2); !errors.Is(err, ErrDamaged) || !errors.Is(err, acct.ErrNoEntry) {
		t.Errorf("Read(2): %v, want ErrDamaged that matches acct.ErrNoEntry", err)
	}
	r = j.Reader(0)
	equal(t, next(t, r), []string{"1 0"})
	equal(t, next(t, r), []string{"3 2"})
	equal(t, next(t, r), []string{"4 3"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("behind the last: %v, want to wait", err)
	}
	if !strings.Contains(lines.String(), "journal group is damaged and set aside") || !strings.Contains(lines.String(), "first=2 last=2") {
		t.Errorf("the log says %s", &lines)
	}
	if _, err := j.Read(t.Context(), 2); !errors.Is(err, acct.ErrNoEntry) || errors.Is(err, ErrDamaged) {
		t.Errorf("Read(2) once set aside: %v, want acct.ErrNoEntry", err)
	}
	if p := appendOne(t, j, "5"); p != 6 {
		t.Errorf("position %d, want 6: those of a group set aside are not given again", p)
	}
	run(t, j)()
	equal(t, next(t, r), []string{"6 5"})
	st, err := s.Stats(t.Context())
	if err != nil || st.Damaged != 2 {
		t.Errorf("Stats: %d damaged groups, %v; want 2", st.Damaged, err)
	}
}

func TestJournalCommitError(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	j := s.Journal()
	execute(t, filepath.Join(s.dir, "journal.db"), "CREATE TRIGGER fail BEFORE INSERT ON journal_group BEGIN SELECT raise(ABORT, 'planted'); END")
	appendOne(t, j, "kept")
	err := j.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "commit journal positions 1 to 1: ") || !strings.Contains(err.Error(), "planted") {
		t.Fatalf("Run: %v", err)
	}
	if e := j.Wait(t.Context(), 1); !errors.Is(e, err) {
		t.Errorf("Wait: %v, want Run's error", e)
	}
	if _, e := j.Append(acct.EntryTick, 0, 0, nil); !errors.Is(e, err) {
		t.Errorf("Append: %v, want Run's error", e)
	}
	if _, e := j.Reader(0).Next(t.Context()); !errors.Is(e, err) {
		t.Errorf("Next: %v, want Run's error", e)
	}
	execute(t, filepath.Join(s.dir, "journal.db"), "DROP TRIGGER fail")
	run(t, j)()
	equal(t, next(t, j.Reader(0)), []string{"1 kept"})
}

func TestJournalFullDisk(t *testing.T) {
	log, said := listen()
	s := open(t, t.TempDir(), Config{GroupSize: 1 << 10, Memory: 300 << 10, Log: log})
	j := s.Journal()
	limit := func(pages int) {
		j.w.mu.Lock()
		defer j.w.mu.Unlock()
		if err := j.w.exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	// A bound on the file stands for the disk; SQLite says the same of both.
	limit(12)
	stop := run(t, j)
	done := make(chan error, 1)
	const n = 20 // more than fits into file and Memory
	go func() {
		for range n {
			if _, err := j.Append(acct.EntryMessage, 0, 0, make([]byte, 50<<10)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	line := said("journal waits")
	if !strings.Contains(line, "disk is full: free some space") {
		t.Errorf("the log says %q", line)
	}
	if !j.Stats().Full {
		t.Error("Stats do not say that the disk is full")
	}
	limit(1_000_000)
	said("journal goes on")
	if err := <-done; err != nil {
		t.Fatal("Append:", err)
	}
	if err := j.Wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	stop()
	if j.Stats().Full {
		t.Error("still full")
	}
}

// listen returns a logger, and a function that waits for a line with a text.
func listen() (*slog.Logger, func(text string) string) {
	lines := make(chan string, 10_000)
	log := slog.New(slog.NewTextHandler(lineWriter(lines), nil))
	return log, func(text string) string {
		for line := range lines {
			if strings.Contains(line, text) {
				return line
			}
		}
		return ""
	}
}

type lineWriter chan<- string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func TestJournalWaitContext(t *testing.T) {
	j := open(t, t.TempDir(), Config{}).Journal()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := j.Reader(0).Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
}

// TestJournalModel compares a journal with a list, over restarts, failing
// commits, trims and readers of any speed.
func TestJournalModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, remove := tempDir(t)
		defer remove()
		cfg := Config{GroupSize: 200, Recent: 600}
		s, err := Open(dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		var model []string // by position-1
		trimmed := 0       // at most so many are gone
		durable := 0
		// flush makes durable what was appended.
		flush := func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := s.Journal().Run(ctx); err != nil {
				t.Fatal(err)
			}
			durable = len(model)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				if err := s.Journal().begin(); err != nil { // appending is possible between runs
					t.Fatal(err)
				}
				s.Journal().running = false
				for range rapid.IntRange(1, 10).Draw(t, "n") {
					data := rapid.StringN(0, 80, 300).Draw(t, "data")
					p, err := s.Journal().Append(acct.EntryMessage, 0, 0, []byte(data))
					if err != nil {
						t.Fatal(err)
					}
					model = append(model, data)
					if p != uint64(len(model)) {
						t.Fatalf("position %d, want %d", p, len(model))
					}
				}
			},
			"flush": func(t *rapid.T) { flush() },
			"restart": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				model = model[:durable] // the rest was never durable
				if s, err = Open(dir, cfg); err != nil {
					t.Fatal(err)
				}
			},
			"trim": func(t *rapid.T) {
				below := rapid.IntRange(0, len(model)+2).Draw(t, "below")
				if err := s.Journal().Trim(context.Background(), uint64(below)); err != nil {
					t.Fatal(err)
				}
				trimmed = max(trimmed, min(below-1, durable))
			},
			"read all": func(t *rapid.T) {
				if trimmed >= durable {
					return
				}
				after := rapid.IntRange(trimmed, durable-1).Draw(t, "after")
				r := s.Journal().Reader(uint64(after))
				for at := after; at < durable; {
					es, err := r.Next(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range es {
						if e.Position != uint64(at+1) || string(e.Data) != model[at] {
							t.Fatalf("entry %d %q, want %d %q", e.Position, e.Data, at+1, model[at])
						}
						at++
					}
				}
			},
			"read one": func(t *rapid.T) {
				if trimmed >= durable {
					return
				}
				p := rapid.IntRange(trimmed+1, durable).Draw(t, "position")
				e, err := s.Journal().Read(context.Background(), uint64(p))
				if err != nil || string(e.Data) != model[p-1] {
					t.Fatalf("Read(%d): %q, %v; want %q", p, e.Data, err, model[p-1])
				}
			},
		})
	})
}

// TestJournalParallel has many appenders and readers at once.
func TestJournalParallel(t *testing.T) {
	s := open(t, t.TempDir(), Config{GroupSize: 2000, Recent: 10000, Memory: 20000})
	j := s.Journal()
	run(t, j)
	const writers, each, readers = 4, 500, 3
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				p, err := j.Append(acct.EntryMessage, 0, uint64(w), fmt.Appendf(nil, "%d/%d", w, i))
				if err == nil && i%100 == 0 {
					err = j.Wait(t.Context(), p)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range readers {
		wg.Go(func() {
			r := j.Reader(0)
			want := uint64(1)
			var seen [writers]int
			for want <= writers*each {
				es, err := r.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range es {
					if e.Position != want || string(e.Data) != fmt.Sprintf("%d/%d", e.Session, seen[e.Session]) {
						t.Errorf("entry %d %q, want %d of %d", e.Position, e.Data, want, seen[e.Session])
						return
					}
					seen[e.Session]++
					want++
				}
			}
		})
	}
	wg.Wait()
}
