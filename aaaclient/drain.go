package aaaclient

import (
	"slices"
	"time"
)

// A drain is the end of a delivery: what there is still goes out, as long as
// peers take and answer it, and then nothing more.
//
//	delivering ──► draining ──► stopping ──► ended
//	        stopped     nothing moves    answers are in
type drain struct {
	until   time.Time // of draining, and then of stopping; zero before
	heard   time.Time // of the latest answer since draining began, or of that
	answers uint64    // delivery.answers then
}

// drain begins the end.
func (d *delivery) drain(now time.Time) {
	d.now = now
	d.end = drain{until: now.Add(d.cfg.Drain), heard: now, answers: d.answers}
	if d.woken(); d.cfg.Drain == 0 { // the outbox may have got its last records just now
		d.stop()
	}
}

// stop ends draining: nothing more is sent, and answers are waited for.
func (d *delivery) stop() {
	d.stopping = true
	d.end.until = d.end.heard.Add(d.cfg.Grace)
}

// ended reports whether the end is reached. It wants to be asked after each
// round.
func (d *delivery) ended() bool {
	e := &d.end
	if e.until.IsZero() {
		return false
	}
	if e.answers != d.answers {
		e.answers, e.heard = d.answers, d.now
	}
	if !d.stopping {
		if d.now.Before(d.endDue()) && d.unsent() {
			return false
		}
		d.stop()
	}
	late := !d.now.Before(e.until)
	return !d.busy && (late || len(d.settle) == 0 && d.flying() == 0)
}

// endDue returns when the end goes on if nothing happens; the zero time before.
func (d *delivery) endDue() time.Time {
	e := &d.end
	if silent := e.heard.Add(d.cfg.Grace); !d.stopping && silent.Before(e.until) {
		return silent
	}
	return e.until
}

// unsent reports whether there is anything that some peer may be sent now. What
// waits for its time to be tried again is not, nor what has no peer.
func (d *delivery) unsent() bool {
	for _, r := range d.routes {
		if len(r.targets) == 0 {
			continue
		}
		if !r.end || r.seen != d.wakes || r.stages[ready]+r.stages[marking]+r.stages[sendable]+r.stages[reading] > 0 {
			return true
		}
	}
	return slices.ContainsFunc(d.links, func(l *link) bool {
		if l.window == nil {
			return false
		}
		for _, s := range l.window.All() {
			if len(s.queue) > 1 || s.skipped != 0 {
				return true
			}
		}
		return false
	})
}
