package users

import (
	"encoding/binary"
	"net/netip"
)

// A Holder is one prefix that a Claim holds, in a Table. It remains the same
// Holder for as long as its source says so, whatever else it changes about the
// Claim, so a caller may hang its own state on it. All but Session is the
// Table's to write.
type Holder struct {
	// What every lookup reads comes first. It is of one line of the processor's
	// cache for three Holders of four, as one takes 80 octets and these are 32.
	From    int64 // Unix milliseconds; 0 for ever
	Until   int64 // the first moment after; 0 for ever
	Session any   // the caller's

	hi, lo uint64 // the prefix's address as that of IPv6

	next *Holder // the next of the same prefix, in order of precedence
	*Claim
	sibling *Holder // the next of the same Claim
	round   uint32  // the latest Replace of its source that listed it
	bits    uint8   // the prefix's length, of 128
	flags   holderFlags
}

// holderFlags are what else is known of a Holder.
type holderFlags uint8

const (
	holderIPv4    holderFlags = 1 << iota // its prefix is
	holderRemoved                         // its source lists it no more
	holderGiven                           // its session gave it up and goes on
)

// Prefix returns what h holds.
func (h *Holder) Prefix() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], h.hi)
	binary.BigEndian.PutUint64(b[8:], h.lo)
	a, n := netip.AddrFrom16(b), int(h.bits)
	if h.flags&holderIPv4 != 0 {
		a, n = a.Unmap(), n-96
	}
	return netip.PrefixFrom(a, n)
}

// setPrefix makes p, which is normal, the prefix of h.
func (h *Holder) setPrefix(p netip.Prefix) {
	b := p.Addr().As16()
	h.hi, h.lo, h.bits = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), uint8(p.Bits())
	if p.Addr().Is4() {
		h.bits += 96
		h.flags |= holderIPv4
	}
}

// ports returns those of a shared address that h has, "" for all: the
// addresses of a session beside its IPv4 address are not shared.
func (h *Holder) ports() Ports {
	if h.flags&holderIPv4 == 0 || h.bits != 128 {
		return ""
	}
	return h.Ports
}

// Holds reports whether h holds its prefix at a moment in Unix milliseconds.
func (h *Holder) Holds(at int64) bool {
	return at >= h.From && (h.Until == 0 || at < h.Until)
}

// Removed reports whether h's source lists it no more.
func (h *Holder) Removed() bool { return h.flags&holderRemoved != 0 }

// Binding returns h as a Binding.
func (h *Holder) Binding() Binding {
	return Binding{h.Prefix(), h.User(), fromMilli(h.From), fromMilli(h.Until), h.origin.vrf, *h.Options}
}

// precedes says which of two Holders of a prefix wins where both hold it: the
// one that holds it from later on, then the one that is still listed. What is
// left makes the order total, so that it doesn't depend on how it came about.
func (h *Holder) precedes(g *Holder) bool {
	switch {
	case h.From != g.From:
		return h.From > g.From
	case h.Removed() != g.Removed():
		return g.Removed()
	case h.origin.source != g.origin.source:
		return h.Source() < g.Source()
	case h.User() != g.User():
		return h.User() < g.User()
	case h.ID() != g.ID():
		return h.ID() < g.ID()
	case h.ports() != g.ports():
		return h.ports() < g.ports()
	}
	return h.Began() > g.Began()
}

// find returns the first Holder from h on that holds the prefix at a moment.
func (h *Holder) find(at int64) *Holder {
	for ; h != nil; h = h.next {
		if h.Holds(at) {
			return h
		}
	}
	return nil
}

// near returns the Holder from h on whose time is the nearest to a moment at
// which none holds the prefix, nil if all are further away than tolerance.
func (h *Holder) near(at, tolerance int64) (nearest *Holder) {
	if tolerance == 0 {
		return nil
	}
	least, begins := tolerance, true
	for ; h != nil; h = h.next {
		if h.Until != 0 && h.Until <= h.From {
			continue // it holds nothing
		}
		distance, later := at-h.Until, at < h.From
		if later {
			distance = h.From - at
		}
		if distance < least || distance == least && (nearest == nil || begins && !later) {
			nearest, least, begins = h, distance, later
		}
	}
	return nearest
}

// insert returns the chain that begins with head, nil for none, with h in it.
func insert(head, h *Holder) *Holder {
	at := &head
	for *at != nil && (*at).precedes(h) {
		at = &(*at).next
	}
	h.next, *at = *at, h
	return head
}

// without returns the chain that begins with head, without h.
func without(head, h *Holder) *Holder {
	at := &head
	for *at != h {
		at = &(*at).next
	}
	*at, h.next = h.next, nil
	return head
}
