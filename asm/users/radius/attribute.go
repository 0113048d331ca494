package radius

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc4372"
	"layeh.com/radius/rfc4818"
	"layeh.com/radius/rfc5580"
	"layeh.com/radius/rfc6911"

	"tollbridge/asm/users"
)

// An AttributeType names a RADIUS attribute: one of the standard ones, or with
// a Vendor, which is a private enterprise number, one of that vendor's.
type AttributeType struct {
	Vendor uint32
	Type   uint8
}

// attributeNames are those of the standard attributes that tell a user, a
// session or a NAS from others.
var attributeNames = map[string]uint8{
	"User-Name":                uint8(rfc2865.UserName_Type),
	"NAS-IP-Address":           uint8(rfc2865.NASIPAddress_Type),
	"NAS-Port":                 uint8(rfc2865.NASPort_Type),
	"Service-Type":             uint8(rfc2865.ServiceType_Type),
	"Filter-Id":                uint8(rfc2865.FilterID_Type),
	"Class":                    uint8(rfc2865.Class_Type),
	"Called-Station-Id":        uint8(rfc2865.CalledStationID_Type),
	"Calling-Station-Id":       uint8(rfc2865.CallingStationID_Type),
	"NAS-Identifier":           uint8(rfc2865.NASIdentifier_Type),
	"NAS-Port-Type":            uint8(rfc2865.NASPortType_Type),
	"Acct-Session-Id":          uint8(rfc2866.AcctSessionID_Type),
	"Connect-Info":             uint8(rfc2869.ConnectInfo_Type),
	"NAS-Port-Id":              uint8(rfc2869.NASPortID_Type),
	"Chargeable-User-Identity": uint8(rfc4372.ChargeableUserIdentity_Type),
	"NAS-IPv6-Address":         uint8(rfc3162.NASIPv6Address_Type),
	"Framed-Interface-Id":      uint8(rfc3162.FramedInterfaceID_Type),
	"Operator-Name":            uint8(rfc5580.OperatorName_Type),
}

// DefaultAttributes are what a binding brings along unless Config.Attributes
// says otherwise.
var DefaultAttributes = []AttributeType{
	{Type: uint8(rfc2865.Class_Type)},
	{Type: uint8(rfc2865.CallingStationID_Type)},
	{Type: uint8(rfc2865.CalledStationID_Type)},
	{Type: uint8(rfc2865.NASIdentifier_Type)},
	{Type: uint8(rfc2865.NASIPAddress_Type)},
	{Type: uint8(rfc3162.NASIPv6Address_Type)},
	{Type: uint8(rfc2865.NASPort_Type)},
	{Type: uint8(rfc2869.NASPortID_Type)},
	{Type: uint8(rfc2865.NASPortType_Type)},
	{Type: uint8(rfc2866.AcctSessionID_Type)},
	{Type: uint8(rfc4372.ChargeableUserIdentity_Type)},
	{Type: uint8(rfc5580.OperatorName_Type)},
	{Type: uint8(rfc3162.FramedInterfaceID_Type)},
}

// ParseAttributeType reads the name of a standard attribute such as
// Calling-Station-Id, the number of one, or the enterprise number of a vendor
// and a number of its own such as 10415:1.
func ParseAttributeType(s string) (AttributeType, error) {
	if t, ok := attributeNames[s]; ok {
		return AttributeType{Type: t}, nil
	}
	var a AttributeType
	vendor, number, found := strings.Cut(s, ":")
	if !found {
		vendor, number = "0", s
	}
	v, err1 := strconv.ParseUint(vendor, 10, 32)
	t, err2 := strconv.ParseUint(number, 10, 8)
	if err1 != nil || err2 != nil || t == 0 || found && v == 0 {
		names := slices.Sorted(maps.Keys(attributeNames))
		return a, fmt.Errorf("%q is no RADIUS attribute: write a number, vendor:number such as 10415:1, or one of %s", s, strings.Join(names, ", "))
	}
	return AttributeType{uint32(v), uint8(t)}, nil
}

// values returns those of an attribute in a packet, in order. Empty ones, which
// must not be sent (RFC 2865, Section 5), are left out.
func values(all radius.Attributes, t AttributeType) [][]byte {
	var found [][]byte
	for _, a := range all {
		switch {
		case t.Vendor == 0:
			if a.Type == radius.Type(t.Type) && len(a.Attribute) > 0 {
				found = append(found, a.Attribute)
			}
		case a.Type == rfc2865.VendorSpecific_Type:
			found = append(found, vendorValues(a.Attribute, t)...)
		}
	}
	return found
}

// vendorValues reads a Vendor-Specific attribute whose content has the form
// that RFC 2865, Section 5.26, recommends. What has another ends it.
func vendorValues(v []byte, t AttributeType) [][]byte {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != t.Vendor {
		return nil
	}
	var found [][]byte
	for v = v[4:]; len(v) >= 2; {
		length := int(v[1])
		if length < 2 || length > len(v) {
			break
		}
		if v[0] == t.Type && length > 2 {
			found = append(found, v[2:length])
		}
		v = v[length:]
	}
	return found
}

