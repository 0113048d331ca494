package asm

// end returns when s ends for its binding's end, 0 for never: when flows of
// that time can't be under way any more. That of a name alone ends when it is
// idle, and is forgotten if it stays so.
func (m *Module) end(s *session) int64 {
	if s.named() {
		if s.phase == active {
			return s.last + m.settings.InBandIdle.Milliseconds()
		}
		return max(s.last, s.stopped) + m.settings.Late.Milliseconds()
	}
	if s.until == 0 {
		return 0
	}
	return max(s.until, s.last) + m.settings.Linger.Milliseconds()
}

// due returns when something is to be done about s, 0 for never.
func (m *Module) due(s *session) int64 {
	due := m.end(s)
	if s.phase == ended {
		gone := max(s.stopped, s.last) + m.settings.Late.Milliseconds()
		if m.charges.On() {
			// What it was charged last is looked through until then.
			gone += m.settings.Interval.Milliseconds()
		}
		return gone
	}
	if s.phase != active {
		return due
	}
	earlier := func(at int64) {
		if due == 0 || at < due {
			due = at
		}
	}
	if m.settings.MaxSessionAge > 0 {
		earlier(s.started + m.settings.MaxSessionAge.Milliseconds())
	}
	if s.midnight != 0 {
		earlier(s.midnight)
	}
	if at := m.interimDue(s); at != 0 {
		earlier(at)
	}
	return due
}

// expire does what is due for s at a time in Unix milliseconds.
func (m *Module) expire(s *session, at int64) {
	m.sessions.touch(s)
	if due := m.due(s); due == 0 || due > at {
		m.sessions.timers.set(s, due)
		return
	}
	end := m.end(s)
	over := end != 0 && end <= at
	switch {
	case s.phase == ended:
		if s.changed {
			m.event(s, at)
		}
		m.sessions.remove(s)
		return
	case s.phase == dormant && s.named():
		m.sessions.remove(s)
		return
	case s.phase == dormant:
		s.phase, s.stopped = ended, at
	case over && !s.named():
		m.stop(s, at, ended)
	case s.midnight != 0 && s.midnight <= at && !over && !m.tooOld(s, at) && !m.cycleBegins(s, s.midnight):
		if s.changed {
			m.cut(s, at)
		}
		s.midnight = m.midnight(s, at)
	case !over && !m.tooOld(s, at) && (s.midnight == 0 || s.midnight > at):
		m.cut(s, at) // for its own interval
	default:
		m.stop(s, at, dormant)
	}
	m.sessions.timers.set(s, m.due(s))
}
