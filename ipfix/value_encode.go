package ipfix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"
	"unicode/utf8"
)

// ErrValue says that a Go value can't be the value of a field.
var ErrValue = errors.New("value does not suit the field")

// AppendRecord appends a Data Record made of one value for each field:
//
//	unsigned8 to unsigned64   any Go integer
//	signed8 to signed64       any Go integer
//	float32, float64          float64, float32
//	boolean                   bool
//	ipv4Address, ipv6Address  netip.Addr
//	macAddress                net.HardwareAddr
//	string                    string, in UTF-8 (RFC 7011, Section 6.1.6)
//	dateTime...               time.Time
//	any                       []byte: the octets as they are
//
// Integers may go to elements of no known type too, by the field's length.
// Fields of reduced size (RFC 7011, Section 6.2) and of variable length
// (Section 7) are encoded as the Template says. Errors match ErrValue.
func (t *Template) AppendRecord(b []byte, values ...any) ([]byte, error) {
	if len(values) != len(t.Fields) {
		return nil, fmt.Errorf("ipfix: template %d: %d values for %d fields: %w", t.ID, len(values), len(t.Fields), ErrValue)
	}
	for i, v := range values {
		var err error
		if b, err = t.Fields[i].appendValue(b, v); err != nil {
			return nil, fmt.Errorf("ipfix: template %d: field %d: %T %v: %w", t.ID, i, v, v, err)
		}
	}
	return b, nil
}

// AppendVariable appends a value of variable length with its length before
// it, in the one-octet form if that can hold it (RFC 7011, Section 7). The
// value must be shorter than 65536 octets.
func AppendVariable(b, value []byte) []byte {
	if len(value) < 255 {
		b = append(b, byte(len(value)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 255), uint16(len(value)))
	}
	return append(b, value...)
}

func (f FieldSpecifier) appendValue(b []byte, v any) ([]byte, error) {
	return f.appendTyped(b, f.Element().Type, v)
}

// appendTyped is appendValue for an element whose type the caller knows.
func (f FieldSpecifier) appendTyped(b []byte, typ Type, v any) ([]byte, error) {
	n := int(f.Length)
	if n == VariableLength {
		n = typ.Length()
	}
	value, ok := octets(typ, n, v)
	switch {
	case !ok || len(value) > math.MaxUint16:
		return nil, ErrValue
	case f.Length == VariableLength:
		return AppendVariable(b, value), nil
	case len(value) != n:
		return nil, ErrValue
	}
	return append(b, value...), nil
}

// octets encodes v in n octets where the type leaves a choice.
func octets(t Type, n int, v any) ([]byte, bool) {
	switch v := v.(type) {
	case []byte:
		return v, true
	case string:
		return []byte(v), t == TypeString && utf8.ValidString(v) || t == TypeOctetArray
	case bool:
		if v {
			return []byte{1}, t == TypeBoolean
		}
		return []byte{2}, t == TypeBoolean
	case netip.Addr:
		if t == TypeIpv4Address {
			v = v.Unmap()
		}
		return v.AsSlice(), t == TypeIpv4Address && v.Is4() || t == TypeIpv6Address && v.Is6()
	case net.HardwareAddr:
		return v, t == TypeMacAddress
	case time.Time:
		return timeOctets(t, v)
	case float32:
		return floatOctets(t, n, float64(v))
	case float64:
		return floatOctets(t, n, v)
	}
	return integerOctets(t, n, v)
}

func timeOctets(t Type, v time.Time) ([]byte, bool) {
	switch t {
	case TypeDateTimeSeconds:
		s := v.Unix()
		return binary.BigEndian.AppendUint32(nil, uint32(s)), s >= 0 && s <= math.MaxUint32
	case TypeDateTimeMilliseconds:
		ms := v.UnixMilli()
		return binary.BigEndian.AppendUint64(nil, uint64(ms)), ms >= 0
	case TypeDateTimeMicroseconds, TypeDateTimeNanoseconds:
		s := v.Unix()
		return binary.BigEndian.AppendUint64(nil, ntpOf(t, v)), s >= 0 && s <= math.MaxUint32
	}
	return nil, false
}

func floatOctets(t Type, n int, v float64) ([]byte, bool) {
	if t != TypeFloat32 && t != TypeFloat64 {
		return nil, false
	}
	if n == 4 {
		return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(v))), true
	}
	return binary.BigEndian.AppendUint64(nil, math.Float64bits(v)), n == 8
}

// integerOctets encodes any Go integer that fits n octets of the type.
func integerOctets(t Type, n int, v any) ([]byte, bool) {
	var u uint64
	negative := false
	switch v := v.(type) {
	case int:
		u, negative = uint64(v), v < 0
	case int8:
		u, negative = uint64(v), v < 0
	case int16:
		u, negative = uint64(v), v < 0
	case int32:
		u, negative = uint64(v), v < 0
	case int64:
		u, negative = uint64(v), v < 0
	case uint:
		u = uint64(v)
	case uint8:
		u = uint64(v)
	case uint16:
		u = uint64(v)
	case uint32:
		u = uint64(v)
	case uint64:
		u = v
	default:
		return nil, false
	}
	if n < 1 || n > 8 {
		return nil, false
	}
	bits := 8 * n
	switch t {
	case TypeSigned8, TypeSigned16, TypeSigned32, TypeSigned64:
		top := u >> (bits - 1) // all ones or all zeros, to fit
		if negative && int64(u)>>(bits-1) != -1 || !negative && top != 0 {
			return nil, false
		}
	case TypeUnsigned8, TypeUnsigned16, TypeUnsigned32, TypeUnsigned64, TypeOctetArray:
		if negative || bits < 64 && u>>bits != 0 {
			return nil, false
		}
	default:
		return nil, false
	}
	return binary.BigEndian.AppendUint64(nil, u)[8-n:], true
}
