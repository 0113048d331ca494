package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/asm/acct"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// withDefaults fills in what a test does not care for.
func (c Config) withDefaults() Config {
	c.GroupSize, c.Memory, c.Recent = cmp.Or(c.GroupSize, 256<<10), cmp.Or(c.Memory, 16<<20), cmp.Or(c.Recent, 16<<20)
	c.MaxDelay, c.Log = cmp.Or(c.MaxDelay, 10*time.Millisecond), cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// take opens a journal as its next holder.
func take(dir string, cfg Config) (*Journal, error) {
	epoch, err := Epoch(dir)
	if err == nil {
		cfg.Epoch = epoch + 1
		err = Take(dir, cfg.Epoch)
	}
	if err != nil {
		return nil, err
	}
	return Open(dir, cfg.withDefaults())
}

// open is take of a journal that is closed when the test ends.
func open(tb testing.TB, dir string, cfg Config) *Journal {
	tb.Helper()
	j, err := take(dir, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := j.Close(); err != nil {
			tb.Error(err)
		}
	})
	return j
}

func reopen(tb testing.TB, j *Journal, cfg Config) *Journal {
	tb.Helper()
	if err := j.Close(); err != nil {
		tb.Fatal(err)
	}
	return open(tb, j.dir, cfg)
}

// run runs the journal until the test ends.
func run(tb testing.TB, j *Journal) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// resume lets entries be appended to a journal whose Run has ended.
func resume(t interface{ Fatal(...any) }, j *Journal) {
	if err := j.start(); err != nil {
		t.Fatal(err)
	}
	j.running = false
}

// testLog writes every line to w.
func testLog(w *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

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
	j := open(t, t.TempDir(), Config{})
	stop := run(t, j)
	for i := range 3 {
		if p := appendOne(t, j, "x"); p != uint64(i+1) {
			t.Fatalf("position %d, want %d", p, i+1)
		}
	}
	if err := j.Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	stop()
	j = reopen(t, j, Config{})
	if p := appendOne(t, j, "y"); p != 4 {
		t.Errorf("after a restart position %d, want 4", p)
	}
	run(t, j)()
	r := j.Reader(2)
	equal(t, next(t, r), []string{"3 x"})
	equal(t, next(t, r), []string{"4 y"})
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after the last entry: %v, want ErrClosed", err)
	}
}

func TestJournalRunEndsDurable(t *testing.T) {
	j := open(t, t.TempDir(), Config{MaxDelay: time.Hour})
	stop := run(t, j)
	last := appendOne(t, j, "x")
	stop()
	if got := j.Durable(); got != last {
		t.Errorf("durable up to %d, want %d", got, last)
	}
	if _, err := j.Append(acct.EntryTick, 0, 0, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Run: %v, want ErrClosed", err)
	}
	if err := j.Wait(t.Context(), last+1); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after Run: %v, want ErrClosed", err)
	}
}

