package meter

import "context"

const (
	// maxFlows bounds Config.MaxFlows: numbers plus one fit 32 bits, and so does
	// what sweep multiplies with steps.
	maxFlows = 1 << 28
	// steps is in how many parts the sweep divides a pass over the cache.
	steps = 1024
	// candidates is how many flows are considered when one has to go.
	candidates = 16
)

// sweep exports flows that have ended without a packet to say so. It goes round
// the cache like the hand of a clock, once in a fourth of the shortest timeout,
// and looks at flows in proportion to the time that has passed: memory is read in
// order, a packet moves nothing in a list, and a clock that jumps does no harm.
// When it finds a flow changes only when the flow is exported, not what is.
func (m *Meter) sweep(ctx context.Context) error {
	if m.asked.Load() {
		if err := m.servePulls(ctx); err != nil {
			return err
		}
	}
	if m.swept == 0 {
		m.swept = m.now
	}
	step := max(min(m.final, m.idle, m.active)/4/steps, 1)
	passed := min((m.now-m.swept)/step, steps)
	if passed == 0 {
		return nil
	}
	if passed == steps {
		m.swept = m.now
	} else {
		m.swept += passed * step
	}
	for range (int64(m.cache.high)*passed + steps - 1) / steps {
		number := m.next()
		f := m.cache.at(number)
		if f.packets == 0 {
			continue
		}
		if reason := m.ended(f, m.now); reason != 0 {
			if err := m.export(ctx, f, reason); err != nil {
				return err
			}
			m.cache.remove(number)
		}
	}
	return nil
}

// evict makes room in a cache that is full: among the flows that the hand would
// look at next, the one that has been idle for longest has to go.
func (m *Meter) evict(ctx context.Context) error {
	victim := m.next()
	for range min(m.config.MaxFlows, candidates) - 1 {
		if number := m.next(); m.cache.at(number).end < m.cache.at(victim).end {
			victim = number
		}
	}
	return m.expel(ctx, victim, LackOfResources)
}

// next moves the hand and returns the number of the flow it pointed at.
func (m *Meter) next() uint32 {
	if m.hand >= m.cache.high {
		m.hand = 0
	}
	m.hand++
	return m.hand - 1
}
