package aaaclient

import "fmt"

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
