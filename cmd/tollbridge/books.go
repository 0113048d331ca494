package main

import (
	"context"
	"time"
)

// checkedBooks are what a check of the books came to.
type checkedBooks struct {
	at       time.Time
	took     time.Duration
	balanced bool
	problems []string
}

// checkShare bounds what checking the books may cost: this part of the time.
const checkShare = 20

// keepBooks checks every spool.audit that the books balance, and says when they
// do not and when they do again. Each check reads one moment of the spool and
// holds up no writer; one that takes long makes the next wait.
func (b *bridge) keepBooks(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		begun := time.Now()
		b.checkBooks(ctx, begun)
		next.Reset(max(b.cfg.Spool.Audit, checkShare*time.Since(begun)))
	}
}

func (b *bridge) checkBooks(ctx context.Context, at time.Time) {
	books, err := b.spool.Audit(ctx)
	if ctx.Err() != nil {
		return
	}
	now := &checkedBooks{at: at, took: time.Since(at), balanced: err == nil && books.Balanced, problems: books.Problems}
	if err != nil {
		now.problems = []string{"they can't be drawn up: " + err.Error()}
	}
	before := b.books.Swap(now)
	switch wasWell := before == nil || before.balanced; {
	case !now.balanced && (wasWell || before.problems[0] != now.problems[0]):
		b.log.Error("the books do not balance", "problem", now.problems[0], "problems", len(now.problems))
	case now.balanced && !wasWell:
		b.log.Info("the books balance again")
	}
}
