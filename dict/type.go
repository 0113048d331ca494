package dict

import (
	"fmt"

	"tollbridge/ipfix"
)

// A Type is a format of AVP data (RFC 6733, Sections 4.2 to 4.4).
type Type uint8

const (
	OctetString Type = iota
	Integer32
	Integer64
	Unsigned32
	Unsigned64
	Float32
	Float64
	Grouped
	Address
	Time
	UTF8String
	DiameterIdentity
	Enumerated
)

var typeNames = [...]string{
	"OctetString", "Integer32", "Integer64", "Unsigned32", "Unsigned64", "Float32", "Float64", "Grouped",
	"Address", "Time", "UTF8String", "DiameterIdentity", "Enumerated",
}

// String returns the RFC's name of the type.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// TypeOf returns the type of the AVP that carries values of an abstract data
// type.
//
// Time holds seconds only, so milliseconds since 1970 are an Unsigned64, and
// microseconds and nanoseconds are the NTP timestamp of RFC 7011, Sections
// 6.1.9 and 6.1.10, in an Unsigned64: seconds since 1900 and a fraction.
// A boolean is Enumerated with the values of RFC 7011, 1 for true and 2 for
// false. What has no counterpart is an OctetString of the octets on the wire.
func TypeOf(t ipfix.Type) Type {
	switch t {
	case ipfix.TypeUnsigned8, ipfix.TypeUnsigned16, ipfix.TypeUnsigned32:
		return Unsigned32
	case ipfix.TypeUnsigned64, ipfix.TypeDateTimeMilliseconds, ipfix.TypeDateTimeMicroseconds, ipfix.TypeDateTimeNanoseconds:
		return Unsigned64
	case ipfix.TypeSigned8, ipfix.TypeSigned16, ipfix.TypeSigned32:
		return Integer32
	case ipfix.TypeSigned64:
		return Integer64
	case ipfix.TypeFloat32:
		return Float32
	case ipfix.TypeFloat64:
		return Float64
	case ipfix.TypeBoolean:
		return Enumerated
	case ipfix.TypeString:
		return UTF8String
	case ipfix.TypeDateTimeSeconds:
		return Time
	case ipfix.TypeIpv4Address, ipfix.TypeIpv6Address:
		return Address
	}
	return OctetString
}
