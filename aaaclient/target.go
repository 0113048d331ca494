package aaaclient

import (
	"math"
	"math/bits"
	"slices"

	"tollbridge/aaaclient/peer"
)

// aim finds the links that take requests: of each route those in OKAY, or,
// while there are none, those in REOPEN. Requests on a link that takes none
// move to one that does (RFC 3539, Section 3.4.1: Failover).
func (d *delivery) aim() {
	var okay, reopen uint64
	suspect := false
	for _, l := range d.links {
		if l.live == nil {
			continue
		}
		switch s := l.live.Status(); {
		case s.State == peer.Suspect:
			suspect = suspect || l.window.Len() > 0
		case !s.Proven || s.Leaving:
		case s.State == peer.Okay:
			okay |= l.bit()
		case s.State == peer.Reopen:
			reopen |= l.bit()
		}
	}
	for _, r := range d.routes {
		r.okay = r.mask&okay != 0
		set := okay
		if !r.okay {
			set = reopen
		}
		var now uint64
		for _, l := range r.targets {
			now |= l.bit()
		}
		if now == set&r.mask {
			continue
		}
		r.targets = r.targets[:0]
		for _, l := range r.links {
			if l.bit()&set != 0 {
				r.targets = append(r.targets, l)
			}
			r.unpark(l)
		}
		r.count.ready.Store(len(r.targets) > 0)
	}
	if !suspect {
		return
	}
	for _, l := range d.links {
		if l.live == nil || l.window.Len() == 0 || l.live.Status().State != peer.Suspect {
			continue
		}
		moved := 0
		for _, s := range l.window.All() {
			if s.route.okay {
				d.abandon(s)
				d.acquit(s)
				d.move(s, sendable)
				moved++
			}
		}
		if moved > 0 {
			l.log.Warn("peer is suspect: its requests go elsewhere", "requests", moved)
		}
	}
}

// unpark takes the sessions of r that wait for l back, to choose again.
func (r *route) unpark(l *link) {
	for n := l.parked.len(); n > 0; n-- {
		s := l.parked.pop()
		switch {
		case s.route != r:
			l.parked.push(s)
		case s.stage == ready:
			r.ready.push(s)
		default:
			s.queued[ready] = false
		}
	}
}

// choose returns the link for the head of s, or nil while there is none: the
// best that has not failed it and is not mute, else the best that is not mute,
// else the best with a route.
func (d *delivery) choose(s *session) *link {
	mute := d.mute
	for mute != 0 {
		l := d.links[bits.TrailingZeros64(mute)]
		if mute &^= l.bit(); l.idle() && !d.now.Before(l.probe) && slices.Contains(s.route.targets, l) && l.bit()&(s.avoid|s.refused) == 0 {
			return l // to see whether it answers by now
		}
	}
	for _, without := range [...]uint64{s.avoid | s.refused | d.mute, s.refused | d.mute, s.avoid | s.refused, s.refused} {
		if l := s.route.pick(s, without); l != nil {
			return l
		}
	}
	return s.route.pick(s, 0)
}

// muteAfter is how many requests in a row a peer may leave unanswered before
// the others are preferred. It may be in OKAY all the same: a watchdog says
// nothing about a server's database.
const muteAfter = 3

// silent says that a request to l was not answered in time.
func (d *delivery) silent(l *link) {
	l.pace.slow(d.now)
	if l.unanswered++; l.unanswered < muteAfter {
		return
	}
	l.probe = d.now.Add(d.cfg.Timeout)
	if d.mute&l.bit() != 0 {
		return
	}
	d.mute |= l.bit()
	l.log.Warn("peer answers no requests: others are preferred")
	for _, r := range d.routes {
		r.unpark(l)
	}
}

// spoken says that l has answered a request.
func (d *delivery) spoken(l *link) {
	d.answers++
	l.answered, l.unanswered = d.answers, 0
	if d.mute&l.bit() != 0 {
		d.mute &^= l.bit()
		l.log.Info("peer answers requests again")
	}
}

// idle reports whether nothing is on its way to l.
func (l *link) idle() bool {
	return l.window != nil && l.window.Len()+l.assigned+l.parked.len() == 0
}

// pick returns the target of the best rank that is not in the set without. Of
// several it takes the same one for a session as long as it is there, and
// each as often as its Weight says (weighted rendezvous hashing).
func (r *route) pick(s *session, without uint64) *link {
	var best *link
	var most float64
	for _, l := range r.targets {
		if l.bit()&without != 0 {
			continue
		}
		if best == nil {
			best, most = l, -1
			continue
		}
		if l.rank != best.rank {
			break
		}
		if most < 0 {
			most = best.claim(s)
		}
		if c := l.claim(s); c > most {
			best, most = l, c
		}
	}
	return best
}

// claim returns how much l claims the session: the highest gets it.
func (l *link) claim(s *session) float64 {
	if s.hash == 0 {
		s.hash = hash(s.id)
	}
	x := s.hash ^ l.salt
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	u := (float64(x>>11) + 0.5) / (1 << 53)
	return -float64(l.peer.Weight) / math.Log(u)
}

// hash is FNV-1a of 64 bits: the same in every run, so that a session stays
// with its peer over a restart.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
