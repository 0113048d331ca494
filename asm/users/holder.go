package users

import "net/netip"

// A Holder is a Binding in a Table. It remains the same Holder for as long as
// its source lists the prefix for that user from that moment, whatever else
// the source changes about it, so a caller may hang its own state on it.
// All but Session is the Table's to write.
type Holder struct {
	From  int64 // Unix milliseconds; 0 for ever
	Until int64 // the first moment after; 0 for ever

	Session any // the caller's

	next *Holder // the next of the same prefix, in order of precedence

	Prefix netip.Prefix
	User   string
	*Options

	source  *source
	round   uint32 // the latest Replace of source that listed it
	removed bool   // its source lists it no more

	_ [16]byte // to whole lines of the processor's cache: a lookup reads but the first
}

// Holds reports whether h holds its prefix at a moment in Unix milliseconds.
func (h *Holder) Holds(at int64) bool {
	return at >= h.From && (h.Until == 0 || at < h.Until)
}

// Source returns the name of the source that lists h.
func (h *Holder) Source() string { return h.source.name }

// Removed reports whether h's source lists it no more.
func (h *Holder) Removed() bool { return h.removed }

// Binding returns h as a Binding.
func (h *Holder) Binding() Binding {
	return Binding{h.Prefix, h.User, fromMilli(h.From), fromMilli(h.Until), *h.Options}
}

// precedes says which of two Holders of a prefix wins where both hold it: the
// one that holds it from later on, then the one that is still listed. What is
// left makes the order total, so that it doesn't depend on how it came about.
func (h *Holder) precedes(g *Holder) bool {
	switch {
	case h.From != g.From:
		return h.From > g.From
	case h.removed != g.removed:
		return g.removed
	case h.source != g.source:
		return h.source.name < g.source.name
	}
	return h.User < g.User
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
