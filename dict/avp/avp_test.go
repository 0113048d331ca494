package avp

import (
	"bytes"
	"errors"
	"testing"

	"tollbridge/internal/wiretest"
)

func TestNext(t *testing.T) {
	for _, row := range []struct {
		name string
		b    []byte
		want AVP
		err  error
		rest int
	}{
		{"AVP Length includes the header, not the padding (4.1)",
			[]byte{0, 0, 1, 7, 0x40, 0, 0, 9, 'x', 0, 0, 0}, AVP{Code: 263, Flags: 0x40, Data: []byte("x")}, nil, 0},
		{"AVP Length may be 8: no data (4.1)",
			[]byte{0, 0, 0, 25, 0x40, 0, 0, 8}, AVP{Code: 25, Flags: 0x40}, nil, 0},
		{"the Vendor-ID field is there if the V bit is set (4.1.1)",
			[]byte{0, 0, 0, 1, 0x80, 0, 0, 13, 0, 0, 126, 217, 'x', 0, 0, 0}, AVP{Code: 1, Vendor: 32473, Flags: 0x80, Data: []byte("x")}, nil, 0},
		{"what the padding holds is ignored (4.1)",
			[]byte{0, 0, 1, 7, 0, 0, 0, 10, 'x', 'y', 0xff, 0xff, 1, 2, 3, 4}, AVP{Code: 263, Data: []byte("xy")}, nil, 4},
		{"an AVP Length below 8 does not cover the header (4.1)",
			[]byte{0, 0, 1, 7, 0, 0, 0, 7, 0, 0, 0, 0}, AVP{Code: 263}, ErrLength, 0},
		{"an AVP Length of zero would never end (4.1)",
			[]byte{0, 0, 1, 7, 0, 0, 0, 0}, AVP{Code: 263}, ErrLength, 0},
		{"with the V bit, an AVP Length below 12 does not cover the header (4.1)",
			[]byte{0, 0, 1, 7, 0x80, 0, 0, 11, 0, 0, 126, 217}, AVP{Code: 263, Vendor: 32473, Flags: 0x80}, ErrLength, 0},
		{"an AVP Length beyond the end of the message (7.1.5)",
			[]byte{0, 0, 1, 7, 0, 0, 0, 13, 1, 2, 3, 4}, AVP{Code: 263}, ErrLength, 0},
		{"the largest AVP Length",
			[]byte{0, 0, 1, 7, 0, 0xff, 0xff, 0xff, 1, 2, 3, 4}, AVP{Code: 263}, ErrLength, 0},
		{"padding is missing (4.1)",
			[]byte{0, 0, 1, 7, 0, 0, 0, 9, 1}, AVP{Code: 263}, ErrTruncated, 0},
		{"a header cut in its flags",
			[]byte{0, 0, 1, 7, 0, 0}, AVP{Code: 263}, ErrTruncated, 0},
		{"a header cut in its code",
			[]byte{0, 0, 1}, AVP{}, ErrTruncated, 0},
		{"a header cut in its Vendor-ID",
			[]byte{0, 0, 1, 7, 0x80, 0, 0, 12, 0, 0}, AVP{Code: 263, Flags: 0x80}, ErrTruncated, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, rest, err := Next(row.b)
			if !errors.Is(err, row.err) || len(rest) != row.rest {
				t.Fatalf("Next: %d octets left, %v; want %d, %v", len(rest), err, row.rest, row.err)
			}
			if a.Code != row.want.Code || a.Vendor != row.want.Vendor || a.Flags != row.want.Flags || !bytes.Equal(a.Data, row.want.Data) {
				t.Errorf("Next = %+v, want %+v", a, row.want)
			}
			if err != nil && ResultCode(err) != ResultInvalidAVPLength {
				t.Errorf("ResultCode %d", ResultCode(err))
			}
		})
	}
}

func TestScanStopsAtMalformed(t *testing.T) {
	b := AppendUint32(nil, ResultCodeAVP, 0, FlagMandatory, ResultSuccess)
	b = append(b, 0, 0, 1, 7, 0, 0, 0, 99)
	var codes []uint32
	var last error
	for a, err := range Scan(b) {
		codes = append(codes, a.Code)
		last = err
	}
	var d *DecodeError
	if len(codes) != 2 || codes[1] != SessionID || !errors.As(last, &d) || d.Offset != 17 {
		t.Errorf("Scan yielded %v, %v; want the offending AVP with offset 17", codes, last)
	}
	if err := Check(b); !errors.As(err, &d) || d.Offset != 17 {
		t.Errorf("Check = %v", err)
	}
	if _, found := Find(b, SessionID, 0); found {
		t.Error("Find returned a malformed AVP")
	}
}

func TestFindMindsVendor(t *testing.T) {
	b := AppendUint32(nil, SessionID, 32473, 0, 1)
	b, group := Begin(b, FailedAVP, 0, 0)
	b = AppendString(b, SessionID, 0, FlagMandatory, "in a group")
	End(b, group)
	if a, found := Find(b, SessionID, 0); found {
		t.Errorf("Find = %+v; the vendor differs and groups are not searched", a)
	}
	if _, found := Find(b, SessionID, 32473); !found {
		t.Error("Find missed the vendor's AVP")
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	b := wiretest.Hex(t)["accounting-request"][HeaderLen:]
	var sum uint32
	if n := testing.AllocsPerRun(100, func() {
		for a, err := range Scan(b) {
			if err != nil {
				t.Fatal(err)
			}
			sum += a.Code
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEncodeReproducesMessages(t *testing.T) {
	for name, b := range wiretest.Hex(t) {
		out := append([]byte(nil), b[:HeaderLen]...)
		for a, err := range Scan(b[HeaderLen:]) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out = a.Append(out)
		}
		if !bytes.Equal(out, b) {
			t.Errorf("%s:\nencodes to %x\nwant       %x", name, out, b)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, b := range wiretest.Hex(f) {
		f.Add(b)
		f.Add(b[HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, avps, err := ParseMessage(b); err == nil && (int(h.Length) != len(b) || len(avps) != len(b)-HeaderLen) {
			t.Fatalf("a message of %d octets with %+v and %d octets of AVPs", len(b), h, len(avps))
		}
		var out []byte
		var failed error
		for a, err := range Scan(b) {
			if err != nil {
				failed = err
				break
			}
			// A Vendor-ID of zero under a V bit is written without it.
			if a.Flags&FlagVendor != 0 && a.Vendor == 0 {
				return
			}
			out = a.Append(out)
			a.Uint32()
			a.Uint64()
			a.Addr()
			a.Time()
			Check(a.Data)
		}
		if err := Check(b); (err == nil) != (failed == nil) {
			t.Fatalf("Check = %v, Scan = %v", err, failed)
		}
		if failed == nil && len(out) != len(b) {
			t.Fatalf("%d octets encode to %d", len(b), len(out))
		}
		if failed == nil {
			var again []byte
			for a := range Scan(out) {
				again = a.Append(again)
			}
			if !bytes.Equal(out, again) {
				t.Fatalf("%x encodes to %x", out, again)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	avps := wiretest.Hex(b)["accounting-request"][HeaderLen:]
	b.ReportAllocs()
	b.SetBytes(int64(len(avps)))
	for b.Loop() {
		for _, err := range Scan(avps) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
