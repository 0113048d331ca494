package meter

import (
	"encoding/binary"

	"tollbridge/meter/pcap"
)

// A Packet is one captured packet. Its Interface is the ingressInterface of its
// flow.
type Packet = pcap.Packet

// A verdict is what became of a packet that was parsed.
type verdict uint8

const (
	ok verdict = iota
	notIP
	unknownLink
	truncated    // captured octets end before the addresses
	badVersion   // IP version contradicts the link layer
	badHeader    // IHL below 5
	badLength    // Total Length below the header's length
	beyondPacket // Total Length or Payload Length reaches beyond the packet
	verdicts
)

// IANA protocol numbers whose headers the parser reads.
const (
	protoHopByHop    = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoDCCP        = 33
	protoRouting     = 43
	protoFragment    = 44
	protoAH          = 51
	protoICMPv6      = 58
	protoDestination = 60
	protoSCTP        = 132
	protoMobility    = 135
	protoUDPLite     = 136
	protoHIP         = 139
	protoShim6       = 140
)

// TCP flags that the meter acts on (RFC 9293, Section 3.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
)

// An observation is what the flow cache needs to know of a packet.
type observation struct {
	key    key
	at     int64  // Unix nanoseconds
	octets uint64 // of the IP packet, header and payload
	flags  uint16 // tcpControlBits
	hash   uint32 // of key
}

// linkVerdict is the verdict on a packet without a network layer.
func linkVerdict(err error) verdict {
	switch err {
	case pcap.ErrTruncated:
		return truncated
	case pcap.ErrVersion:
		return badVersion
	}
	return unknownLink
}

// observe parses p into o. All but o.hash is set if the verdict is ok.
func (o *observation) observe(p *Packet) verdict {
	etherType, offset, err := p.Link.Network(p.Data)
	if err != nil {
		return linkVerdict(err)
	}
	o.key = key{}
	o.flags = 0
	o.at = min(max(p.Time, 0), maxTime)
	length := max(p.Length, len(p.Data)) - offset
	var v verdict
	switch etherType {
	case pcap.EtherTypeIPv4:
		v = o.ipv4(p.Data[offset:], length)
	case pcap.EtherTypeIPv6:
		v = o.ipv6(p.Data[offset:], length)
	default:
		return notIP
	}
	o.key.setInterface(p.Interface)
	return v
}

// ipv4 parses an IPv4 packet (RFC 791, Section 3.1) that took length octets on
// the wire, of which b was captured.
func (o *observation) ipv4(b []byte, length int) verdict {
	if len(b) < 20 {
		return truncated
	}
	if b[0]>>4 != 4 {
		return badVersion
	}
	header := int(b[0]&0xf) * 4
	if header < 20 {
		return badHeader
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 {
		// A packet above 65,535 octets that the host's offloads have yet to cut.
		total = length
	}
	if total < header {
		return badLength
	}
	if total > length {
		return beyondPacket
	}
	o.octets = uint64(total)
	o.key.version(4)
	o.key.dscp(b[1] >> 2)
	o.key.protocol(b[9])
	copy(o.key[keySource:], b[12:16])
	copy(o.key[keyDestination:], b[16:20])
	// Only the first fragment has the ports. Octets past Total Length are padding.
	if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 && header < min(len(b), total) {
		o.transport(b[9], b[header:min(len(b), total)], protoICMP)
	}
	return ok
}

// ipv6 parses an IPv6 packet (RFC 8200, Section 3) that took length octets on the
// wire, of which b was captured.
func (o *observation) ipv6(b []byte, length int) verdict {
	if len(b) < 40 {
		return truncated
	}
	if b[0]>>4 != 6 {
		return badVersion
	}
	next := b[6]
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total == 40 && next == protoHopByHop {
		// A jumbogram (RFC 2675), or one that offloads have yet to cut.
		total = length
	}
	if total > length {
		return beyondPacket
	}
	o.octets = uint64(total)
	o.key.version(6)
	o.key.dscp(b[0]<<2&0x3c | b[1]>>6)
	copy(o.key[keySource:], b[8:24])
	copy(o.key[keyDestination:], b[24:40])
	next, payload := extensions(next, b[40:min(len(b), total)])
	o.key.protocol(next)
	o.transport(next, payload, protoICMPv6)
	return ok
}

// extensions walks the extension headers (RFC 8200, Section 4) at the start of
// b. It returns the upper-layer protocol, or the last header that was captured,
// and what follows; nothing follows in a fragment that is not the first.
func extensions(next byte, b []byte) (byte, []byte) {
	for {
		var size int
		switch next {
		case protoHopByHop, protoRouting, protoDestination, protoMobility, protoHIP, protoShim6:
			if len(b) < 2 {
				return next, nil
			}
			size = 8 + int(b[1])*8
		case protoAH: // RFC 4302, Section 2.2
			if len(b) < 2 {
				return next, nil
			}
			size = 8 + int(b[1])*4
		case protoFragment:
			if len(b) < 8 {
				return next, nil
			}
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				return b[0], nil
			}
			size = 8
		default:
			return next, b
		}
		next = b[0]
		if len(b) < size {
			return next, nil
		}
		b = b[size:]
	}
}

// transport reads ports, ICMP type and code, and TCP flags where b has them.
func (o *observation) transport(protocol byte, b []byte, icmp byte) {
	switch protocol {
	case protoTCP:
		if len(b) >= 14 {
			o.flags = binary.BigEndian.Uint16(b[12:]) & 0x0fff
		}
		fallthrough
	case protoUDP, protoSCTP, protoDCCP, protoUDPLite:
		if len(b) >= 4 {
			copy(o.key[keyPorts:], b[:4])
		}
	case icmp:
		if len(b) >= 2 {
			copy(o.key[keyICMP:], b[:2])
		}
	}
}
