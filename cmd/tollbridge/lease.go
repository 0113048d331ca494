package main

import (
	"context"
	"errors"
	"os"

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
