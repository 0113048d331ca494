package spool_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// Every call that writes to a spool, its journal, its outbox, its CDRs or its
// credit is refused to a holder that was replaced.
func TestEveryCommitChecksTheFence(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	open := func() (*spool.Spool, *spool.CDRs, *spool.Credit) {
		t.Helper()
		s, err := spool.Open(dir, spool.Config{Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		cdrs, err := s.OpenCDRs()
		if err != nil {
			t.Fatal(err)
		}
		credit, err := s.OpenCredit()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(credit.Close(), cdrs.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		})
		return s, cdrs, credit
	}
	s, cdrs, credit := open()
	o := s.Outbox()
	batch := acct.Batch{
		Position: 1, Needed: 2, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}},
		Records: []acct.Record{{SessionID: "a;1;1", Type: acct.Event}, {SessionID: "a;1;2", Type: acct.Event}, {SessionID: "a;1;3", Type: acct.Event}},
	}
	if err := s.Commit(ctx, batch); err != nil {
		t.Fatal(err)
	}
	answer := func(id uint64, state acct.DeliveryState) []acct.Settlement {
		return []acct.Settlement{{ID: id, State: state, Result: 2001, At: time.Unix(1, 0)}}
	}
	if err := errors.Join(o.Settle(ctx, answer(2, acct.Quarantined)), o.Settle(ctx, answer(3, acct.Acknowledged))); err != nil {
		t.Fatal(err)
	}
	open() // takes over

	writes := map[string]func() error{
		"Spool.Commit":       func() error { return s.Commit(ctx, acct.Batch{Position: 2, Needed: 2}) },
		"Spool.Begin":        func() error { return s.Begin(ctx, spool.Opening{Checkpoint: acct.Checkpoint{Position: 2}}) },
		"Spool.Archived":     func() error { return s.Archived(nil, "head") },
		"Spool.KeepOpening":  func() error { _, err := s.KeepOpening(ctx); return err },
		"Spool.RaiseStateID": func() error { return s.RaiseStateID(time.Now().Add(time.Hour)) },
		"Spool.PutNote":      func() error { return s.PutNote("n", []byte("v")) },
		"Spool.Hold":         func() error { return s.Hold(ctx, time.Hour) },
		"Spool.OpenCDRs":     func() error { _, err := s.OpenCDRs(); return err },
		"Spool.OpenCredit":   func() error { _, err := s.OpenCredit(); return err },
		"Journal.Trim":       func() error { return s.Journal().Trim(ctx, 2) },
		"Outbox.MarkSent":    func() error { return o.MarkSent(ctx, []uint64{1}) },
		"Outbox.Settle":      func() error { return o.Settle(ctx, answer(1, acct.Acknowledged)) },
		"Outbox.Requeue":     func() error { _, err := o.Requeue(ctx, []uint64{2}); return err },
		"Outbox.TrimSettled": func() error { _, err := o.TrimSettled(ctx, time.Now(), spool.Retention{}); return err },
		"Outbox.SetProfiles": func() error { return o.SetProfiles(ctx, []byte("p")) },
		"CDRs.Store":         func() error { _, err := cdrs.Store(ctx, []acct.CDR{{SessionID: "b", Type: acct.Event}}); return err },
		"Credit.Save":        func() error { return credit.Save(ctx, 1, []acct.State{{Key: "k", Value: []byte("v")}}) },
	}
	for name, write := range writes {
		if err := write(); !errors.Is(err, spool.ErrFenced) {
			t.Errorf("%s of a holder that was replaced: %v", name, err)
		}
	}

	// What writes nothing, or by way of what is above. The journal's own writing
	// is that of Run, see TestFencedHolder.
	reads := map[string]bool{}
	for _, name := range []string{
		"Spool.ToArchive", "Spool.ArchiveHead", "Spool.OpeningData", "Spool.Audit", "Spool.AuditOf", "Spool.Load", "Spool.EachState", "Spool.EachSuspended",
		"Spool.EachIdentity", "Spool.Needed", "Spool.Cut", "Spool.Decisions", "Spool.Decision", "Spool.Epoch", "Spool.List", "Spool.Show", "Spool.ShowNumber",
		"Spool.Sessions", "Spool.Suspended", "Spool.Stored", "Spool.Guard", "Spool.Note", "Spool.Opening", "Spool.OpeningAt", "Spool.Close", "Spool.Dir",
		"Spool.Meta", "Spool.Journal", "Spool.Outbox", "Spool.Stats", "Spool.Verify", "Spool.NextRecord", "Spool.Profiles",
		"Outbox.KeepForArchive", "Outbox.Wake", "Outbox.Stats", "Outbox.Pending", "Outbox.PendingOf", "Outbox.CountOf", "Outbox.Profiles",
		"CDRs.Salvaged", "CDRs.List", "CDRs.Conflicts", "CDRs.Counts", "CDRs.Totals", "CDRs.Close",
		"Credit.Load", "Credit.Close",
	} {
		reads[name] = true
	}
	for _, of := range []any{s, o, cdrs, credit} {
		kind := reflect.TypeOf(of)
		for i := range kind.NumMethod() {
			name := kind.Elem().Name() + "." + kind.Method(i).Name
			if _, known := writes[name]; !known && !reads[name] {
				t.Errorf("does %s write? Put it into this test", name)
			}
		}
	}
}
