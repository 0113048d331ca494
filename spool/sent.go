package spool

import (
	"context"
	"slices"
)

// sentRows of table sent are merged into one another when they are more.
const sentRows = 4096

// sendingLocked returns how a record is sent next. The End-to-End Identifier
// of a first request follows from the ID, so it needs no write to survive a
// restart; those after error answers have the top bit set and come from a
// counter that is stored.
func (o *Outbox) sendingLocked(id uint64) (endToEnd uint32, maySent bool, attempts uint32) {
	if r, ok := o.retry[id]; ok {
		return r.endToEnd, r.sent, r.attempts
	}
	return firstEndToEnd(o.base, id), o.sent.has(id), 0
}

// epochSpread parts the identifiers of spools made soon after one another.
const epochSpread = 2654435761

func firstEndToEnd(base uint32, id uint64) uint32 { return (base + uint32(id)) &^ (1 << 31) }

// MarkSent stores, durably before it returns, that a copy of each of the
// records may have been sent. Until an error answer (see Settle) their Delivery
// has MaySent set from then on.
func (o *Outbox) MarkSent(ctx context.Context, ids []uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.mu.Lock()
	var first []uint64 // not marked yet, by a first request
	var again []uint64 // same, by a request after an error answer
	for _, id := range ids {
		if r, ok := o.retry[id]; ok {
			if !r.sent {
				again = append(again, id)
			}
		} else if !o.sent.has(id) {
			first = append(first, id)
		}
	}
	low := o.done.next(0)
	ranges := runs(first)
	var merged []idRange
	if o.sentDB+len(ranges) > sentRows {
		all := idSet{slices.Clone(o.sent.ranges)}
		for _, r := range ranges {
			all.add(r.first, r.last)
		}
		all.cutBelow(low)
		merged = all.ranges
	}
	o.mu.Unlock()
	if len(ranges) == 0 && len(again) == 0 {
		return nil
	}

	err := o.w.transactLocked(func() error {
		insert := ranges
		if merged != nil {
			if err := o.w.exec("DELETE FROM sent"); err != nil {
				return err
			}
			insert = merged
		}
		put := o.w.inserter("INSERT INTO sent (last, first)", 2, "")
		for _, r := range insert {
			if err := put.add(int64(r.last), int64(r.first)); err != nil {
				return err
			}
		}
		if err := put.flush(); err != nil {
			return err
		}
		for _, id := range again {
			if err := o.w.exec("UPDATE retry SET sent = 1 WHERE id = ?", int64(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return doing(err, "mark %d records sent", len(ids))
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range ranges {
		o.sent.add(r.first, r.last)
	}
	for _, id := range again {
		r := o.retry[id]
		r.sent = true
		o.retry[id] = r
	}
	o.sentDB += len(ranges)
	if merged != nil {
		o.sentDB = len(merged)
		o.sent.cutBelow(low)
	}
	o.stats.Sent += uint64(len(ids))
	return nil
}
