package main

import (
	"context"
	"time"

	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// keepHouse lets settled records go once they have been kept for long enough,
// counts what waits for partners, and keeps openings, at which the journal can
// be read again, while there is a journal to be read.
func (b *bridge) keepHouse(ctx context.Context) error {
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	var opened time.Time
	for {
		now := time.Now()
		if keep := b.cfg.Spool.KeepJournal; keep > 0 && now.Sub(opened) >= min(keep/4, openingEvery) {
			if _, err := b.spool.KeepOpening(ctx); err != nil && ctx.Err() == nil {
				b.log.Error("the journal can't be opened for auditors at this point", "error", err)
			}
			opened = now
		}
		if _, err := b.spool.Outbox().TrimSettled(ctx, now, spool.Retention{Age: b.cfg.Spool.KeepSettled}); err != nil && ctx.Err() == nil {
			b.log.Error("settled records can't be trimmed", "error", err)
		}
		if err := b.countQuotas(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("what waits for partners can't be counted", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// openingEvery is the most of the journal that an auditor reads in vain: an
// opening of a million sessions takes seconds of work and tens of MiB.
const openingEvery = 15 * time.Minute

// trimJournal drops entries below a position that are not kept for auditors.
func (b *bridge) trimJournal(ctx context.Context, below uint64) error {
	if b.archive != nil {
		below = min(below, b.archive.Last()+1)
	}
	keep := spool.Keep{Age: b.cfg.Spool.KeepJournal, Octets: int64(b.cfg.Spool.KeepOctets)}
	return b.spool.Journal().TrimBut(ctx, below, time.Now(), keep)
}

// openArchive opens the archive, if there is to be one.
func (b *bridge) openArchive() (err error) {
	a := b.cfg.Archive
	if a.Dir == "" {
		return nil
	}
	b.archive, err = archive.Open(context.Background(), archive.Config{
		Dir: a.Dir, Spool: b.spool, Messages: &archivedMessages{},
		Interval: a.Interval, Keep: a.Keep, Octets: int64(a.MaxOctets), Log: b.log,
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.archive.Close)
	return nil
}

// keepArchive archives what is done with, if there is an archive.
func (b *bridge) keepArchive(ctx context.Context) error {
	if b.archive == nil {
		<-ctx.Done()
		return nil
	}
	return b.archive.Run(ctx)
}
