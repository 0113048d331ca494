package meter

import (
	"encoding/binary"
	"math/bits"
)

// A LinkType says what the octets of a captured packet begin with. The
// numbers are those of the link-layer header type field of pcap files.
type LinkType uint16

// Link types that the meter knows. Packets of others are counted in
// Stats.UnknownLink.
const (
	LinkNull      LinkType = 0   // BSD loopback: address family in the capturing host's byte order
	LinkEthernet  LinkType = 1   // IEEE 802.3, with 802.1Q and 802.1ad tags
	LinkRaw12     LinkType = 12  // DLT_RAW of most systems
	LinkRaw14     LinkType = 14  // DLT_RAW of OpenBSD
	LinkRaw       LinkType = 101 // begins with the IP header
	LinkLoop      LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinkLinuxSLL  LinkType = 113 // Linux "cooked" capture
	LinkIPv4      LinkType = 228
	LinkIPv6      LinkType = 229
	LinkLinuxSLL2 LinkType = 276 // Linux "cooked" capture, version 2
)

// EtherTypes (IEEE 802).
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100 // 802.1Q
	etherQinQ = 0x88a8 // 802.1ad
	etherOld  = 0x9100 // QinQ before 802.1ad
)

// network finds the network layer of b: its EtherType and where it begins. The
// verdict is ok, or says why there is none.
func (l LinkType) network(b []byte) (etherType uint16, offset int, v verdict) {
	switch l {
	case LinkEthernet:
		if len(b) < 14 {
			return 0, 0, truncated
		}
		return untag(binary.BigEndian.Uint16(b[12:]), b, 14)
	case LinkLinuxSLL:
		if len(b) < 16 {
			return 0, 0, truncated
		}
		return untag(binary.BigEndian.Uint16(b[14:]), b, 16)
	case LinkLinuxSLL2:
		if len(b) < 20 {
			return 0, 0, truncated
		}
		return untag(binary.BigEndian.Uint16(b), b, 20)
	case LinkNull, LinkLoop:
		if len(b) < 4 {
			return 0, 0, truncated
		}
		return family(binary.LittleEndian.Uint32(b)), 4, ok
	case LinkRaw, LinkRaw12, LinkRaw14, LinkIPv4, LinkIPv6:
		if len(b) < 1 {
			return 0, 0, truncated
		}
		switch b[0] >> 4 {
		case 4:
			return etherIPv4, 0, ok
		case 6:
			return etherIPv6, 0, ok
		}
		return 0, 0, badVersion
	}
	return 0, 0, unknownLink
}

// untag skips the VLAN tags that begin at offset.
func untag(etherType uint16, b []byte, offset int) (uint16, int, verdict) {
	for etherType == etherVLAN || etherType == etherQinQ || etherType == etherOld {
		if len(b) < offset+4 {
			return 0, 0, truncated
		}
		etherType = binary.BigEndian.Uint16(b[offset+2:])
		offset += 4
	}
	return etherType, offset, ok
}

// family returns the EtherType of an address family as a BSD loopback header has
// it, in either byte order: all are small numbers.
func family(af uint32) uint16 {
	if af > 0xffff {
		af = bits.ReverseBytes32(af)
	}
	switch af {
	case 2:
		return etherIPv4
	case 24, 28, 30: // NetBSD and OpenBSD, FreeBSD, Darwin
		return etherIPv6
	}
	return 0
}
