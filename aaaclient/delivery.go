package aaaclient

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
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

// transmit encodes the head of s for l. It leaves at the end of the round.
func (d *delivery) transmit(s *session, l *link) {
	h := s.head()
	flags := uint8(avp.FlagRequest | avp.FlagProxiable)
	if h.MaySent || s.sendings > 0 {
		flags |= avp.FlagRetransmitted
		d.count.resent.Add(1)
	}
	d.move(s, inFlight)
	s.link, s.hopByHop = l, l.window.Add(h.EndToEnd, s)
	s.sendings++
	s.copies |= l.bit()
	s.due = d.now.Add(d.cfg.Timeout)
	if l.window.Len() == 1 {
		l.oldest = s.due
	}
	start := len(l.requests)
	writer, application := d.writer(h), d.cfg.Application
	if writer != nil && h.Record.Received == nil {
		application = writer.Profile().Applications()[0]
	}
	l.requests = avp.AppendHeader(l.requests, avp.Header{
		Flags: flags, Command: avp.CommandAccounting, Application: application,
		HopByHop: s.hopByHop, EndToEnd: h.EndToEnd,
	})
	options := l.options
	options.DestinationHost = s.route.hosts[s.id]
	switch {
	case h.Record.Received != nil:
		l.requests = append(l.requests, h.Record.Received...)
	case writer != nil:
		l.requests = writer.Append(l.requests, &h.Record, options)
	default:
		l.requests = d.cfg.Dictionary.AppendRecord(l.requests, &h.Record, options)
	}
	avp.SetLength(l.requests[start:])
	d.count.sent.Add(1)
	l.count.sent.Add(1)
	s.route.count.sent.Add(1)
}

// abandon gives up waiting for s where it is in flight. An answer that comes
// late settles it all the same.
func (d *delivery) abandon(s *session) {
	s.link.window.Remove(s.hopByHop)
	s.link.released(s)
	s.link = nil
	s.abandoned = true
	d.late[s.head().EndToEnd] = s
}

// land takes the head of s out of flight and out of late.
func (d *delivery) land(s *session) {
	if s.link != nil {
		s.link.window.Remove(s.hopByHop)
		s.link.released(s)
		s.link = nil
	}
	if s.abandoned {
		s.abandoned = false
		delete(d.late, s.head().EndToEnd)
	}
	s.alone = false
	s.drops, s.timeouts = 0, 0
}

// acquit ends the suspicion of every record if s was being tried alone: a peer
// that is silent proves nothing about it.
func (d *delivery) acquit(s *session) {
	if !s.alone {
		return
	}
	s.alone, s.drops = false, 0
	for d.suspects.len() > 0 {
		if s := d.suspects.pop(); s.alone && s.stage == sendable {
			s.alone, s.drops = false, 0
			d.move(s, sendable)
		}
	}
}

// expire times out the requests of l that have waited too long for an answer.
func (d *delivery) expire(l *link) {
	l.oldest = time.Time{}
	for _, s := range l.window.All() {
		if s.due.After(d.now) {
			if l.oldest.IsZero() || s.due.Before(l.oldest) {
				l.oldest = s.due
			}
			continue
		}
		d.count.timeouts.Add(1)
		l.count.timeouts.Add(1)
		d.abandon(s)
		d.acquit(s)
		d.silent(l)
		s.avoid = l.bit()
		if s.timeouts++; s.timeouts == 1 {
			d.move(s, sendable)
		} else {
			s.due = d.now.Add(d.backoff(s.timeouts - 2))
			d.move(s, waiting)
		}
	}
}

