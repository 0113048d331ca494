package spool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// TestMain lets the test binary be the process that gets killed.
func TestMain(m *testing.M) {
	for name, life := range map[string]func(string) error{"SPOOL_VICTIM": victim, "SPOOL_SALVAGED": openOnce} {
		if dir := os.Getenv(name); dir != "" {
			if err := life(dir); err != nil {
				fmt.Fprintln(os.Stderr, "victim:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// openOnce opens a spool, which salvages it if it is damaged, and no more.
func openOnce(dir string) error {
	s, err := Open(dir, Config{})
	if err != nil {
		return err
	}
	return s.Close()
}

// victim does with a spool all that a daemon does, without end, and says on
// standard output what has been promised to it:
//
//	durable POSITION      Wait returned
//	checkpoint POSITION   Commit returned
//	settled ID            Settle returned
//	stored NUMBER         CDRs.Store returned
//
// Entry n holds the text n. Checkpoint n cuts a record number n of one share
// of n, and books it; delivery acknowledges it, and the CDR of that number is
// stored. So whatever is found after the kill can be checked.
func victim(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := Open(dir, Config{GroupSize: 300, Segment: 8 << 10, MaxDelay: time.Millisecond, Log: log})
	if err != nil {
		return err
	}
	if mode := os.Getenv("SPOOL_VICTIM_SYNCHRONOUS"); mode != "" {
		if err := s.w.exec("PRAGMA synchronous = " + mode); err != nil {
			return err
		}
	}
	cdrs, err := OpenCDRs(dir)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	most, _ := strconv.Atoi(os.Getenv("SPOOL_VICTIM_PROMISES"))
	said := 0
	say := func(what string, n uint64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("%s %d\n", what, n)
		if said++; said == most {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	begin := func(f func() error) { go func() { cancel(f()) }() }
	j, o := s.Journal(), s.Outbox()

	begin(func() error { return j.Run(ctx) })
	begin(func() error { // collector
		for {
			// The position is not known before Append, but with one appender
			// it is the next.
			n := j.Appended() + 1
			p, err := j.Append(acct.EntryMessage, int64(n), 0, []byte(strconv.FormatUint(n, 10)))
			if err != nil {
				return err
			}
			if p%7 == 0 {
				if err := j.Wait(ctx, p); err != nil {
					return err
				}
				say("durable", p)
			}
		}
	})
	begin(func() error { // pipeline
		cp, err := s.Load(ctx)
		if err != nil {
			return err
		}
		r := j.Reader(cp.Position)
		for done := cp.Position; ; {
			es, err := r.Next(ctx)
			if err != nil {
				return err
			}
			b := acct.Batch{Needed: done + 1}
			for _, e := range es {
				if e.Position != done+1 || string(e.Data) != strconv.FormatUint(e.Position, 10) {
					return fmt.Errorf("entry %d %q behind %d", e.Position, e.Data, done)
				}
				done = e.Position
				b.Records = append(b.Records, record(sessionID(0), uint32(done), acct.Interim, count(done)))
				b.Ledger = append(b.Ledger, acct.LedgerRow{LedgerKey: key(noon.Unix()), Received: count(done), Accounted: count(done)})
			}
			b.Position = done
			if err := s.Commit(ctx, resumed(b)); err != nil {
				return err
			}
			say("checkpoint", done)
			if err := j.Trim(ctx, done-min(done, 20)); err != nil {
				return err
			}
		}
	})
	begin(func() error { // delivery
		var after uint64
		for {
			ds, err := o.Pending(ctx, after, 50)
			if err != nil {
				return err
			}
			if len(ds) == 0 {
				select {
				case <-o.Wake():
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
			var ids []uint64
			var list []acct.Settlement
			var received []acct.CDR
			for _, d := range ds {
				after = d.ID
				ids = append(ids, d.ID)
				list = append(list, acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, At: time.Now()})
				received = append(received, cdr(d.Record.SessionID, d.Record.Number, acct.Interim, "alice", uint64(d.Record.Number)))
			}
			if err := o.MarkSent(ctx, ids); err != nil {
				return err
			}
			outcomes, err := cdrs.Store(ctx, received)
			if err != nil {
				return err
			}
			for i, out := range outcomes {
				if out == acct.Conflict {
					return fmt.Errorf("record %d is in conflict", ds[i].ID)
				}
				if out == acct.Duplicate && !ds[i].MaySent {
					return fmt.Errorf("record %d is a duplicate without having been sent", ds[i].ID)
				}
				say("stored", uint64(ds[i].Record.Number))
			}
			if err := o.Settle(ctx, list); err != nil {
				return err
			}
			say("settled", after)
		}
	})
	<-ctx.Done()
	return context.Cause(ctx)
}

// promised is the highest number of each line that a victim said.
type promised map[string]uint64

// kill runs a victim on dir until it is dead, and returns what it promised and
// what it logged. With a line to watch for, it is killed when it logs it for
// the nth time; else it must kill itself.
func kill(t *testing.T, dir, watch string, nth int, env ...string) (promised, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "SPOOL_VICTIM="+dir)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdout = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stderr, &log))
	for seen := 0; lines.Scan(); {
		if watch == "" || !strings.Contains(lines.Text(), watch) {
			continue
		}
		if seen++; seen == nth {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the victim ended with %v, want SIGKILL:\n%s", err, tail(log.String()))
	}
	p := make(promised)
	for line := range strings.Lines(said.String()) {
		what, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || !strings.HasSuffix(line, "\n") {
			continue // cut off by the kill
		}
		p[what] = max(p[what], n)
	}
	return p, log.String()
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// survived checks what a killed victim left against what it was promised.
func survived(t *testing.T, dir string, p promised) {
	t.Helper()
	s, err := Open(dir, Config{GroupSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cp := load(t, s)
	if last := s.Journal().Durable(); last < p["durable"] || last < cp.Position {
		t.Errorf("the journal ends at %d; promised were %d, and the checkpoint is at %d", last, p["durable"], cp.Position)
	}
	if cp.Position < p["checkpoint"] {
		t.Errorf("the checkpoint is at %d, promised was %d", cp.Position, p["checkpoint"])
	}
	// What is not trimmed reads in order, up to the end.
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.First > max(s.Needed(), 1) {
		t.Errorf("the journal begins at %d, %d is needed", st.First, s.Needed())
	}
	r := s.Journal().Reader(st.First - 1)
	for at := st.First - 1; at < st.Last; {
		es, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			at++
			if e.Position != at || string(e.Data) != strconv.FormatUint(at, 10) {
				t.Fatalf("entry %d %q, want %d", e.Position, e.Data, at)
			}
		}
	}
	// One record of each entry up to the checkpoint, no more, no less.
	list, err := s.List(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(list)) != cp.Position {
		t.Errorf("%d records at checkpoint %d", len(list), cp.Position)
	}
	for i, l := range list {
		if l.ID != uint64(i+1) || uint64(l.Record.Number) != l.ID {
			t.Fatalf("record %d has number %d at place %d", l.ID, l.Record.Number, i)
		}
		if l.ID <= p["settled"] && l.State != acct.Acknowledged {
			t.Errorf("record %d is %v; up to %d were settled", l.ID, l.State, p["settled"])
		}
	}
	books := balanced(t, s)
	if want := cp.Position * (cp.Position + 1) / 2; books.Total.Received.Records != want {
		t.Errorf("received %d, want %d", books.Total.Received.Records, want)
	}
	c := openCDRs(t, dir)
	stored, _, conflicts, err := c.Counts(t.Context())
	if err != nil || stored < p["stored"] || conflicts != 0 {
		t.Errorf("%d CDRs, %d conflicts, %v; promised were %d", stored, conflicts, err, p["stored"])
	}
	c.Close()
}

// TestKill kills a process again and again on one spool, as it logs this or
// that, and looks each time whether it kept its promises.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for round, line := range []string{"journal group committed", "checkpoint begin", "checkpoint committed", "trim begin", "trim done", "settle committed"} {
		p, _ := kill(t, dir, line, 5+7*round)
		survived(t, dir, p)
		if t.Failed() {
			t.Fatalf("killed at %q", line)
		}
	}
}
