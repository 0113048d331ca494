package asm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/charges"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
)

// lateBinding is the reason of the corrections that no operator orders.
const lateBinding = "late binding"

// charge remembers usage u of f, of a class, that is accounted to the session
// of y, who held its source or its destination. What the flow itself or a
// policy gave to a user no binding contradicts, and no usage is in no record.
func (m *Module) charge(f *flow, y *tally, to bool, class classes.Index, u acct.Usage) {
	if s := y.session; s.key.source == "" || f.user == s.key.user || u == (acct.Usage{}) {
		return
	}
	a, port, vrf, remote := f.side(to)
	c := charges.Charge{
		Session: y.session.id, End: f.end, Addr: a.Unmap(), VRF: vrf,
		Class: m.classNames[class], Usage: u, Estimated: f.estimated, Layers: f.layer,
	}
	if y.class != classes.None && class == y.class {
		far, farPort := f.destination, f.destinationPort
		if to {
			far, farPort = f.source, f.sourcePort
		}
		input := u.InputOctets|u.InputPackets != 0 || u.OutputOctets|u.OutputPackets == 0
		c.OfBinding = m.classes.Find(&classes.Usage{Remote: far, Port: farPort, Protocol: f.protocol, DSCP: f.dscp, Input: input, Internal: f.internal}, classes.None) != class
	}
	if m.users.Shared() && !f.ofAddress {
		c.Shared, c.Port, c.Protocol, c.Remote = true, port, f.protocol, remote
	}
	m.charges.Add(&c, m.millis())
}

// side returns the source of f, or its destination: address, port and address
// space, and the host and port that it is towards.
func (f *flow) side(to bool) (a netip.Addr, port uint16, vrf string, remote netip.AddrPort) {
	if to {
		return f.destination, f.destinationPort, f.vrfTo, netip.AddrPortFrom(f.source, f.sourcePort)
	}
	return f.source, f.sourcePort, f.vrf, netip.AddrPortFrom(f.destination, f.destinationPort)
}

// changeUsers lets change alter the users, and notes of what that is remembered
// as charged it changes who held the address.
func (m *Module) changeUsers(change func()) {
	m.users.Watch(m.charges.Newest())
	change()
	m.users.TakeDoubts(m.charges.Doubt)
}

// correct looks through what was charged for what bindings contradict since
// the last time, and corrects it: a credit for who was charged and a debit for
// whose it was, at the end of an interval, when it is in some record.
func (m *Module) correct() error {
	x := &m.charges
	if !x.On() {
		return nil
	}
	x.Forget(m.millis())
	m.forgotten = max(m.forgotten, m.over())
	var byID map[uint64]*session // made when something is in doubt
	moves, err := x.Contradicted(m.horizon(), func(c *charges.Charge) (uint64, bool) {
		if byID == nil {
			byID = make(map[uint64]*session, len(m.sessions.byKey))
			for _, s := range m.sessions.byKey {
				byID[s.id] = s
			}
		}
		from := byID[c.Session]
		if from == nil && c.Session != 0 {
			return 0, false
		}
		to := m.holderOf(c)
		if to == nil {
			return 0, from != nil
		}
		byID[to.id] = to
		return to.id, !sameUser(from, to)
	})
	if err != nil {
		return fmt.Errorf("asm: look through what was charged: %w", err)
	}
	x.EndSegment(m.millis())
	for _, v := range moves {
		m.move(v, byID[v.From], byID[v.To])
	}
	return nil
}

// correctable reports whether all charges that end after a moment can be
// corrected: they are remembered, and so is who held their addresses.
func (m *Module) correctable(moment int64) bool {
	return m.charges.Covers(moment) && moment >= m.horizon()
}

// horizon returns the moment after which charges must end to be corrected, Unix
// milliseconds: of what ended until then somebody may be forgotten who held the
// address, or was charged for it. It does not fall, so no charge is asked about
// once more without news.
func (m *Module) horizon() int64 { return m.forgotten + m.settings.UserTolerance.Milliseconds() }

// sameUser reports whether charging one session or the other comes to the
// same; nil is nobody's.
func sameUser(a, b *session) bool {
	return a == b || a != nil && b != nil && a.key.user == b.key.user && a.realm == b.realm
}

