package sim

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tollbridge/asm/users"
)

// A holder is a binding.
type holder struct {
	users.Binding
	source  string
	id      string // of a user session
	removed bool
}

// A holderKey tells apart what sources say of who holds what.
type holderKey struct {
	source, id, user string
	prefix           netip.Prefix
	vrf              string
	ports            users.Ports
	from             int64
}

func (h *holder) key() holderKey {
	return holderKey{h.source, h.id, h.User, h.Prefix, h.VRF, h.Ports, unix(h.From)}
}

// has reports whether h holds its prefix at a moment in Unix milliseconds.
func (h *holder) has(at int64) bool {
	return at >= unix(h.From) && (h.Until.IsZero() || at < unix(h.Until))
}

// An end is where a flow comes from, or goes to.
type end struct {
	space   string // of the address; "" is the global one
	address netip.Addr
	port    uint16
}

func (e end) String() string {
	return strings.TrimLeft(e.space+" "+netip.AddrPortFrom(e.address, e.port).String(), " ")
}

// held returns who held an end at a moment in Unix milliseconds, or nearly then:
// where a NAT tells whose it is, nobody but who held the private address.
func (t *truth) held(e end, at int64) *holder {
	switch s := t.share(e, at); {
	case s == nil:
		return t.alone(e.space, e.address, at)
	case s.by == nil:
		return s.listed
	default:
		return t.alone(s.by.space, s.by.private, at)
	}
}

// holder returns who held the source of a flow, or its destination.
func (t *truth) holder(f *flow, to bool) *holder {
	e, behind := f.source(), f.behind[0]
	if to {
		e, behind = f.destination(), f.behind[1]
	}
	if behind.address.IsValid() {
		return t.alone(behind.space, behind.address, f.end)
	}
	return t.held(e, f.end)
}

// alone returns who held all ports of an address at a moment, or nearly then.
func (t *truth) alone(space string, a netip.Addr, at int64) *holder {
	all := t.holdersOf(space, a)
	if h := exactly(all, at); h != nil {
		return h
	}
	return t.nearest(all, at)
}

// exactly returns who of those that hold or held an address did at a moment: by
// the longest prefix, and then since the latest moment.
func exactly(all []*holder, at int64) (best *holder) {
	for _, h := range all {
		if h.has(at) && (best == nil || h.before(best)) {
			best = h
		}
	}
	return best
}

// A place is an address in an address space; "" is the global one.
type place struct {
	space   string
	address netip.Addr
}

// holdersOf returns who holds or held all ports of an address. It is asked for
// each flow ever again, so the answer is kept until who holds what changes.
func (t *truth) holdersOf(space string, a netip.Addr) (all []*holder) {
	at := place{space, a}
	all, known := t.holdersAt[at]
	if known {
		return all
	}
	defer func() { t.holdersAt[at] = all }()
	if space == "" {
		all = t.claimed(a)
	}
	for _, h := range t.holders {
		if h.Prefix.Contains(a) && h.VRF == space && h.Ports == "" {
			all = append(all, h)
		}
	}
	return all
}

func (h *holder) before(g *holder) bool {
	if h.Prefix.Bits() != g.Prefix.Bits() {
		return h.Prefix.Bits() > g.Prefix.Bits()
	}
	if unix(h.From) != unix(g.From) {
		return unix(h.From) > unix(g.From)
	}
	if h.removed != g.removed {
		return g.removed
	}
	if h.source != g.source {
		return h.source < g.source
	}
	if h.User != g.User {
		return h.User < g.User
	}
	if h.id != g.id {
		return h.id < g.id
	}
	return h.Ports < g.Ports
}

// unix returns Unix milliseconds, 0 for the zero time.
func unix(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// replace puts a source's bindings in the place of those it listed before.
// One that is missing ends now.
func (t *truth) replace(l listing) {
	clear(t.holdersAt)
	now := t.now / int64(time.Millisecond)
	same := func(h *holder, b *users.Binding) bool {
		return h.source == l.source && h.Prefix == b.Prefix && h.VRF == b.VRF && h.Ports == b.Ports && h.User == b.User && unix(h.From) == unix(b.From)
	}
	listed := map[*holder]bool{}
	for i := range l.bindings {
		b := &l.bindings[i]
		at := slices.IndexFunc(t.holders, func(h *holder) bool { return same(h, b) })
		if at < 0 {
			t.holders = append(t.holders, &holder{Binding: *b, source: l.source})
			at = len(t.holders) - 1
		}
		h := t.holders[at]
		if !listed[h] {
			h.Binding, h.removed, listed[h] = *b, false, true
			t.realms[h.key()] = b.Realm
		}
	}
	before := now - t.settings.Late.Milliseconds()
	t.holders = slices.DeleteFunc(t.holders, func(h *holder) bool {
		if h.source == l.source && !listed[h] && !h.removed {
			h.removed = true
			if h.Until.IsZero() || unix(h.Until) > now {
				h.Until = milli(now)
			}
			if unix(h.Until) <= unix(h.From) {
				return true
			}
		}
		return h.removed && unix(h.Until) <= before
	})
	t.again()
}

// nearest returns who held an address at nearly a moment at which nobody did.
func (t *truth) nearest(all []*holder, at int64) (best *holder) {
	// Twice how far away h is, and one more if it has yet to begin.
	distance := func(h *holder) int64 {
		if at < unix(h.From) {
			return 2*(unix(h.From)-at) + 1
		}
		return 2 * (at - unix(h.Until))
	}
	most := t.settings.UserTolerance.Milliseconds()
	for _, h := range all {
		switch {
		case most == 0 || !h.Until.IsZero() && !h.Until.After(h.From) || distance(h)/2 > most:
		case best == nil || h.Prefix.Bits() > best.Prefix.Bits():
			best = h
		case h.Prefix.Bits() < best.Prefix.Bits():
		case distance(h) < distance(best) || distance(h) == distance(best) && h.before(best):
			best = h
		}
	}
	return best
}
