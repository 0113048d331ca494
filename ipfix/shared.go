package ipfix

// A shared is the sequence accounting over all Observation Domains of a
// Transport Session, for exporters that number Messages in one series for all
// (which RFC 7011, Section 3.1, does not allow). It is found out as a Unit is
// (see sequence), by the Messages that come after one of another domain, and
// given up again in the same way.
type shared struct {
	on       bool // sequence is the one that holds
	sequence sequence

	started  bool
	domain   uint32 // of the Message before
	last     uint32 // its number
	advance  tally
	lastOpen bool
	votes    votes // for sharing while it is off; the first is for having an own series each while it is on
}

// account accounts a Message whose own series is q.
func (s *shared) account(d *domain, q *sequence, h *Header, n *tally, r *Result, domains map[domainKey]*domain) {
	other := s.started && s.domain != d.key.id()
	switch {
	case !other || !q.started || r.Unknown > 0 || s.lastOpen || q.lastOpen:
		s.plain(q, h, n, 0, r, domains)
	case s.on:
		s.weighOwn(q, h, n, domains)
		s.plain(q, h, n, 0, r, domains)
	default:
		rivals := s.weigh(q, h, n, domains)
		s.plain(q, h, n, rivals, r, domains)
	}
	s.started, s.domain, s.last, s.advance, s.lastOpen = true, d.key.id(), h.Sequence, *n, r.Unknown > 0
}

// plain accounts a Message in the series that holds.
func (s *shared) plain(q *sequence, h *Header, n *tally, rivals uint8, r *Result, domains map[domainKey]*domain) {
	if !s.on {
		q.account(h, n, rivals, r)
		if s.votes != (votes{}) && q.quiet < calm && r.Counting.Confidence < Suspect {
			r.Counting.Confidence = Suspect
		}
		return
	}
	q.settle(r)
	// The own series goes on, to tell when sharing ends.
	unit := s.sequence.unit
	*q = sequence{unit: unit, started: true, latest: h.ExportTime, last: h.Sequence, advance: *n, lastOpen: r.Unknown > 0}
	q.next = q.first(h, n) + n.of(unit)
	s.sequence.domain = h.Domain
	s.sequence.account(h, n, 0, r)
	s.pay(h, domains)
	r.Counting.Shared = true
	if r.Counting.Confidence == Exact {
		r.Counting.Confidence = Estimated
	}
}

// pay owes to each domain what was found that it was told of as lost.
func (s *shared) pay(h *Header, domains map[domainKey]*domain) {
	for id, l := range s.sequence.credits {
		key := Header{Version: h.Version, Domain: id}.domainKey()
		if d := domains[key]; d != nil {
			d.sequence.owed.add(l)
		}
	}
	clear(s.sequence.credits)
}

// weigh votes for sharing, and returns sharedRival if it would explain the
// number of a Message after one of another domain.
func (s *shared) weigh(q *sequence, h *Header, n *tally, domains map[domainKey]*domain) (rivals uint8) {
	hit := q.first(h, n) == q.next || h.Sequence == q.expected(q.unit, n)
	for u := range units {
		expected := s.last
		if u == UnitFlowsSent {
			expected += n.of(u)
		} else {
			expected += s.advance[u]
		}
		switch {
		case u == UnitNone:
		case expected == q.next+h.Sequence-q.first(h, n):
		case hit:
			s.votes[u] = 0
		case h.Sequence == expected:
			s.votes[u]++
			q.quiet = 0
			rivals = sharedRival
			if s.votes[u] == enoughVotes {
				s.turn(true, u, h, n, domains)
				return 0
			}
		}
	}
	return rivals
}

// weighOwn votes for a series of each domain's own.
func (s *shared) weighOwn(q *sequence, h *Header, n *tally, domains map[domainKey]*domain) {
	first := s.sequence.first(h, n)
	switch {
	case q.next == s.sequence.next:
	case first == s.sequence.next:
		s.votes[0] = 0
	case first == q.next:
		s.votes[0]++
		if s.votes[0] == enoughVotes {
			s.turn(false, s.sequence.unit, h, n, domains)
		}
	}
}

// turn starts or ends sharing with the Message at hand, whose number is right.
// What domains lost that sharing explains is taken back.
func (s *shared) turn(on bool, u Unit, h *Header, n *tally, domains map[domainKey]*domain) {
	s.on, s.votes = on, votes{}
	s.sequence = sequence{unit: u, started: true, latest: h.ExportTime}
	s.sequence.next = s.sequence.first(h, n)
	for key, d := range domains {
		if key.version() != h.Version {
			continue
		}
		owed := d.sequence.owed
		for _, g := range d.sequence.gaps {
			if on && g.rivals&sharedRival != 0 {
				owed.add(d.sequence.loss(g, g.end-g.first))
			}
		}
		d.sequence = sequence{unit: u, owed: owed}
	}
}
