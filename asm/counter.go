package asm

import (
	"tollbridge/asm/acct"
	"tollbridge/asm/sampling"
	"tollbridge/asm/totals"
	"tollbridge/ipfix"
)

// Information Elements that count, by what they mean (docs/counters.md). Of
// each list the first that a Template has is taken.
var (
	octetDeltas  = []uint16{ipfix.OctetDeltaCount, ipfix.Layer2OctetDeltaCount, ipfix.PostOctetDeltaCount, ipfix.PostLayer2OctetDeltaCount}
	packetDeltas = []uint16{ipfix.PacketDeltaCount, ipfix.PostPacketDeltaCount, ipfix.Layer2FrameDeltaCount}
	octetTotals  = []uint16{ipfix.OctetTotalCount, ipfix.Layer2OctetTotalCount, ipfix.PostOctetTotalCount, ipfix.PostLayer2OctetTotalCount}
	packetTotals = []uint16{ipfix.PacketTotalCount, ipfix.PostPacketTotalCount, ipfix.Layer2FrameTotalCount}

	// Where octets of layer 2 are billed.
	linkDeltas = []uint16{ipfix.Layer2OctetDeltaCount, ipfix.OctetDeltaCount, ipfix.PostLayer2OctetDeltaCount, ipfix.PostOctetDeltaCount}
	linkTotals = []uint16{ipfix.Layer2OctetTotalCount, ipfix.OctetTotalCount, ipfix.PostLayer2OctetTotalCount, ipfix.PostOctetTotalCount}
)

// layerOf returns the layer of the first of ids that t has.
func layerOf(t *ipfix.Template, enterprise uint32, ids []uint16) acct.Layers {
	for _, id := range ids {
		if _, ok := t.Index(enterprise, id); !ok {
			continue
		}
		switch id {
		case ipfix.Layer2OctetDeltaCount, ipfix.PostLayer2OctetDeltaCount, ipfix.Layer2OctetTotalCount, ipfix.PostLayer2OctetTotalCount:
			return acct.AtLink
		}
		return acct.AtNetwork
	}
	return 0
}

// counters says which of a Template's counters are usage:
//
//	octets    octetDeltaCount (1), layer2OctetDeltaCount (352), postOctetDeltaCount (23), postLayer2OctetDeltaCount (417)
//	packets   packetDeltaCount (2), postPacketDeltaCount (24), layer2FrameDeltaCount (430)
//
// per record the first that is not zero, with the reverse elements (RFC 5103)
// for the other direction. Where a Template has none of these it is
// initiatorOctets (231) and initiatorPackets (298), with responderOctets (232)
// and responderPackets (299) for the other direction. Where it has no delta
// counter of octets, or none of packets, it is the total:
//
//	octets    octetTotalCount (85), layer2OctetTotalCount (353), postOctetTotalCount (171), postLayer2OctetTotalCount (420)
//	packets   packetTotalCount (86), postPacketTotalCount (172), layer2FrameTotalCount (431)
//
// So a record with both is counted once, by its delta. Where the frames of
// layer 2 are billed, its counters come before those of layer 3.
type counters struct {
	link         bool        // frames of layer 2 are billed
	layer        acct.Layers // of the octets
	alternatives bool        // counters stand beside each other, of which one may be zero
	totals       totals.Layout
}

