package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tollbridge/asm/acct"
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

// sentRows of table sent are merged into one another when they are more.
const sentRows = 4096

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
	if err := o.w.measure("SELECT coalesce(sum(length(data)), 0) FROM record_page"); err != nil {
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

// MarkSent stores, durably before it returns, that a copy of each of the
// records may have been sent. Until an error answer their Delivery has MaySent
// set from then on.
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
