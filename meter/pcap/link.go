package pcap

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A LinkType says what the octets of a captured packet begin with. The
// numbers are those of the link-layer header type field of pcap files.
type LinkType uint16

// Link types whose network layer Network finds.
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
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100 // 802.1Q
	etherTypeQinQ = 0x88a8 // 802.1ad
	etherTypeOld  = 0x9100 // QinQ before 802.1ad
)

// Reasons why Network finds no network layer.
var (
	ErrTruncated = errors.New("the octets captured end within the link layer")
	ErrLinkType  = errors.New("unknown link type")
	ErrVersion   = errors.New("no IP version where an IP header should be")
)

// Network finds the network layer of a packet's octets: its EtherType, 0 for
// what has none, and where it begins. The error is one of the above.
func (l LinkType) Network(b []byte) (etherType uint16, offset int, err error) {
	switch l {
	case LinkEthernet:
		if len(b) < 14 {
			return 0, 0, ErrTruncated
		}
		return untag(binary.BigEndian.Uint16(b[12:]), b, 14)
	case LinkLinuxSLL:
		if len(b) < 16 {
			return 0, 0, ErrTruncated
		}
		return untag(binary.BigEndian.Uint16(b[14:]), b, 16)
	case LinkLinuxSLL2:
		if len(b) < 20 {
			return 0, 0, ErrTruncated
		}
		return untag(binary.BigEndian.Uint16(b), b, 20)
	case LinkNull, LinkLoop:
		if len(b) < 4 {
			return 0, 0, ErrTruncated
		}
		return family(binary.LittleEndian.Uint32(b)), 4, nil
	case LinkRaw, LinkRaw12, LinkRaw14, LinkIPv4, LinkIPv6:
		if len(b) < 1 {
			return 0, 0, ErrTruncated
		}
		switch b[0] >> 4 {
		case 4:
			return EtherTypeIPv4, 0, nil
		case 6:
			return EtherTypeIPv6, 0, nil
		}
		return 0, 0, ErrVersion
	}
	return 0, 0, ErrLinkType
}

// untag skips the VLAN tags that begin at offset.
func untag(etherType uint16, b []byte, offset int) (uint16, int, error) {
	for etherType == etherTypeVLAN || etherType == etherTypeQinQ || etherType == etherTypeOld {
		if len(b) < offset+4 {
			return 0, 0, ErrTruncated
		}
		etherType = binary.BigEndian.Uint16(b[offset+2:])
		offset += 4
	}
	return etherType, offset, nil
}

// family returns the EtherType of an address family as a BSD loopback header has
// it, in either byte order: all are small numbers.
func family(af uint32) uint16 {
	if af > 0xffff {
		af = bits.ReverseBytes32(af)
	}
	switch af {
	case 2:
		return EtherTypeIPv4
	case 24, 28, 30: // NetBSD and OpenBSD, FreeBSD, Darwin
		return EtherTypeIPv6
	}
	return 0
}
