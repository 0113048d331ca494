package asm

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A feed is a journal for a Runner.
type feed struct {
	mu    sync.Mutex
	j     modelJournal
	grown chan struct{}
	trims []uint64
	read  func(position uint64) // before each Read, if not nil
}

func newFeed() *feed { return &feed{grown: make(chan struct{})} }

func (f *feed) add(kind acct.EntryKind, session uint64, data []byte) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.j.add(kind, time.Now(), session, data)
	close(f.grown)
	f.grown = make(chan struct{})
	return e.Position
}

func (f *feed) Read(ctx context.Context, position uint64) (acct.Entry, error) {
	if f.read != nil {
		f.read(position)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.j.Read(ctx, position)
}

// A feedReader reads from a feed.
type feedReader struct {
	*feed
	after uint64
}

func (r *feedReader) Next(ctx context.Context) ([]acct.Entry, error) {
	for {
		r.mu.Lock()
		entries, grown := r.j.entries[r.after:], r.grown
		r.mu.Unlock()
		if len(entries) > 0 {
			r.after += uint64(len(entries))
			return entries, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-grown:
		}
	}
}

// A lockedStore is a modelStore for several goroutines.
type lockedStore struct {
	mu sync.Mutex
	*modelStore
	commit func(acct.Batch) error // before each Commit, if not nil
}

func (s *lockedStore) Commit(ctx context.Context, b acct.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commit != nil {
		if err := s.commit(b); err != nil {
			return err
		}
	}
	return s.modelStore.Commit(ctx, b)
}

func (s *lockedStore) recordLines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lines(s.records)
}

// running starts a Runner in a bubble of synctest, with one user and one
// Transport Session, and returns the session's number. stop ends it.
func running(t *testing.T, f *feed, s *lockedStore) (r *Runner, session uint64, stop func() error) {
	t.Helper()
	f.add(acct.EntryConfig, 0, must(testSettings.AppendBinary(nil)))
	f.add(acct.EntryUsers, 0, users.AppendList(nil, "file", []users.Binding{bind("192.0.2.1", "ann")}))
	session = f.add(acct.EntryOpen, 0, must(SessionInfo{Transport: ipfix.TCP, Exporter: "router"}.AppendBinary(nil)))
	r, err := NewRunner(RunConfig{
		Config: Config{Store: s, Journal: f},
		Feed:   func(after uint64) Feed { return &feedReader{feed: f, after: after} },
		Tick:   func(time.Time) error { f.add(acct.EntryTick, 0, nil); return nil },
		Trim: func(_ context.Context, below uint64) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.trims = append(f.trims, below)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, session, func() error { cancel(); return <-done }
}

// flowMessage encodes one new flow of ann's.
func flowMessage(t *testing.T, port int) []byte {
	b := &bridge{t: t, clock: time.Now(), enc: map[uint32]*ipfix.Encoder{}}
	f := b.flow("192.0.2.1", outside)
	f.fromPort = port
	return b.message(true, f)
}

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
		r, session, stop := running(t, f, s)
		last := f.add(acct.EntryMessage, session, flowMessage(t, 1))
		if err := r.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if got := r.Committed(); got != last {
			t.Errorf("committed %d, want %d", got, last)
		}
		// A tick ends the interval though nothing else happens.
		time.Sleep(time.Minute + 3*time.Second)
		synctest.Wait()
		want := []string{
			"00:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"00:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		}
		if got := s.recordLines(); join(got) != join(want) {
			t.Errorf("records:\n%swant:\n%s", join(got), join(want))
		}
		if n := len(f.j.entries); n != int(last)+1 {
			t.Errorf("%d entries, want one tick after %d", n, last)
		}
		// The last checkpoint is made when the Runner ends.
		f.add(acct.EntryMessage, session, flowMessage(t, 2))
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if sum := audit(t, s.modelStore); sum.Accounted.Records != 2 || sum.open.Records != 1 {
			t.Errorf("%+v", sum)
		}
		if n := len(f.trims); n == 0 || f.trims[n-1] != s.position+1 {
			t.Errorf("trimmed below %v, position %d", f.trims, s.position)
		}
	})
}

