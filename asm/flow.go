package asm

import (
	"encoding/binary"
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
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

	layer     acct.Layers // of the octets
	vrf       string      // address space of the source; "" is the global one
	vrfTo     string      // of the destination
	internal  bool        // both sides are users; known once it is mapped
	estimated bool        // the volumes are scaled from sampled packets
	user      string      // who the record itself says it belongs to; "" for nobody
	skip      bool        // left to another observation point
	userTo    bool        // that user is at the destination, unless the bindings know better
	half      half        // of a flow in suspense: what is still to be accounted
	ofAddress bool        // a part that divide gave to who held all of the address then
	behind    *behind     // of a flow in suspense, stored beside it by its ID: whom its ports stand for; nil for nothing
}

// A half says which of its two ends a flow in suspense waits for a user at,
// where the other's is known.
type half uint8

const (
	bothEnds half = iota
	sourceEnd
	destinationEnd
)

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
const flowVersion = 4

// appendBinary appends what parseFlow reads.
func (f *flow) appendBinary(b []byte) []byte {
	b = append(b, flowVersion, f.protocol, f.dscp)
	b = octets.AppendAddr(b, f.source)
	b = octets.AppendAddr(b, f.destination)
	b = binary.BigEndian.AppendUint16(b, f.sourcePort)
	b = binary.BigEndian.AppendUint16(b, f.destinationPort)
	b = binary.AppendVarint(b, f.start)
	b = binary.AppendVarint(b, f.end)
	for _, v := range []uint64{f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets} {
		b = binary.AppendUvarint(b, v)
	}
	b = octets.AppendBool(b, f.estimated)
	b = octets.AppendString(b, f.user)
	b = octets.AppendBool(b, f.userTo)
	b = append(b, byte(f.layer))
	b = octets.AppendString(b, f.vrf)
	b = octets.AppendString(b, f.vrfTo)
	return append(b, byte(f.half))
}

func parseFlow(data []byte) (f flow, err error) {
	r := octets.NewReader(data)
	version := r.Octet()
	if version == 0 || version > flowVersion {
		r.Fail()
	}
	f.protocol, f.dscp = r.Octet(), r.Octet()
	f.source, f.destination = r.Addr(), r.Addr()
	if ports := r.Take(4); ports != nil {
		f.sourcePort = binary.BigEndian.Uint16(ports)
		f.destinationPort = binary.BigEndian.Uint16(ports[2:])
	}
	f.start, f.end = r.Varint(), r.Varint()
	for _, v := range []*uint64{&f.forward.octets, &f.forward.packets, &f.reverse.octets, &f.reverse.packets} {
		*v = r.Uvarint()
	}
	if version > 1 {
		f.estimated, f.user, f.userTo = r.Bool(), r.Text(), r.Bool()
	}
	if version > 2 {
		f.layer, f.vrf, f.vrfTo = acct.Layers(r.Octet()), r.Text(), r.Text()
	}
	if version > 3 {
		if f.half = half(r.Octet()); f.half > destinationEnd {
			r.Fail()
		}
	}
	return f, r.Close()
}