func TestJournalGroups(t *testing.T) {
	j := open(t, t.TempDir(), Config{GroupSize: 1000, MaxDelay: time.Hour})
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
		j := open(t, t.TempDir(), Config{MaxDelay: time.Hour, Memory: 3000})
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
	j := open(t, t.TempDir(), Config{GroupSize: 100, Recent: 500})
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
	j := open(t, t.TempDir(), Config{GroupSize: size, Recent: size})
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
	j := open(t, t.TempDir(), Config{GroupSize: 50, Log: testLog(&lines)})
	stop := run(t, j)
	for i := range 300 {
		appendOne(t, j, fmt.Sprintf("a somewhat longer entry %d", i))
	}
	if err := j.Wait(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	stop()
	j = reopen(t, j, Config{GroupSize: 50, Log: testLog(&lines)})
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
	j = reopen(t, j, Config{})
	if p := appendOne(t, j, "after"); p != 301 {
		t.Errorf("all trimmed, opened again: position %d, want 301", p)
	}
	run(t, j)()
	equal(t, next(t, j.Reader(300)), []string{"301 after"})
}

// A journal that is trimmed as fast as it is written stays as large as two of its
// segments, and gives back what it had taken when it is closed.
func TestJournalDoesNotGrow(t *testing.T) {
	dir := t.TempDir()
	const segment = 1 << 20
	j := open(t, dir, Config{Segment: segment})
	stop := run(t, j)
	data := make([]byte, 64<<10)
	onDisk := func() (n int64) {
		t.Helper()
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			n += info.Size()
		}
		return n
	}
	for range 6 {
		var last uint64
		for range 64 {
			last = appendOne(t, j, string(data))
		}
		if err := j.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if err := j.Trim(t.Context(), last+1); err != nil {
			t.Fatal(err)
		}
		if n := j.Size(); n != 0 {
			t.Errorf("all is trimmed, %d octets are left", n)
		}
		if n := onDisk(); n > 3*segment {
			t.Errorf("%d octets are on the disk", n)
		}
	}
	last := appendOne(t, j, "the last")
	stop()
	j = reopen(t, j, Config{})
	if n, size := onDisk(), j.Size(); n > segment+segment/2 || size > segment+segment/2 {
		t.Errorf("%d octets are on the disk after it was closed, %d count", n, size)
	}
	if e, err := j.Read(t.Context(), last); err != nil || string(e.Data) != "the last" {
		t.Errorf("read %q, %v", e.Data, err)
	}
}

func TestJournalBehindCheckpoint(t *testing.T) {
	dir := t.TempDir()
	var lines bytes.Buffer
	j := open(t, dir, Config{})
	run(t, j)
	appendOne(t, j, "before")
	if err := j.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, Config{After: 40, Log: testLog(&lines)}) // as if part of the journal had been lost
	if p := appendOne(t, j, "x"); p != 41 {
		t.Errorf("position %d, want 41: one behind the checkpoint", p)
	}
	if !strings.Contains(lines.String(), "journal ends before the checkpoint") {
		t.Errorf("the log says %q", &lines)
	}
	run(t, j)()
	r := j.Reader(0)
	equal(t, next(t, r), []string{"1 before"})
	equal(t, next(t, r), []string{"41 x"}) // and nothing is damaged
	if n := j.Stats().DamagedGroups; n != 0 {
		t.Errorf("%d groups are damaged", n)
	}
}

