package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/cdrfile"
	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// openFiles opens the directories of partners who take CDR files.
func (b *bridge) openFiles() error {
	for i, f := range b.cfg.Delivery.Files {
		e, err := cdrfile.New(cdrfile.Config{
			Realm: f.Realm, Dir: f.Dir, Outbox: b.spool.Outbox(), Every: f.Every, Look: min(f.Every, 10*time.Second),
			MaxRecords: f.MaxRecords, Log: b.log,
		})
		if err != nil {
			return fmt.Errorf("delivery.files[%d]: %w", i, err)
		}
		b.cdrFiles = append(b.cdrFiles, e)
	}
	return nil
}

// deliver brings accounting records to peers, and to partners by file.
func (b *bridge) deliver(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.client.Run(ctx) })
	g.Go(func() error { b.demands.run(ctx, b.client); return nil })
	for _, e := range b.cdrFiles {
		g.Go(func() error { return e.Run(ctx) })
	}
	err := g.Wait()
	b.demands.keep(b.client.Stats().Peers)
	if n := b.spool.Outbox().Stats().Pending; n > 0 {
		b.log.Info("accounting records wait for the next start", "pending", n)
	}
	return err
}

// online is the outbox without the records that partners take as files.
func (b *bridge) online() aaaclient.Outbox {
	if len(b.cfg.Delivery.Files) == 0 {
		return b.spool.Outbox()
	}
	realms := map[string]bool{}
	for _, f := range b.cfg.Delivery.Files {
		realms[strings.ToLower(f.Realm)] = true
	}
	return onlineOutbox{b.spool.Outbox(), func(realm []byte) bool { return realms[strings.ToLower(string(realm))] }}
}

type onlineOutbox struct {
	*spool.Outbox
	byFile func(realm []byte) bool
}

var _ aaaclient.RealmOutbox = onlineOutbox{}

// Pending implements aaaclient.Outbox.
func (o onlineOutbox) Pending(ctx context.Context, after uint64, most int) ([]acct.Delivery, error) {
	for more := true; more; {
		var list []acct.Delivery
		var err error
		list, after, more, err = o.PendingOf(ctx, after, most, func([]byte) bool { return true })
		if err != nil || len(list) > 0 {
			return list, err
		}
	}
	return nil, nil
}

// PendingOf implements aaaclient.RealmOutbox.
func (o onlineOutbox) PendingOf(ctx context.Context, after uint64, most int, of func(realm []byte) bool) ([]acct.Delivery, uint64, bool, error) {
	return o.Outbox.PendingOf(ctx, after, most, func(realm []byte) bool { return !o.byFile(realm) && (of == nil || of(realm)) })
}