// A Runner that is ended before it began has nothing to say.
func TestRunnerEndsAtOnce(t *testing.T) {
	f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
	r, err := NewRunner(RunConfig{
		Config: Config{Store: s, Journal: f},
		Feed:   func(after uint64) Feed { return &feedReader{feed: f, after: after} },
		Tick:   func(time.Time) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestRunnerOutlivesStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
		full := true
		s.commit = func(acct.Batch) error {
			if full {
				return errDisk
			}
			return nil
		}
		r, session, stop := running(t, f, s)
		last := f.add(acct.EntryMessage, session, flowMessage(t, 1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := r.Err(); !errors.Is(err, errDisk) || !errors.Is(err, ErrFailed) || r.Failures() == 0 {
			t.Errorf("error %v after %d failures", err, r.Failures())
		}
		s.mu.Lock()
		full = false
		s.mu.Unlock()
		if err := r.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Errorf("error %v", err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if sum := audit(t, s.modelStore); sum.Accounted.Records != 1 {
			t.Errorf("%+v", sum)
		}
	})
}

// An entry that crashed the pipeline twice is set aside and booked.
func TestRunnerSetsAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
		crashes := 0
		f.read = func(uint64) {
			crashes++
			panic("poison")
		}
		r, session, stop := running(t, f, s)
		b := &bridge{t: t, clock: time.Now(), enc: map[uint32]*ipfix.Encoder{}}
		f.add(acct.EntryMessage, session, b.message(false, b.flow("192.0.2.1", outside)))
		// With the Template comes the moment to read the entry before.
		poison := f.add(acct.EntryMessage, session, b.message(true, b.flow("192.0.2.1", outside)))
		last := f.add(acct.EntryMessage, session, flowMessage(t, 2))
		if err := r.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if n := r.Stats().SetAside; crashes != 4 || n == 0 {
			t.Errorf("%d crashes, %d entries set aside", crashes, n)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if sum := audit(t, s.modelStore); sum.UndecodedMessages < 2 {
			t.Errorf("%+v", sum)
		}
		if _, ok := s.state[[2]string{stateCrash, strconv.FormatUint(poison, 10)}]; ok {
			t.Error("the crash is remembered for ever")
		}
	})
}

// Whoever waits for a position is not kept waiting for the next checkpoint
// that would be due.
func TestRunnerHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
		r, session, stop := running(t, f, s)
		for port := range 3 {
			begun := time.Now()
			last := f.add(acct.EntryMessage, session, flowMessage(t, port))
			if port > 0 {
				synctest.Wait() // the entry is applied before anybody waits for it
			}
			if err := r.Wait(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took != 0 {
				t.Errorf("message %d was in a checkpoint after %v", port, took)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Checkpoints take at most a twentieth of the time, but are never further
// apart than paceMost.
func TestRunnerPace(t *testing.T) {
	for _, tt := range []struct{ takes, apart time.Duration }{
		{0, 2 * time.Second},
		{50 * time.Millisecond, 2 * time.Second},
		{500 * time.Millisecond, 10 * time.Second},
		{5 * time.Second, 30 * time.Second},
	} {
		t.Run(tt.takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFeed(), &lockedStore{modelStore: newModelStore()}
				var begun []time.Time
				s.commit = func(acct.Batch) error {
					begun = append(begun, time.Now())
					time.Sleep(tt.takes)
					return nil
				}
				_, session, stop := running(t, f, s)
				for port := range 90 {
					f.add(acct.EntryMessage, session, flowMessage(t, port))
					time.Sleep(time.Second)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if len(begun) < 4 {
					t.Fatalf("%d checkpoints", len(begun))
				}
				// The first message comes within a second after a checkpoint.
				if apart := begun[2].Sub(begun[1]) - tt.takes; apart < tt.apart || apart > tt.apart+time.Second {
					t.Errorf("%v between checkpoints, want %v", apart, tt.apart)
				}
			})
		})
	}
}