// holderOf returns the session of who held the address of c, the fallback
// user's if nobody did, nil if there is none.
func (m *Module) holderOf(c *charges.Charge) *session {
	var h *users.Holder
	if c.Shared {
		h = m.users.LookupPort(c.VRF, c.Addr, c.Port, c.Protocol, c.Remote, c.End)
	} else {
		h = m.users.LookupVRF(c.VRF, c.Addr, c.End)
	}
	var s *session
	next := m.sessions.nextID
	switch {
	case h != nil:
		s = m.sessionOf(h).session
	case m.settings.Fallback != "":
		s = m.open(bindingKey{user: m.settings.Fallback})
	default:
		return nil
	}
	if s.id >= next {
		m.sessions.timers.set(s, m.due(s))
		m.sessions.touch(s)
	}
	return s
}

// move corrects what v says, nil being nobody's, and remembers it as charged to
// whose it is.
func (m *Module) move(v *charges.Move, from, to *session) {
	var in []acct.Record
	if from != nil {
		in = m.correction(v, from, true)
	}
	if to != nil {
		in = m.correction(v, to, false)
		if to.phase == ended { // it is kept as if the usage had come now
			to.last = m.millis()
			m.sessions.touch(to)
		}
	}
	for i := range v.Charges {
		c := &v.Charges[i]
		c.Session, c.Class, c.Moved = v.To, m.classNow(c, to), true
		m.charges.Add(c, m.millis())
	}
	m.charges.MarkAll(v.To, true, in, m.millis())
}

// classNow returns the class of c as one of s, nil for nobody: that of the
// binding, where it was the other binding's.
func (m *Module) classNow(c *charges.Charge, s *session) string {
	switch {
	case !c.OfBinding || s == nil:
		return c.Class
	case s.class == classes.None:
		return m.settings.ClassDefault
	}
	return m.classNames[s.class]
}

// correction cuts the records that take v away from s, or charge it to s.
func (m *Module) correction(v *charges.Move, s *session, credit bool) []acct.Record {
	if s.multiID == "" {
		s.multiID = m.newSessionID()
		m.sessions.touch(s)
	}
	var byClass []acct.ClassUsage
	var used acct.Layers
	var traced []TracedFlow
	first, last := v.Charges[0].End, v.Charges[0].End
	r := acct.Record{
		Type: acct.Event, MultiSessionID: s.multiID, User: s.key.user, Realm: cmp.Or(s.realm, m.settings.DestinationRealm),
		Framed: s.framed, Attributes: m.attributes(s), Source: s.key.source, NAS: s.nas, Event: milliTime(m.millis()),
		Corrects: &acct.Correction{SessionID: v.Record.SessionID, Number: v.Record.Number, Credit: credit, Reason: lateBinding},
	}
	for i := range v.Charges {
		c := &v.Charges[i]
		name := c.Class
		if !credit {
			name = m.classNow(c, s)
		}
		at := slices.IndexFunc(byClass, func(u acct.ClassUsage) bool { return u.Class == name })
		if at < 0 {
			at = len(byClass)
			byClass = append(byClass, acct.ClassUsage{Class: name, ZeroRated: m.classes.ZeroRated(m.class(name))})
		}
		u := &byClass[at]
		u.Usage = u.Plus(c.Usage)
		u.Increase = u.Usage
		r.Usage = r.Usage.Plus(c.Usage)
		r.Estimated = r.Estimated || c.Estimated
		used |= c.Layers
		if m.tracer != nil {
			traced = append(traced, TracedFlow{Endpoints: c.Addr.String(), Start: milliTime(c.End), End: milliTime(c.End), Usage: c.Usage})
		}
		first, last = min(first, c.End), max(last, c.End)
	}
	r.Increase, r.Layer = r.Usage, used.Layer()
	r.Start, r.End = milliTime(first), milliTime(last)
	if len(byClass) > 1 || byClass[0].Class != "" {
		r.Classes = byClass
	}
	m.stats.Corrections++
	return m.correctBy(r, traced)
}