// spoil changes a journal's latest segment.
func spoil(tb testing.TB, dir string, change func(b []byte) []byte) {
	tb.Helper()
	names, _, err := list(dir)
	if err != nil || len(names) == 0 {
		tb.Fatal(names, err)
	}
	path := filepath.Join(dir, names[len(names)-1].String())
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Whatever of a group is damaged, it is set aside with the positions that it held,
// and reading goes on behind it.
func TestJournalDamagedGroup(t *testing.T) {
	const group = sector // each of these
	for _, row := range []struct {
		name    string
		change  func(b []byte) []byte
		damaged []span
	}{
		{"octets of an entry", func(b []byte) []byte { b[group+50]++; b[4*group+50]++; return b }, []span{{2, 2}, {5, 5}}},
		{"the header of a frame", func(b []byte) []byte { b[group+9]++; b[4*group+9]++; return b }, []span{{2, 2}, {5, 5}}},
		{"two frames", func(b []byte) []byte { clear(b[group : 3*group]); return b }, []span{{2, 3}}},
		{"cut off within a frame", func(b []byte) []byte { return b[:4*group+100] }, nil},
		{"the end mark", func(b []byte) []byte { b[5*group]++; return b }, nil},
		{"the beginning", func(b []byte) []byte { clear(b[:group]); return b }, []span{{1, 1}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Config{GroupSize: 1})
			stop := run(t, j)
			for i := range 5 {
				appendOne(t, j, fmt.Sprint(i))
			}
			stop()
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, dir, row.change)
			gone := func(p uint64) bool {
				return slices.ContainsFunc(row.damaged, func(s span) bool { return s.has(p) })
			}
			last := uint64(5)
			if row.name == "cut off within a frame" { // like one that was being written
				last = 4
			}
			var want []string
			for p := uint64(1); p <= last; p++ {
				if !gone(p) {
					want = append(want, fmt.Sprintf("%d %d", p, p-1))
				}
			}
			readAll := func(j *Journal) {
				t.Helper()
				var got []string
				for r := j.Reader(0); len(got) < len(want); {
					got = append(got, next(t, r)...)
				}
				equal(t, got, want)
			}

			ro, err := OpenReadOnly(dir, Config{}.withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			var told []error
			if err := ro.Verify(t.Context(), func(err error) { told = append(told, err) }); err != nil || len(told) != len(row.damaged) {
				t.Errorf("verify: %v, %v; want %v", told, err, row.damaged)
			}
			readAll(ro)

			var lines bytes.Buffer
			j = open(t, dir, Config{GroupSize: 1, Log: testLog(&lines)})
			for _, d := range row.damaged {
				for range 2 {
					_, err := j.Read(t.Context(), d.first)
					if !errors.Is(err, acct.ErrNoEntry) || errors.Is(err, ErrTrimmed) {
						t.Errorf("Read(%d): %v, want acct.ErrNoEntry", d.first, err)
					}
				}
				if want := fmt.Sprintf("first=%d last=%d", d.first, d.last); strings.Count(lines.String(), want) != 1 {
					t.Errorf("the log does not say %q once:\n%s", want, &lines)
				}
			}
			readAll(j)
			if n := j.Stats().DamagedGroups; n != uint64(len(row.damaged)) || j.Aside() != len(row.damaged) {
				t.Errorf("%d groups set aside, %d kept; want %d", n, j.Aside(), len(row.damaged))
			}
			r := j.Reader(last)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("behind the last: %v, want to wait", err)
			}
			if p := appendOne(t, j, "behind"); p != last+1 {
				t.Errorf("position %d, want %d: those of a group set aside are not given again", p, last+1)
			}
			run(t, j)()
			equal(t, next(t, r), []string{fmt.Sprint(last+1, " behind")})
			j = reopen(t, j, Config{})
			if j.Aside() != len(row.damaged) {
				t.Errorf("opened again: %d are set aside", j.Aside())
			}
			readAll(j)
			if n := j.Stats().DamagedGroups; n != 0 {
				t.Errorf("opened again: %d are damaged, and were set aside before", n)
			}
		})
	}
}

// A segment that a crash ended is cut at the first frame that is not whole, unless
// a later one says that it was durable.
func TestJournalTornTail(t *testing.T) {
	const group = sector
	garbage := bytes.Repeat([]byte("garbage "), 2000)
	for _, row := range []struct {
		name   string
		change func(b []byte) []byte
		last   uint64
	}{
		{"nothing is torn", func(b []byte) []byte { return b }, 6},
		{"garbage behind", func(b []byte) []byte { return append(b[:6*group:6*group], garbage...) }, 6},
		{"the last is torn", func(b []byte) []byte { clear(b[5*group+50:]); return b }, 5},
		{"one of those synced last, before one that is whole", func(b []byte) []byte { clear(b[3*group+50 : 4*group]); return b }, 3},
		{"one that was durable", func(b []byte) []byte { clear(b[group : 2*group]); return b }, 6},
		{"all", func(b []byte) []byte { clear(b); return b }, 0},
		{"an empty file", func(b []byte) []byte { return nil }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, Config{GroupSize: 1, Recent: 1})
			ended, end := context.WithCancel(t.Context())
			end()
			for i := range 2 { // three groups with a sync each time
				for k := range 3 {
					appendOne(t, j, fmt.Sprint(i, k))
				}
				if err := j.flush(ended); err != nil {
					t.Fatal(err)
				}
			}
			spoil(t, dir, row.change) // it is not closed
			j = open(t, dir, Config{GroupSize: 1})
			if got := j.Durable(); got != row.last {
				t.Errorf("it ends at %d, want %d", got, row.last)
			}
			if p := appendOne(t, j, "behind"); p != row.last+1 {
				t.Errorf("position %d, want %d", p, row.last+1)
			}
			run(t, j)()
			equal(t, next(t, j.Reader(row.last)), []string{fmt.Sprint(row.last+1, " behind")})
		})
	}
}

