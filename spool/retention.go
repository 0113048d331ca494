package spool

import (
	"context"
	"database/sql"
	"time"
)

// A Retention says how long settled records are kept: each as long as either
// allows. Quarantined records are not settled in this sense, they stay.
type Retention struct {
	Age   time.Duration // since their settlement; 0 means no time at all
	Count uint64        // of the newest records
}

// trimRanges is how many ranges of settled records one transaction of
// TrimSettled deletes.
const trimRanges = 256

// TrimSettled deletes acknowledged and covered records that r does not keep,
// in steps of bounded size, and returns how many it deleted. Their amounts
// stay in the ledger. It reads no other record.
func (o *Outbox) TrimSettled(ctx context.Context, now time.Time, r Retention) (uint64, error) {
	var removed uint64
	o.mu.Lock()
	keepFrom := o.next - min(o.next, r.Count)
	trim := trimSettled
	if o.archiving {
		trim = trimArchived
	}
	o.mu.Unlock()
	before := now.Add(-r.Age).Unix()
	for {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		var n uint64
		var found int
		err := o.w.transact(func() error {
			n, found = 0, 0
			var gone idSet // so that neighbours go together, and a page is written anew once
			err := o.w.query(trim, func(rows *sql.Rows) error {
				var s idRange
				if err := rows.Scan(&s.first, &s.last); err != nil {
					return err
				}
				found++
				gone.add(s.first, min(s.last, keepFrom-1))
				return nil
			}, integer(keepFrom), before, trimRanges)
			if err != nil {
				return err
			}
			for _, s := range gone.ranges {
				removed, err := o.w.removeRecords(s)
				if err != nil {
					return err
				}
				n += removed
			}
			return nil
		})
		if err != nil {
			return removed, doing(err, "trim settled records")
		}
		removed += n
		if found < trimRanges {
			break
		}
	}
	if removed > 0 {
		o.mu.Lock()
		o.pages = nil
		o.mu.Unlock()
	}
	return removed, nil
}

// trimSettled finds ranges by index settled_done. Its state is spelt out since
// SQLite takes a partial index for the very same condition only.
const trimSettled = "SELECT first, last FROM settled WHERE state <> 2 AND first < ? AND at < ? ORDER BY at, last LIMIT ?"

// trimArchived is trimSettled of ranges that are in the archive as a whole.
const trimArchived = `SELECT first, last FROM settled WHERE state <> 2 AND first < ? AND at < ?
	AND (SELECT a.first FROM archived a WHERE a.last >= settled.last ORDER BY a.last LIMIT 1) <= settled.first ORDER BY at, last LIMIT ?`

// removeRecords deletes the records in r and what is known of them, within a
// transaction, and returns how many there were. Pages that hold others are
// written anew without them.
func (w *writer) removeRecords(r idRange) (removed uint64, err error) {
	ctx := context.Background()
	for id := r.first; ; {
		p, err := readPage(ctx, w.conn, id)
		if isNoRecord(err) || err == nil && p.first > r.last {
			break
		}
		if err != nil {
			return removed, err
		}
		if err := w.exec("DELETE FROM record_page WHERE last = ?", int64(p.last)); err != nil {
			return removed, err
		}
		w.grown -= int64(p.octets)
		var rest []packed
		for _, it := range p.items {
			if it.id < r.first || it.id > r.last {
				rest = appendItem(rest, it.id, it.content, it.shares)
			} else {
				removed++
			}
		}
		if err := w.addPages(rest); err != nil {
			return removed, err
		}
		if p.last >= r.last {
			break
		}
		id = p.last + 1
	}

	touched, err := settledRanges(ctx, w.conn, r)
	if err != nil {
		return removed, err
	}
	var rest []settledRange
	for _, s := range touched {
		if err := w.exec("DELETE FROM settled WHERE last = ?", int64(s.last)); err != nil {
			return removed, err
		}
		if s.first < r.first {
			rest = append(rest, settledRange{idRange{s.first, r.first - 1}, s.answer})
		}
		if s.last > r.last {
			rest = append(rest, settledRange{idRange{r.last + 1, s.last}, s.answer})
		}
	}
	if err := w.addSettled(rest); err != nil {
		return removed, err
	}
	return removed, w.exec("DELETE FROM retry WHERE id BETWEEN ? AND ?", int64(r.first), int64(r.last))
}