// avps returns the attributes of a packet that types name, as AVPs: RADIUS
// attributes 1 to 255 are AVPs of the same code and content (RFC 6733,
// Section 4.1), a vendor's are that vendor's.
func avps(all radius.Attributes, types []AttributeType) users.Attributes {
	var found []users.Attribute
	for _, t := range types {
		for _, v := range values(all, t) {
			found = append(found, users.Attribute{Code: uint32(t.Type), Vendor: t.Vendor, Data: string(v)})
		}
	}
	return users.NewAttributes(found...)
}

// first returns the first value of a standard attribute, nil if there is none.
func first(all radius.Attributes, t radius.Type) []byte {
	for _, a := range all {
		if a.Type == t && len(a.Attribute) > 0 {
			return a.Attribute
		}
	}
	return nil
}

// integer reads the first of an attribute that holds one of 32 bits; false if
// there is none.
func integer(all radius.Attributes, t radius.Type) (uint32, bool, error) {
	v := first(all, t)
	switch len(v) {
	case 0:
		return 0, false, nil
	case 4:
		return binary.BigEndian.Uint32(v), true, nil
	}
	return 0, false, fmt.Errorf("attribute %d has %d octets: an integer has 4", t, len(v))
}

// text returns a value as text: as it is if it is text, else in hexadecimal.
// Some NAS end it with zero octets.
func text(v []byte) string {
	s := strings.TrimRight(string(v), "\x00")
	if users.CheckName(s) != nil {
		return fmt.Sprintf("%x", v)
	}
	return s
}

var errPrefix = errors.New("an IPv6 prefix has a length of at most 128 and the octets for it (RFC 3162, Section 2.3)")

// parsePrefix reads the value of a Framed-IPv6-Prefix or Delegated-IPv6-Prefix.
// Bits beyond the length must be zero; a NAS that forgets it is forgiven.
func parsePrefix(v []byte) (netip.Prefix, error) {
	if len(v) < 2 || len(v) > 18 || int(v[1]) > 128 || int(v[1]) > 8*(len(v)-2) {
		return netip.Prefix{}, errPrefix
	}
	var a [16]byte
	copy(a[:], v[2:])
	return netip.PrefixFrom(netip.AddrFrom16(a), int(v[1])).Masked(), nil
}

// parseRoute reads the destination of a Framed-Route or Framed-IPv6-Route, whose
// text begins with it (RFC 2865, Section 5.22). Text of another form, and a
// route that is wider than any user's network, are none.
func parseRoute(v []byte) (netip.Prefix, bool) {
	destination, _, _ := strings.Cut(strings.TrimSpace(string(v)), " ")
	p, err := netip.ParsePrefix(destination)
	if err != nil || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
		return p, false
	}
	return p.Masked(), true
}

// The addresses that a NAS uses to say that none has been fixed yet (RFC 2865,
// Section 5.8), and none at all.
var (
	userChooses = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	nasChooses  = netip.AddrFrom4([4]byte{255, 255, 255, 254})
)

// prefixes returns all that a packet's user holds, sorted.
//
// Framed-IP-Netmask is no part of it: it is the mask of the link, which many
// users may share. Framed-Interface-Id is no part either: it lies in the
// Framed-IPv6-Prefix, all of which is the user's.
func prefixes(all radius.Attributes) ([]netip.Prefix, error) {
	var found []netip.Prefix
	for _, a := range all {
		v := a.Attribute
		if len(v) == 0 {
			continue
		}
		switch a.Type {
		case rfc2865.FramedIPAddress_Type:
			if len(v) != 4 {
				return nil, fmt.Errorf("Framed-IP-Address has %d octets", len(v))
			}
			if addr := netip.AddrFrom4([4]byte(v)); addr != userChooses && addr != nasChooses && !addr.IsUnspecified() {
				found = append(found, netip.PrefixFrom(addr, 32))
			}
		case rfc6911.FramedIPv6Address_Type:
			if len(v) != 16 {
				return nil, fmt.Errorf("Framed-IPv6-Address has %d octets", len(v))
			}
			if addr := netip.AddrFrom16([16]byte(v)); !addr.IsUnspecified() {
				found = append(found, netip.PrefixFrom(addr, 128))
			}
		case rfc3162.FramedIPv6Prefix_Type, rfc4818.DelegatedIPv6Prefix_Type:
			p, err := parsePrefix(v)
			if err != nil {
				return nil, err
			}
			if p.Bits() > 0 {
				found = append(found, p)
			}
		case rfc2865.FramedRoute_Type, rfc3162.FramedIPv6Route_Type:
			if p, ok := parseRoute(v); ok {
				found = append(found, p)
			}
		}
	}
	slices.SortFunc(found, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(found), nil
}