// A faulty disk fails as it is told.
type faulty struct {
	file
	fail *fault
}

type fault struct {
	mu                    sync.Mutex
	allocate, write, sync error
	tried                 int
}

func (f *fault) set(allocate, write, sync error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allocate, f.write, f.sync = allocate, write, sync
}

func (f *fault) of(err *error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried++
	return *err
}

func (f faulty) Allocate(from, to int64) error {
	return cmp.Or(f.fail.of(&f.fail.allocate), f.file.Allocate(from, to))
}

func (f faulty) WriteAt(b []byte, at int64) (int, error) {
	if err := f.fail.of(&f.fail.write); err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at)
		return n, err
	}
	return f.file.WriteAt(b, at)
}

func (f faulty) SyncData() error { return cmp.Or(f.fail.of(&f.fail.sync), f.file.SyncData()) }

// onto makes j write to a disk that fails as f says.
func (f *fault) onto(j *Journal) {
	create := j.disk.create
	j.disk.create = func(path string) (file, error) {
		made, err := create(path)
		return faulty{made, f}, err
	}
	j.out.file = faulty{j.out.file, f}
}

// What fails is waited out and written again, with the same positions, elsewhere:
// after a sync that failed it is not known what of the segment is on the disk.
func TestJournalOutlastsTheDisk(t *testing.T) {
	for _, row := range []struct {
		name                  string
		allocate, write, sync error
		is                    error
		says                  string
		full                  bool
		segments              int // that are there in the end
	}{
		{"full", syscall.ENOSPC, nil, nil, ErrFull, "disk is full: free some space", true, 1},
		{"full without having been told", nil, syscall.ENOSPC, nil, ErrFull, "disk is full", true, 2},
		{"can't be written", nil, syscall.EIO, nil, ErrIO, "the disk fails: look into the kernel's log", false, 2},
		{"can't be synced", nil, nil, syscall.EIO, ErrIO, "the disk fails", false, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				var lines bytes.Buffer
				j := open(t, dir, Config{Log: testLog(&lines)})
				var f fault
				f.onto(j)
				stop := run(t, j)
				first := appendOne(t, j, "before")
				if err := j.Wait(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				f.set(row.allocate, row.write, row.sync)
				j.out.allocated = j.out.at // so that room is asked for
				last := appendOne(t, j, "while it fails")
				time.Sleep(10 * retryAfter) // of the bubble
				synctest.Wait()
				if st := j.Stats(); !errors.Is(st.Waits, row.is) || st.Full != row.full || j.Durable() != first {
					t.Errorf("it waits for %v, full %v, durable %d", st.Waits, st.Full, j.Durable())
				}
				if reason, held := j.Held(); !held || reason == "" {
					t.Errorf("held %v for %q", held, reason)
				}
				if f.tried < 10 {
					t.Errorf("%d calls were tried", f.tried)
				}
				f.set(nil, nil, nil)
				if err := j.Wait(t.Context(), last); err != nil {
					t.Fatal(err)
				}
				if st := j.Stats(); st.Waits != nil || st.Full {
					t.Errorf("it still waits for %v", st.Waits)
				}
				stop()
				for _, say := range []string{"journal waits", row.says, "journal goes on"} {
					if strings.Count(lines.String(), say) != 1 {
						t.Errorf("the log does not say %q once:\n%s", say, &lines)
					}
				}
				if n := len(j.segments); n != row.segments {
					t.Errorf("%d segments, want %d", n, row.segments)
				}
				j = reopen(t, j, Config{})
				r := j.Reader(0)
				equal(t, next(t, r), []string{"1 before"})
				equal(t, next(t, r), []string{"2 while it fails"})
				if j.Durable() != 2 || j.Aside() != 0 {
					t.Errorf("opened again: durable %d, %d aside", j.Durable(), j.Aside())
				}
			})
		})
	}
}

