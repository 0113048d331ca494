package asm

import (
	"net/netip"

	"tollbridge/asm/nat"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

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
	slotOtherOctets // of the other layer; this and the next stand beside slotOctets and slotPackets
	slotPostOctets
	slotPostPackets
	slotEnd
	slotEndUptime   // flowEndSysUpTime, milliseconds since slotInit
	slotInit        // systemInitTimeMilliseconds
	slotEndDelta    // flowEndDeltaMicroseconds, before the export time
	slotStart       // also where no end is given
	slotStartUptime // flowStartSysUpTime
	slotStartDelta  // flowStartDeltaMicroseconds
	slotMillis      // flowDurationMilliseconds
	slotMicros      // flowDurationMicroseconds
	slots           // how many there are
)

// A reason says why the records of a Template, or one record, are no usage.
// The empty reason says that they are.
type reason string

const (
	noAddress reason = "no address"
	noCounter reason = "no counter"
	tooLarge  reason = "counter too large"
)

// A plan turns the records of one Template, from one exporter and Observation
// Domain, into flows.
type plan struct {
	template *ipfix.Template
	read     *ipfix.Plan
	nat      *nat.Reader // of NAT event records; nil for others
	useless  reason      // why no record of the Template is usage
	timed    bool        // records have an identity: their Template has a flow time
	prefix   dedup.Hash  // of the identities
	has      [slots]bool
	counters counters
	refiner  refiner
}

// newPlan compiles t for records whose identities begin with prefix.
// Octets of layer 2 come first if link says so.
func newPlan(t *ipfix.Template, prefix dedup.Hash, link bool) *plan {
	p := &plan{template: t, prefix: prefix.Uint64(t.Fingerprint()), counters: counters{link: link}}
	has := func(ids ...uint16) bool {
		for _, id := range ids {
			if _, ok := t.Index(0, id); ok {
				return true
			}
		}
		return false
	}
	p.timed = has(21, 22, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 322, 323, 324, 325)

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
		number(slotStartUptime, iana(22)),
		number(slotStartDelta, iana(158)),
		number(slotMillis, iana(161)),
		number(slotMicros, iana(162)),
	}
	columns = append(columns, p.counters.columns(t)...)
	p.read = t.Plan(columns...)
	for i, c := range columns {
		_, p.has[c.Slot] = p.read.Field(i)
	}
	if !p.counts() {
		p.nat = nat.NewReader(t)
	}
	switch {
	case !p.has[slotSource4] && !p.has[slotSource6] && !p.has[slotDestination4] && !p.has[slotDestination6]:
		p.useless = noAddress
	case !p.counts():
		p.useless = noCounter
	}
	p.refiner.compile(p)
	return p
}

// counts reports whether the Template has any counter.
func (p *plan) counts() bool {
	return p.has[slotOctets] || p.has[slotPackets] || p.has[slotReverseOctets] || p.has[slotReversePackets]
}

// identity returns the identity of a record of a timed plan.
func (p *plan) identity(r ipfix.Record) dedup.Identity { return p.prefix.Sum(r.Bytes()) }

// flow makes f of row, as read by p, and says if it can't be used.
func (p *plan) flow(row *row, exported uint32, f *flow) reason {
	f.source = p.address(row, slotSource4, slotSource6)
	f.destination = p.address(row, slotDestination4, slotDestination6)
	f.sourcePort, f.destinationPort = uint16(row[slotSourcePort]), uint16(row[slotDestinationPort])
	f.protocol, f.dscp = uint8(row[slotProtocol]), uint8(row[slotDSCP])&63
	if !p.has[slotDSCP] {
		f.dscp = uint8(row[slotClass]) >> 2
	}
	f.end = p.end(row, exported)
	f.start = min(p.start(row, exported, f.end), f.end)
	f.forward = volume{row[slotOctets], row[slotPackets]}
	f.reverse = volume{row[slotReverseOctets], row[slotReversePackets]}
	f.layer = p.counters.layer
	if p.counters.alternatives {
		p.counters.choose(row, f)
	}
	f.estimated, f.user, f.userTo, f.skip, f.vrf, f.vrfTo = false, "", false, false, "", ""
	if !p.counters.totals.Any() && !f.fits() {
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
	case p.has[slotEndUptime] && p.init(row) != 0:
		return upTime(p.init(row), row[slotEndUptime], exported)
	case p.has[slotEndDelta]:
		return int64(exported)*1000 - int64(row[slotEndDelta]&0xffffffff)/1000
	case row[slotStart] != 0:
		return int64(row[slotStart]) + duration(row)
	}
	return int64(exported) * 1000
}

// start returns when the flow started, its end where the record does not say.
func (p *plan) start(row *row, exported uint32, end int64) int64 {
	switch {
	case row[slotStart] != 0:
		return int64(row[slotStart])
	case p.has[slotStartUptime] && p.init(row) != 0:
		return upTime(p.init(row), row[slotStartUptime], exported)
	case p.has[slotStartDelta]:
		return int64(exported)*1000 - int64(row[slotStartDelta]&0xffffffff)/1000
	}
	return end - duration(row)
}

// duration returns the flow's duration in milliseconds, 0 where the record
// does not say.
func duration(row *row) int64 {
	return int64(row[slotMillis]&0xffffffff + row[slotMicros]&0xffffffff/1000)
}

// init returns when the exporter's up time was zero, in Unix milliseconds, as
// the record or else an options record says; 0 if neither does.
func (p *plan) init(row *row) int64 {
	if row[slotInit] != 0 {
		return int64(row[slotInit])
	}
	return p.refiner.init
}

// upTime returns the Unix milliseconds of an up time in milliseconds. As that
// wraps after 49.7 days, the time nearest to the export is meant.
func upTime(init int64, up uint64, exported uint32) int64 {
	const wrap = 1 << 32
	at := init + int64(up&(wrap-1))
	if behind := int64(exported)*1000 - at; behind > wrap/2 {
		at += (behind + wrap/2) / wrap * wrap
	}
	return at
}
