package aaaclient

import "slices"

// admit lets as many records go on as will have room: to be marked, or to be
// sent if they were marked in an earlier life and nothing of their session is
// to be settled before. The others are parked with the
// link that they are meant for, so that a slow one holds up no other.
func (d *delivery) admit() {
	for _, r := range d.routes {
		if len(r.targets) == 0 {
			continue
		}
		for r.ready.len() > 0 {
			if !r.bucket.take(d.now) {
				r.count.limited.Add(1)
				break
			}
			s := take(&r.ready, ready)
			if s == nil {
				break
			}
			s.queued[ready] = true
			d.choose(s).parked.push(s)
		}
	}
	for _, l := range d.links {
		for l.room() > 0 {
			s := take(&l.parked, ready)
			if s == nil {
				s = d.relieve(l)
			}
			if s == nil {
				break
			}
			if s.marked && s.settling == 0 {
				d.move(s, sendable)
			} else {
				d.move(s, marking)
				d.marks = append(d.marks, s)
			}
			s.assign(l)
		}
	}
}

// relieve returns a session that waits for a link that shares the load with l,
// or nil. The session leaves its peer, since that is too slow: those that wait
// for it take up half of what may be in memory.
func (d *delivery) relieve(l *link) *session {
	for _, other := range d.links {
		if other.rank != l.rank || other == l {
			continue
		}
		for other.parked.len() > d.cfg.Buffer/2 {
			s := take(&other.parked, ready)
			if s == nil {
				break
			}
			if (s.avoid|s.refused)&l.bit() == 0 && slices.Contains(s.route.targets, l) {
				return s
			}
			s.queued[ready] = true
			other.parked.push(s)
			break
		}
	}
	return nil
}

// room returns how many more records may be admitted for l.
func (l *link) room() int {
	if l.window == nil {
		return 0
	}
	return l.free() - l.assigned
}

// free returns how many more requests may be sent on l.
func (l *link) free() int {
	if l.window == nil {
		return 0
	}
	return min(l.window.Free(), l.pace.limit()-l.window.Len())
}

// send transmits what may be sent and has room. A suspect goes with nothing
// else in flight on its link.
func (d *delivery) send() {
	var hold uint64
	for n := d.suspects.len(); n > 0; n-- {
		s := d.suspects.pop()
		if s.stage != sendable || !s.alone {
			continue
		}
		l := d.choose(s)
		if l == nil || hold&l.bit() != 0 || l.window.Len() > 0 {
			if l != nil {
				hold |= l.bit()
			}
			d.suspects.push(s)
			continue
		}
		hold |= l.bit()
		d.transmit(s, l)
		l.alone = true
	}
	for _, r := range d.routes {
		if len(r.targets) == 0 {
			continue
		}
		for n := r.sendable.len(); n > 0; n-- {
			s := take(&r.sendable, sendable)
			if s == nil {
				break
			}
			l := s.to
			if l == nil || (s.avoid|s.refused)&l.bit() != 0 || !slices.Contains(r.targets, l) {
				l = d.choose(s)
			}
			if hold&l.bit() == 0 && !l.alone && l.free() > 0 {
				d.transmit(s, l)
			} else {
				s.queued[sendable] = true
				r.sendable.push(s)
			}
		}
	}
}

// released says that s is not in flight on l any more.
func (l *link) released(s *session) {
	if s.alone {
		l.alone = false
	}
}

// flying returns the sessions in flight.
func (d *delivery) flying() int {
	n := 0
	for _, r := range d.routes {
		n += r.stages[inFlight]
	}
	return n
}
