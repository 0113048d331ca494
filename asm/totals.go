package asm

import (
	"tollbridge/asm/acct"
	"tollbridge/asm/totals"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// flowKeys are the Information Elements that tell flows apart whose counters
// are totals. The time at which a flow started is one of them, as it was sent:
// another flow with the same addresses and ports has a total of its own.
var flowKeys = []uint16{
	ipfix.SourceIPv4Address, ipfix.DestinationIPv4Address, ipfix.SourceIPv6Address, ipfix.DestinationIPv6Address,
	ipfix.SourceTransportPort, ipfix.DestinationTransportPort, 180, 181, 182, 183, // of UDP and TCP
	ipfix.ProtocolIdentifier, ipfix.IpClassOfService, ipfix.IpDiffServCodePoint, ipfix.FlowLabelIPv6,
	32, 139, 176, 177, 178, 179, // ICMP type and code
	ipfix.IngressInterface, ipfix.EgressInterface, 252, 253, // physical interfaces
	ipfix.FlowDirection, ipfix.FlowId, ipfix.VlanId, ipfix.PostVlanId, 243, 245, 254, 255, // IEEE 802.1Q
	ipfix.SourceMacAddress, ipfix.PostDestinationMacAddress, 80, 81,
	ipfix.IngressVRFID, ipfix.EgressVRFID, ipfix.ObservationPointId, ipfix.SamplerId, ipfix.SelectorId,
	225, 226, 227, 228, 281, 282, // after network address translation
	ipfix.UserName, ipfix.ApplicationId,
	ipfix.FlowStartSysUpTime, ipfix.FlowStartSeconds, ipfix.FlowStartMilliseconds, ipfix.FlowStartMicroseconds, ipfix.FlowStartNanoseconds,
}

// settle turns the totals of the first n flows of the chunk, records of set and
// p, into what they add, and returns how many flows are left: those that add
// more than can be are rejected. A duplicate adds nothing. The totals of a
// record that ends ahead of the clock add nothing either, and are not
// remembered: its end tells nothing of the order of reports, and a later one
// says it again. So may its copy, below the window: what adds to the totals of
// its flow was not counted, whatever came before.
func (m *Module) settle(set *ipfix.DataSet, p *plan, n int, row *acct.LedgerRow, key acct.LedgerKey) (kept int, received acct.Count) {
	c := &m.decoder
	layout := &p.counters.totals
	t := m.totals.Of(m.identityOf(key.Exporter))
	for i := range n {
		f, s := &c.flows[i], &c.sightings[i]
		v, known := c.verdicts[i], true
		var delta totals.Values
		s.End = f.end
		switch v {
		case dedup.Duplicate:
		case dedup.AheadOfClock:
			delta = s.Deltas(layout)
		default:
			delta, known = t.Delta(layout, s)
		}
		proven := v == dedup.BelowFloor && known && layout.Adds(delta)
		if v != dedup.Duplicate && !proven && m.cameBefore(set, p, i) {
			v, delta, known = dedup.Duplicate, totals.Values{}, true
		}
		c.flows[kept], c.octets[kept], c.ids[kept], c.ordinals[kept], c.verdicts[kept], c.doubts[kept] = *f, c.octets[i], c.ids[i], c.ordinals[i], v, !known
		f = &c.flows[kept]
		f.forward = volume{delta[totals.ForwardOctets], delta[totals.ForwardPackets]}
		f.reverse = volume{delta[totals.ReverseOctets], delta[totals.ReversePackets]}
		if f.scale(c.rates[i]); !f.fits() {
			received = received.Plus(f.count())
			m.tooLarge(f, row, key, uint64(p.template.ID))
			continue
		}
		if v == dedup.New || v == dedup.BelowFloor {
			m.stats.TotalsForgotten += uint64(t.Put(layout, s, m.settings.MaxTotals))
		}
		received = received.Plus(f.count())
		kept++
	}
	return kept, received
}

// sight notes the totals of record r, number n of the chunk.
func (p *plan) sight(r ipfix.Record, f *flow, s *totals.Sighting, scratch []byte) []byte {
	scratch = scratch[:0]
	for _, a := range p.refiner.keys {
		scratch = append(scratch, a.Bytes(r)...)
	}
	s.Key = p.refiner.keyPrefix.Sum(scratch)
	s.Values = totals.Values{f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets}
	s.Start = f.start
	const activeTimeout = 2
	s.Over = p.refiner.hasReason && p.refiner.reason.Uint64(r) != activeTimeout
	return scratch
}
