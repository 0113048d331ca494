package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// noMessages keeps Messages with the other entries.
type noMessages struct{}

func (noMessages) Append(*bytes.Buffer, acct.Entry) (Place, bool) { return Place{}, false }

// A life is a spool and its archive over many crashes.
type life struct {
	t       *testing.T
	dir     string
	spool   *spool.Spool
	archive *Archive
	entries uint64
}

func (l *life) open() {
	l.t.Helper()
	if err := l.begin(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// begin opens both as a daemon does.
func (l *life) begin(ctx context.Context) error {
	var err error
	if l.spool, err = spool.Open(filepath.Join(l.dir, "data"), spool.Config{}); err != nil {
		return err
	}
	l.entries = l.spool.Journal().Durable()
	l.archive, err = Open(ctx, Config{Dir: filepath.Join(l.dir, "archive"), Spool: l.spool, Messages: noMessages{}, Interval: time.Hour})
	return err
}

func (l *life) close() {
	l.t.Helper()
	if err := errors.Join(l.archive.Close(), l.spool.Close()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) work() {
	l.t.Helper()
	if err := l.account(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// account journals, cuts and settles something, with the books kept.
func (l *life) account(ctx context.Context) error {
	j := l.spool.Journal()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- j.Run(run) }()
	var err error
	for range 5 {
		l.entries++
		var at uint64
		for { // until Run has begun
			at, err = j.Append(acct.EntryTick, int64(l.entries), 0, fmt.Append(nil, "entry ", l.entries))
			if !errors.Is(err, spool.ErrClosed) {
				break
			}
			runtime.Gosched()
		}
		if err == nil && at != l.entries {
			err = fmt.Errorf("entry %d became %d", l.entries, at)
		}
		if err != nil {
			break
		}
	}
	stop()
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	key := acct.LedgerKey{Exporter: "edge", Domain: 1, Interval: 60}
	var row acct.LedgerRow
	row.LedgerKey = key
	b := acct.Batch{Position: l.entries, Needed: l.entries + 1, Time: int64(l.entries), State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}}
	for range 10 {
		n := acct.Count{Records: 1, Octets: 100, Packets: 2}
		row.Received, row.Accounted = row.Received.Plus(n), row.Accounted.Plus(n)
		b.Records = append(b.Records, acct.Record{SessionID: "s", Type: acct.Event, User: "alice", Shares: []acct.Share{{LedgerKey: key, Count: n}}})
	}
	b.Ledger = []acct.LedgerRow{row}
	if err := l.spool.Commit(ctx, b); err != nil {
		return err
	}
	pending, err := l.spool.Outbox().Pending(ctx, 0, 1000)
	if err != nil {
		return err
	}
	var answers []acct.Settlement
	for i, d := range pending {
		if i%3 == 1 {
			continue // answered later
		}
		answers = append(answers, acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, At: time.Unix(1, 0)})
	}
	return l.spool.Outbox().Settle(ctx, answers)
}

// crash is what a step panics with.
type crash struct{}

// Whenever the archive is cut off, between any two of its steps, each settled
// record and each entry is in it once after the next start, or still in the
// spool: nothing twice, nothing missing, and the chain holds.
func TestCrashesBetweenAnyTwoSteps(t *testing.T) {
	l := &life{t: t, dir: t.TempDir()}
	for _, step := range []string{"written", "in place", "in the manifest"} {
		for n := 1; n <= 2; n++ { // of the records' Segment, of the journal's
			l.open()
			l.work()
			passed := 0
			l.archive.step = func(at string) {
				if at == step {
					if passed++; passed == n {
						panic(crash{})
					}
				}
			}
			func() {
				defer func() {
					if _, ok := recover().(crash); !ok {
						t.Fatalf("step %q was not passed %d times", step, n)
					}
				}()
				_ = l.archive.Work(t.Context())
			}()
			l.close()
			l.check(false)
		}
	}
	l.open()
	if err := l.archive.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	l.check(true)
	left, err := filepath.Glob(filepath.Join(l.dir, "archive", "*.part"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}

	// Trimming takes no record that is not archived.
	l.open()
	l.work()
	if _, err := l.spool.Outbox().TrimSettled(t.Context(), time.Now(), spool.Retention{}); err != nil {
		t.Fatal(err)
	}
	l.close()
	l.check(false)
	l.open()
	if err := l.archive.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := l.spool.Outbox().TrimSettled(t.Context(), time.Now(), spool.Retention{}); err != nil || n == 0 {
		t.Errorf("%d records trimmed once they are archived (%v)", n, err)
	}
	l.close()
	l.check(true)
}

// check opens the archive as the next start does and counts what is in it.
func (l *life) check(all bool) {
	t := l.t
	t.Helper()
	l.open()
	defer l.close()
	head, err := l.spool.ArchiveHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.dir, "archive")
	segments, problems, err := Verify(dir, head)
	if err != nil || len(problems) > 0 {
		t.Fatalf("verify: %v (%v)", problems, err)
	}
	in := make(map[uint64]int)
	for _, s := range segments {
		for _, r := range s.IDs {
			for id := r.First; id <= r.Last; id++ {
				in[id]++
			}
		}
	}
	state := acct.Acknowledged
	settled, err := l.spool.List(t.Context(), spool.Filter{State: &state})
	if err != nil {
		t.Fatal(err)
	}
	waiting, _, err := l.spool.ToArchive(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range waiting {
		if in[r.ID] > 0 {
			t.Errorf("record %d is archived and waits to be", r.ID)
		}
		in[r.ID]++
	}
	for _, r := range settled {
		if in[r.ID] != 1 {
			t.Errorf("record %d is there %d times", r.ID, in[r.ID])
		}
	}
	if all && len(waiting) > 0 {
		t.Errorf("%d records wait", len(waiting))
	}
	next := uint64(1)
	if err := ReadJournal(dir, func(spool.Opening) error { return nil }, func(e acct.Entry) error {
		if want := fmt.Sprint("entry ", next); e.Position != next || string(e.Data) != want {
			t.Errorf("entry %d is %d, %q", next, e.Position, e.Data)
		}
		next++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if next-1 != l.archive.Last() || all && next-1 != l.entries {
		t.Errorf("%d entries are archived, of %d; it says %d", next-1, l.entries, l.archive.Last())
	}
	books, err := l.spool.Audit(t.Context())
	if err != nil || !books.Balanced {
		t.Errorf("books: %v (%v)", books.Problems, err)
	}
}

// The oldest files go by age and size; what is left begins with an opening, and
// the manifest says what went.
func TestExpire(t *testing.T) {
	l := &life{t: t, dir: t.TempDir()}
	l.open()
	for n := range 3 {
		if n > 0 {
			l.close()
			l.open()
		}
		l.work()
		if err := l.archive.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all := Kept(l.archive.segments)
	l.archive.cfg.Keep = time.Minute
	if err := l.archive.expire(all[1].Written.Add(time.Minute + time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	if kept := Kept(l.archive.segments); !reflect.DeepEqual(kept, all[2:]) {
		t.Errorf("%d of %d segments are kept", len(kept), len(all))
	}
	l.archive.cfg.Keep, l.archive.cfg.Octets = 0, all[len(all)-1].Files[0].Octets+all[len(all)-1].Files[1].Octets
	if err := l.archive.expire(time.Now()); err != nil {
		t.Fatal(err)
	}
	var left int64
	for _, s := range Kept(l.archive.segments) {
		left += s.octets()
	}
	if got := l.archive.Octets(); got == 0 || got != left {
		t.Errorf("the archive says it has %d octets, it has %d", got, left)
	}
	l.close()
	dir := filepath.Join(l.dir, "archive")
	if _, problems, err := Verify(dir, ""); err != nil || len(problems) > 0 {
		t.Errorf("verify: %v (%v)", problems, err)
	}
	var opening spool.Opening
	first := uint64(0)
	if err := ReadJournal(dir, func(o spool.Opening) error { opening = o; return nil }, func(e acct.Entry) error {
		if first == 0 {
			first = e.Position
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if first != 11 || opening.Position != 10 {
		t.Errorf("the journal begins at %d behind an opening at %d, want 11 and 10", first, opening.Position)
	}

	// A line that a crash cut off is no line.
	name := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(b, `{"number":99,`...), 0o600); err != nil {
		t.Fatal(err)
	}
	l.open()
	l.close()
	if again, err := os.ReadFile(name); err != nil || !bytes.Equal(again, b) {
		t.Errorf("the manifest has %d octets, want %d (%v)", len(again), len(b), err)
	}
	if strings.Count(string(b), "\n") != len(all)+2 {
		t.Errorf("%d lines", strings.Count(string(b), "\n"))
	}
}
