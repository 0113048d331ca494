package ipfix

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func octetsOf(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// one returns a Template of one field and a record of it with that value.
func one(t testing.TB, f FieldSpecifier, value []byte) (Accessor, Record) {
	t.Helper()
	template, err := NewTemplate(256, f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := template.Record(value)
	if err != nil {
		t.Fatal(err)
	}
	return template.AccessorAt(0), r
}

// RFC 7011, Section 6.2.
func TestReducedSizeEncoding(t *testing.T) {
	for _, test := range []struct {
		value    string
		unsigned uint64
		signed   int64
	}{
		{"05", 5, 5},
		{"ff", 255, -1},
		{"8000", 1 << 15, math.MinInt16},
		{"fffffe", 1<<24 - 2, -2},
		{"0000000100", 256, 256},
		{"7fffffffffffffff", math.MaxInt64, math.MaxInt64},
		{"8000000000000000", 1 << 63, math.MinInt64},
		{"000000000000000001", 1, 0},
		{"010000000000000000", math.MaxUint64, 0}, // beyond 64 bits
	} {
		value := octetsOf(t, test.value)
		a, r := one(t, FieldSpecifier{ID: OctetDeltaCount, Length: uint16(len(value))}, value)
		if got := a.Uint64(r); got != test.unsigned {
			t.Errorf("%s: unsigned %d", test.value, got)
		}
		if got := a.Int64(r); got != test.signed {
			t.Errorf("%s: signed %d", test.value, got)
		}
	}
	for value, want := range map[string]float64{"3fc00000": 1.5, "3ff8000000000000": 1.5, "3ff8": 0} {
		b := octetsOf(t, value)
		a, r := one(t, FieldSpecifier{ID: SamplingProbability, Length: uint16(len(b))}, b)
		if got := a.Float64(r); got != want {
			t.Errorf("float %s: %v", value, got)
		}
	}
}

func TestTimes(t *testing.T) {
	date := func(nanoseconds int) time.Time { return time.Date(2026, 7, 24, 0, 0, 0, nanoseconds, time.UTC) }
	for _, test := range []struct {
		name  string
		id    uint16
		value string
		time  time.Time // zero: not a time
		milli int64
	}{
		{"dateTimeSeconds (6.1.7)", FlowStartSeconds, "6a62ab00", date(0), 1784851200000},
		{"after 2038, dateTimeSeconds is unsigned (6.1.7)", FlowStartSeconds, "80000000", time.Unix(1<<31, 0).UTC(), 1 << 31 * 1000},
		{"dateTimeMilliseconds (6.1.8)", FlowStartMilliseconds, "0000019f916bf801", date(1_000_000), 1784851200001},
		{"milliseconds beyond int64", FlowStartMilliseconds, "ffffffffffffffff", time.UnixMilli(math.MaxInt64).UTC(), math.MaxInt64},
		{"dateTimeMicroseconds (6.1.9)", FlowStartMicroseconds, "ee0d298020c49800", date(127_999_999 + 1), 1784851200128},
		{"the lowest 11 bits MUST be ignored (6.1.9)", FlowStartMicroseconds, "ee0d298020c49fff", date(128_000_000), 1784851200128},
		{"dateTimeNanoseconds (6.1.10)", FlowStartNanoseconds, "ee0d298020c49ba6", date(128_000_000), 1784851200128},
		{"one nanosecond", FlowStartNanoseconds, "ee0d298000000005", date(1), 1784851200000},
		{"an NTP timestamp of the era from 2036 on", FlowStartNanoseconds, "0000000180000000",
			time.Date(2036, 2, 7, 6, 28, 17, 500_000_000, time.UTC), 2085978497500},
		{"an NTP timestamp of zero is no time", FlowStartNanoseconds, "0000000000000000", time.Time{}, 0},
		{"nor in microseconds", FlowStartMicroseconds, "0000000000000000", time.Time{}, 0},
		{"dateTimes MUST NOT be of reduced size (6.2)", FlowStartMilliseconds, "6a62ab00", time.Time{}, 0},
		{"nor NTP timestamps", FlowStartNanoseconds, "6a62ab00", time.Time{}, 0},
		{"a counter is no time", OctetDeltaCount, "6a62ab00", time.Time{}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			value := octetsOf(t, test.value)
			a, r := one(t, FieldSpecifier{ID: test.id, Length: uint16(len(value))}, value)
			got, ok := a.Time(r)
			if ok == test.time.IsZero() || !got.Equal(test.time) {
				t.Errorf("time %v, %t", got, ok)
			}
			if got := a.UnixMilli(r); got != test.milli {
				t.Errorf("Unix milliseconds %d, want %d", got, test.milli)
			}
		})
	}
}

// What AppendRecord encodes is read back at the precision of the type, and
// rounded down to milliseconds by UnixMilli and Plan alike.
func TestTimesRoundTrip(t *testing.T) {
	units := map[uint16]time.Duration{
		FlowStartSeconds: time.Second, FlowStartMilliseconds: time.Millisecond,
		FlowStartMicroseconds: time.Microsecond, FlowStartNanoseconds: time.Nanosecond,
	}
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SampledFrom([]uint16{FlowStartSeconds, FlowStartMilliseconds, FlowStartMicroseconds, FlowStartNanoseconds}).Draw(t, "id")
		at := time.Unix(rapid.Int64Range(0, math.MaxUint32).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		length := elements[id].Type.Length()
		template, err := NewTemplate(256, FieldSpecifier{ID: id, Length: uint16(length)})
		if err != nil {
			t.Fatal(err)
		}
		b, err := template.AppendRecord(nil, at)
		if err != nil {
			t.Fatal(err)
		}
		r, err := template.Record(b)
		if err != nil {
			t.Fatal(err)
		}
		a := template.AccessorAt(0)
		got, ok := a.Time(r)
		want := at.Truncate(units[id])
		if !ok || !got.Equal(want) {
			t.Fatalf("%v came back as %v", at, got)
		}
		var row [1]uint64
		template.Plan(Column{0, UnixMilli, []Element{{0, id}}}).Read(r, row[:])
		if a.UnixMilli(r) != want.UnixMilli() || int64(row[0]) != want.UnixMilli() {
			t.Fatalf("%v is %d and %d", want, a.UnixMilli(r), row[0])
		}
	})
}

