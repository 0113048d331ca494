package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func openCDRs(tb testing.TB, dir string) *CDRs {
	tb.Helper()
	c, err := OpenCDRs(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func cdr(session string, number uint32, t acct.RecordType, user string, octets uint64) acct.CDR {
	c := acct.CDR{OriginHost: "bridge.example.net", OriginRealm: "example.net", SessionID: session, Number: number, Type: t,
		MultiSessionID: "multi", User: user, Event: noon, SessionTime: 90 * time.Second, Usage: acct.Usage{InputOctets: octets, OutputPackets: 1},
		AVPs: []byte("avps"), At: noon.Add(time.Second)}
	copy(c.Content[:], fmt.Sprint(session, number, octets))
	return c
}

func store(tb testing.TB, c *CDRs, cdrs ...acct.CDR) []acct.Outcome {
	tb.Helper()
	out, err := c.Store(tb.Context(), cdrs)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestCDRs(t *testing.T) {
	dir := t.TempDir()
	c := openCDRs(t, dir)
	first := cdr("a;1;1", 0, acct.Start, "alice", 0)
	outcomes := func(got []acct.Outcome, want ...acct.Outcome) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("outcomes %v, want %v", got, want)
		}
	}
	outcomes(store(t, c, first, cdr("a;1;1", 1, acct.Interim, "alice", 10), cdr("a;1;2", 0, acct.Event, "bob", 7)), acct.Stored, acct.Stored, acct.Stored)
	again := first
	again.Retransmitted, again.At = true, noon.Add(time.Hour)
	outcomes(store(t, c, again, cdr("a;1;1", 1, acct.Interim, "alice", 11), cdr("a;1;1", 2, acct.Stop, "alice", 30), cdr("a;1;1", 2, acct.Stop, "alice", 30)),
		acct.Duplicate, acct.Conflict, acct.Stored, acct.Duplicate)
	outcomes(store(t, c, cdr("a;1;1", 1, acct.Interim, "alice", 11), cdr("a;1;3", 0, acct.Event, "bob", 5)), acct.Conflict, acct.Stored)
	credit, debit := cdr("a;1;4", 0, acct.Event, "bob", 5), cdr("a;1;5", 0, acct.Event, "bob", 1)
	credit.Corrects = &acct.Correction{SessionID: "a;1;3", Credit: true, Reason: "not bob's"}
	debit.Corrects = &acct.Correction{SessionID: "a;1;2", Number: 7}
	outcomes(store(t, c, credit, debit), acct.Stored, acct.Stored)

	check := func(c *CDRs) {
		t.Helper()
		totals, err := c.Totals(t.Context())
		want := []UserTotal{
			{User: "alice", Sessions: 1, Records: 3, Usage: acct.Usage{InputOctets: 30, OutputPackets: 1}},
			{User: "bob", Records: 4, Usage: acct.Usage{InputOctets: 13, OutputPackets: 3}, Credited: acct.Usage{InputOctets: 5, OutputPackets: 1}},
		}
		if err != nil || !reflect.DeepEqual(totals, want) {
			t.Errorf("totals %+v, %v\nwant %+v", totals, err, want)
		}
		list, err := c.List(t.Context(), CDRFilter{User: "alice", Limit: 2})
		if err != nil || len(list) != 2 || !reflect.DeepEqual(list[0], StoredCDR{1, first}) {
			t.Errorf("list %+v, %v\nwant first %+v", list, err, first)
		}
		if list, err := c.List(t.Context(), CDRFilter{Session: "a;1;4"}); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0].CDR, credit) {
			t.Errorf("list %+v, %v\nwant %+v", list, err, credit)
		}
		if list, err := c.List(t.Context(), CDRFilter{Session: "a;1;1", After: 1}); err != nil || len(list) != 2 {
			t.Errorf("list %+v, %v", list, err)
		}
		conflicts, err := c.Conflicts(t.Context())
		if err != nil || len(conflicts) != 1 || conflicts[0].First != 2 || conflicts[0].Times != 2 || conflicts[0].Usage.InputOctets != 11 {
			t.Errorf("conflicts %+v, %v", conflicts, err)
		}
		stored, duplicates, conflicting, err := c.Counts(t.Context())
		if stored != 7 || duplicates != 2 || conflicting != 2 || err != nil {
			t.Errorf("counts %d %d %d, %v", stored, duplicates, conflicting, err)
		}
	}
	check(c)
	ro, err := OpenCDRsReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	check(ro)
	if _, err := ro.Store(t.Context(), []acct.CDR{first}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Store: %v, want ErrReadOnly", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Store(t.Context(), []acct.CDR{first}); !errors.Is(err, ErrClosed) {
		t.Errorf("Store after Close: %v, want ErrClosed", err)
	}
}

// TestCDRKeyCollision stores CDRs of one key and different text.
func TestCDRKeyCollision(t *testing.T) {
	// The optional parts differ, the low 12 bits of hash plus number agree.
	a, b := "a;1;1;x", "a;1;1;y"
	var n uint32
	for cdrKey(a, 1) != cdrKey(b, n) {
		n++
	}
	c := openCDRs(t, t.TempDir())
	got := store(t, c, cdr(a, 1, acct.Interim, "alice", 1), cdr(b, n, acct.Interim, "alice", 1), cdr(b, n, acct.Interim, "alice", 1))
	if want := []acct.Outcome{acct.Stored, acct.Stored, acct.Duplicate}; !slices.Equal(got, want) {
		t.Errorf("outcomes %v, want %v", got, want)
	}
}

