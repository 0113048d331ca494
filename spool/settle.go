package spool

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/internal/crashpoint"
)

// A settling is a call of Settle: what is to be written, gathered before the
// transaction and put into memory after it.
type settling struct {
	settled      []settledID
	retries      map[uint64]retry
	last         map[uint64]answer // of retries
	hold         map[uint64]session
	covered      []uint64 // quarantined before, Covered now
	release      []uint64 // rows of held to delete
	cover        []uint64 // rows of held to mark as covered
	acknowledged map[acct.LedgerKey]acct.Count
	counter      uint32
	stats        OutboxStats
}

type settledID struct {
	id uint64
	answer
}

type session struct {
	id     string
	number uint32
}

// Settle stores, durably before it returns, what has become of records, and
// moves their amounts in the ledger in the same transaction. A Settlement whose
// State is Pending is an error answer: the record stays, and Pending returns it
// with a new End-to-End Identifier, and with MaySent only if the Settlement has
// it. One about a record that is settled already is ignored.
//
// Volumes are cumulative: an acknowledged INTERIM or STOP turns earlier
// quarantined INTERIMs of its session to Covered, unless Settlement.Own. The
// parts of a record that was too large for one stay quarantined.
func (o *Outbox) Settle(ctx context.Context, settlements []acct.Settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.mu.Lock()
	t, err := o.gatherLocked(settlements)
	low := o.done.next(0)
	cut := o.sentDB > 0 && len(o.sent.ranges) > 0 && o.sent.ranges[0].last < low
	nothing := err == nil && len(t.settled) == 0 && len(t.retries) == 0
	if nothing {
		o.stats.Late += t.stats.Late
	}
	o.mu.Unlock()
	if err != nil || nothing {
		return err
	}
	ranges := t.ranges()
	if err := o.w.transactLocked(func() error {
		if err := t.write(o.w, ranges); err != nil {
			return err
		}
		if cut {
			if err := o.w.exec("DELETE FROM sent WHERE last < ?", int64(low)); err != nil {
				return err
			}
		}
		crashpoint.At(crashpoint.SettleWritten)
		return nil
	}); err != nil {
		return doing(err, "settle %d records", len(settlements))
	}

	o.mu.Lock()
	o.applyLocked(t, ranges)
	if cut {
		o.sent.cutBelow(low)
	}
	o.mu.Unlock()
	o.log.Debug("settle committed", "settled", len(t.settled), "ranges", len(ranges), "retries", len(t.retries))
	return nil
}

