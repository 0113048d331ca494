package avp

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// one returns the single AVP in b.
func one(t *testing.T, b []byte) AVP {
	t.Helper()
	a, rest, err := Next(b)
	if err != nil || len(rest) != 0 {
		t.Fatalf("Next: %d octets left, %v", len(rest), err)
	}
	return a
}

func TestTime(t *testing.T) {
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"seconds since 0h on 1 January 1900 (4.3.1)", []byte{0x83, 0xaa, 0x7e, 0x80}, "1970-01-01T00:00:00Z"},
		{"the last second before the rollover (4.3.1)", []byte{0xff, 0xff, 0xff, 0xff}, "2036-02-07T06:28:15Z"},
		{"on 7 February 2036 the time value will overflow (4.3.1)", []byte{0, 0, 0, 0}, "2036-02-07T06:28:16Z"},
		{"the first with the top bit set", []byte{0x80, 0, 0, 0}, "1968-01-20T03:14:08Z"},
		{"the last with the top bit clear", []byte{0x7f, 0xff, 0xff, 0xff}, "2104-02-26T09:42:23Z"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := AVP{Data: row.data}.Time()
			if err != nil || got.Format(time.RFC3339) != row.want {
				t.Fatalf("Time = %v, %v; want %s", got, err, row.want)
			}
			if a := one(t, AppendTime(nil, EventTimestamp, 0, 0, got)); !bytes.Equal(a.Data, row.data) {
				t.Errorf("encodes to %x, want %x", a.Data, row.data)
			}
		})
	}
	if MinTime.Format(time.RFC3339) != "1968-01-20T03:14:08Z" || MaxTime.Format(time.RFC3339) != "2104-02-26T09:42:23Z" {
		t.Errorf("MinTime %v, MaxTime %v", MinTime, MaxTime)
	}
	if a := one(t, AppendTime(nil, EventTimestamp, 0, 0, time.Unix(5, 999_999_999))); a.Data[3] != 0x85 {
		t.Errorf("a fraction of a second is not rounded down: %x", a.Data)
	}
}