func TestCDRKeyOrder(t *testing.T) {
	var last int64
	for i := range 1000 {
		k := cdrKey(fmt.Sprintf("bridge.example.net;1795348800;%d", i), 0)
		if i > 0 && uint64(k)-uint64(last) > 1<<12 {
			t.Fatalf("keys of sessions %d and %d are %#x and %#x: far from one another", i-1, i, last, k)
		}
		last = k
	}
	for _, odd := range []string{"", ";", ";;", "a", "a;b", "a;b;c", "a;1;b", "a;1;4294967296", "a;-1;2"} {
		if _, _, _, ok := splitSessionID(odd); ok {
			t.Errorf("%q has the recommended form", odd)
		}
		if cdrKey(odd, 1) == cdrKey(odd, 2) {
			t.Errorf("%q: records 1 and 2 have one key", odd)
		}
	}
}

func TestCDRsFail(t *testing.T) {
	dir := t.TempDir()
	c := openCDRs(t, dir)
	execute(t, filepath.Join(dir, "cdr.db"), "CREATE TRIGGER fail BEFORE INSERT ON cdr WHEN new.number = 9 BEGIN SELECT raise(ABORT, 'planted'); END")
	if _, err := c.Store(t.Context(), []acct.CDR{cdr("a;1;1", 1, acct.Interim, "", 1), cdr("a;1;1", 9, acct.Interim, "", 1)}); err == nil || !strings.Contains(err.Error(), "planted") {
		t.Fatalf("Store: %v", err)
	}
	if list, err := c.List(t.Context(), CDRFilter{}); err != nil || len(list) != 0 {
		t.Errorf("stored %v, %v; want nothing of a call that failed", list, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Store(ctx, []acct.CDR{cdr("a;1;1", 1, acct.Interim, "", 1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Store: %v, want Canceled", err)
	}
	if out := store(t, c, cdr("a;1;1", 1, acct.Interim, "", 1)); out[0] != acct.Stored {
		t.Errorf("outcome %v", out)
	}
}

// TestCDRsShareCommits blocks the committer, so that calls queue up, and takes
// one of them back.
func TestCDRsShareCommits(t *testing.T) {
	c := openCDRs(t, t.TempDir())
	c.turn <- struct{}{} // as a commit under way
	ctx, cancel := context.WithCancel(t.Context())
	taken := make(chan error, 1)
	go func() {
		_, err := c.Store(ctx, []acct.CDR{cdr("a;1;0", 0, acct.Event, "", 1)})
		taken <- err
	}()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if out, err := c.Store(t.Context(), []acct.CDR{cdr("a;1;1", uint32(i/2), acct.Event, "", 1)}); err != nil || len(out) != 1 {
				t.Errorf("Store: %v, %v", out, err)
			}
		})
	}
	cancel()
	if err := <-taken; !errors.Is(err, context.Canceled) {
		t.Errorf("Store: %v, want Canceled", err)
	}
	<-c.turn
	wg.Wait()
	stored, duplicates, _, err := c.Counts(t.Context())
	if stored != 5 || duplicates != 5 || err != nil {
		t.Errorf("stored %d, duplicates %d, %v; want 5 of each", stored, duplicates, err)
	}
}

// TestCDRModel compares outcomes and totals with maps.
func TestCDRModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, remove := tempDir(t)
		defer remove()
		c, err := OpenCDRs(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		model := make(map[string]acct.CDR)
		for range rapid.IntRange(1, 10).Draw(t, "calls") {
			var cdrs []acct.CDR
			var want []acct.Outcome
			for range rapid.IntRange(1, 120).Draw(t, "n") {
				n := rapid.Uint32Range(0, 20).Draw(t, "number")
				r := cdr(fmt.Sprintf("a;1;%d", rapid.IntRange(0, 3).Draw(t, "session")), n, acct.Interim, "u", uint64(rapid.IntRange(0, 1).Draw(t, "octets")))
				cdrs = append(cdrs, r)
				k := fmt.Sprint(r.SessionID, "/", n)
				switch have, ok := model[k]; {
				case !ok:
					model[k] = r
					want = append(want, acct.Stored)
				case have.Content == r.Content:
					want = append(want, acct.Duplicate)
				default:
					want = append(want, acct.Conflict)
				}
			}
			got, err := c.Store(context.Background(), cdrs)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("outcomes %v, %v\nwant %v", got, err, want)
			}
		}
		latest := make(map[string]acct.CDR)
		for _, r := range model {
			if l, ok := latest[r.SessionID]; !ok || r.Number > l.Number {
				latest[r.SessionID] = r
			}
		}
		var sum acct.Usage
		for r := range maps.Values(latest) {
			sum = sum.Plus(r.Usage)
		}
		totals, err := c.Totals(context.Background())
		if err != nil || len(totals) != 1 || totals[0].Usage != sum || totals[0].Sessions != len(latest) || totals[0].Records != len(model) {
			t.Fatalf("totals %+v, %v; want %+v", totals, err, sum)
		}
	})
}
