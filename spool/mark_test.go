package spool

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/asm/acct"
)

// Beyond its mark the journal takes no Message but all else, and below nine
// tenths of it, it takes Messages again by itself.
func TestMarksHoldMessagesOnly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		j := s.Journal()
		defer run(t, j)()
		ctx := t.Context()
		append := func(kind acct.EntryKind, n int) uint64 {
			t.Helper()
			p, err := j.Append(kind, time.Now().UnixNano(), 0, make([]byte, n))
			if err != nil {
				t.Error(err)
			}
			return p
		}
		for range 8 {
			last := append(acct.EntryMessage, 1000)
			flush(t, j) // a group each
			if j.Durable() != last {
				t.Fatalf("durable %d, want %d", j.Durable(), last)
			}
		}
		if got := s.Stored().Journal; got != 8*3*512 {
			t.Fatalf("%d octets are stored", got)
		}
		guard := make(chan error, 1)
		guarded, stop := context.WithCancel(context.WithoutCancel(ctx))
		go func() { guard <- s.Guard(guarded, Marks{Journal: 8000}) }()
		synctest.Wait()
		if reason, held := j.Held(); !held || reason == "" {
			t.Fatalf("held %v for %q", held, reason)
		}
		append(acct.EntryTick, 0) // does not block
		taken := make(chan uint64, 1)
		go func() { taken <- append(acct.EntryMessage, 1) }()
		time.Sleep(10 * guardEvery) // of the bubble
		synctest.Wait()
		select {
		case <-taken:
			t.Fatal("a message was taken beyond the mark")
		default:
		}
		trim := func(below uint64) {
			t.Helper()
			if err := j.Trim(ctx, below); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * guardEvery)
			synctest.Wait()
		}
		trim(5) // four of 1,000 octets stay: below the mark, and below nine tenths
		select {
		case <-taken:
		default:
			t.Fatal("the message still waits")
		}
		if reason, held := j.Held(); held {
			t.Errorf("still held: %s", reason)
		}
		stop()
		if err := <-guard; err != nil {
			t.Error(err)
		}
		flush(t, j)
	})
}

// The archive's mark holds messages like those of the spool's own stores.
func TestArchiveMark(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	size := int64(1001)
	marks := Marks{Archive: 1000, Archived: func() int64 { return size }}
	for _, x := range []struct {
		size int64
		held bool
	}{{1000, false}, {1001, true}, {901, true}, {900, false}, {1000, false}} {
		size = x.size
		reason, err := s.passed(t.Context(), marks)
		if err != nil || (reason != "") != x.held {
			t.Errorf("%d octets: held for %q (%v), want %v", x.size, reason, err, x.held)
		}
		s.journal.Hold(reason)
	}
}

// At the outbox's mark settled records go before anything is held.
func TestOutboxMarkLetsSettledRecordsGoFirst(t *testing.T) {
	s, err := Open(t.TempDir(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	records := make([]acct.Record, 2000)
	for i := range records {
		records[i] = acct.Record{SessionID: "bridge.isp.example;1;1", Number: uint32(i), Type: acct.Event, User: "alice"}
	}
	if err := s.Commit(ctx, acct.Batch{Position: 1, Needed: 2, Records: records}); err != nil {
		t.Fatal(err)
	}
	full := s.Stored().Outbox
	marks := Marks{Outbox: full - 1}
	if reason, err := s.passed(ctx, marks); reason == "" || err != nil {
		t.Fatalf("pending records pass no mark (%v)", err)
	}
	var answers []acct.Settlement
	for id := uint64(1); id <= 1000; id++ {
		answers = append(answers, acct.Settlement{ID: id, State: acct.Acknowledged, Result: 2001, At: time.Unix(1, 0)})
	}
	if err := s.Outbox().Settle(ctx, answers); err != nil {
		t.Fatal(err)
	}
	if reason, err := s.passed(ctx, marks); reason != "" || err != nil {
		t.Errorf("still held: %s (%v)", reason, err)
	}
	if got := s.Stored().Outbox; got > full*6/10 || got < full*4/10 {
		t.Errorf("%d of %d octets are left, want half", got, full)
	}
	if left, err := s.Outbox().Pending(ctx, 0, 5000); err != nil || len(left) != 1000 {
		t.Errorf("%d records are pending, want 1000 (%v)", len(left), err)
	}
}
