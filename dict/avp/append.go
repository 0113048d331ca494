package avp

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// The functions below append one whole AVP: header, data and padding. A vendor
// other than 0 sets the V flag. Data that would make the AVP longer than
// MaxLength panics, so bound what comes from outside.

// Append appends an AVP of type OctetString, or of any type whose data is
// encoded already.
func Append(b []byte, code, vendor uint32, flags uint8, data []byte) []byte {
	b = appendAVPHeader(b, code, vendor, flags, len(data))
	b = append(b, data...)
	return pad(b, len(data))
}

// AppendString appends an AVP of type UTF8String, DiameterIdentity,
// DiameterURI or OctetString.
func AppendString(b []byte, code, vendor uint32, flags uint8, s string) []byte {
	b = appendAVPHeader(b, code, vendor, flags, len(s))
	b = append(b, s...)
	return pad(b, len(s))
}

// AppendUint32 appends an AVP of type Unsigned32 or Enumerated.
func AppendUint32(b []byte, code, vendor uint32, flags uint8, v uint32) []byte {
	b = appendAVPHeader(b, code, vendor, flags, 4)
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// AppendUint64 appends an AVP of type Unsigned64.
func AppendUint64(b []byte, code, vendor uint32, flags uint8, v uint64) []byte {
	b = appendAVPHeader(b, code, vendor, flags, 8)
	return binary.BigEndian.AppendUint64(b, v)
}

// AppendInt32 appends an AVP of type Integer32.
func AppendInt32(b []byte, code, vendor uint32, flags uint8, v int32) []byte {
	return AppendUint32(b, code, vendor, flags, uint32(v))
}

// AppendInt64 appends an AVP of type Integer64.
func AppendInt64(b []byte, code, vendor uint32, flags uint8, v int64) []byte {
	return AppendUint64(b, code, vendor, flags, uint64(v))
}

// AppendFloat32 appends an AVP of type Float32.
func AppendFloat32(b []byte, code, vendor uint32, flags uint8, v float32) []byte {
	return AppendUint32(b, code, vendor, flags, math.Float32bits(v))
}

// AppendFloat64 appends an AVP of type Float64.
func AppendFloat64(b []byte, code, vendor uint32, flags uint8, v float64) []byte {
	return AppendUint64(b, code, vendor, flags, math.Float64bits(v))
}

// Address families of the type Address (RFC 6733, Section 4.3.1).
const (
	familyIPv4 = 1
	familyIPv6 = 2
)

// AppendAddress appends an AVP of type Address (Section 4.3.1). The address
// must be valid; an IPv4-mapped IPv6 address stays IPv6 and a zone is left out.
func AppendAddress(b []byte, code, vendor uint32, flags uint8, a netip.Addr) []byte {
	if a.Is4() {
		v4 := a.As4()
		b = appendAVPHeader(b, code, vendor, flags, 6)
		b = append(b, 0, familyIPv4)
		b = append(b, v4[:]...)
		return append(b, 0, 0)
	}
	v6 := a.As16()
	b = appendAVPHeader(b, code, vendor, flags, 18)
	b = append(b, 0, familyIPv6)
	b = append(b, v6[:]...)
	return append(b, 0, 0)
}

// AppendTime appends an AVP of type Time: whole seconds, rounded down. It can
// hold MinTime to MaxTime; another time wraps around into that range.
func AppendTime(b []byte, code, vendor uint32, flags uint8, t time.Time) []byte {
	return AppendUint32(b, code, vendor, flags, uint32(t.Unix()+ntpUnix))
}

// Begin appends the header of a Grouped AVP, whose AVPs the caller then
// appends, and returns its place for End. Groups may nest.
//
//	b, group := avp.Begin(b, avp.Classifier, 0, 0)
//	b = avp.Append(b, avp.ClassifierID, 0, 0, id)
//	avp.End(b, group)
func Begin(b []byte, code, vendor uint32, flags uint8) (_ []byte, group int) {
	return appendAVPHeader(b, code, vendor, flags, 0), len(b)
}

// End writes the length of the Grouped AVP that began at group and ends with b.
func End(b []byte, group int) { putLength(b[group+5:group+8], len(b)-group) }

// Size returns the octets that an AVP with n octets of data takes in a
// message, header and padding included.
func Size(vendor uint32, n int) int {
	if vendor != 0 {
		return 12 + (n+3)&^3
	}
	return 8 + (n+3)&^3
}

func appendAVPHeader(b []byte, code, vendor uint32, flags uint8, n int) []byte {
	if vendor == 0 {
		n += 8
		checkLength(n)
		return append(b,
			byte(code>>24), byte(code>>16), byte(code>>8), byte(code),
			flags&^FlagVendor, byte(n>>16), byte(n>>8), byte(n))
	}
	n += 12
	checkLength(n)
	return append(b,
		byte(code>>24), byte(code>>16), byte(code>>8), byte(code),
		flags|FlagVendor, byte(n>>16), byte(n>>8), byte(n),
		byte(vendor>>24), byte(vendor>>16), byte(vendor>>8), byte(vendor))
}

func checkLength(n int) {
	if n > MaxLength {
		panic("avp: internal error: length above 16777215 octets")
	}
}

// pad appends the padding behind n octets of data.
func pad(b []byte, n int) []byte {
	switch n & 3 {
	case 1:
		return append(b, 0, 0, 0)
	case 2:
		return append(b, 0, 0)
	case 3:
		return append(b, 0)
	}
	return b
}