// backoff returns the pause after n failures before.
func (d *delivery) backoff(n int) time.Duration {
	pause := d.cfg.RetryMin << min(n, 30)
	if pause <= 0 || pause > d.cfg.RetryMax {
		return d.cfg.RetryMax
	}
	return pause
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

// closed sends what was in flight again, elsewhere or when l is back. A peer
// that cuts the connection off may do so because of a record (a "poison
// record"): one that was in flight each time is sent alone and, if that ends
// the same way while the peer answers other records, quarantined. A peer that
// has answered nothing since may cut off whatever it is sent, so the record
// waits until it is known better.
func (d *delivery) closed(l *link, err error) {
	cut := l.cutOff(err) && !d.stopping
	for _, s := range l.window.All() {
		alone := s.alone
		d.abandon(s)
		s.copies &^= l.bit()
		switch {
		case !cut:
			d.acquit(s)
			d.move(s, sendable)
		case alone && l.answered > s.innocent:
			d.land(s)
			d.refuse(s, l.peer.Address, 0, fmt.Sprintf(
				"the connection was cut off %d times in a row while this record was in flight, at last with nothing else: %v", s.cuts+1, err))
			l.pardon()
		case alone:
			s.cuts++
			d.count.unproven.Add(1)
			l.accuse()
			s.due = d.now.Add(d.backoff(s.cuts))
			d.move(s, waiting)
		default:
			if s.drops == 0 {
				s.innocent, s.cuts = d.answers, 0
			}
			s.drops++
			s.cuts++
			s.alone = s.drops >= d.cfg.Poison
			d.move(s, sendable)
		}
	}
	l.live, l.window, l.requests = nil, nil, l.requests[:0]
	l.count.inFlight.Store(0)
}

// answered settles, or tries again, what a answers.
func (d *delivery) answered(l *link, a *answer) {
	s, ok := (*session)(nil), false
	if l.window != nil {
		s, ok = l.window.Get(a.hopByHop, a.endToEnd)
	}
	if !ok {
		// An answer to an earlier sending settles as well (RFC 6733,
		// Section 5.5.4), if this peer was sent one.
		if s, ok = d.late[a.endToEnd]; ok && s.copies&l.bit() == 0 {
			ok = false
		}
	}
	if ok && (a.session != nil && string(a.session) != s.id || a.hasNumber && a.number != s.head().Record.Number) {
		ok = false
	}
	if !ok {
		d.count.unmatched.Add(1)
		if d.debug {
			l.log.Debug("answer matches no request", "hop_by_hop", a.hopByHop, "end_to_end", a.endToEnd)
		}
		return
	}
	d.count.answered.Add(1)
	l.count.answered.Add(1)
	d.spoken(l)
	l.pardon()
	latency := time.Duration(-1)
	if s.link == l {
		latency = d.now.Sub(s.due) + d.cfg.Timeout
	}
	h := s.head()
	if d.debug {
		l.log.Debug("aca received", "session_id", s.id, "number", h.Record.Number, "end_to_end", a.endToEnd, "result_code", a.result)
	}
	d.land(s)
	by := a.host
	if by == "" {
		by = l.peer.Address
	}
	switch d.judge(a) {
	case Settle:
		if latency >= 0 {
			l.pace.measure(d.now, latency, d.cfg.Timeout)
		}
		l.require(a.realtime)
		d.demand(h, a)
		s.route.count.settled.Add(1)
		s.route.learn(s, a)
		d.finish(s, acct.Settlement{ID: h.ID, State: acct.Acknowledged, Result: a.result, Peer: l.name(), At: d.now, Own: d.own(h)})
	case Quarantine:
		d.refuse(s, by, a.result, a.reason)
	case Wait:
		s.avoid = l.bit()
		delete(s.route.hosts, s.id)
		if a.result != avp.ResultUnableToDeliver {
			l.pace.slow(d.now)
		}
		d.again(s, by, a, d.backoff(int(min(h.Attempts, 30))))
	case Reroute:
		delete(s.route.hosts, s.id)
		s.refused |= l.bit()
		s.reroutes++
		if s.refused&s.route.mask == s.route.mask || s.reroutes >= maxReroutes {
			d.refuse(s, by, a.result, a.reason)
			return
		}
		pause := d.backoff(int(min(h.Attempts, 30)))
		if next := d.choose(s); next != nil && s.refused&next.bit() == 0 {
			pause = 0
		}
		d.again(s, by, a, pause)
	}
}

// demand notes the interval that a asks for, the answer to h, if that is not
// the one by which the record was cut. What ends a session asks for nothing.
func (d *delivery) demand(h *acct.Delivery, a *answer) {
	r := &h.Record
	if a.interim == 0 || a.interim == r.Interim || d.cfg.Obey == nil || len(d.obey) >= maxDemands {
		return
	}
	if own := r.Received == nil; own && (r.Type == acct.Start || r.Type == acct.Interim) {
		d.count.intervals.Add(1)
		d.obey = append(d.obey, acct.InterimInterval{SessionID: r.SessionID, Seconds: a.interim})
	}
}

// maxDemands bounds the intervals that wait for Config.Obey; a server that is
// not obeyed says so again.
const maxDemands = 1 << 14

// maxReroutes bounds the answers that a route fails, where some configured
// peer can't be asked.
const maxReroutes = 5

// refuse quarantines the head of s.
func (d *delivery) refuse(s *session, by string, result uint32, reason string) {
	h := s.head()
	d.cfg.Log.Warn("record is quarantined", "session_id", s.id, "number", h.Record.Number,
		"result_code", result, "origin_host", by, "reason", reason)
	s.route.count.quarantined.Add(1)
	d.finish(s, acct.Settlement{ID: h.ID, State: acct.Quarantined, Result: result, Peer: by, Reason: reason, At: d.now})
}

// finish settles the head of s for good and goes on to the next record.
func (d *delivery) finish(s *session, settlement acct.Settlement) {
	d.note(s, settlement)
	s.pop()
	s.route.held--
	d.proceed(s)
}

// again settles the head of s as not done. It will be a new request: it is
// read from the outbox again, when its time has come, and the later records
// of the session with it.
func (d *delivery) again(s *session, by string, a *answer, pause time.Duration) {
	id := s.head().ID
	d.note(s, acct.Settlement{ID: id, State: acct.Pending, Result: a.result, Peer: by, Reason: a.reason, At: d.now})
	s.route.held -= len(s.queue)
	s.queue, s.skipped, s.last = nil, id, id-1
	s.read = true
	if s.due = d.now.Add(pause); pause > 0 {
		d.move(s, waiting)
	} else {
		d.move(s, reading)
	}
}

func (d *delivery) note(s *session, settlement acct.Settlement) {
	s.settling++
	d.settle = append(d.settle, settlement)
	d.settled = append(d.settled, s)
}

// proceed makes the next record of s its head, or rests.
func (d *delivery) proceed(s *session) {
	switch {
	case len(s.queue) > 0:
		s.begin()
		d.move(s, ready)
	case s.skipped != 0:
		d.move(s, reading)
	default:
		d.move(s, resting)
		d.forget(s)
	}
}

// forget drops a session that has nothing left.
func (d *delivery) forget(s *session) {
	if s.idle() {
		s.route.stages[resting]--
		delete(d.sessions, s.id)
	}
}
