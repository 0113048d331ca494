package asm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// lateBinding is the reason of the corrections that no operator orders.
const lateBinding = "late binding"

// maxDoubts bounds the doubts that are told apart: beyond it everything of
// their time is looked through.
const maxDoubts = 1 << 16

// charge remembers usage u of f, of a class, that is accounted to the session
// of y, who held its source or its destination. What the flow itself or a
// policy gave to a user no binding contradicts, and no usage is in no record.
func (m *Module) charge(f *flow, y *tally, to bool, class classIndex, u acct.Usage) {
	if s := y.session; s.key.source == "" || f.user == s.key.user || u == (acct.Usage{}) {
		return
	}
	a, port, vrf, remote := f.side(to)
	c := charge{
		session: y.session.id, end: f.end, addr: a.Unmap(), vrf: vrf,
		class: m.classNames[class], usage: u, estimated: f.estimated, layer: f.layer,
	}
	if y.class != noClass && class == y.class {
		far, farPort := f.destination, f.destinationPort
		if to {
			far, farPort = f.source, f.sourcePort
		}
		input := u.InputOctets|u.InputPackets != 0 || u.OutputOctets|u.OutputPackets == 0
		c.ofBinding = m.classes.find(f, far, farPort, input, noClass) != class
	}
	if m.users.Shared() {
		c.shared, c.port, c.protocol, c.remote = true, port, f.protocol, remote
	}
	m.charges.add(&c, m.millis())
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
	x := &m.charges
	m.users.Watch(x.newest)
	change()
	m.users.TakeDoubts(func(d users.Doubt) {
		x.changed = true
		if len(x.doubts) < maxDoubts {
			x.doubts = append(x.doubts, d)
			return
		}
		// A Doubt without a prefix is of all.
		all := users.Doubt{From: d.From}
		for _, e := range x.doubts {
			all.From = min(all.From, e.From)
		}
		x.doubts = append(x.doubts[:0], all)
	})
}

// A move is what a record charged to one session and is another's.
type move struct {
	from    *session   // nil for nobody
	record  recordMark // of that session
	to      *session   // nil for nobody
	charges []charge
}

// correct looks through what was charged for what bindings contradict since
// the last time, and corrects it: a credit for who was charged and a debit for
// whose it was, at the end of an interval, when it is in some record.
func (m *Module) correct() error {
	x := &m.charges
	if !x.on() {
		return nil
	}
	x.forget(m.millis())
	m.forgotten = max(m.forgotten, m.over())
	moves, all, err := m.contradicted(newDoubtIndex(x.doubts))
	if err != nil {
		return fmt.Errorf("asm: look through what was charged: %w", err)
	}
	if all && len(x.doubts) > 0 {
		x.doubts, x.changed = x.doubts[:0], true
	}
	x.endSegment(m.millis())
	for _, v := range moves {
		m.move(v)
	}
	return nil
}

// contradicted returns what is to be moved, in order, and takes it out of what
// is remembered. It reports whether that is all: a session whose interim
// interval is longer may not have been cut yet.
func (m *Module) contradicted(doubts doubtIndex) (moves []*move, all bool, err error) {
	x := &m.charges
	type moveKey struct {
		sessionID string
		number    uint32
		to        *session
	}
	type unmarked struct { // it is not known yet which record it is in
		charge
		to      *session
		segment int
		ordinal int
	}
	byKey := make(map[moveKey]*move)
	waiting := make(map[uint64][]unmarked) // by session
	gone := make([][]int, len(x.segments)) // ordinals, by segment
	horizon := m.horizon()
	var byID map[uint64]*session
	for i, g := range x.segments {
		if byID == nil && !doubts.of(g.latest) {
			continue
		}
		if byID == nil {
			byID = make(map[uint64]*session, len(m.sessions.byKey))
			for _, s := range m.sessions.byKey {
				byID[s.id] = s
			}
		}
		ordinal := -1
		err := g.each(func(c *charge) {
			ordinal++
			if c.end <= horizon || !doubts.has(c) {
				return
			}
			from := byID[c.session]
			if from == nil && c.session != 0 {
				return
			}
			if to := m.holderOf(c); !sameUser(from, to) {
				waiting[c.session] = append(waiting[c.session], unmarked{*c, to, i, ordinal})
			}
		}, func(k *recordMark) {
			of := waiting[k.session]
			left := of[:0]
			for _, c := range of {
				if c.moved != k.moved || k.classes != nil && !slices.Contains(k.classes, c.class) {
					left = append(left, c)
					continue
				}
				key := moveKey{k.sessionID, k.number, c.to}
				v := byKey[key]
				if v == nil {
					v = &move{from: byID[k.session], record: *k, to: c.to}
					byKey[key] = v
					moves = append(moves, v)
				}
				v.charges = append(v.charges, c.charge)
				gone[c.segment] = append(gone[c.segment], c.ordinal)
			}
			if waiting[k.session] = left; len(left) == 0 {
				delete(waiting, k.session)
			}
		})
		if err != nil {
			return nil, false, err
		}
	}
	for i, ordinals := range gone {
		if len(ordinals) == 0 {
			continue
		}
		slices.Sort(ordinals)
		rest, err := x.segments[i].without(ordinals)
		if err != nil {
			return nil, false, err
		}
		x.replace(i, rest)
	}
	return moves, len(waiting) == 0, nil
}

// sameUser reports whether charging one session or the other comes to the
// same; nil is nobody's.
func sameUser(a, b *session) bool {
	return a == b || a != nil && b != nil && a.key.user == b.key.user && a.realm == b.realm
}