// columns compiles the counters of t.
func (c *counters) columns(t *ipfix.Template) []ipfix.Column {
	if !hasAny(t, 0, octetDeltas) && !hasAny(t, 0, packetDeltas) &&
		hasAny(t, 0, []uint16{ipfix.InitiatorOctets, ipfix.InitiatorPackets, ipfix.ResponderOctets, ipfix.ResponderPackets}) {
		c.layer = acct.AtOther
		return []ipfix.Column{
			number(slotOctets, elements(0, ipfix.InitiatorOctets)), number(slotPackets, elements(0, ipfix.InitiatorPackets)),
			number(slotReverseOctets, elements(0, ipfix.ResponderOctets)), number(slotReversePackets, elements(0, ipfix.ResponderPackets)),
		}
	}
	octetDeltas, octetTotals := octetDeltas, octetTotals
	if c.link {
		octetDeltas, octetTotals = linkDeltas, linkTotals
	}
	columns := make([]ipfix.Column, 0, 7)
	add := func(counter, slot int, enterprise uint32, ids, totalIDs []uint16, delta bool) {
		if !delta && hasAny(t, enterprise, totalIDs) {
			c.totals.Add(counter)
			ids = totalIDs
		}
		columns = append(columns, number(slot, elements(enterprise, ids...)))
		if counter == totals.ForwardOctets || counter == totals.ReverseOctets {
			c.layer |= layerOf(t, enterprise, ids)
		}
	}
	octets := hasAny(t, 0, octetDeltas) || hasAny(t, ipfix.ReversePEN, octetDeltas)
	packets := hasAny(t, 0, packetDeltas) || hasAny(t, ipfix.ReversePEN, packetDeltas)
	add(totals.ForwardOctets, slotOctets, 0, octetDeltas, octetTotals, octets)
	add(totals.ForwardPackets, slotPackets, 0, packetDeltas, packetTotals, packets)
	add(totals.ReverseOctets, slotReverseOctets, ipfix.ReversePEN, octetDeltas, octetTotals, octets)
	add(totals.ReversePackets, slotReversePackets, ipfix.ReversePEN, packetDeltas, packetTotals, packets)
	for i := range c.totals.Widths {
		c.totals.Widths[i] = width(t, columns[i].Elements)
	}
	for _, a := range []struct {
		slot       int
		first, own uint16
	}{
		{slotOtherOctets, octetDeltas[0], octetDeltas[1]},
		{slotPostOctets, ipfix.OctetDeltaCount, ipfix.PostOctetDeltaCount},
		{slotPostPackets, ipfix.PacketDeltaCount, ipfix.PostPacketDeltaCount},
	} {
		if hasAny(t, 0, []uint16{a.own}) && hasAny(t, 0, []uint16{a.first}) {
			c.alternatives = true
			columns = append(columns, number(a.slot, elements(0, a.own)))
		}
	}
	return columns
}

// choose puts, for a counter of f that is zero, the one that stands beside it.
func (c *counters) choose(row *row, f *flow) {
	if f.forward.octets == 0 {
		if f.forward.octets = row[slotOtherOctets]; f.forward.octets != 0 {
			f.layer = acct.AtNetwork ^ acct.AtLink ^ c.layer
		} else if f.forward.octets = row[slotPostOctets]; f.forward.octets != 0 {
			f.layer = acct.AtNetwork
		}
	}
	if f.forward.packets == 0 {
		f.forward.packets = row[slotPostPackets]
	}
}

func number(slot int, e []ipfix.Element) ipfix.Column {
	return ipfix.Column{Slot: slot, Form: ipfix.Number, Elements: e}
}

func elements(enterprise uint32, ids ...uint16) []ipfix.Element {
	e := make([]ipfix.Element, len(ids))
	for i, id := range ids {
		e[i] = ipfix.Element{Enterprise: enterprise, ID: id}
	}
	return e
}

func iana(ids ...uint16) []ipfix.Element { return elements(0, ids...) }

// hasAny reports whether t has a field of any of ids.
func hasAny(t *ipfix.Template, enterprise uint32, ids []uint16) bool {
	for _, id := range ids {
		if _, ok := t.Index(enterprise, id); ok {
			return true
		}
	}
	return false
}

// width returns the bits of the first of e that t has, 64 at most.
func width(t *ipfix.Template, e []ipfix.Element) uint {
	for _, e := range e {
		if i, ok := t.Index(e.Enterprise, e.ID); ok {
			if n := uint(t.Fields[i].Length); n < 8 {
				return 8 * n
			}
			break
		}
	}
	return 64
}

// fits reports whether the volumes of f are what one record may claim. If not
// they are made zero.
func (f *flow) fits() bool {
	if max(f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets) > acct.MaxOctets ||
		f.forward.octets+f.reverse.octets > acct.MaxOctets || f.forward.packets+f.reverse.packets > acct.MaxOctets {
		f.forward, f.reverse = volume{}, volume{}
		return false
	}
	return true
}

// scale makes the volumes of f estimates of all packets, where those seen are
// a sample.
func (f *flow) scale(r sampling.Rate) {
	if r.One() {
		return
	}
	for _, v := range []*uint64{&f.forward.octets, &f.forward.packets, &f.reverse.octets, &f.reverse.packets} {
		*v = r.Scale(*v)
	}
	f.estimated = true
}
