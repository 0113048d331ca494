package aaaclient

import (
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// answered settles, or tries again, what a answers.
func (d *delivery) answered(l *link, a *answer) {
	s, ok, late := (*session)(nil), false, false
	if l.window != nil {
		s, ok = l.window.Get(a.hopByHop, a.endToEnd)
	}
	if !ok {
		// An answer to an earlier sending settles as well (RFC 6733,
		// Section 5.5.4), if this peer was sent one.
		if s, ok = d.late[a.endToEnd]; ok && s.copies&l.bit() == 0 {
			ok = false
		}
		late = ok
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
	fate := d.judge(a)
	if late && fate != Settle && s.copies&^l.bit() != 0 {
		// A peer that has another copy may account it: its answer counts.
		s.copies &^= l.bit()
		s.sendings--
		return
	}
	d.land(s)
	by := a.host
	if by == "" {
		by = l.peer.Address
	}
	switch fate {
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

// again settles the head of s as not done. It will be a new request, with the T
// flag if a copy of it was not answered: it is read from the outbox again, when
// its time has come, and the later records of the session with it.
func (d *delivery) again(s *session, by string, a *answer, pause time.Duration) {
	h := s.head()
	id := h.ID
	d.note(s, acct.Settlement{
		ID: id, State: acct.Pending, Result: a.result, Peer: by, Reason: a.reason, At: d.now,
		MaySent: h.MaySent || s.sendings > 1,
	})
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
