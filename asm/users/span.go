package users

import (
	"net/netip"
	"slices"
)

// A Span is a time in which one Holder, or nobody, held an address.
type Span struct {
	*Holder       // nil for nobody
	From    int64 // Unix milliseconds
	To      int64 // the first moment after
}

// AppendSpans appends who held a, in the address space of a VRF, from one
// moment until another: Spans in order without gaps. Tolerance plays no part.
func (t *Table) AppendSpans(spans []Span, vrf string, a netip.Addr, from, to int64) []Span {
	s := t.in(vrf)
	if s == nil || !a.IsValid() || from >= to {
		return append(spans, Span{From: from, To: to})
	}
	changes := []int64{from}
	note := func(h *Holder) {
		for ; h != nil; h = h.next {
			for _, at := range [...]int64{h.From, h.Until} {
				if from < at && at < to {
					changes = append(changes, at)
				}
			}
		}
	}
	for _, chain := range s.chains(a) {
		note(chain)
	}
	slices.Sort(changes)
	first := len(spans)
	for _, at := range slices.Compact(changes) {
		h := s.lookup(a, at, 0)
		if n := len(spans); n > first {
			if spans[n-1].To = at; spans[n-1].Holder == h {
				continue
			}
		}
		spans = append(spans, Span{Holder: h, From: at})
	}
	spans[len(spans)-1].To = to
	return spans
}
