package asm

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// AVPs of the addresses that a user session has beside its first.
const (
	framedIPAddress     = 8   // RFC 7155, Section 4.4.10.5.1
	framedIPv6Prefix    = 97  // RFC 7155, Section 4.4.10.5.6
	delegatedIPv6Prefix = 123 // RFC 4818
)

// framed returns the prefix that stands for a user session, its IPv4 address
// if it has one, and the attributes of its records: those that its source
// gave, then one for each further prefix that it holds. A session that holds
// nothing any more is told by all that it held.
func framed(c *users.Claim) (first netip.Prefix, attributes []acct.Attribute) {
	for a := range c.Attributes.All() {
		attributes = append(attributes, acct.Attribute{Code: a.Code, Vendor: a.Vendor, Data: []byte(a.Data)})
	}
	var held, all []netip.Prefix
	for h := range c.Holders() {
		all = append(all, h.Prefix())
		if h.Until == 0 || h.Until == c.Until() {
			held = append(held, h.Prefix())
		}
	}
	if len(held) == 0 {
		held = all
	}
	slices.SortFunc(held, netip.Prefix.Compare)
	for i, p := range slices.Compact(held) {
		if i == 0 {
			first = p
			continue
		}
		attributes = append(attributes, framedAttribute(p))
	}
	return first, attributes
}

// framedAttribute returns the AVP of a prefix: an IPv4 address, a prefix of a
// link of /64 or longer, or else one that is delegated.
func framedAttribute(p netip.Prefix) acct.Attribute {
	if p.Addr().Is4() {
		return acct.Attribute{Code: framedIPAddress, Data: p.Addr().AsSlice()}
	}
	// RFC 3162, Section 2.3: reserved, length, and as many octets as the
	// prefix needs.
	data := binary.BigEndian.AppendUint16(nil, uint16(p.Bits()))
	data = append(data, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
	if p.Bits() >= 64 {
		return acct.Attribute{Code: framedIPv6Prefix, Data: data}
	}
	return acct.Attribute{Code: delegatedIPv6Prefix, Data: data}
}
