package asm

import (
	"context"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// account adds f, of the ledger's row key, to the sessions of those who held
// its addresses when it ended, nil for nobody: from the source's as input, to
// the destination's as output (RFC 7155, Section 4.5). Where both are users
// the second half is mirrored. Nothing is accounted if neither is. If one is,
// and the other address is a user's by its network, that half waits for who
// holds it.
func (m *Module) account(f *flow, source, destination *users.Holder, key acct.LedgerKey) (accounted, mirrored acct.Count) {
	if f.user != "" {
		return m.accountNamed(f, source, destination, key)
	}
	n := f.count()
	f.internal = source != nil && destination != nil || f.half != bothEnds
	if source != nil {
		m.accountHolder(f, source, false, key, n)
		accounted = n
	}
	if destination != nil {
		m.accountHolder(f, destination, true, key, n)
		if !accounted.IsZero() {
			mirrored = n
		}
		accounted = accounted.Plus(n)
	}
	if len(m.settings.Networks) > 0 && (source == nil) != (destination == nil) {
		m.waitForOther(f, destination == nil, key)
	}
	return accounted, mirrored
}

// waitForOther lets the half of f that nobody holds yet, its destination's or
// its source's, wait in suspense, where the address is in a network of users.
func (m *Module) waitForOther(f *flow, to bool, key acct.LedgerKey) {
	a := f.source
	if to {
		a = f.destination
	}
	if f.half != bothEnds || !a.IsValid() || !matchesPrefix(m.settings.Networks, a.Unmap()) {
		return
	}
	rest := *f
	rest.user, rest.half = "", sourceEnd
	if to {
		rest.half = destinationEnd
	}
	row := m.ledger.row(key)
	row.Mirrored = row.Mirrored.Plus(rest.count())
	m.suspend(&rest, reasonUnmapped, heldRecord{}, row, key)
}

// accountHolder adds f to the session of h, who held its source, or its
// destination, when it ended.
func (m *Module) accountHolder(f *flow, h *users.Holder, to bool, key acct.LedgerKey, n acct.Count) {
	a := f.source
	if to {
		a = f.destination
	}
	if m.settings.Split != SplitProportional || f.start == f.end || h.Ports != "" || !h.Prefix().Contains(a) {
		m.accountSide(f, m.sessionOf(h), to, key, n)
		return
	}
	m.divide(f, a, h, to, key, n)
}

// mapped is account for whoever held the addresses of f.
func (m *Module) mapped(f *flow, key acct.LedgerKey) (accounted, mirrored acct.Count) {
	var source, destination *users.Holder
	if f.half != destinationEnd {
		source = m.holder(f, false)
	}
	if f.half != sourceEnd {
		destination = m.holder(f, true)
	}
	return m.account(f, source, destination, key)
}

// usage returns what went out from a user as input and what came in as
// output.
func usage(from, to volume) acct.Usage {
	return acct.Usage{
		InputOctets: from.octets, InputPackets: from.packets,
		OutputOctets: to.octets, OutputPackets: to.packets,
	}
}

// sessionOf returns the tally of the session of h, a new one if it has none.
func (m *Module) sessionOf(h *users.Holder) *tally {
	if y, _ := h.Session.(*tally); y != nil && !y.gone {
		return y
	}
	s := m.open(keyOf(h))
	m.bind(s, h)
	return s.tally
}

// keyOf returns what names the binding of h, or the user session that it is of.
func keyOf(h *users.Holder) bindingKey {
	if h.ID() != "" {
		return sessionKey(h.Claim)
	}
	return bindingKey{source: h.Source(), prefix: h.Prefix(), vrf: h.VRF(), ports: h.Ports, user: h.User(), from: h.From}
}

// sessionKey returns what names the user session of c, whatever addresses it
// has.
func sessionKey(c *users.Claim) bindingKey {
	return bindingKey{source: c.Source(), id: c.ID(), user: c.User(), from: c.Began()}
}

// open returns the session of a binding, a new one if there is none.
func (m *Module) open(key bindingKey) *session {
	s := m.sessions.byKey[key]
	if s == nil {
		s = newSession(m.sessions.nextID, key)
		m.sessions.nextID++
		m.sessions.add(s)
	}
	return s
}

// bind makes s follow its binding as h has it now.
func (m *Module) bind(s *session, h *users.Holder) {
	h.Session = s.tally
	m.follow(s, h.Claim)
}

// follow makes s go by what c says now.
func (m *Module) follow(s *session, c *users.Claim) {
	s.until, s.realm, s.timeZone, s.nas, s.class = c.Until(), c.Realm, c.TimeZone, c.NAS(), noClass
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

// sweepEvery returns how often what is over of user sessions and NATs is looked
// for while events come, in nanoseconds: not too often, as that may take reading
// all that is in suspense.
func (m *Module) sweepEvery() int64 { return int64(max(10*time.Minute, m.settings.Late/24)) }

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
	m.changeUsers(func() { changed = m.users.Apply(event) })
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

// use adds usage to the session of y, which starts if need be.
func (m *Module) use(y *tally, c classIndex, u acct.Usage, key acct.LedgerKey, n acct.Count) {
	now := m.millis()
	switch {
	case y.phase == dormant:
		m.start(y.session, now)
	case y.phase == ended && !y.changed:
		y.session.cut = now
	}
	y.last = now
	m.sessions.count(y, c, u, key, n)
	first := !y.changed
	m.sessions.change(y)
	if first && y.session.interim != 0 {
		m.sessions.timers.set(y.session, m.due(y.session))
	}
}

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
