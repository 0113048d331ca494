package asm

import (
	"math/bits"
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// A Split says who is accounted a flow during which its address changed hands.
type Split string

const (
	SplitEnd          Split = "end"          // all of it to whoever held the address when it ended
	SplitProportional Split = "proportional" // each holder the part of the octets that its part of the time is
)

// divide accounts f, of whose user's side h held address a when it ended, to
// all who held a while it lasted: octets and packets by time, in whole
// numbers, of which the sum is the flow's. Time in which nobody held a goes to
// who held it next. The flow counts as a record with h. Whose the flow's port was
// earlier, by a NAT's word or a share, is not asked: h has all of a.
func (m *Module) divide(f *flow, a netip.Addr, h *users.Holder, to bool, key acct.LedgerKey, n acct.Count) {
	m.spans = m.users.AppendSpans(m.spans[:0], h.VRF(), a, f.start, f.end)
	spans := m.spans
	if last := &spans[len(spans)-1]; last.Holder != h {
		// It changed hands just when the flow ended, or nobody held it and h
		// is the nearest.
		if last.Holder == nil {
			last.Holder = h
		} else {
			spans = append(spans, users.Span{Holder: h, From: f.end, To: f.end})
		}
	}
	whole := *f
	var given flow // so far
	for i := range spans {
		last := i == len(spans)-1
		if spans[i].Holder == nil || !last && spans[i].Holder == spans[i+1].Holder {
			continue // the next takes it
		}
		until := flow{
			forward: whole.forward.part(spans[i].To-whole.start, whole.end-whole.start),
			reverse: whole.reverse.part(spans[i].To-whole.start, whole.end-whole.start),
		}
		end := spans[i].To - 1
		if last {
			end = whole.end
			until.forward, until.reverse = whole.forward, whole.reverse
		}
		part := whole
		part.end, part.ofAddress = end, !last
		part.forward, part.reverse = until.forward.minus(given.forward), until.reverse.minus(given.reverse)
		given = until
		count := part.count()
		if !last {
			count.Records = 0
		} else if count.Records = n.Records; len(spans) == 1 {
			count = n
		}
		if last || !count.IsZero() {
			m.accountSide(&part, m.sessionOf(spans[i].Holder), to, key, count)
		}
	}
}

// part returns v * time / all, rounded down.
func (v volume) part(time, all int64) volume {
	return volume{portion(v.octets, uint64(time), uint64(all)), portion(v.packets, uint64(time), uint64(all))}
}

func (v volume) minus(w volume) volume { return volume{v.octets - w.octets, v.packets - w.packets} }

// portion returns v * time / all, rounded down, v where time is all.
func portion(v, time, all uint64) uint64 {
	if time >= all {
		return v
	}
	hi, lo := bits.Mul64(v, time)
	q, _ := bits.Div64(hi, lo, all) // no overflow, as time < all
	return q
}
