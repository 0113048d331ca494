package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/spool"
)

// exitFenced is the status of a daemon that another has replaced.
const exitFenced = 3

// holdLease shows that we account, until ctx ends. Once another daemon does,
// this one ends at once: nothing that it could still do would count.
func (b *bridge) holdLease(ctx context.Context) error {
	err := b.spool.Hold(ctx, b.cfg.Spool.Lease)
	if errors.Is(err, spool.ErrFenced) {
		b.log.Error("another daemon has taken over: ending at once, as nothing that this one does counts any more", "data", b.cfg.Data, "epoch", b.spool.Epoch())
		os.Exit(exitFenced)
	}
	return err
}

// takeTurn opens the daemon once it is its turn to account: at once without a
// lease. It returns nil where it was told to stop while it stood by.
func takeTurn(ctx context.Context, c config.Config, log *slog.Logger) (*bridge, error) {
	for {
		if c.Spool.Lease != 0 && spool.Await(ctx, c.Data, c.Spool.Lease, log) != nil {
			return nil, nil
		}
		b, err := newBridge(c, log)
		if c.Spool.Lease == 0 || !errors.Is(err, spool.ErrBusy) {
			return b, err
		}
		log.Warn("the former holder shows no life, but still has a database locked, as one that was stopped within a transaction: standing by until it goes on, or is killed", "data", c.Data, "error", err)
	}
}
