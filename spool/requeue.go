package spool

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
)

// Requeue puts quarantined records back to the end of the outbox, with new
// IDs, which it returns in the order of ids: delivery finds them there as it
// finds new records. Their content stays the same. Those that were quarantined
// without an answer, as nobody who was sent them gave one, have MaySent.
func (o *Outbox) Requeue(ctx context.Context, ids []uint64) ([]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	c := &o.s.checkpoint
	var pages []packed
	var sessions []acct.Record
	var unanswered []uint64 // of fresh
	fresh := make([]uint64, len(ids))
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return nil, fmt.Errorf("spool: requeue outbox record %d: named twice", id)
		}
		rec, answered, err := o.quarantined(id)
		if err != nil {
			return nil, err
		}
		fresh[i] = c.nextRecord + uint64(i)
		if !answered {
			unanswered = append(unanswered, fresh[i])
		}
		pages = appendItem(pages, fresh[i], rec.content, rec.shares)
		var r acct.Record
		if err := r.UnmarshalBinary(rec.content); err != nil {
			return nil, fmt.Errorf("spool: outbox record %d: %w: %w", id, ErrDamaged, err)
		}
		sessions = append(sessions, r)
	}
	next := c.nextRecord + uint64(len(ids))
	err := o.w.transactLocked(func() error {
		for _, r := range runs(slices.Clone(ids)) {
			if _, err := o.w.removeRecords(r); err != nil {
				return err
			}
		}
		if err := o.w.deleteIDs("DELETE FROM held WHERE id", ids); err != nil {
			return err
		}
		for i, r := range sessions {
			if !coverable(&r) {
				continue
			}
			err := o.w.exec("INSERT INTO held (id, session_id, number, covered) VALUES (?, ?, ?, 0)", int64(fresh[i]), r.SessionID, int64(r.Number))
			if err != nil {
				return err
			}
		}
		for _, r := range runs(unanswered) {
			if err := o.w.exec("INSERT INTO sent (last, first) VALUES (?, ?)", int64(r.last), int64(r.first)); err != nil {
				return err
			}
		}
		if err := o.w.addPages(pages); err != nil {
			return err
		}
		moved := *c
		moved.nextRecord = next
		return o.w.putCheckpoint(&moved, o.s.time)
	})
	if err != nil {
		return nil, doing(err, "requeue %d records", len(ids))
	}
	c.nextRecord = next
	o.mu.Lock()
	o.pages = nil
	for _, r := range runs(unanswered) {
		o.sent.add(r.first, r.last)
		o.sentDB++
	}
	for i, r := range sessions {
		if !coverable(&r) {
			continue
		}
		list := slices.DeleteFunc(o.held[r.SessionID], func(h held) bool { return h.id == ids[i] })
		o.held[r.SessionID] = append(list, held{id: fresh[i], number: r.Number})
	}
	o.mu.Unlock()
	o.extend(next)
	return fresh, nil
}

// quarantined returns a record that must be quarantined, and whether an answer
// refused it.
func (o *Outbox) quarantined(id uint64) (it item, answered bool, err error) {
	ranges, err := settledRanges(context.Background(), o.w.conn, idRange{id, id})
	if err != nil {
		return item{}, false, explain(o.file, err)
	}
	if len(ranges) == 0 || ranges[0].state != acct.Quarantined {
		return item{}, false, fmt.Errorf("spool: requeue outbox record %d: it is not quarantined", id)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	it, err = o.itemLocked(id)
	if err = cmp.Or(it.damage, it.unknown, err); err != nil {
		return item{}, false, fmt.Errorf("spool: requeue: %w", err)
	}
	return it, ranges[0].result != 0, nil
}
