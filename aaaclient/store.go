package aaaclient

import (
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// outboxPause is how long the outbox is left alone after it has failed, and
// obeyPause how long Config.Obey is, which holds the outbox up meanwhile.
const (
	outboxPause = time.Second
	obeyPause   = 10 * time.Second
)

// job collects the work for the outbox and reports whether there is any.
func (d *delivery) job() (job, bool) {
	var j job
	if d.busy || d.retry.After(d.now) {
		return j, false
	}
	if !d.obeyRetry.After(d.now) {
		j.obey, d.obey = d.obey, nil
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
	d.busy = len(j.obey) > 0 || len(j.settle) > 0 || len(j.mark) > 0 || j.fetch.max > 0
	return j, d.busy
}

// fetch decides what to read, for one route after the other. Without a link
// that takes requests a route reads no more than it needs to know that
// something waits.
func (d *delivery) fetch() fetch {
	for range d.routes {
		r := d.routes[d.turn]
		d.turn = (d.turn + 1) % len(d.routes)
		if f := r.fetch(d); f.max > 0 {
			return f
		}
	}
	return fetch{}
}

func (r *route) fetch(d *delivery) fetch {
	if len(r.targets) == 0 && r.held > 0 {
		return fetch{}
	}
	room := d.cfg.Buffer - r.held
	if room <= 0 {
		return fetch{}
	}
	for n := r.reading.len(); n > 0; n-- {
		s := take(&r.reading, reading)
		if s == nil {
			break
		}
		if s.settling == 0 {
			return fetch{route: r, max: min(refillMax, room), after: s.skipped - 1, refill: s}
		}
		// When it is settled, stored puts it back.
	}
	if r.end && r.seen == d.wakes || r.stages[ready] > 2*d.cfg.Window && !r.hungry() {
		return fetch{}
	}
	return fetch{route: r, max: min(fetchMax, room), after: r.cursor, wakes: d.wakes}
}

// hungry reports whether a link of r has room and nothing that waits for it.
func (r *route) hungry() bool {
	return slices.ContainsFunc(r.targets, func(l *link) bool { return l.parked.len() == 0 && l.room() > 0 })
}

// woken says that the outbox has new records.
func (d *delivery) woken() { d.wakes++ }

// done takes what came of a job.
func (d *delivery) done(r done) {
	d.busy = false
	if len(r.obey) > 0 {
		d.obeyed(r)
	}
	d.stored(r)
	for _, s := range r.marked {
		if r.settleErr == nil && r.markErr == nil {
			s.marked = true
			d.move(s, sendable)
		} else {
			d.move(s, ready)
		}
	}
	switch {
	case r.fetch.max == 0:
	case r.fetchErr == nil && r.settleErr == nil:
		d.fetched(r)
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

// obeyed takes what came of Config.Obey. Its failure holds nothing else up: the
// latest intervals are handed over again later, and it is told once a cause.
func (d *delivery) obeyed(r done) {
	if r.obeyErr == nil {
		if d.disobeys != "" {
			d.cfg.Log.Info("interim intervals that answers ask for are kept again")
		}
		d.disobeys = ""
		return
	}
	d.count.obeyFails.Add(1)
	d.obey = append(r.obey, d.obey...)
	d.obey = d.obey[max(0, len(d.obey)-maxDemands):]
	d.obeyRetry = d.now.Add(obeyPause)
	if cause := r.obeyErr.Error(); cause != d.disobeys {
		d.disobeys = cause
		d.cfg.Log.Warn("interim intervals that answers ask for are not kept yet: delivery goes on", "error", r.obeyErr)
	}
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

// fetched sorts records of a route into their sessions. A session that has no
// room leaves the record, and all its later ones, in the outbox: skipped says
// from where.
//
// In-order reading moves cursor on. A refill begins at the skipped ID of one
// session and stays at or below cursor; it serves whatever other session
// skipped from there on too.
func (d *delivery) fetched(result done) {
	f, route, through := result.fetch, result.fetch.route, result.through
	more := result.more
	var refilled []*session
	for i := range result.records {
		r := &result.records[i]
		if f.refill != nil && r.ID > route.cursor {
			break
		}
		s := d.sessions[r.Record.SessionID]
		if s == nil {
			s = &session{id: r.Record.SessionID, route: route, at: -1}
			d.sessions[s.id] = s
			route.stages[resting]++
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
			route.held >= d.cfg.Buffer:
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
		route.held++
		if s.stage == resting || s.stage == reading {
			s.begin()
			d.move(s, ready)
		}
	}
	if f.refill == nil {
		route.cursor = max(route.cursor, through)
		route.end, route.seen = !more, f.wakes
		return
	}
	// Between the end of a refill and cursor there may be more of them.
	more = more && through < route.cursor
	for _, s := range refilled {
		if s.skipped == 0 && more {
			s.skipped = through + 1
		}
	}
	if s := f.refill; s.stage == reading {
		// Nothing of it is left in what was read.
		s.skipped = 0
		if more {
			s.skipped = through + 1
		}
		d.proceed(s)
	}
}