func (o *Outbox) gatherLocked(settlements []acct.Settlement) (*settling, error) {
	t := &settling{
		settled:      make([]settledID, 0, len(settlements)),
		retries:      make(map[uint64]retry),
		last:         make(map[uint64]answer),
		hold:         make(map[uint64]session),
		acknowledged: make(map[acct.LedgerKey]acct.Count),
		counter:      o.counter,
	}
	var seen idSet
	var memo acct.LedgerKey // the sum of one row is kept out of the map while shares are of that row
	var sum acct.Count
	book := func(it item) {
		list, err := acct.ParseShares(it.shares)
		if err = cmp.Or(it.unknown, err); err != nil {
			// The books will not balance, and say for which row.
			o.log.Error("amounts of a settled outbox record are damaged and not booked", "id", it.id, "error", err)
			return
		}
		for _, s := range list {
			if s.LedgerKey != memo {
				if !sum.IsZero() {
					t.acknowledged[memo] = t.acknowledged[memo].Plus(sum)
				}
				memo, sum = s.LedgerKey, acct.Count{}
			}
			sum = sum.Plus(s.Count)
		}
	}
	for i := range settlements {
		s := &settlements[i]
		if s.ID == 0 || s.ID >= o.next {
			return nil, fmt.Errorf("spool: settle outbox record %d: %w", s.ID, errNoRecord)
		}
		if seen.has(s.ID) || o.done.has(s.ID) {
			t.stats.Late++
			continue
		}
		it, err := o.itemLocked(s.ID)
		if err != nil {
			return nil, err
		}
		a := answer{s.State, s.Result, s.Peer, s.Reason, s.At.Unix()}
		switch s.State {
		case acct.Pending:
			r := o.retry[s.ID]
			if earlier, ok := t.retries[s.ID]; ok {
				r = earlier
			}
			t.counter++
			t.retries[s.ID] = retry{attempts: r.attempts + 1, endToEnd: t.counter | 1<<31, sent: s.MaySent}
			t.last[s.ID] = a
			t.stats.Errors++
			continue
		case acct.Acknowledged:
			book(it)
			t.stats.Acknowledged++
			if len(o.held) > 0 || len(t.hold) > 0 {
				covered, err := o.coverLocked(t, it, s.Own)
				if err != nil {
					return nil, err
				}
				for _, id := range covered {
					c, err := o.itemLocked(id)
					if err != nil {
						return nil, err
					}
					book(c)
				}
			}
		case acct.Quarantined:
			if it.damage != nil { // of which session it is can't be told
				t.stats.Quarantined++
				break
			}
			var r acct.Record
			if err := r.UnmarshalBinary(it.content); err != nil {
				return nil, fmt.Errorf("spool: outbox record %d: %w: %w", it.id, ErrDamaged, err)
			}
			if coverable(&r) {
				if o.coveredLocked(t, r.SessionID, it.id) {
					a.state = acct.Covered
					t.release = append(t.release, it.id)
					book(it)
					t.stats.Covered++
					break
				}
				t.hold[it.id] = session{r.SessionID, r.Number}
			}
			t.stats.Quarantined++
		default:
			return nil, fmt.Errorf("spool: settle outbox record %d: state %v is not an answer's", s.ID, s.State)
		}
		seen.add(s.ID, s.ID)
		delete(t.retries, s.ID)
		t.settled = append(t.settled, settledID{s.ID, a})
	}
	if !sum.IsZero() {
		t.acknowledged[memo] = t.acknowledged[memo].Plus(sum)
	}
	return t, nil
}

// coverLocked returns the quarantined records that the acknowledgement of it
// covers, and puts down what that changes. One that says what it adds alone,
// own, covers none.
func (o *Outbox) coverLocked(t *settling, it item, own bool) ([]uint64, error) {
	var r acct.Record
	if it.damage != nil {
		return nil, nil
	}
	if err := r.UnmarshalBinary(it.content); err != nil {
		return nil, fmt.Errorf("spool: outbox record %d: %w: %w", it.id, ErrDamaged, err)
	}
	var covered []uint64
	for _, h := range o.held[r.SessionID] {
		switch {
		case h.id == it.id:
			t.release = append(t.release, h.id) // was requeued, and is acknowledged itself
		case own || !cumulative(r.Type) || h.number >= r.Number || slices.Contains(t.release, h.id):
		case o.done.has(h.id):
			covered = append(covered, h.id)
		default:
			t.cover = append(t.cover, h.id) // requeued: covered even if it is refused again
		}
	}
	if cumulative(r.Type) && !own {
		for id, s := range t.hold { // quarantined by this very call
			if s.id != r.SessionID || s.number >= r.Number {
				continue
			}
			delete(t.hold, id)
			covered = append(covered, id)
			i := slices.IndexFunc(t.settled, func(s settledID) bool { return s.id == id })
			t.settled[i].state = acct.Covered
			t.stats.Quarantined--
		}
	}
	t.covered = append(t.covered, covered...)
	t.release = append(t.release, covered...)
	t.stats.Covered += uint64(len(covered))
	return covered, nil
}

func cumulative(t acct.RecordType) bool { return t == acct.Interim || t == acct.Stop }

// coverable reports whether a later record of its session says all again that r
// does. A part of one does not: it alone has its classes, of which another part
// of the same says nothing.
func coverable(r *acct.Record) bool { return r.Type == acct.Interim && r.Parts <= 1 }

