package dict

import (
	"encoding/binary"
	"math"
	"net/netip"
	"unicode/utf8"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// ntpUnix is the seconds from 1900, where the Diameter type Time begins, to
// 1970, where dateTimeSeconds does. Both are 32 bits, so modulo 2^32 each value
// of one is one value of the other.
const ntpUnix = 2208988800

// appendValue appends the AVP of an element of the given abstract data type,
// whose value has the octets v on the wire, and returns the Field Length that
// a reader will take it to have had. It reports false, with b unchanged, where
// the AVP could not give back the same octets.
func appendValue(b []byte, code, vendor uint32, t ipfix.Type, v []byte) (_ []byte, natural uint16, ok bool) {
	size := t.Length()
	switch t {
	case ipfix.TypeUnsigned8, ipfix.TypeUnsigned16, ipfix.TypeUnsigned32:
		if len(v) == 0 || len(v) > size {
			return b, 0, false
		}
		return avp.AppendUint32(b, code, vendor, 0, uint32(unsigned(v))), uint16(size), true
	case ipfix.TypeUnsigned64:
		if len(v) == 0 || len(v) > size {
			return b, 0, false
		}
		return avp.AppendUint64(b, code, vendor, 0, unsigned(v)), uint16(size), true
	case ipfix.TypeSigned8, ipfix.TypeSigned16, ipfix.TypeSigned32:
		if len(v) == 0 || len(v) > size {
			return b, 0, false
		}
		return avp.AppendInt32(b, code, vendor, 0, int32(signed(v))), uint16(size), true
	case ipfix.TypeSigned64:
		if len(v) == 0 || len(v) > size {
			return b, 0, false
		}
		return avp.AppendInt64(b, code, vendor, 0, signed(v)), uint16(size), true
	case ipfix.TypeFloat64:
		if len(v) == 4 { // reduced-size encoding (RFC 7011, Section 6.2)
			f := math.Float32frombits(binary.BigEndian.Uint32(v))
			if f != f { // a conversion may change which NaN it is
				return b, 0, false
			}
			return avp.AppendFloat64(b, code, vendor, 0, float64(f)), uint16(size), true
		}
	case ipfix.TypeBoolean:
		if len(v) == 1 && (v[0] == 1 || v[0] == 2) {
			return avp.AppendUint32(b, code, vendor, 0, uint32(v[0])), uint16(size), true
		}
		return b, 0, false
	case ipfix.TypeDateTimeSeconds:
		if len(v) == 4 {
			return avp.AppendUint32(b, code, vendor, 0, binary.BigEndian.Uint32(v)+ntpUnix), uint16(size), true
		}
	case ipfix.TypeIpv4Address:
		if len(v) == 4 {
			return avp.AppendAddress(b, code, vendor, 0, netip.AddrFrom4([4]byte(v))), uint16(size), true
		}
	case ipfix.TypeIpv6Address:
		if len(v) == 16 {
			return avp.AppendAddress(b, code, vendor, 0, netip.AddrFrom16([16]byte(v))), uint16(size), true
		}
	case ipfix.TypeUnsigned256:
		if len(v) == 0 || len(v) > size {
			return b, 0, false
		}
		return avp.Append(b, code, vendor, 0, v), uint16(len(v)), true
	case ipfix.TypeString:
		if !utf8.Valid(v) {
			return b, 0, false
		}
	}
	// What is left has the same octets in both.
	switch {
	case size == 0:
		return avp.Append(b, code, vendor, 0, v), ipfix.VariableLength, true
	case size == len(v):
		return avp.Append(b, code, vendor, 0, v), uint16(size), true
	}
	return b, 0, false
}

// naturalLength returns the Field Length of an element AVP with n octets of
// data that Flow-Template says nothing about, as appendValue gave it.
func naturalLength(t ipfix.Type, n int) uint16 {
	switch size := t.Length(); {
	case size == 0:
		return ipfix.VariableLength
	case t == ipfix.TypeUnsigned256:
		return uint16(n)
	default:
		return uint16(size)
	}
}

// parseValue appends to b the octets on the wire of the value in an element's
// AVP. length is the Field Length, VariableLength for as many octets as there
// are. It reports false where the AVP can't be what appendValue wrote.
func parseValue(b []byte, t ipfix.Type, data []byte, length uint16) ([]byte, bool) {
	size := t.Length()
	reduced := int(length) <= size && length > 0
	switch t {
	case ipfix.TypeUnsigned8, ipfix.TypeUnsigned16, ipfix.TypeUnsigned32:
		if len(data) != 4 || !reduced || unsigned(data) > math.MaxUint64>>(64-8*length) {
			return b, false
		}
		return append(b, data[4-length:]...), true
	case ipfix.TypeUnsigned64:
		if len(data) != 8 || !reduced || unsigned(data) > math.MaxUint64>>(64-8*length) {
			return b, false
		}
		return append(b, data[8-length:]...), true
	case ipfix.TypeSigned8, ipfix.TypeSigned16, ipfix.TypeSigned32:
		if len(data) != 4 || !reduced || signed(data) != signed(data[4-length:]) {
			return b, false
		}
		return append(b, data[4-length:]...), true
	case ipfix.TypeSigned64:
		if len(data) != 8 || !reduced || signed(data) != signed(data[8-length:]) {
			return b, false
		}
		return append(b, data[8-length:]...), true
	case ipfix.TypeFloat64:
		if length == 4 {
			if len(data) != 8 {
				return b, false
			}
			f := math.Float64frombits(binary.BigEndian.Uint64(data))
			if float64(float32(f)) != f {
				return b, false
			}
			return binary.BigEndian.AppendUint32(b, math.Float32bits(float32(f))), true
		}
	case ipfix.TypeBoolean:
		if len(data) != 4 || length != 1 || unsigned(data) != 1 && unsigned(data) != 2 {
			return b, false
		}
		return append(b, data[3]), true
	case ipfix.TypeDateTimeSeconds:
		if len(data) != 4 || length != 4 {
			return b, false
		}
		return binary.BigEndian.AppendUint32(b, binary.BigEndian.Uint32(data)-ntpUnix), true
	case ipfix.TypeIpv4Address, ipfix.TypeIpv6Address:
		a, err := avp.AVP{Data: data}.Addr()
		if err != nil || int(length) != size || a.BitLen() != 8*size {
			return b, false
		}
		return append(b, data[2:]...), true
	case ipfix.TypeUnsigned256:
		if !reduced || len(data) != int(length) {
			return b, false
		}
		return append(b, data...), true
	case ipfix.TypeString:
		if !utf8.Valid(data) {
			return b, false
		}
	}
	if size != 0 && (int(length) != size || len(data) != size) {
		return b, false
	}
	if length != ipfix.VariableLength && int(length) != len(data) {
		return b, false
	}
	return append(b, data...), true
}

// unsigned reads up to eight octets, the first the most significant.
func unsigned(v []byte) uint64 {
	switch len(v) {
	case 8:
		return binary.BigEndian.Uint64(v)
	case 4:
		return uint64(binary.BigEndian.Uint32(v))
	}
	var u uint64
	for _, c := range v {
		u = u<<8 | uint64(c)
	}
	return u
}

// signed reads one to eight octets as two's complement.
func signed(v []byte) int64 {
	shift := 64 - 8*len(v)
	return int64(unsigned(v)<<shift) >> shift
}