// What does not pass by itself ends Run, and the next one takes up what waits.
func TestJournalCommitError(t *testing.T) {
	j := open(t, t.TempDir(), Config{})
	var f fault
	f.onto(j)
	f.set(nil, syscall.EBADF, nil)
	appendOne(t, j, "kept")
	err := j.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "commit positions 1 to 1: ") || !errors.Is(err, syscall.EBADF) {
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
	f.set(nil, nil, nil)
	run(t, j)()
	equal(t, next(t, j.Reader(0)), []string{"1 kept"})
}

// What was synced while the lease could not be read is not durable, and is written
// once more, elsewhere; not before it can be read.
func TestJournalLeaseThatDoesNotRead(t *testing.T) {
	cfg := Config{GroupSize: 1, Recent: 1}
	j := open(t, t.TempDir(), cfg)
	var want []string
	put := func(texts ...string) {
		resume(t, j)
		for _, text := range texts {
			want = append(want, fmt.Sprint(appendOne(t, j, text), " ", text))
		}
	}
	put("before")
	run(t, j)()
	lease := j.lease
	broken := *lease
	broken.file, _ = os.Open(os.DevNull)
	if err := broken.file.Close(); err != nil {
		t.Fatal(err)
	}
	j.lease = &broken
	put("a", "b", "c")
	if err := j.Run(t.Context()); !errors.Is(err, os.ErrClosed) || j.Durable() != 1 {
		t.Fatalf("Run: %v, durable %d", err, j.Durable())
	}
	files, _, err := list(j.dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := j.Run(t.Context()); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("Run: %v", err)
		}
	}
	if now, _, err := list(j.dir); err != nil || len(now) > len(files) {
		t.Errorf("%d files have become %d (%v)", len(files), len(now), err)
	}
	j.lease = lease
	put("d", "e")
	run(t, j)()
	for range 2 {
		var got []string
		for r := j.Reader(0); len(got) < len(want); {
			got = append(got, next(t, r)...)
		}
		equal(t, got, want)
		j = reopen(t, j, cfg)
	}
	if j.Durable() != 6 {
		t.Errorf("it ends at %d", j.Durable())
	}
}

// On a disk that is full, who appends is held up, and goes on by itself.
func TestJournalFullDisk(t *testing.T) {
	log, said := listen()
	j := open(t, t.TempDir(), Config{GroupSize: 1 << 10, Memory: 300 << 10, Log: log})
	var f fault
	f.onto(j)
	f.set(syscall.ENOSPC, nil, nil)
	stop := run(t, j)
	done := make(chan error, 1)
	const n = 20 // more than fits into Memory
	go func() {
		for range n {
			if _, err := j.Append(acct.EntryMessage, 0, 0, make([]byte, 50<<10)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	said("journal waits")
	select {
	case err := <-done:
		t.Fatalf("all was taken: %v", err)
	default:
	}
	f.set(nil, nil, nil)
	said("journal goes on")
	if err := <-done; err != nil {
		t.Fatal("Append:", err)
	}
	if err := j.Wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	stop()
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
	j := open(t, t.TempDir(), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := j.Reader(0).Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
}

// TestJournalParallel has many appenders and readers at once.
func TestJournalParallel(t *testing.T) {
	j := open(t, t.TempDir(), Config{GroupSize: 2000, Recent: 10000, Memory: 20000})
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
