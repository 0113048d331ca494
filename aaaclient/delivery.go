package aaaclient

import (
	"container/heap"
	"context"
	"log/slog"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
)

// A delivery is the state of a running Client. One goroutine owns it; now is
// the time of the round that it works in.
//
//	outbox ──► ready ──► marking ──► sendable ──► inFlight ──► settle ──► outbox
//	   ▲                                ▲            │
//	   │                                ├────────────┤ no answer: again, with the T flag
//	   └── reading ◄── waiting ◄────────┴────────────┘ an error answer: a new request
type delivery struct {
	*Client
	now   time.Time
	debug bool

	sessions map[string]*session
	routes   []*route
	turn     int            // the route that may read next
	suspects fifo[*session] // of killing connections: sent alone
	waits    waits
	late     map[uint32]*session // by End-to-End Identifier: records with a sending that was given up

	obey      []acct.InterimInterval // that answers asked for
	obeyRetry time.Time              // not handed over before; after a failure
	disobeys  string                 // the latest cause of such; "" if it works

	settle  []acct.Settlement
	settled []*session // beside settle
	marks   []*session // to be marked
	busy    bool       // the clerk has a job
	retry   time.Time  // no job before; after a failure of the outbox
	mute    uint64     // set of links that answer no requests
	answers uint64     // that belonged to a request
	wakes   uint64     // how often the outbox said that it has new records
	failing bool       // the outbox's last call failed

	end      drain
	stopping bool // nothing more is sent
}

// fetchMax and refillMax bound what is read from the outbox at once.
const (
	fetchMax  = 512
	refillMax = 2 * maxQueue
)

func newDelivery(c *Client) *delivery {
	d := &delivery{
		Client: c, now: time.Now(), sessions: map[string]*session{}, late: map[uint32]*session{},
		debug: c.cfg.Log.Enabled(context.Background(), slog.LevelDebug),
	}
	for i := range c.routes {
		d.routes = append(d.routes, newRoute(&c.routes[i]))
	}
	return d
}

// move puts s into a stage and, where the stage has one, into its queue.
func (d *delivery) move(s *session, to stage) {
	switch s.stage {
	case waiting:
		heap.Remove(&d.waits, s.at)
	case marking, sendable:
		if to != sendable {
			s.unassign()
		}
	}
	r := s.route
	r.stages[s.stage]--
	r.stages[to]++
	s.stage = to
	var q *fifo[*session]
	switch to {
	case ready:
		q = &r.ready
	case sendable:
		if q = &r.sendable; s.alone {
			d.suspects.push(s)
			return
		}
	case reading:
		q = &r.reading
	case waiting:
		heap.Push(&d.waits, s)
		return
	default:
		return
	}
	// It may be in there yet from before, passed over since.
	if !s.queued[to] {
		s.queued[to] = true
		q.push(s)
	}
}

// take returns the first session of a queue that is still in that stage.
func take(q *fifo[*session], at stage) *session {
	for q.len() > 0 {
		s := q.pop()
		if s.queued[at] = false; s.stage == at {
			return s
		}
	}
	return nil
}

// round does all that can be done now.
func (d *delivery) round(now time.Time) {
	d.now = now
	for _, l := range d.links {
		if l.window != nil && l.window.Len() > 0 && !now.Before(l.oldest) {
			d.expire(l)
		}
	}
	for len(d.waits) > 0 && !d.waits[0].due.After(now) {
		if s := d.waits[0]; s.read {
			d.move(s, reading)
		} else {
			d.move(s, sendable)
		}
	}
	d.aim()
	if !d.stopping {
		d.admit()
		d.send()
	}
	for _, l := range d.links {
		if len(l.requests) > 0 {
			l.live.Send(l.requests) //nolint:errcheck // the event of the closed connection follows
			l.requests = l.requests[:0]
		}
		if l.window != nil {
			l.count.inFlight.Store(uint64(l.window.Len()))
			l.count.limit.Store(int64(l.pace.limit()))
			l.count.reduced.Store(l.pace.reduced)
		}
	}
	for _, r := range d.routes {
		if len(r.targets) == 0 && r.held > 0 {
			for _, l := range r.links {
				poke(l.wanted)
			}
		}
	}
}

// happen takes an event of a link.
func (d *delivery) happen(e event) {
	l := e.link
	switch {
	case e.opened != nil:
		l.live, l.window, l.requests = e.opened, peer.NewWindow[*session](d.cfg.Window), l.requests[:0]
		l.pace = newPace(d.cfg.Window)
	case e.answers != nil:
		d.count.unmatched.Add(e.answers.bad)
		for i := range e.answers.list {
			d.answered(l, &e.answers.list[i])
		}
		e.answers.release()
	case e.closed:
		d.closed(l, e.err)
	}
}

// next returns when the next round is due, unless something happens before;
// the zero time for never.
func (d *delivery) next() time.Time {
	var t time.Time
	earlier := func(u time.Time) {
		if t.IsZero() || u.Before(t) {
			t = u
		}
	}
	for _, l := range d.links {
		if l.window != nil && l.window.Len() > 0 {
			earlier(l.oldest)
		}
	}
	if len(d.waits) > 0 {
		earlier(d.waits[0].due)
	}
	for _, r := range d.routes {
		if r.bucket.rate > 0 && r.ready.len() > 0 && len(r.targets) > 0 {
			earlier(r.bucket.due())
		}
	}
	if d.retry.After(d.now) {
		earlier(d.retry)
	}
	if len(d.obey) > 0 && d.obeyRetry.After(d.now) {
		earlier(d.obeyRetry)
	}
	if due := d.endDue(); !due.IsZero() {
		earlier(due)
	}
	return t
}