func TestAppendRecordValues(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, test := range []struct {
		name   string
		id     uint16
		length uint16
		value  any
		want   string // "" for ErrValue
	}{
		{"unsigned", OctetDeltaCount, 8, uint64(5), "0000000000000005"},
		{"of reduced size (6.2)", OctetDeltaCount, 3, 5, "000005"},
		{"too large for its size", OctetDeltaCount, 3, 1 << 24, ""},
		{"negative and unsigned", OctetDeltaCount, 8, -1, ""},
		{"int8", ProtocolIdentifier, 1, int8(5), "05"},
		{"int16", ProtocolIdentifier, 1, int16(5), "05"},
		{"int32", ProtocolIdentifier, 1, int32(5), "05"},
		{"int64", ProtocolIdentifier, 1, int64(5), "05"},
		{"uint", ProtocolIdentifier, 1, uint(5), "05"},
		{"uint8", ProtocolIdentifier, 1, uint8(5), "05"},
		{"uint16", ProtocolIdentifier, 1, uint16(5), "05"},
		{"uint32", ProtocolIdentifier, 1, uint32(256), ""},
		{"signed", MibObjectValueInteger, 4, -2, "fffffffe"},
		{"signed of reduced size (6.2)", MibObjectValueInteger, 1, -128, "80"},
		{"signed too small", MibObjectValueInteger, 1, -129, ""},
		{"signed too large", MibObjectValueInteger, 1, 128, ""},
		{"signed of no octets", MibObjectValueInteger, 0, 0, ""},
		{"float64", SamplingProbability, 8, 1.5, "3ff8000000000000"},
		{"float64 as float32 (6.2)", SamplingProbability, 4, float32(1.5), "3fc00000"},
		{"float64 of another length", SamplingProbability, 2, 1.5, ""},
		{"a float for a counter", OctetDeltaCount, 8, 1.5, ""},
		{"true is 1 (6.1.5)", DataRecordsReliability, 1, true, "01"},
		{"false is 2 (6.1.5)", DataRecordsReliability, 1, false, "02"},
		{"IPv4", SourceIPv4Address, 4, v4, "c0000201"},
		{"IPv4-mapped as IPv4", SourceIPv4Address, 4, mapped, "c0000201"},
		{"IPv6", SourceIPv6Address, 16, v6, "20010db8000000000000000000000001"},
		{"IPv4-mapped as IPv6", SourceIPv6Address, 16, mapped, "00000000000000000000ffffc0000201"},
		{"IPv6 for IPv4", SourceIPv4Address, 4, v6, ""},
		{"IPv4 for IPv6", SourceIPv6Address, 16, v4, ""},
		{"MAC address", SourceMacAddress, 6, mac, "020000000001"},
		{"string of variable length (7)", InterfaceName, VariableLength, "eth0", "0465746830"},
		{"string of fixed length", InterfaceName, 4, "eth0", "65746830"},
		{"string of another length", InterfaceName, 5, "eth0", ""},
		{"integer of variable length", OctetDeltaCount, VariableLength, 5, "080000000000000005"},
		{"octets as they are", OctetDeltaCount, 2, []byte{1, 2}, "0102"},
		{"MUST NOT send ill-formed UTF-8 (6.1.6)", InterfaceName, VariableLength, "eth\xff", ""},
		{"a time for a counter", OctetDeltaCount, 8, time.Unix(0, 0), ""},
		{"a time before 1970", FlowStartSeconds, 4, time.Unix(-1, 0), ""},
		{"an NTP timestamp before 1970", FlowStartNanoseconds, 8, time.Unix(-1, 0), ""},
		{"an integer for a time", FlowStartSeconds, 4, 5, ""},
		{"no value", OctetDeltaCount, 8, nil, ""},
	} {
		template, err := NewTemplate(256, FieldSpecifier{ID: test.id, Length: test.length}, FieldSpecifier{ID: ProtocolIdentifier, Length: 1})
		if err != nil {
			t.Fatal(err)
		}
		b, err := template.AppendRecord(nil, test.value, 6)
		if test.want == "" {
			if !errors.Is(err, ErrValue) {
				t.Errorf("%s: %x, error %v", test.name, b, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(b, octetsOf(t, test.want+"06")) {
			t.Errorf("%s: %x, %v", test.name, b, err)
		}
	}
	template, _ := NewTemplate(256, FieldSpecifier{ID: OctetDeltaCount, Length: 4})
	if _, err := template.AppendRecord(nil); !errors.Is(err, ErrValue) {
		t.Errorf("too few values: %v", err)
	}
}

func TestAppendVariable(t *testing.T) {
	for _, test := range []struct {
		n    int
		want []byte
	}{{0, []byte{0}}, {254, []byte{254}}, {255, []byte{255, 0, 255}}, {65535, []byte{255, 255, 255}}} {
		got := AppendVariable(nil, make([]byte, test.n))
		if !bytes.HasPrefix(got, test.want) || len(got) != len(test.want)+test.n {
			t.Errorf("%d octets: %x...", test.n, got[:3])
		}
	}
}

func TestFormatValue(t *testing.T) {
	for _, test := range []struct {
		typ         Type
		value, want string
	}{
		{TypeUnsigned64, "0001d824", "120868"},
		{TypeUnsigned256, "01", "01"},
		{TypeUnsigned8, "010203040506070809", "010203040506070809"},
		{TypeSigned32, "fffe", "-2"},
		{TypeSigned32, "010203040506070809", "010203040506070809"},
		{TypeFloat32, "3fc00000", "1.5"},
		{TypeFloat64, "3ff8000000000000", "1.5"},
		{TypeFloat64, "3ff8", "3ff8"},
		{TypeBoolean, "01", "true"},
		{TypeBoolean, "02", "false"},
		{TypeBoolean, "00", "00"}, // undefined (6.1.5)
		{TypeMacAddress, "020000000001", "02:00:00:00:00:01"},
		{TypeMacAddress, "0200", "0200"},
		{TypeString, "65746830", "eth0"},
		{TypeString, "", ""},
		{TypeString, "6100", `"a\x00"`},
		{TypeString, "ff", `"\xff"`},
		{TypeDateTimeSeconds, "6a62ab00", "2026-07-24T00:00:00Z"},
		{TypeDateTimeMilliseconds, "0000019f916bf801", "2026-07-24T00:00:00.001Z"},
		{TypeDateTimeMilliseconds, "01", "01"},
		{TypeIpv4Address, "c0000201", "192.0.2.1"},
		{TypeIpv6Address, "20010db8000000000000000000000001", "2001:db8::1"},
		{TypeIpv4Address, "c00002", "c00002"},
		{TypeOctetArray, "beef", "beef"},
		{TypeOctetArray, "", ""},
		{TypeBasicList, "ff", "ff"},
		{Type(99), "ff", "ff"},
	} {
		if got := FormatValue(test.typ, octetsOf(t, test.value)); got != test.want {
			t.Errorf("%v %s: %q, want %q", test.typ, test.value, got, test.want)
		}
	}
}