// holderOf returns the session of who held the address of c, the fallback
// user's if nobody did, nil if there is none.
func (m *Module) holderOf(c *charge) *session {
	var h *users.Holder
	if c.shared {
		h = m.users.LookupPort(c.vrf, c.addr, c.port, c.protocol, c.remote, c.end)
	}
	if h == nil {
		h = m.users.LookupVRF(c.vrf, c.addr, c.end)
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

// move corrects what v says, and remembers it as charged to whose it is.
func (m *Module) move(v *move) {
	var in []acct.Record
	if v.from != nil {
		in = m.correction(v, v.from, true)
	}
	session := uint64(0)
	if v.to != nil {
		session = v.to.id
		in = m.correction(v, v.to, false)
	}
	for i := range v.charges {
		c := &v.charges[i]
		c.session, c.class, c.moved = session, m.classNow(c, v.to), true
		m.charges.add(c, m.millis())
	}
	m.charges.markAll(session, true, in, m.millis())
}

// classNow returns the class of c as one of s, nil for nobody: that of the
// binding, where it was the other binding's.
func (m *Module) classNow(c *charge, s *session) string {
	switch {
	case !c.ofBinding || s == nil:
		return c.class
	case s.class == noClass:
		return m.settings.ClassDefault
	}
	return m.classNames[s.class]
}

// correction cuts the records that take v away from s, or charge it to s.
func (m *Module) correction(v *move, s *session, credit bool) []acct.Record {
	if s.multiID == "" {
		s.multiID = m.newSessionID()
		m.sessions.touch(s)
	}
	var classes []acct.ClassUsage
	var used layers
	var traced []TracedFlow
	first, last := v.charges[0].end, v.charges[0].end
	r := acct.Record{
		Type: acct.Event, MultiSessionID: s.multiID, User: s.key.user, Realm: cmp.Or(s.realm, m.settings.DestinationRealm),
		Framed: s.framed, Attributes: m.attributes(s), Source: s.key.source, NAS: s.nas, Event: milliTime(m.millis()),
		Corrects: &acct.Correction{SessionID: v.record.sessionID, Number: v.record.number, Credit: credit, Reason: lateBinding},
	}
	for i := range v.charges {
		c := &v.charges[i]
		name := c.class
		if !credit {
			name = m.classNow(c, s)
		}
		at := slices.IndexFunc(classes, func(u acct.ClassUsage) bool { return u.Class == name })
		if at < 0 {
			at = len(classes)
			classes = append(classes, acct.ClassUsage{Class: name, ZeroRated: m.classes.zeroRated[m.class(name)]})
		}
		u := &classes[at]
		u.Usage = u.Plus(c.usage)
		u.Increase = u.Usage
		r.Usage = r.Usage.Plus(c.usage)
		r.Estimated = r.Estimated || c.estimated
		used |= c.layer
		if m.tracer != nil {
			traced = append(traced, TracedFlow{Endpoints: c.addr.String(), Start: milliTime(c.end), End: milliTime(c.end), Usage: c.usage})
		}
		first, last = min(first, c.end), max(last, c.end)
	}
	r.Increase, r.Layer = r.Usage, used.layer()
	r.Start, r.End = milliTime(first), milliTime(last)
	if len(classes) > 1 || classes[0].Class != "" {
		r.Classes = classes
	}
	m.stats.Corrections++
	return m.correctBy(r, traced)
}

// A doubtIndex finds the doubts about an address.
type doubtIndex struct {
	from, until int64 // of all; until 0 is for ever
	any         bool
	all         bool // of every address
	byPrefix    map[doubtKey]span
	lengths     []int // of the prefixes
}

type doubtKey struct {
	vrf    string
	prefix netip.Prefix
}

// A span is from one moment until another, 0 for ever. Unix milliseconds.
type span struct{ from, until int64 }

func (s span) has(at int64) bool { return at >= s.from && (s.until == 0 || at < s.until) }

// plus returns the least span that has all that s and o have.
func (s span) plus(o span) span {
	if s.until == 0 || o.until == 0 {
		return span{min(s.from, o.from), 0}
	}
	return span{min(s.from, o.from), max(s.until, o.until)}
}

func newDoubtIndex(doubts []users.Doubt) doubtIndex {
	x := doubtIndex{byPrefix: make(map[doubtKey]span)}
	for _, d := range doubts {
		of := span{d.From, d.Until}
		total := of
		if x.any {
			total = total.plus(span{x.from, x.until})
		}
		x.any, x.from, x.until = true, total.from, total.until
		if !d.Prefix.IsValid() {
			x.all = true
			continue
		}
		key := doubtKey{d.VRF, d.Prefix}
		if before, ok := x.byPrefix[key]; ok {
			of = of.plus(before)
		}
		x.byPrefix[key] = of
		bits := d.Prefix.Bits()
		if d.Prefix.Addr().Is6() {
			bits += 1 << 8
		}
		if !slices.Contains(x.lengths, bits) {
			x.lengths = append(x.lengths, bits)
		}
	}
	return x
}

// of reports whether some doubt is of a moment that is the latest or before.
func (x *doubtIndex) of(latest int64) bool { return x.any && latest >= x.from }

// has reports whether it is in doubt whose c is. A shared address may be that
// of anybody.
func (x *doubtIndex) has(c *charge) bool {
	if !x.any || !(span{x.from, x.until}).has(c.end) {
		return false
	}
	if x.all || c.shared {
		return true
	}
	for _, bits := range x.lengths {
		if bits>>8 != 0 != c.addr.Is6() {
			continue
		}
		p, _ := c.addr.Prefix(bits & 0xff) // it is no longer than the address
		if s, ok := x.byPrefix[doubtKey{c.vrf, p}]; ok && s.has(c.end) {
			return true
		}
	}
	return false
}
