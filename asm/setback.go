package asm

import "time"

// setBack sets the clock, to Unix nanoseconds, where it was ahead: the host's
// clock had been, and was put right. Time goes on from there at once: what was
// open is cut by the clock that was, and no time of ours lies in the future
// after that, so that nothing waits until the old time comes again and no
// record ends before it starts.
//
// It is ordered by an entry of the journal, never guessed from the times of
// others, which may have waited elsewhere.
func (m *Module) setBack(to int64) {
	if to >= m.now {
		return
	}
	m.cutAll()
	by := m.now - to
	m.now = to
	m.boundary = alignDown(to, m.settings.Interval) + int64(m.settings.Interval)
	m.interval = m.intervalOf(to)
	m.windows.SetBack(m.millis())

	now := m.millis()
	if m.forgotten > now {
		// Whose it was before can't be told any more, and would keep what is
		// charged from now on from being corrected.
		m.charges.ForgetAll()
		m.forgotten = m.over()
	}
	for _, s := range m.sessions.byKey {
		if max(s.started, s.cut, s.last, s.stopped) > now {
			s.started, s.cut, s.last, s.stopped = min(s.started, now), min(s.cut, now), min(s.last, now), min(s.stopped, now)
			m.sessions.touch(s)
		}
	}
	m.retime()

	q := &m.suspense
	q.since = min(q.since, to)
	if q.unmapped == 0 {
		q.setBacks = q.setBacks[:0]
	}
	q.setBacks = append(q.setBacks, setBack{q.next, to})
	q.setBacks = q.setBacks[max(0, len(q.setBacks)-maxSetBacks):]
	for _, t := range m.transports.open {
		if t.orphan > to {
			t.orphan = to
			m.transports.touch(t)
		}
		for i := range t.early {
			if e := &t.early[i]; e.time > to {
				e.time = to
				m.transports.touch(t)
			}
		}
	}
	for id, w := range m.parts.open {
		if w.since > to {
			w.since = to
			m.parts.changed[id] = true
		}
	}
	m.stats.SetBack++
	m.log.Warn("the clock was ahead and is set back", "by", time.Duration(by), "to", time.Unix(0, to).UTC())
}

// A setBack is one of the clock, to Unix nanoseconds, as suspense knows it.
type setBack struct {
	before uint64 // flows with a lower ID were in suspense then
	to     int64
}

// maxSetBacks is how many are remembered: more hardly happen while a flow
// waits.
const maxSetBacks = 16

// waitsSince returns since when a flow has waited, Unix nanoseconds: what was
// suspended while the clock was ahead, since it was set back at most. It never
// falls from one ID to the next.
func (s *suspense) waitsSince(id uint64, since int64) int64 {
	for _, b := range s.setBacks {
		if id < b.before {
			since = min(since, b.to)
		}
	}
	return since
}
