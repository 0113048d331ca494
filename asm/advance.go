package asm

import (
	"context"
	"time"
)

// millis returns the pipeline's clock in Unix milliseconds.
func (m *Module) millis() int64 { return m.now / int64(time.Millisecond) }

// advance moves the clock to a time in Unix nanoseconds and does, in order,
// what came due until then. A time in the past moves nothing.
func (m *Module) advance(ctx context.Context, to int64) error {
	if to <= m.now {
		return nil
	}
	if m.boundary == 0 {
		m.boundary = alignDown(to, m.settings.Interval) + int64(m.settings.Interval)
	}
	for {
		if s := m.sessions.timers.first(); s != nil {
			due := s.due * int64(time.Millisecond)
			if due <= to && due <= m.boundary {
				m.now = max(m.now, due)
				m.expire(s, m.millis())
				continue
			}
		}
		if due := m.suspense.remap; due != 0 && due <= to && due <= m.boundary {
			m.now = max(m.now, due)
			if err := m.retry(ctx); err != nil {
				return err
			}
			continue
		}
		if m.boundary > to {
			break
		}
		m.now = max(m.now, m.boundary)
		if err := m.endInterval(ctx); err != nil {
			return err
		}
		m.boundary += int64(m.settings.Interval)
		// Nothing happens in intervals without usage: go on to the one in
		// which something is due.
		next := to
		if s := m.sessions.timers.first(); s != nil {
			next = min(next, s.due*int64(time.Millisecond))
		}
		if due := m.suspense.remap; due != 0 {
			next = min(next, due)
		}
		m.boundary = max(m.boundary, alignDown(next, m.settings.Interval))
	}
	m.now = to
	m.interval = m.intervalOf(to)
	m.windows.Advance(m.millis())
	m.forgotten = max(m.forgotten, m.over())
	return nil
}

// endInterval does what is due at the end of an interval.
func (m *Module) endInterval(ctx context.Context) error {
	m.expireEarly(m.now)
	m.transports.expire(m.now)
	m.released.expire(m.now)
	if err := m.fallback(ctx); err != nil {
		return err
	}
	m.cutChanged(false)
	return m.correct()
}

// cutAll makes records of all usage that is open, in the order of sessions.
func (m *Module) cutAll() { m.cutChanged(true) }

// cutChanged is cutAll; or, without all, leaves out sessions that go by an
// interval of their own.
func (m *Module) cutChanged(all bool) {
	for _, s := range m.sessions.takeChanged(all) {
		m.cut(s, m.millis())
	}
}

// Deadline returns when the pipeline wants a tick if no other entry comes,
// the zero time if it waits for nothing.
func (m *Module) Deadline() time.Time {
	due := int64(0)
	earlier := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	if s := m.sessions.timers.first(); s != nil {
		earlier(s.due * int64(time.Millisecond))
	}
	earlier(m.suspense.remap)
	if len(m.sessions.changed) > 0 || m.charges.InDoubt() {
		earlier(m.boundary)
	}
	if s := &m.suspense; s.since != 0 && m.settings.Fallback != "" && m.settings.Mode == ModeASM {
		// It is seen to at the end of an interval.
		at := s.since + m.settings.Wait.Nanoseconds()
		end := alignDown(at, m.settings.Interval)
		if end < at {
			end += int64(m.settings.Interval)
		}
		earlier(max(end, m.boundary))
	}
	if due == 0 {
		return time.Time{}
	}
	return time.Unix(0, due)
}

// intervalOf returns the start, in Unix seconds, of the interval that holds a
// time in Unix nanoseconds.
func (m *Module) intervalOf(at int64) int64 {
	return alignDown(at, m.settings.Interval) / int64(time.Second)
}

// alignDown returns the latest multiple of step that is not after at.
func alignDown(at int64, step time.Duration) int64 {
	r := at % int64(step)
	if r < 0 {
		r += int64(step)
	}
	return at - r
}
