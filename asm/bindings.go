package asm

import (
	"context"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
)

// replaceUsers applies an EntryUsers: bindings of one source, in place of
// those it gave before. One that is missing now has ended. Flows that wait for
// a user are mapped again.
func (m *Module) replaceUsers(ctx context.Context, e acct.Entry) error {
	source, bindings, err := users.ParseList(e.Data)
	if err != nil {
		m.broken(e, err)
		return nil
	}
	var change users.Change
	m.changeUsers(func() { change = m.users.Replace(source, bindings, m.millis()) })
	m.state.users = append(m.state.users, source)
	for _, h := range change.Added {
		m.rebind(h)
	}
	for _, h := range change.Removed {
		m.rebind(h)
	}
	for _, c := range change.Changed {
		m.rebind(c.Holder)
	}
	// Sessions remember their binding's end themselves, so only flows need
	// the bindings that are over.
	m.state.users = append(m.state.users, m.users.Trim(m.over())...)
	return m.retry(ctx)
}

// applyEvent applies an EntryBinding: an event of one user session, or of a
// NAS. Flows that wait for a user are mapped again soon.
func (m *Module) applyEvent(e acct.Entry) {
	event, err := users.ParseEvent(e.Data)
	if err != nil {
		m.broken(e, err)
		return
	}
	m.stats.Events++
	m.sweep()
	var changed []*users.Claim
	_, before := m.users.Sessions()
	m.changeUsers(func() { changed = m.users.Apply(event) })
	if n, refused := m.users.Sessions(); refused > before {
		m.logs.warn(m.log, "a user session is not known, since as many are as can be: its flows wait for a user", acct.LedgerKey{}, 0,
			"source", event.Source, "nas", event.NAS, "sessions", n)
	}
	for _, c := range changed {
		if s := m.sessions.byKey[sessionKey(c)]; s != nil {
			m.contradict(s, c)
			m.follow(s, c)
			m.renew(s)
		}
	}
	if len(changed) == 0 {
		m.stats.EventsIdle++
		return
	}
	m.retryLater()
}

// contradict counts, and tells of, a session whose user turns out to have held
// nothing any more at a time of which usage has been cut into records: some of
// it may be another's. Where enough is remembered that is corrected at the
// interval's end; else an operator decides (tollbridge spool adjust).
func (m *Module) contradict(s *session, c *users.Claim) {
	until := c.Until()
	if until == 0 || s.until != 0 && s.until <= until || s.sessionID == "" || until >= s.last || until >= s.cut {
		return
	}
	m.stats.Contradictions++
	text := "a binding ended before usage that has been accounted to it, which is corrected"
	if !m.correctable(until) {
		text = "a binding ended before usage that has been accounted to it, and users.correct does not reach so far back"
	}
	m.logs.warn(m.log, text, acct.LedgerKey{}, 0,
		"session_id", s.sessionID, "prefix", s.framed, "ended", milliTime(until), "accounted_until", milliTime(min(s.last, s.cut)))
	m.log.Debug("whose binding ended early", "session_id", s.sessionID, "user", s.key.user)
}

// rebind tells the session of h, if it has one, that its binding has changed.
func (m *Module) rebind(h *users.Holder) {
	if s := m.sessions.byKey[keyOf(h)]; s != nil {
		m.bind(s, h)
		m.renew(s)
	}
}

// renew sees to s, whose binding has changed.
func (m *Module) renew(s *session) {
	if s.phase == ended && (s.until == 0 || s.until > m.millis()) {
		// It holds again. What came late is cut as such.
		if s.changed {
			m.event(s, m.millis())
		}
		s.phase = dormant
	}
	m.sessions.timers.set(s, m.due(s))
	m.sessions.touch(s)
}

// bind makes s follow its binding as h has it now.
func (m *Module) bind(s *session, h *users.Holder) {
	h.Session = s.tally
	m.follow(s, h.Claim)
}

// follow makes s go by what c says now.
func (m *Module) follow(s *session, c *users.Claim) {
	s.until, s.realm, s.timeZone, s.nas, s.class = c.Until(), c.Realm, c.TimeZone, c.NAS(), classes.None
	if c.Class != "" {
		s.class = m.class(c.Class)
	}
	if s.multiID == "" {
		s.multiID = c.MultiSession
	}
	if first, attributes := framed(c); first.IsValid() {
		s.framed, s.attributes = first, attributes
	}
}

// sweepEvery returns how often what is over of user sessions and NATs is looked
// for while events come, in nanoseconds: not too often, as that may take reading
// all that is in suspense.
func (m *Module) sweepEvery() int64 { return int64(max(10*time.Minute, m.settings.Late/24)) }

// sweep drops the user sessions that are over, and what NATs told, every now and
// then. An entry once begun is finished: an error fails the Module behind it.
func (m *Module) sweep() {
	if every := m.sweepEvery(); m.now/every == m.swept/every {
		return
	}
	if err := m.keepBehind(context.Background(), m.over()); err != nil {
		m.suspense.err = err
		return
	}
	m.users.TrimSessions(m.over())
	m.swept = m.now
}

// over returns the moment until which bindings must have ended to be dropped,
// Unix milliseconds: no flow of then is waited for.
func (m *Module) over() int64 { return m.millis() - m.settings.Late.Milliseconds() }
