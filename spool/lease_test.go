package spool_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// A holder that was replaced commits nothing more, to any database, and
// learns of it at once; what it committed before is the new holder's.
func TestFencedHolder(t *testing.T) {
	dir := t.TempDir()
	old, err := spool.Open(dir, spool.Config{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	running, stop := context.WithCancel(t.Context())
	defer stop()
	oldRun := make(chan error, 1)
	go func() { oldRun <- old.Journal().Run(running) }()
	position, err := old.Journal().Append(acct.EntryTick, 1, 0, []byte("before"))
	if err == nil {
		err = old.Journal().Wait(t.Context(), position)
	}
	if err == nil {
		err = old.Commit(t.Context(), acct.Batch{Position: 1, Needed: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	go func() { held <- old.Hold(running, time.Hour) }()
	stores := func(s *spool.Spool) (*spool.CDRs, *spool.Credit) {
		t.Helper()
		cdrs, err := s.OpenCDRs()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cdrs.Close() })
		credit, err := s.OpenCredit()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { credit.Close() })
		return cdrs, credit
	}
	store := func(cdrs *spool.CDRs, credit *spool.Credit, id string) (error, error) {
		_, err := cdrs.Store(t.Context(), []acct.CDR{{SessionID: id, Type: acct.Event}})
		return err, credit.Save(t.Context(), 1, []acct.State{{Key: id, Value: []byte("v")}})
	}
	oldCDRs, oldCredit := stores(old)
	if e1, e2 := store(oldCDRs, oldCredit, "before"); e1 != nil || e2 != nil {
		t.Fatal(e1, e2)
	}

	if _, err := spool.Open(dir, spool.Config{}); !errors.Is(err, spool.ErrInUse) {
		t.Errorf("without a lease a second process: %v", err)
	}
	next, err := spool.Open(dir, spool.Config{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if next.Epoch() <= old.Epoch() {
		t.Errorf("epoch %d after %d", next.Epoch(), old.Epoch())
	}

	if err := old.Commit(t.Context(), acct.Batch{Position: 2, Needed: 1}); !errors.Is(err, spool.ErrFenced) {
		t.Errorf("a checkpoint of the old holder: %v", err)
	}
	if err := <-held; !errors.Is(err, spool.ErrFenced) {
		t.Errorf("the old holder learns %v", err)
	}
	// It may be appended to memory; it never becomes durable.
	if position, err = old.Journal().Append(acct.EntryTick, 2, 0, []byte("after")); err == nil {
		err = old.Journal().Wait(t.Context(), position)
	}
	if !errors.Is(err, spool.ErrFenced) {
		t.Errorf("an entry of the old holder: %v", err)
	}
	if err := <-oldRun; !errors.Is(err, spool.ErrFenced) {
		t.Errorf("the old holder's journal ends with %v", err)
	}

	nextCDRs, nextCredit := stores(next)
	if e1, e2 := store(oldCDRs, oldCredit, "after"); !errors.Is(e1, spool.ErrFenced) || !errors.Is(e2, spool.ErrFenced) {
		t.Errorf("a CDR and a credit of the old holder: %v, %v", e1, e2)
	}
	if e1, e2 := store(nextCDRs, nextCredit, "next"); e1 != nil || e2 != nil {
		t.Errorf("a CDR and a credit of the new holder: %v, %v", e1, e2)
	}
	if stored, _, _, err := nextCDRs.Counts(t.Context()); err != nil || stored != 2 {
		t.Errorf("%d CDRs are stored (%v), want 2", stored, err)
	}

	cp, err := next.Load(t.Context())
	if err != nil || cp.Position != 1 {
		t.Errorf("the new holder begins at %d (%v), want 1", cp.Position, err)
	}
	entries, err := next.Journal().Reader(0).Next(t.Context())
	if err != nil || len(entries) != 1 || string(entries[0].Data) != "before" {
		t.Errorf("the new holder reads %v (%v)", entries, err)
	}
	if err := next.Commit(t.Context(), acct.Batch{Position: 1, Needed: 1}); err != nil {
		t.Errorf("a checkpoint of the new holder: %v", err)
	}
}

// Who stands by waits for as long as the holder shows life, and no longer.
func TestAwait(t *testing.T) {
	const term = 200 * time.Millisecond
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	await := func(ctx context.Context) error { return spool.Await(ctx, dir, term, log) }
	if err := await(t.Context()); err != nil {
		t.Fatalf("nobody has it: %v", err)
	}
	s, err := spool.Open(dir, spool.Config{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	holding, stop := context.WithCancel(t.Context())
	held := make(chan error, 1)
	go func() { held <- s.Hold(holding, term) }()
	short, cancel := context.WithTimeout(t.Context(), 5*term)
	defer cancel()
	if err := await(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the holder is alive: %v", err)
	}
	stop() // it hangs: it has the spool open still
	if err := <-held; err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if err := await(t.Context()); err != nil || time.Since(begun) < term {
		t.Errorf("it was replaced after %v (%v), the term is %v", time.Since(begun), err, term)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := await(t.Context()); err != nil {
		t.Errorf("it has ended: %v", err)
	}
}

// A spool whose databases come from backups of different times is its holder's
// again, whichever of them is the newest.
func TestLeaseOfARestoredSpool(t *testing.T) {
	files := []string{"state.db", "journal", "cdr.db", "credit.db"}
	for _, newest := range files {
		t.Run(newest+" is newer", func(t *testing.T) {
			dir, backup := t.TempDir(), t.TempDir()
			use := func(id string) uint64 {
				t.Helper()
				s, err := spool.Open(dir, spool.Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				cdrs, err := s.OpenCDRs()
				if err != nil {
					t.Fatal(err)
				}
				defer cdrs.Close()
				credit, err := s.OpenCredit()
				if err != nil {
					t.Fatal(err)
				}
				defer credit.Close()
				_, err = cdrs.Store(t.Context(), []acct.CDR{{SessionID: id, Type: acct.Event}})
				err = errors.Join(err, credit.Save(t.Context(), 1, []acct.State{{Key: id, Value: []byte("v")}}))
				if err = errors.Join(err, s.Commit(t.Context(), acct.Batch{})); err != nil {
					t.Fatal(err)
				}
				return s.Epoch()
			}
			use("before")
			if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			use("after")
			last := use("after that")
			for _, name := range files {
				if name == newest {
					continue
				}
				to := filepath.Join(dir, name)
				if err := errors.Join(os.RemoveAll(to), os.Rename(filepath.Join(backup, name), to)); err != nil {
					t.Fatal(err)
				}
			}
			if epoch := use("restored"); epoch <= last {
				t.Errorf("epoch %d after %d", epoch, last)
			}
		})
	}
}
