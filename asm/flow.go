package asm

import (
	"encoding/binary"
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A volume is an amount of octets and packets.
type volume struct{ octets, packets uint64 }

// A flow is what the pipeline needs of a Data Record, normalized: whatever
// elements and encodings the record had, its counters and its times compare
// with those of any other.
type flow struct {
	source, destination         netip.Addr // invalid where the Template has none
	sourcePort, destinationPort uint16
	protocol, dscp              uint8
	start, end                  int64  // Unix milliseconds; equal where the record gives one time
	forward, reverse            volume // from the source and to it (RFC 5103)
}

// count returns what the books say of f.
func (f *flow) count() acct.Count {
	return acct.Count{
		Records: 1,
		Octets:  f.forward.octets + f.reverse.octets,
		Packets: f.forward.packets + f.reverse.packets,
	}
}

// String names the flow for people.
func (f *flow) String() string {
	return endpoint(f.source, f.sourcePort) + " > " + endpoint(f.destination, f.destinationPort)
}

func endpoint(a netip.Addr, port uint16) string {
	if !a.IsValid() {
		return "?"
	}
	return netip.AddrPortFrom(a, port).String()
}

// flowVersion is the first octet of an encoded flow.
const flowVersion = 1

// appendBinary appends what parseFlow reads.
func (f *flow) appendBinary(b []byte) []byte {
	b = append(b, flowVersion, f.protocol, f.dscp)
	b = appendAddr(b, f.source)
	b = appendAddr(b, f.destination)
	b = binary.BigEndian.AppendUint16(b, f.sourcePort)
	b = binary.BigEndian.AppendUint16(b, f.destinationPort)
	b = binary.AppendVarint(b, f.start)
	b = binary.AppendVarint(b, f.end)
	for _, v := range []uint64{f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func parseFlow(data []byte) (f flow, err error) {
	r := reader{b: data}
	if r.octet() != flowVersion {
		r.fail()
	}
	f.protocol, f.dscp = r.octet(), r.octet()
	f.source, f.destination = r.addr(), r.addr()
	if ports := r.take(4); ports != nil {
		f.sourcePort = binary.BigEndian.Uint16(ports)
		f.destinationPort = binary.BigEndian.Uint16(ports[2:])
	}
	f.start, f.end = r.varint(), r.varint()
	for _, v := range []*uint64{&f.forward.octets, &f.forward.packets, &f.reverse.octets, &f.reverse.packets} {
		*v = r.uvarint()
	}
	return f, r.close()
}

// Slots of the row that a plan reads a record into.
const (
	slotSource4 = 2 * iota
	slotDestination4
	slotSource6
	slotDestination6
	slotNumbers // the first of single slots
)

const (
	slotSourcePort = slotNumbers + iota
	slotDestinationPort
	slotProtocol
	slotDSCP
	slotClass // the whole octet that the DSCP is in
	slotOctets
	slotPackets
	slotReverseOctets
	slotReversePackets
	slotEnd
	slotEndUptime // flowEndSysUpTime, milliseconds since slotInit
	slotInit      // systemInitTimeMilliseconds
	slotEndDelta  // flowEndDeltaMicroseconds, before the export time
	slotStart     // where no end is given
	slotMillis    // flowDurationMilliseconds
	slotMicros    // flowDurationMicroseconds
	slots         // how many there are
)

// A row is a record as numbers.
type row [slots]uint64

// A reason says why the records of a Template, or one record, are no usage.
// The empty reason says that they are.
type reason string

const (
	noAddress reason = "no address"
	noCounter reason = "no delta counter"
	tooLarge  reason = "counter too large"
)

// A plan turns the records of one Template, from one exporter and Observation
// Domain, into flows.
//
// The counters of a direction are the first that the Template has of
//
//	octetDeltaCount (1), layer2OctetDeltaCount (352), postOctetDeltaCount (23)
//	packetDeltaCount (2), postPacketDeltaCount (24)
//
// and where it has none of these, initiatorOctets (231) and initiatorPackets
// (298) with responderOctets (232) and responderPackets (299) as the reverse
// direction. Total counters (85, 86) beside a delta counter are not counted
// again; a Template of nothing else has no usable counter.
type plan struct {
	template *ipfix.Template
	read     *ipfix.Plan
	useless  reason     // why no record of the Template is usage
	timed    bool       // records have an identity: their Template has a flow time
	prefix   dedup.Hash // of the identities
	has      [slots]bool
}

// newPlan compiles t for records whose identities begin with prefix.
func newPlan(t *ipfix.Template, prefix dedup.Hash) *plan {
	p := &plan{template: t, prefix: prefix.Uint64(t.Fingerprint())}
	has := func(ids ...uint16) bool {
		for _, id := range ids {
			if _, ok := t.Index(0, id); ok {
				return true
			}
		}
		return false
	}
	p.timed = has(21, 22, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 322, 323, 324, 325)

	iana := func(ids ...uint16) (e []ipfix.Element) {
		for _, id := range ids {
			e = append(e, ipfix.Element{ID: id})
		}
		return e
	}
	reversed := func(ids ...uint16) (e []ipfix.Element) {
		for _, id := range ids {
			e = append(e, ipfix.Element{Enterprise: ipfix.ReversePEN, ID: id})
		}
		return e
	}
	number := func(slot int, e []ipfix.Element) ipfix.Column {
		return ipfix.Column{Slot: slot, Form: ipfix.Number, Elements: e}
	}
	columns := []ipfix.Column{
		{Slot: slotSource4, Form: ipfix.Address, Elements: iana(8)},
		{Slot: slotDestination4, Form: ipfix.Address, Elements: iana(12)},
		{Slot: slotSource6, Form: ipfix.Address, Elements: iana(27)},
		{Slot: slotDestination6, Form: ipfix.Address, Elements: iana(28)},
		number(slotSourcePort, iana(7, 180, 182)),
		number(slotDestinationPort, iana(11, 181, 183)),
		number(slotProtocol, iana(4)),
		number(slotDSCP, iana(195)),
		number(slotClass, iana(5)),
		{Slot: slotEnd, Form: ipfix.UnixMilli, Elements: iana(153, 155, 157, 151)},
		number(slotEndUptime, iana(21)),
		{Slot: slotInit, Form: ipfix.UnixMilli, Elements: iana(160)},
		number(slotEndDelta, iana(159)),
		{Slot: slotStart, Form: ipfix.UnixMilli, Elements: iana(152, 154, 156, 150, 323, 324, 325, 322)},
		number(slotMillis, iana(161)),
		number(slotMicros, iana(162)),
	}
	if has(1, 2, 352, 23, 24) {
		columns = append(columns,
			number(slotOctets, iana(1, 352, 23)), number(slotPackets, iana(2, 24)),
			number(slotReverseOctets, reversed(1, 352, 23)), number(slotReversePackets, reversed(2, 24)))
	} else {
		columns = append(columns,
			number(slotOctets, iana(231)), number(slotPackets, iana(298)),
			number(slotReverseOctets, iana(232)), number(slotReversePackets, iana(299)))
	}
	p.read = t.Plan(columns...)
	for i, c := range columns {
		_, p.has[c.Slot] = p.read.Field(i)
	}
	switch {
	case !p.has[slotSource4] && !p.has[slotSource6] && !p.has[slotDestination4] && !p.has[slotDestination6]:
		p.useless = noAddress
	case !p.has[slotOctets] && !p.has[slotPackets] && !p.has[slotReverseOctets] && !p.has[slotReversePackets]:
		p.useless = noCounter
	}
	return p
}

// identity returns the identity of a record of a timed plan.
func (p *plan) identity(r ipfix.Record) dedup.Identity { return p.prefix.Sum(r.Bytes()) }

// flow reads r into f and says if it can't be used. The row must be clear of
// other plans' records.
func (p *plan) flow(r ipfix.Record, row *row, exported uint32, f *flow) reason {
	p.read.Read(r, row[:])
	f.source = p.address(row, slotSource4, slotSource6)
	f.destination = p.address(row, slotDestination4, slotDestination6)
	f.sourcePort, f.destinationPort = uint16(row[slotSourcePort]), uint16(row[slotDestinationPort])
	f.protocol, f.dscp = uint8(row[slotProtocol]), uint8(row[slotDSCP])&63
	if !p.has[slotDSCP] {
		f.dscp = uint8(row[slotClass]) >> 2
	}
	f.end = p.end(row, exported)
	f.start = f.end
	if start := int64(row[slotStart]); start != 0 && start < f.end {
		f.start = start
	}
	f.forward = volume{row[slotOctets], row[slotPackets]}
	f.reverse = volume{row[slotReverseOctets], row[slotReversePackets]}
	if max(f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets) > acct.MaxOctets ||
		f.forward.octets+f.reverse.octets > acct.MaxOctets || f.forward.packets+f.reverse.packets > acct.MaxOctets {
		f.forward, f.reverse = volume{}, volume{}
		return tooLarge
	}
	return ""
}

// address returns the address of a record whose Template may have an IPv4 and
// an IPv6 address, of which one is all zeros.
func (p *plan) address(row *row, slot4, slot6 int) netip.Addr {
	switch {
	case p.has[slot4] && (!p.has[slot6] || uint32(row[slot4+1]) != 0):
		v := uint32(row[slot4+1])
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	case p.has[slot6]:
		return ipfix.Addr(row[slot6], row[slot6+1])
	}
	return netip.Addr{}
}

// end returns when the flow ended, the export time where the record does not
// say.
func (p *plan) end(row *row, exported uint32) int64 {
	switch {
	case row[slotEnd] != 0:
		return int64(row[slotEnd])
	case p.has[slotEndUptime] && row[slotInit] != 0:
		return int64(row[slotInit] + row[slotEndUptime]&0xffffffff)
	case p.has[slotEndDelta]:
		return int64(exported)*1000 - int64(row[slotEndDelta]&0xffffffff)/1000
	case row[slotStart] != 0:
		return int64(row[slotStart] + row[slotMillis]&0xffffffff + row[slotMicros]&0xffffffff/1000)
	}
	return int64(exported) * 1000
}
