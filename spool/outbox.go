package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// An Outbox holds accounting records until they are settled, and for some time
// after. Its methods are safe for use by any goroutines.
//
// Records are numbered in the order in which Commit stored them. On disk they
// lie in pages; what became of them lies in ranges of numbers beside (tables
// settled and sent), so that a thousand records acknowledged together cost one
// small row and their pages are never written again. The same ranges are kept
// in memory, changed after the COMMIT that changed the disk.
type Outbox struct {
	s    *Spool
	w    *writer // of state.db; its lock is taken before mu
	r    *sql.DB
	file string
	log  *slog.Logger
	wake chan struct{}
	base uint32 // End-to-End Identifiers of first sendings count from it

	mu      sync.Mutex
	next    uint64 // ID of the next record
	done    idSet  // settled, or not there any more
	sent    idSet  // a copy may have been sent; says nothing of records in retry
	sentDB  int    // rows of table sent
	retry   map[uint64]retry
	held    map[string][]held // by Session-Id
	counter uint32            // of End-to-End Identifiers after an error answer
	pages   []*page           // read lately, the latest last
	stats   OutboxStats

	archiving bool // settled records wait for the archive
}

// A retry is a pending record that had an error answer.
type retry struct {
	attempts uint32
	endToEnd uint32
	sent     bool
}

// A held record is an INTERIM, not in parts, that is quarantined, or was and has
// been requeued.
type held struct {
	id      uint64
	number  uint32
	covered bool
}

// OutboxStats counts what an Outbox has done since it was opened.
type OutboxStats struct {
	Next         uint64 // ID that the next record will get
	Pending      uint64 // IDs not settled; counts as pending what Requeue took away until it is passed over
	Sent         uint64 // marked as perhaps sent
	Acknowledged uint64
	Quarantined  uint64
	Covered      uint64
	Errors       uint64 // error answers, to be tried again
	Late         uint64 // answers about records that were settled already
}

// pageCache is how many pages are kept in memory: those of a window of
// outstanding requests, and those that their settlements ask for.
const pageCache = 64

func openOutbox(s *Spool, file string) (*Outbox, error) {
	o := &Outbox{s: s, w: s.w, r: s.r, file: file, log: s.log, wake: make(chan struct{}, 1),
		base:  s.meta.Epoch * epochSpread,
		next:  s.checkpoint.nextRecord,
		retry: make(map[uint64]retry), held: make(map[string][]held)}
	if err := o.load(context.Background()); err != nil {
		return nil, explain(file, err)
	}
	return o, nil
}

func (o *Outbox) load(ctx context.Context) error {
	if err := o.w.measure(o.r, "SELECT coalesce(sum(length(data)), 0) FROM record_page"); err != nil {
		return err
	}
	counter, err := metaNumber(ctx, o.r, metaEndToEnd)
	if err != nil {
		return err
	}
	o.counter = uint32(counter)

	// Below the first page everything was settled and trimmed.
	var first sql.NullInt64
	if err := o.r.QueryRowContext(ctx, "SELECT first FROM record_page ORDER BY last LIMIT 1").Scan(&first); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	below := o.next
	if first.Valid {
		below = uint64(first.Int64)
	}
	o.done.add(0, below-1)
	if err := o.loadRanges(ctx, "SELECT first, last FROM sent ORDER BY last", &o.sent); err != nil {
		return err
	}
	if err := o.loadSettled(ctx); err != nil {
		return err
	}
	if err := o.r.QueryRowContext(ctx, "SELECT count(*) FROM sent").Scan(&o.sentDB); err != nil {
		return err
	}
	rows, err := o.r.QueryContext(ctx, "SELECT id, attempts, end_to_end, sent FROM retry")
	if err != nil {
		return err
	}
	if err := each(rows, func(rows *sql.Rows) error {
		var id uint64
		var r retry
		if err := rows.Scan(&id, &r.attempts, &r.endToEnd, &r.sent); err != nil {
			return err
		}
		if !o.done.has(id) { // else kept for listings only
			o.retry[id] = r
		}
		return nil
	}); err != nil {
		return err
	}
	rows, err = o.r.QueryContext(ctx, "SELECT id, session_id, number, covered FROM held ORDER BY id")
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var h held
		var session string
		if err := rows.Scan(&h.id, &session, &h.number, &h.covered); err != nil {
			return err
		}
		o.held[session] = append(o.held[session], h)
		return nil
	})
}

