package aaaclient

import (
	"time"

	"tollbridge/asm/acct"
)

// outboxPause is how long the outbox is left alone after it has failed.
const outboxPause = time.Second

// job collects the work for the outbox and reports whether there is any.
func (d *delivery) job() (job, bool) {
	var j job
	if d.busy || d.retry.After(d.now) {
		return j, false
	}
	j.settle, j.settled = d.settle, d.settled
	d.settle, d.settled = nil, nil
	if !d.stopping {
		j.marked, d.marks = d.marks, nil
		for _, s := range j.marked {
			j.mark = append(j.mark, s.head().ID)
		}
		j.fetch = d.fetch()
	}
	d.busy = len(j.settle) > 0 || len(j.mark) > 0 || j.fetch.max > 0
	return j, d.busy
}

// admit takes as many records as will have room: to be marked, or to be sent
// if they were marked in an earlier life.
func (d *delivery) admit() {
	if len(d.targets) == 0 || d.stopping {
		return
	}
	for room := d.targets[0].window.Free() - d.stages[marking] - d.stages[sendable]; room > 0; room-- {
		s := take(&d.ready, ready)
		if s == nil {
			return
		}
		if s.marked {
			d.move(s, sendable)
		} else {
			d.move(s, marking)
			d.marks = append(d.marks, s)
		}
	}
}

// fetch decides what to read. Without a link that takes requests it reads no
// more than it needs to know that something waits.
func (d *delivery) fetch() fetch {
	if len(d.targets) == 0 && d.held > 0 {
		return fetch{}
	}
	room := d.cfg.Buffer - d.held
	if room <= 0 {
		return fetch{}
	}
	for n := d.reading.len(); n > 0; n-- {
		s := take(&d.reading, reading)
		if s == nil {
			break
		}
		if s.settling == 0 {
			return fetch{max: min(refillMax, room), after: s.skipped - 1, refill: s}
		}
		// When it is settled, stored puts it back.
	}
	if d.rewind && len(d.sessions) == 0 {
		d.rewind, d.end, d.cursor = false, false, 0
	}
	if d.end || d.stages[ready] > 2*d.cfg.Window {
		return fetch{}
	}
	return fetch{max: min(fetchMax, room), after: d.cursor, wakes: d.wakes}
}

// woken says that the outbox has new records. Once nothing is left to do, the
// client looks from the beginning, for records that were requeued.
func (d *delivery) woken() {
	d.wakes++
	d.end, d.rewind = false, true
}

// done takes what came of a job.
func (d *delivery) done(r done) {
	d.busy = false
	d.stored(r)
	for _, s := range r.marked {
		if r.markErr == nil {
			s.marked = true
			d.move(s, sendable)
		} else {
			d.move(s, ready)
		}
	}
	switch {
	case r.fetch.max == 0:
	case r.fetchErr == nil && r.settleErr == nil:
		d.fetched(r.fetch, r.records)
	case r.fetch.refill != nil:
		d.move(r.fetch.refill, reading)
	}
	var err error
	for _, e := range []error{r.settleErr, r.markErr, r.fetchErr} {
		if e != nil {
			d.count.outboxFails.Add(1)
			err = e
		}
	}
	if err != nil {
		d.retry = d.now.Add(outboxPause)
		if !d.failing && !d.stopping {
			d.cfg.Log.Error("outbox fails: delivery waits", "error", err)
		}
	} else if d.failing {
		d.cfg.Log.Info("outbox works again")
	}
	d.failing = err != nil
}

// stored takes what came of settling.
func (d *delivery) stored(r done) {
	if r.settleErr != nil {
		d.settle = append(r.settle, d.settle...)
		d.settled = append(r.settled, d.settled...)
		return
	}
	for i, s := range r.settled {
		switch r.settle[i].State {
		case acct.Acknowledged:
			d.count.settled.Add(1)
		case acct.Quarantined:
			d.count.quarantined.Add(1)
		case acct.Pending:
			d.count.retried.Add(1)
		}
		if s.settling--; s.settling > 0 {
			continue
		}
		if s.stage == reading {
			d.move(s, reading)
		}
		d.forget(s)
	}
}

// fetched sorts records into their sessions. A session that has no room leaves
// the record, and all its later ones, in the outbox: skipped says from where.
//
// In-order reading moves cursor on. A refill begins at the skipped ID of one
// session and stays at or below cursor; it serves whatever other session
// skipped from there on too.
func (d *delivery) fetched(f fetch, records []acct.Delivery) {
	whole := len(records) == f.max // there may be more
	var through uint64             // all IDs up to this one have been seen
	var refilled []*session
	for i := range records {
		r := &records[i]
		if f.refill != nil && r.ID > d.cursor {
			whole = false
			break
		}
		through = r.ID
		s := d.sessions[r.Record.SessionID]
		if s == nil {
			s = &session{id: r.Record.SessionID, at: -1}
			d.sessions[s.id] = s
			d.stages[resting]++
		}
		fromSkipped := f.refill != nil && s.skipped > f.after
		switch {
		case r.ID <= s.last: // in the queue, or settled just now
			continue
		case s.skipped != 0 && !(fromSkipped && r.ID >= s.skipped):
			continue
		case s.stage == waiting && s.read,
			s.stage == reading && s.settling > 0,
			len(s.queue) >= maxQueue,
			d.held >= d.cfg.Buffer:
			if s.skipped == 0 {
				s.skipped = r.ID
			}
			continue
		}
		if fromSkipped {
			refilled = append(refilled, s)
		}
		s.skipped = 0
		s.queue = append(s.queue, *r)
		s.last = r.ID
		d.held++
		if s.stage == resting || s.stage == reading {
			s.begin()
			d.move(s, ready)
		}
	}
	if f.refill == nil {
		d.cursor = max(d.cursor, through)
		d.end = !whole && f.wakes == d.wakes
		return
	}
	// Between the end of a refill and cursor there may be more of them.
	for _, s := range refilled {
		if s.skipped == 0 && whole {
			s.skipped = through + 1
		}
	}
	if s := f.refill; s.stage == reading {
		// Nothing of it is left in what was read.
		s.skipped = 0
		if whole {
			s.skipped = through + 1
		}
		d.proceed(s)
	}
}
