package collect

import "sync/atomic"

// Counts are what was counted since a Process began.
type Counts struct {
	Messages  uint64           // well-formed and journaled
	Octets    uint64           // of these
	Malformed map[Cause]uint64 // discarded; a cause that was not met is absent
	Opened    uint64           // Transport Sessions
	Closed    uint64           // of these; the others are open
	Evicted   uint64           // of Closed: to make room for another session
	Refused   uint64           // datagrams and connections of strangers, or beyond a limit
}

// Stats are the counts of a Process. Each is exact, and once serving has
// ended they agree with each other; while it serves one may be a Message ahead.
type Stats struct {
	Counts // of all exporters, of those forgotten and of strangers

	// Dropped counts datagrams that the kernel dropped at the UDP and DTLS
	// sockets, for want of buffer space above all, and those that DTLS
	// associations had no room for. Whose they were the kernel does not tell.
	Dropped uint64

	// Handshakes counts those of TLS and DTLS that failed: without a
	// certificate, with one that nobody vouches for or that has expired, with
	// garbage, or too slowly. Strangers whose certificate is good are Refused.
	Handshakes uint64

	// Of acknowledged export.
	Acknowledgements uint64 // sent
	HeldUp           uint64 // exporters told that they are held up, and why
	Acknowledged     int    // connections whose exporter asks for it

	// Exporters has the counts of every exporter that is configured or, where
	// none are, remembered.
	Exporters map[string]Counts
}

// Stats returns a snapshot.
func (p *Process) Stats() Stats {
	x := p.exporters
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Stats{Exporters: make(map[string]Counts, len(x.named)+len(x.remembered)), Dropped: p.dropped.Load(), Handshakes: p.failures.Load()}
	s.Acknowledgements, s.HeldUp = p.acknowledgements.Load(), p.heldUps.Load()
	p.answerers.Range(func(_, v any) bool {
		a := v.(*answerer)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.identity.Wants != 0 {
			s.Acknowledged++
		}
		return true
	})
	var total counters
	total.add(&x.others)
	for _, e := range x.named {
		s.Exporters[e.name] = e.snapshot()
		total.add(&e.counters)
	}
	for _, e := range x.remembered {
		s.Exporters[e.name] = e.snapshot()
		total.add(&e.counters)
	}
	s.Counts = total.snapshot()
	return s
}

// counters are Counts in the making.
type counters struct {
	messages, octets, opened, closed, evicted, refused atomic.Uint64

	malformed [causes]atomic.Uint64
}

func (c *counters) snapshot() Counts {
	s := Counts{
		Messages:  c.messages.Load(),
		Octets:    c.octets.Load(),
		Malformed: make(map[Cause]uint64),
		Opened:    c.opened.Load(),
		Closed:    c.closed.Load(),
		Evicted:   c.evicted.Load(),
		Refused:   c.refused.Load(),
	}
	for i := range c.malformed {
		if n := c.malformed[i].Load(); n > 0 {
			s.Malformed[Cause(i)] = n
		}
	}
	return s
}

func (c *counters) add(d *counters) {
	c.messages.Add(d.messages.Load())
	c.octets.Add(d.octets.Load())
	c.opened.Add(d.opened.Load())
	c.closed.Add(d.closed.Load())
	c.evicted.Add(d.evicted.Load())
	c.refused.Add(d.refused.Load())
	for i := range c.malformed {
		c.malformed[i].Add(d.malformed[i].Load())
	}
}
