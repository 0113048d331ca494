package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A heart is the goroutine that shows that the holder of the lease is alive while
// nobody calls Hold yet: from the moment that state.db has our epoch, through the
// looks for damage and all that is loaded, until Hold goes on with it or the
// database is closed. So a standby waits, however long a large spool takes to open.
// Between two looks at a state.db that seems damaged, and while that is salvaged,
// nobody may write to it, and nothing beats.
type heart struct {
	cancel context.CancelFunc
	g      sync.WaitGroup
}

// startHeart starts one that writes by way of w, to state.db. Where it finds that
// another process has taken over it ends, and the next transaction says so.
func (s *Spool) startHeart(w *writer, term time.Duration) *heart {
	ctx, cancel := context.WithCancel(context.Background())
	h := &heart{cancel: cancel}
	h.g.Go(func() { _ = s.beat(ctx, w, term) })
	return h
}

// stop returns when it beats no more. A nil heart never did.
func (h *heart) stop() {
	if h != nil {
		h.cancel()
		h.g.Wait()
	}
}

// beat shows that we are alive, beats times in a term, until ctx ends; a term of 0
// shows nothing. It returns ErrFenced as soon as any transaction found that we are
// not the holder any more.
func (s *Spool) beat(ctx context.Context, w *writer, term time.Duration) error {
	var due <-chan time.Time
	if term > 0 {
		tick := time.NewTicker(term / beats)
		defer tick.Stop()
		due = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.fence.fenced:
			return fmt.Errorf("spool: %w", ErrFenced)
		case <-due:
			if err := s.showLife(w); err != nil {
				return err
			}
		}
	}
}

// showLife counts the beat up. One goroutine at a time calls it. The error is
// ErrFenced alone: a beat that fails otherwise is told, and the next may succeed.
func (s *Spool) showLife(w *writer) error {
	s.life++
	err := w.transact(func() error { return w.setMeta(metaLeaseBeat, s.life) })
	if errors.Is(err, ErrFenced) {
		return err
	} else if err != nil {
		s.log.Warn("the lease can't be renewed: a standby may take over", "error", err)
	}
	if s.lock == nil { // who was replaced had it still
		s.lock, _ = lock(s.dir)
	}
	return nil
}