// coveredLocked reports whether a requeued record has been covered since.
func (o *Outbox) coveredLocked(t *settling, session string, id uint64) bool {
	if slices.Contains(t.cover, id) {
		return true
	}
	return slices.ContainsFunc(o.held[session], func(h held) bool { return h.id == id && h.covered })
}

// ranges returns the settled IDs as ranges of one answer each. A quarantined
// record has a range of its own, since it leaves that state alone.
func (t *settling) ranges() []settledRange {
	slices.SortFunc(t.settled, func(a, b settledID) int { return cmpID(a.id, b.id) })
	var out []settledRange
	for _, s := range t.settled {
		if n := len(out); n > 0 && s.state != acct.Quarantined && out[n-1].last+1 == s.id && out[n-1].answer.compare(s.answer) == 0 {
			out[n-1].last = s.id
			continue
		}
		out = append(out, settledRange{idRange{s.id, s.id}, s.answer})
	}
	return out
}

// write stores t, within a transaction.
func (t *settling) write(w *writer, ranges []settledRange) error {
	if err := w.addSettled(ranges); err != nil {
		return err
	}
	// Records quarantined earlier keep the answer that refused them.
	for _, id := range t.covered {
		ranges, err := settledRanges(context.Background(), w.conn, idRange{id, id})
		if err != nil {
			return err
		}
		for i := range ranges {
			r := &ranges[i]
			r.state = acct.Covered
			if err := w.exec("UPDATE settled SET state = ?, sum = ? WHERE last = ?", int64(r.state), settledSum(r), int64(id)); err != nil {
				return err
			}
		}
	}
	if err := w.deleteIDs("DELETE FROM held WHERE id", t.release); err != nil {
		return err
	}
	for _, id := range t.cover {
		if err := w.exec("UPDATE held SET covered = 1 WHERE id = ?", int64(id)); err != nil {
			return err
		}
	}
	for id, s := range t.hold {
		err := w.exec("INSERT OR REPLACE INTO held (id, session_id, number, covered) VALUES (?, ?, ?, 0)", int64(id), s.id, int64(s.number))
		if err != nil {
			return err
		}
	}
	for id, r := range t.retries {
		a := t.last[id]
		err := w.exec(`INSERT OR REPLACE INTO retry (id, attempts, end_to_end, sent, result, peer, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			int64(id), int64(r.attempts), int64(r.endToEnd), r.sent, int64(a.result), a.peer, a.reason, a.at)
		if err != nil {
			return err
		}
	}
	if len(t.retries) > 0 {
		if err := w.setMeta(metaEndToEnd, int64(t.counter)); err != nil {
			return err
		}
	}
	return w.addAcknowledged(t.acknowledged)
}

// applyLocked puts into memory what is on the disk now.
func (o *Outbox) applyLocked(t *settling, ranges []settledRange) {
	for _, r := range ranges {
		o.done.add(r.first, r.last)
	}
	if len(o.retry) > 0 {
		for _, s := range t.settled {
			delete(o.retry, s.id)
		}
	}
	for id, r := range t.retries {
		o.retry[id] = r
	}
	o.counter = t.counter
	for session, list := range o.held {
		if len(t.release) == 0 && len(t.cover) == 0 {
			break
		}
		list = slices.DeleteFunc(list, func(h held) bool { return slices.Contains(t.release, h.id) })
		for i := range list {
			list[i].covered = list[i].covered || slices.Contains(t.cover, list[i].id)
		}
		if len(list) == 0 {
			delete(o.held, session)
		} else {
			o.held[session] = list
		}
	}
	for id, s := range t.hold {
		list := slices.DeleteFunc(o.held[s.id], func(h held) bool { return h.id == id })
		o.held[s.id] = append(list, held{id: id, number: s.number})
	}
	o.stats.Acknowledged += t.stats.Acknowledged
	o.stats.Quarantined += t.stats.Quarantined
	o.stats.Covered += t.stats.Covered
	o.stats.Errors += t.stats.Errors
	o.stats.Late += t.stats.Late
}
