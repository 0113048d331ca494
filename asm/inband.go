package asm

import (
	"fmt"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// inBandSource is the source in the key of a session whose user is named by
// the flow records themselves. Such a key has no prefix.
const inBandSource = "in-band"

// ParseElement reads the name of an Information Element in one of the ways
// that people write it: userName, 371, or with the enterprise number 637:93.
func ParseElement(s string) (ipfix.Element, error) {
	if e, ok := ipfix.LookupName(s); ok {
		return ipfix.Element{Enterprise: e.Enterprise, ID: e.ID}, nil
	}
	enterprise, id, ok := strings.Cut(s, ":")
	if !ok {
		enterprise, id = "0", s
	}
	pen, err1 := strconv.ParseUint(enterprise, 10, 32)
	n, err2 := strconv.ParseUint(id, 10, 15)
	if err1 != nil || err2 != nil || n == 0 {
		return ipfix.Element{}, fmt.Errorf("asm: %q is no Information Element: want its name, its number, or its enterprise number and number such as 637:93", s)
	}
	return ipfix.Element{Enterprise: uint32(pen), ID: uint16(n)}, nil
}

// inBandOf returns the way to the first of elements that t has.
func inBandOf(t *ipfix.Template, elements []ipfix.Element) (ipfix.Accessor, bool) {
	for _, e := range elements {
		if a, ok := t.Accessor(e.Enterprise, e.ID); ok {
			return a, true
		}
	}
	return ipfix.Accessor{}, false
}

// nameUser gives f the user that record d names, if it does, and says which
// side is that user's, should the bindings not say: the source, or the
// destination of a flow that was metered where it leaves (flowDirection 1).
func (m *Module) nameUser(r *refiner, d ipfix.Record, f *flow) {
	b := trimName(r.user.Bytes(d))
	if len(b) == 0 {
		return
	}
	if s := m.sessions.byKey[bindingKey{source: inBandSource, user: string(b)}]; s != nil {
		f.user = s.key.user
	} else if name := string(b); users.CheckName(name) == nil {
		f.user = name
	} else {
		m.stats.InBandInvalid++
		return
	}
	f.userTo = r.rates.Egress(d)
}

// accountNamed is account for a flow that names its user. The user's side is
// the one whose address that very user is bound to, else the one that the flow
// says; if somebody else is bound to that, the flow knows better. The other
// side is accounted to who holds it.
func (m *Module) accountNamed(f *flow, source, destination *users.Holder, key acct.LedgerKey) (accounted, mirrored acct.Count) {
	to := f.userTo
	switch {
	case source != nil && source.User() == f.user:
		to = false
	case destination != nil && destination.User() == f.user:
		to = true
	}
	own, other := source, destination
	if to {
		own, other = destination, source
	}
	n := f.count()
	f.internal = other != nil
	s := m.named(f.user, own)
	if s == nil {
		return accounted, mirrored
	}
	m.accountSide(f, s, to, key, n)
	accounted = n
	if other != nil {
		m.accountHolder(f, other, !to, key, n)
		accounted, mirrored = accounted.Plus(n), n
	} else if len(m.settings.Networks) > 0 {
		m.waitForOther(f, !to, key)
	}
	return accounted, mirrored
}

// named returns the tally of the session of a user whom a flow named: that of the binding,
// if it is the user's, else one of the name alone; nil if there are too many.
func (m *Module) named(user string, h *users.Holder) *tally {
	if h != nil {
		if h.User() == user {
			return m.sessionOf(h)
		}
		m.stats.InBandConflicts++
	}
	key := bindingKey{source: inBandSource, user: user}
	if m.sessions.byKey[key] == nil && m.sessions.named >= m.settings.MaxInBand {
		m.stats.InBandRefused++
		return nil
	}
	return m.open(key).tally
}

// named reports whether s is the session of a name alone.
func (s *session) named() bool { return s.key.source == inBandSource && !s.key.prefix.IsValid() }
