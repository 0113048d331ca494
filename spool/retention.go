package spool

import (
	"context"
	"time"

	"tollbridge/asm/acct"
)

// A Retention says how long settled records are kept: each as long as either
// allows. Quarantined records are not settled in this sense, they stay.
type Retention struct {
	Age   time.Duration // since their settlement; 0 means no time at all
	Count uint64        // of the newest records
}

// trimPages is how many pages one transaction of TrimSettled looks at.
const trimPages = 32

// TrimSettled deletes acknowledged and covered records that r does not keep,
// in steps of bounded size, and returns how many it deleted. Their amounts
// stay in the ledger.
func (o *Outbox) TrimSettled(ctx context.Context, now time.Time, r Retention) (uint64, error) {
	var removed uint64
	o.mu.Lock()
	keepFrom := o.next - min(o.next, r.Count)
	o.mu.Unlock()
	before := now.Add(-r.Age).Unix()
	for id, more := uint64(1), true; more; {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		var n uint64
		err := o.w.transact(func() error {
			n = 0
			for range trimPages {
				p, err := readPage(ctx, o.w.conn, id)
				if isNoRecord(err) || err == nil && p.first >= keepFrom {
					more = false
					return nil
				}
				if err != nil {
					return err
				}
				id = p.last + 1
				ranges, err := settledRanges(ctx, o.w.conn, idRange{p.first, p.last})
				if err != nil {
					return err
				}
				young := false
				for _, s := range ranges {
					if s.state == acct.Quarantined {
						continue
					}
					if s.at >= before {
						young = true
						continue
					}
					s.first, s.last = max(s.first, p.first), min(s.last, p.last, keepFrom-1)
					if s.first > s.last {
						continue
					}
					for _, it := range p.items {
						if it.id >= s.first && it.id <= s.last {
							n++
						}
					}
					if err := o.w.removeRecords(s.idRange); err != nil {
						return err
					}
				}
				if young {
					more = false // records settle nearly in order: what follows is younger
					return nil
				}
			}
			return nil
		})
		if err != nil {
			return removed, doing(err, "trim settled records")
		}
		removed += n
	}
	if removed > 0 {
		o.mu.Lock()
		o.pages = nil
		o.mu.Unlock()
	}
	return removed, nil
}

// removeRecords deletes the records in r and what is known of them, within a
// transaction. Pages that hold others are written anew without them.
func (w *writer) removeRecords(r idRange) error {
	ctx := context.Background()
	for id := r.first; ; {
		p, err := readPage(ctx, w.conn, id)
		if isNoRecord(err) || err == nil && p.first > r.last {
			break
		}
		if err != nil {
			return err
		}
		if err := w.exec("DELETE FROM record_page WHERE last = ?", int64(p.last)); err != nil {
			return err
		}
		var rest []packed
		for _, it := range p.items {
			if it.id < r.first || it.id > r.last {
				rest = appendItem(rest, it.id, it.content, it.shares)
			}
		}
		if err := w.addPages(rest); err != nil {
			return err
		}
		if p.last >= r.last {
			break
		}
		id = p.last + 1
	}

	touched, err := settledRanges(ctx, w.conn, r)
	if err != nil {
		return err
	}
	var rest []settledRange
	for _, s := range touched {
		if err := w.exec("DELETE FROM settled WHERE last = ?", int64(s.last)); err != nil {
			return err
		}
		if s.first < r.first {
			rest = append(rest, settledRange{idRange{s.first, r.first - 1}, s.answer})
		}
		if s.last > r.last {
			rest = append(rest, settledRange{idRange{r.last + 1, s.last}, s.answer})
		}
	}
	if err := w.addSettled(rest); err != nil {
		return err
	}
	return w.exec("DELETE FROM retry WHERE id BETWEEN ? AND ?", int64(r.first), int64(r.last))
}
