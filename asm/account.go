package asm

import (
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
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
	if f.half != bothEnds || !a.IsValid() || !m.ofUsers(a.Unmap()) {
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

// ofUsers reports whether a is in a network of users.
func (m *Module) ofUsers(a netip.Addr) bool {
	return slices.ContainsFunc(m.settings.Networks, func(p netip.Prefix) bool { return p.Contains(a) })
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

// use adds usage to the session of y, which starts if need be.
func (m *Module) use(y *tally, c classes.Index, u acct.Usage, key acct.LedgerKey, n acct.Count) {
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

// accountSide adds f to the session of the user at its source, or at its
// destination.
func (m *Module) accountSide(f *flow, y *tally, to bool, key acct.LedgerKey, n acct.Count) {
	remote, port, u := f.destination, f.destinationPort, usage(f.forward, f.reverse)
	if to {
		remote, port, u = f.source, f.sourcePort, usage(f.reverse, f.forward)
	}
	// A rule of one direction sees a flow by that in which it went; one that
	// went in both by each.
	input := u.InputOctets|u.InputPackets != 0 || u.OutputOctets|u.OutputPackets == 0
	c := classes.Usage{Remote: remote, Port: port, Protocol: f.protocol, DSCP: f.dscp, Input: input, Internal: f.internal}
	class := m.classes.Find(&c, y.class)
	if m.classes.Directional() && input && u.OutputOctets|u.OutputPackets != 0 {
		c.Input = false
		if back := m.classes.Find(&c, y.class); back != class {
			in, out := acct.Usage{InputOctets: u.InputOctets, InputPackets: u.InputPackets}, acct.Usage{OutputOctets: u.OutputOctets, OutputPackets: u.OutputPackets}
			m.use(y, back, out, key, acct.Count{Octets: u.OutputOctets, Packets: u.OutputPackets})
			if m.charges.On() {
				m.charge(f, y, to, back, out)
			}
			u, n = in, acct.Count{Records: n.Records, Octets: u.InputOctets, Packets: u.InputPackets}
		}
	}
	m.use(y, class, u, key, n)
	if m.charges.On() {
		m.charge(f, y, to, class, u)
	}
	y.estimated = y.estimated || f.estimated
	y.layers |= f.layer
	if m.tracer != nil {
		m.traceFlow(y.session, f, u, key, n)
	}
}
