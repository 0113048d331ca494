package spool

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// term is that of the lease in tests of the beat, whose time is a bubble's: it stands
// still while anybody works, however slow the machine is.
const term = time.Second

// standsBy sees that a standby does not take over within ten terms.
func standsBy(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*term)
	defer cancel()
	if err := Await(ctx, dir, term, slog.New(slog.DiscardHandler)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a standby takes over from one that opens the spool (%v)", err)
	}
}

// Who opens a spool shows life from the taking of the lease on, until Hold does or it
// is closed: a standby waits, however long it takes.
func TestOpeningShowsLife(t *testing.T) {
	for _, row := range []struct {
		while string
		dir   func(*testing.T) string
		stop  func(*testing.T) *stop
	}{
		{"it looks for damage", (*testing.T).TempDir, stopInCheck},
		{"it takes an old journal over", oldSpool, stopInCopy},
	} {
		t.Run("while "+row.while, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, holder := row.dir(t), row.stop(t)
				ended := holder.opening(t, dir, Config{Lease: term, CheckTime: -1})
				standsBy(t, dir)
				holder.release()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("while other databases are opened", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, Config{Lease: term})
			standsBy(t, dir)
		})
	})
}

// stopInCheck returns a stop at what ends a look for damage that takes too long, of
// state.db: with a CheckTime below 0 that is each.
func stopInCheck(t *testing.T) *stop {
	return stopAt(t, "too large to be looked through whole at a start")
}

// Who was replaced while it opened the spool, or before it holds the lease, learns of
// it from Open, or Hold.
func TestReplacedBeforeHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first := open(t, dir, Config{Lease: term})
		second := stopInCheck(t)
		ended := second.opening(t, dir, Config{Lease: term, CheckTime: -1})
		<-first.fence.fenced // by its heart: nothing else writes
		if err := first.Hold(t.Context(), 0); !errors.Is(err, ErrFenced) {
			t.Errorf("Hold of one that was replaced: %v", err)
		}
		open(t, dir, Config{Lease: term})
		second.release()
		if err := <-ended; !errors.Is(err, ErrFenced) {
			t.Errorf("Open of one that was replaced: %v", err)
		}
	})
}

// Hold goes on with the beat, and nothing beats any more when it has ended: then a
// standby takes over after the term.
func TestHoldTakesTheBeatOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, Config{Lease: term})
		holding, stop := context.WithCancel(t.Context())
		held := make(chan error, 1)
		go func() { held <- s.Hold(holding, term) }()
		standsBy(t, dir)
		stop()
		if err := <-held; err != nil {
			t.Error(err)
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*term)
		defer cancel()
		if err := Await(ctx, dir, term, slog.New(slog.DiscardHandler)); err != nil || time.Since(begun) != term {
			t.Errorf("a standby takes over %v after the last beat (%v), want %v", time.Since(begun), err, term)
		}
	})
}
