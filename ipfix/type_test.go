package ipfix

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Every abstract data type of RFC 7012, Section 3.1, in the encodings of RFC
// 7011, Sections 6.1 and 6.2: what goes in, its octets, and what people see.
// Each is encoded, decoded and shown. A nil value is only decoded.
func TestAbstractDataTypes(t *testing.T) {
	at := time.Date(2026, 7, 24, 0, 0, 0, 123456789, time.UTC)
	for _, test := range []struct {
		name   string
		typ    Type
		length int // of the field
		value  any
		octets string
		text   string
	}{
		{"octetArray (3.1.13)", TypeOctetArray, 3, []byte{1, 2, 3}, "010203", "010203"},
		{"unsigned8 (3.1.1)", TypeUnsigned8, 1, 255, "ff", "255"},
		{"unsigned16 (3.1.2)", TypeUnsigned16, 2, 65535, "ffff", "65535"},
		{"unsigned32 (3.1.3)", TypeUnsigned32, 4, uint32(math.MaxUint32), "ffffffff", "4294967295"},
		{"unsigned64 (3.1.4)", TypeUnsigned64, 8, uint64(math.MaxUint64), "ffffffffffffffff", "18446744073709551615"},
		{"unsigned64 in 3 octets (6.2)", TypeUnsigned64, 3, 1 << 20, "100000", "1048576"},
		{"unsigned32 in 1 octet (6.2)", TypeUnsigned32, 1, 200, "c8", "200"},
		{"signed8 (3.1.5)", TypeSigned8, 1, -128, "80", "-128"},
		{"signed16 (3.1.6)", TypeSigned16, 2, -2, "fffe", "-2"},
		{"signed32 (3.1.7)", TypeSigned32, 4, math.MinInt32, "80000000", "-2147483648"},
		{"signed64 (3.1.8)", TypeSigned64, 8, int64(math.MinInt64), "8000000000000000", "-9223372036854775808"},
		{"signed64 in 3 octets keeps its sign (6.2)", TypeSigned64, 3, -5, "fffffb", "-5"},
		{"signed32 in 1 octet (6.2)", TypeSigned32, 1, 127, "7f", "127"},
		{"float32 (3.1.9)", TypeFloat32, 4, 1.5, "3fc00000", "1.5"},
		{"float64 (3.1.10)", TypeFloat64, 8, -0.25, "bfd0000000000000", "-0.25"},
		{"float64 in 4 octets is a float32 (6.2)", TypeFloat64, 4, -0.25, "be800000", "-0.25"},
		{"boolean: 1 is true (6.1.5)", TypeBoolean, 1, true, "01", "true"},
		{"boolean: 2 is false (6.1.5)", TypeBoolean, 1, false, "02", "false"},
		{"boolean: nothing else (6.1.5)", TypeBoolean, 1, nil, "00", "00"},
		{"macAddress (3.1.12)", TypeMacAddress, 6, net.HardwareAddr{0, 1, 2, 0xaa, 0xbb, 0xcc}, "000102aabbcc", "00:01:02:aa:bb:cc"},
		{"string is UTF-8 (6.1.6)", TypeString, VariableLength, "Zürich", "075ac3bc72696368", "Zürich"},
		{"string without a character", TypeString, VariableLength, "", "00", ""},
		{"string of a length", TypeString, 3, "eth", "657468", "eth"},
		{"ill-formed UTF-8 is shown quoted (6.1.6)", TypeString, 2, nil, "61ff", `"a\xff"`},
		{"dateTimeSeconds (6.1.7)", TypeDateTimeSeconds, 4, at, "6a62ab00", "2026-07-24T00:00:00Z"},
		{"dateTimeMilliseconds (6.1.8)", TypeDateTimeMilliseconds, 8, at, "0000019f916bf87b", "2026-07-24T00:00:00.123Z"},
		{"dateTimeMicroseconds: NTP, 11 bits are zero (6.1.9)", TypeDateTimeMicroseconds, 8, at, "", "2026-07-24T00:00:00.123456Z"},
		{"dateTimeNanoseconds: NTP (6.1.10)", TypeDateTimeNanoseconds, 8, at, "", "2026-07-24T00:00:00.123456789Z"},
		{"ipv4Address (3.1.18)", TypeIpv4Address, 4, netip.MustParseAddr("192.0.2.1"), "c0000201", "192.0.2.1"},
		{"ipv6Address (3.1.19)", TypeIpv6Address, 16, netip.MustParseAddr("2001:db8::1"), "20010db8000000000000000000000001", "2001:db8::1"},
		{"basicList (RFC 6313, 4.5.1)", TypeBasicList, VariableLength, []byte{3, 0, 4, 0, 1, 6}, "06030004000106", "allOf[6]"},
		{"unsigned256 (RFC 8549)", TypeUnsigned256, 32, nil, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.typ.ValidLength(uint16(test.length)) {
				t.Errorf("a length of %d is not valid", test.length)
			}
			f := FieldSpecifier{Length: uint16(test.length)}
			b, err := hex.DecodeString(test.octets)
			if err != nil {
				t.Fatal(err)
			}
			if test.value != nil {
				got, err := f.appendTyped(nil, test.typ, test.value)
				if err != nil || test.octets != "" && !bytes.Equal(got, b) {
					t.Fatalf("encoded as %x, %v", got, err)
				}
				b = got
			}
			if f.Length == VariableLength {
				b = b[1:]
			}
			if got := FormatValue(test.typ, b); got != test.text {
				t.Errorf("shown as %s", got)
			}
			if test.typ == TypeDateTimeMicroseconds && (b[7] != 0 || b[6]&7 != 0) {
				t.Errorf("%x: the lowest 11 bits are not zero", b)
			}
		})
	}
}

// Values that a type can't hold are refused rather than cut.
func TestValueOutOfRange(t *testing.T) {
	for _, test := range []struct {
		typ    Type
		length int
		value  any
	}{
		{TypeUnsigned8, 1, 256}, {TypeUnsigned8, 1, -1}, {TypeUnsigned64, 3, 1 << 24}, {TypeSigned8, 1, 128}, {TypeSigned8, 1, -129},
		{TypeSigned64, 3, 1 << 23}, {TypeBoolean, 1, 1}, {TypeIpv4Address, 4, netip.MustParseAddr("::1")},
		{TypeIpv6Address, 16, netip.MustParseAddr("10.0.0.1")}, {TypeMacAddress, 6, net.HardwareAddr{1, 2}},
		{TypeDateTimeSeconds, 4, time.Unix(-1, 0)}, {TypeFloat64, 5, 1.5}, {TypeString, 2, "abc"},
	} {
		f := FieldSpecifier{Length: uint16(test.length)}
		if b, err := f.appendTyped(nil, test.typ, test.value); !errors.Is(err, ErrValue) {
			t.Errorf("%v of %d octets holds %v as %x", test.typ, test.length, test.value, b)
		}
	}
}