func TestAddress(t *testing.T) {
	for _, row := range []struct {
		name string
		data []byte
		want string
		err  error
	}{
		{"AddressType 1 is IPv4 (4.3.1)", []byte{0, 1, 192, 0, 2, 1}, "192.0.2.1", nil},
		{"AddressType 2 is IPv6 (4.3.1)", append([]byte{0, 2, 0x20, 1, 0xd, 0xb8}, make([]byte, 12)...), "2001:db8::", nil},
		{"an IPv4-mapped address stays IPv6", append(append([]byte{0, 2}, make([]byte, 10)...), 0xff, 0xff, 1, 2, 3, 4), "::ffff:1.2.3.4", nil},
		{"AddressType 8 is E.164, no IP address", []byte{0, 8, '1', '2'}, "", ErrValue},
		{"an IPv4 address of 16 octets", append([]byte{0, 1}, make([]byte, 16)...), "", ErrLength},
		{"an IPv6 address of 4 octets", []byte{0, 2, 1, 2, 3, 4}, "", ErrLength},
		{"no AddressType", []byte{0}, "", ErrLength},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := AVP{Data: row.data}.Addr()
			if !errors.Is(err, row.err) {
				t.Fatalf("Addr: %v, want %v", err, row.err)
			}
			if err != nil {
				return
			}
			if got != netip.MustParseAddr(row.want) {
				t.Fatalf("Addr = %v, want %s", got, row.want)
			}
			if a := one(t, AppendAddress(nil, HostIPAddress, 0, FlagMandatory, got)); !bytes.Equal(a.Data, row.data) {
				t.Errorf("encodes to %x, want %x", a.Data, row.data)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	if v, err := one(t, AppendUint32(nil, 1, 0, 0, math.MaxUint32)).Uint32(); v != math.MaxUint32 || err != nil {
		t.Errorf("Uint32 = %d, %v", v, err)
	}
	if v, err := one(t, AppendUint64(nil, 1, 9, 0, math.MaxUint64)).Uint64(); v != math.MaxUint64 || err != nil {
		t.Errorf("Uint64 = %d, %v", v, err)
	}
	if v, err := one(t, AppendInt32(nil, 1, 0, 0, math.MinInt32)).Int32(); v != math.MinInt32 || err != nil {
		t.Errorf("Int32 = %d, %v", v, err)
	}
	if v, err := one(t, AppendInt64(nil, 1, 0, 0, math.MinInt64)).Int64(); v != math.MinInt64 || err != nil {
		t.Errorf("Int64 = %d, %v", v, err)
	}
	if v, err := one(t, AppendFloat32(nil, 1, 0, 0, -0.5)).Float32(); v != -0.5 || err != nil {
		t.Errorf("Float32 = %v, %v", v, err)
	}
	if v, err := one(t, AppendFloat64(nil, 1, 0, 0, math.Inf(-1))).Float64(); !math.IsInf(v, -1) || err != nil {
		t.Errorf("Float64 = %v, %v", v, err)
	}
	wrong := AVP{Data: make([]byte, 5)}
	for name, read := range map[string]func() error{
		"Uint32":  func() error { _, err := wrong.Uint32(); return err },
		"Uint64":  func() error { _, err := wrong.Uint64(); return err },
		"Int32":   func() error { _, err := wrong.Int32(); return err },
		"Int64":   func() error { _, err := wrong.Int64(); return err },
		"Float32": func() error { _, err := wrong.Float32(); return err },
		"Float64": func() error { _, err := wrong.Float64(); return err },
		"Time":    func() error { _, err := wrong.Time(); return err },
	} {
		if err := read(); !errors.Is(err, ErrLength) || ResultCode(err) != ResultInvalidAVPLength {
			t.Errorf("%s of 5 octets: %v", name, err)
		}
	}
}

func TestGroupsNestAndPad(t *testing.T) {
	b, outer := Begin(nil, Classifier, 0, FlagMandatory)
	b, inner := Begin(b, FromSpec, 0, FlagMandatory)
	b = AppendString(b, ClassifierID, 7, 0, "abc")
	End(b, inner)
	End(b, outer)
	want := []byte{
		0, 0, 1, 0xff, 0x40, 0, 0, 32,
		0, 0, 2, 3, 0x40, 0, 0, 24,
		0, 0, 2, 0, 0x80, 0, 0, 15, 0, 0, 0, 7, 'a', 'b', 'c', 0,
	}
	if !bytes.Equal(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	if Size(7, 3) != 16 || Size(0, 8) != 16 || Size(0, 0) != 8 {
		t.Errorf("Size = %d, %d, %d", Size(7, 3), Size(0, 8), Size(0, 0))
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	b := make([]byte, 0, 512)
	addr := netip.MustParseAddr("2001:db8::1")
	at := time.Unix(1_700_000_000, 0)
	if n := testing.AllocsPerRun(100, func() {
		b = AppendHeader(b[:0], Header{})
		b = AppendString(b, SessionID, 0, FlagMandatory, "a;1;2")
		b = AppendAddress(b, HostIPAddress, 0, FlagMandatory, addr)
		b = AppendTime(b, EventTimestamp, 0, FlagMandatory, at)
		var group int
		b, group = Begin(b, Classifier, 0, 0)
		b = Append(b, ClassifierID, 0, 0, b[:3])
		End(b, group)
		SetLength(b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTooLongPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an AVP of more than 16777215 octets was written")
		}
	}()
	Append(nil, SessionID, 0, 0, make([]byte, MaxLength-7))
}

func TestIdentity(t *testing.T) {
	for _, row := range []struct {
		name  string
		s     string
		valid bool
	}{
		{"a fully qualified domain name (4.3.1)", "aaa-1.isp.example", true},
		{"a single label", "localhost", true},
		{"empty", "", false},
		{"an empty label", "a..b", false},
		{"a leading dot", ".a", false},
		{"a trailing dot", "a.", false},
		{"a label of 64 octets", strings.Repeat("a", 64) + ".example", false},
		{"a name of 254 octets", strings.Repeat("a.", 127), false},
		{"a space", "a b", false},
		{"no ASCII", "zoë.example", false},
		{"a control character", "a\x00b", false},
	} {
		if got := ValidIdentity(row.s); got != row.valid {
			t.Errorf("%s: ValidIdentity(%q) = %v", row.name, row.s, got)
		}
	}
	if !EqualIdentity("AAA.Example", []byte("aaa.eXAMPLE")) || EqualIdentity("a", "b") || EqualIdentity("a", "ab") {
		t.Error("EqualIdentity")
	}
}
