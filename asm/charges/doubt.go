package charges

import (
	"net/netip"
	"slices"

	"tollbridge/asm/users"
)

// maxDoubts bounds the doubts that are told apart: beyond it everything of
// their time is looked through.
const maxDoubts = 1 << 16

// Doubt notes that who held an address is not who was asked for a charge.
func (x *Memory) Doubt(d users.Doubt) {
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
}

// InDoubt reports whether there is any doubt that Contradicted has not settled.
func (x *Memory) InDoubt() bool { return len(x.doubts) > 0 }

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
func (x *doubtIndex) has(c *Charge) bool {
	if !x.any || !(span{x.from, x.until}).has(c.End) {
		return false
	}
	if x.all || c.Shared {
		return true
	}
	for _, bits := range x.lengths {
		if bits>>8 != 0 != c.Addr.Is6() {
			continue
		}
		p, _ := c.Addr.Prefix(bits & 0xff) // it is no longer than the address
		if s, ok := x.byPrefix[doubtKey{c.VRF, p}]; ok && s.has(c.End) {
			return true
		}
	}
	return false
}