// loadSettled reads what became of records. A damaged row is deleted, since no
// number in it can be relied on: its records are sent again, if they are still
// there, as those that may have been sent.
func (o *Outbox) loadSettled(ctx context.Context) error {
	var damaged []settledRange
	err := eachSettled(ctx, o.r, func(r settledRange, damage error) error {
		if damage != nil {
			o.log.Error("part of the state is damaged: what no other answer settles is sent again, as maybe sent", "what", "settled", "error", damage)
			damaged = append(damaged, r)
			return nil
		}
		o.done.add(r.first, r.last)
		return nil
	})
	if err != nil {
		return err
	}
	lost, err := metaNumber(ctx, o.r, metaSettledLost)
	if err != nil || len(damaged) == 0 && lost == 0 {
		return err
	}
	if o.next > 1 {
		o.sent.add(1, o.next-1)
	}
	return o.w.transact(func() error {
		for _, r := range damaged {
			if err := o.w.exec("DELETE FROM settled WHERE last = ?", int64(r.last)); err != nil {
				return err
			}
		}
		if o.next > 1 {
			if err := o.w.exec("INSERT OR REPLACE INTO sent (last, first) VALUES (?, ?)", int64(o.next-1), 1); err != nil {
				return err
			}
		}
		if err := o.w.takeBack(ctx); err != nil {
			return err
		}
		return o.w.exec("DELETE FROM meta WHERE name = ?", metaSettledLost)
	})
}

func (o *Outbox) loadRanges(ctx context.Context, query string, to *idSet) error {
	rows, err := o.r.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var r idRange
		if err := rows.Scan(&r.first, &r.last); err != nil {
			return err
		}
		to.add(r.first, r.last)
		return nil
	})
}

// extend says that records up to next are stored.
func (o *Outbox) extend(next uint64) {
	o.mu.Lock()
	more := next > o.next
	o.next = next
	o.mu.Unlock()
	if more {
		o.notify()
	}
}

func (o *Outbox) notify() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Wake returns a channel that has a value after records were added. It has
// room for one: whoever receives must ask Pending until it has no more.
func (o *Outbox) Wake() <-chan struct{} { return o.wake }

var errNoRecord = errors.New("no such record in the outbox")

// pageLocked returns the page that holds id, or the next one behind it.
func (o *Outbox) pageLocked(id uint64) (*page, error) {
	for i := len(o.pages) - 1; i >= 0; i-- {
		if p := o.pages[i]; p.first <= id && id <= p.last {
			if i < len(o.pages)-1 {
				copy(o.pages[i:], o.pages[i+1:])
				o.pages[len(o.pages)-1] = p
			}
			return p, nil
		}
	}
	p, err := readPage(context.Background(), o.r, id)
	if err != nil {
		return nil, explain(o.file, err)
	}
	if len(o.pages) >= pageCache {
		o.pages = slices.Delete(o.pages, 0, 1)
	}
	o.pages = append(o.pages, p)
	return p, nil
}

// readPage reads the page that holds id, or the next one behind it.
func readPage(ctx context.Context, q querier, id uint64) (*page, error) {
	var first, last uint64
	var data []byte
	err := q.QueryRowContext(ctx, "SELECT first, last, data FROM record_page WHERE last >= ? ORDER BY last LIMIT 1",
		integer(id)).Scan(&first, &last, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("outbox record %d: %w", id, errNoRecord)
	}
	if err != nil {
		// What says where the page is may be whole.
		if q.QueryRowContext(ctx, "SELECT first, last FROM record_page WHERE last >= ? ORDER BY last LIMIT 1", integer(id)).Scan(&first, &last) != nil ||
			!errors.Is(explain("", err), ErrDamaged) {
			return nil, err
		}
		data = nil
	}
	return parsePage(first, last, data), nil
}

// itemLocked returns the record with an ID.
func (o *Outbox) itemLocked(id uint64) (item, error) {
	p, err := o.pageLocked(id)
	if err != nil {
		return item{}, err
	}
	it, ok := p.find(id)
	if !ok {
		return item{}, fmt.Errorf("spool: outbox record %d: %w", id, errNoRecord)
	}
	return it, nil
}

// Stats returns a snapshot.
func (o *Outbox) Stats() OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Next = o.next
	s.Pending = o.next
	for _, r := range o.done.ranges {
		s.Pending -= min(r.last+1, o.next) - min(r.first, o.next)
	}
	return s
}

func isNoRecord(err error) bool { return errors.Is(err, errNoRecord) }
