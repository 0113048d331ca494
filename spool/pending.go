package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// Pending returns up to max records that are not settled and whose ID is above
// after, in order of ID. Records sent again after an error answer have their
// new End-to-End Identifier. What is damaged among them is quarantined on the
// way, and reported.
func (o *Outbox) Pending(ctx context.Context, after uint64, max int) ([]acct.Delivery, error) {
	list, _, _, err := o.PendingOf(ctx, after, max, nil)
	return list, err
}

// scanned bounds the records that PendingOf looks at, so that it does not hold
// up those who settle.
const scanned = 1 << 16

// PendingOf is Pending for records whose Realm of reports true; a nil of takes
// all. All of those up to ID through were looked at. There may be more: it
// looks at so many records only, and may return none of many.
func (o *Outbox) PendingOf(ctx context.Context, after uint64, max int, of func(realm []byte) bool) (list []acct.Delivery, through uint64, more bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, after, true, err
		}
		var damaged []item
		list, damaged, through, more, err = o.pending(after, max, of)
		if err != nil || len(damaged) == 0 {
			return list, through, more, err
		}
		if err := o.setAside(ctx, damaged); err != nil {
			return nil, after, true, err
		}
	}
}

// pending is PendingOf, and returns what is damaged on the way there.
func (o *Outbox) pending(after uint64, max int, of func(realm []byte) bool) (out []acct.Delivery, damaged []item, through uint64, more bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := o.done.next(after + 1)
	if id >= o.next || max <= 0 {
		return nil, nil, after, false, nil
	}
	left := scanned
	out = make([]acct.Delivery, 0, min(uint64(max), o.next-id))
	for id < o.next && len(out) < max && left > 0 {
		p, err := o.pageLocked(id)
		if errors.Is(err, errNoRecord) {
			o.done.add(id, o.next-1) // requeued, the last of them
			break
		}
		if err != nil {
			return nil, nil, after, true, err
		}
		if p.first > id {
			o.done.add(id, p.first-1) // requeued or trimmed
		}
		items := p.all()
		i, _ := slices.BinarySearchFunc(items, id, func(it item, id uint64) int {
			return cmpID(it.id, id)
		})
		for ; i < len(items) && len(out) < max; i++ {
			it := &items[i]
			if it.id < id {
				continue
			}
			if it.id > id {
				if free := o.done.next(id); free < it.id {
					o.done.add(free, it.id-1) // requeued
				}
			}
			id = it.id + 1
			if o.done.has(it.id) {
				continue
			}
			left--
			damage := it.damage
			if of != nil && damage == nil {
				var realm []byte
				if realm, damage = acct.RealmOf(it.content); damage == nil && !of(realm) {
					continue
				}
			}
			d := acct.Delivery{ID: it.id}
			if damage == nil {
				damage = d.Record.UnmarshalBinary(it.content)
			}
			if damage != nil {
				broken := *it
				broken.damage = damage
				damaged = append(damaged, broken)
				continue
			}
			d.EndToEnd, d.MaySent, d.Attempts = o.sendingLocked(it.id)
			out = append(out, d)
		}
		if id <= p.last && len(out) < max {
			id = p.last + 1
		}
		id = o.done.next(id)
	}
	return out, damaged, id - 1, id < o.next, nil
}

// setAside quarantines records whose content can't be read, and keeps their
// pages as they are for people.
func (o *Outbox) setAside(ctx context.Context, damaged []item) error {
	now := time.Now()
	var list []acct.Settlement
	for _, it := range damaged {
		amounts := "not known: the books tell by how much they do not balance"
		if it.unknown == nil {
			if shares, err := acct.ParseShares(it.shares); err == nil {
				n := (&acct.Record{Shares: shares}).Increment()
				amounts = fmt.Sprintf("%d records, %d octets, %d packets", n.Records, n.Octets, n.Packets)
			}
		}
		o.log.Error("outbox record is damaged and set aside", "id", it.id, "amounts", amounts, "error", it.damage)
		list = append(list, acct.Settlement{ID: it.id, State: acct.Quarantined, Reason: it.damage.Error(), At: now})
	}
	err := o.w.transact(func() error {
		for _, it := range damaged {
			err := o.w.exec("INSERT OR IGNORE INTO damaged (last, first, found, reason, data) SELECT last, first, ?, ?, data FROM record_page WHERE last >= ? ORDER BY last LIMIT 1",
				now.Unix(), it.damage.Error(), int64(it.id))
			if err != nil && !errors.Is(explain(o.file, err), ErrDamaged) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return doing(err, "set aside %d damaged records", len(damaged))
	}
	return o.Settle(ctx, list)
}

// CountOf returns how many records are not settled whose Realm of reports
// true. It reads all that are not settled.
func (o *Outbox) CountOf(ctx context.Context, of func(realm []byte) bool) (n uint64, err error) {
	counting := func(realm []byte) bool {
		if of(realm) {
			n++
		}
		return false
	}
	for after, more := uint64(0), true; more; {
		if _, after, more, err = o.PendingOf(ctx, after, 1, counting); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func cmpID(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
