package octets_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/internal/octets"
)

// A value is one of an encoding: it appends itself, and looks whether it is
// what comes next.
type value struct {
	append func([]byte) []byte
	read   func(*octets.Reader) bool
}

func drawValue(t *rapid.T) value {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		v := rapid.Uint64().Draw(t, "uvarint")
		return value{
			func(b []byte) []byte { return binary.AppendUvarint(b, v) },
			func(r *octets.Reader) bool { return r.Uvarint() == v },
		}
	case 1:
		v := rapid.Int64().Draw(t, "varint")
		return value{
			func(b []byte) []byte { return binary.AppendVarint(b, v) },
			func(r *octets.Reader) bool { return r.Varint() == v },
		}
	case 2:
		v := rapid.Byte().Draw(t, "octet")
		return value{
			func(b []byte) []byte { return append(b, v) },
			func(r *octets.Reader) bool { return r.Octet() == v },
		}
	case 3:
		v := rapid.Bool().Draw(t, "bool")
		return value{
			func(b []byte) []byte { return octets.AppendBool(b, v) },
			func(r *octets.Reader) bool { return r.Bool() == v },
		}
	case 4:
		v := rapid.String().Draw(t, "text")
		return value{
			func(b []byte) []byte { return octets.AppendString(b, v) },
			func(r *octets.Reader) bool { return r.Text() == v },
		}
	case 5:
		v := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		return value{
			func(b []byte) []byte { return octets.AppendBytes(b, v) },
			func(r *octets.Reader) bool { return bytes.Equal(r.Bytes(), v) },
		}
	case 6:
		v := rapid.Uint16().Draw(t, "uint16")
		return value{
			func(b []byte) []byte { return binary.BigEndian.AppendUint16(b, v) },
			func(r *octets.Reader) bool { return r.Uint16() == v },
		}
	case 7:
		v := drawAddr(t)
		return value{
			func(b []byte) []byte { return octets.AppendAddr(b, v) },
			func(r *octets.Reader) bool { return r.Addr() == v },
		}
	case 8:
		a := drawAddr(t)
		v := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		return value{
			func(b []byte) []byte { return octets.AppendPrefix(b, v) },
			func(r *octets.Reader) bool { return r.Prefix() == v || !a.IsValid() },
		}
	default:
		v := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "elements")
		return value{
			func(b []byte) []byte { return octets.AppendBytes(b, v) },
			func(r *octets.Reader) bool { n := r.Count(); return bytes.Equal(r.Take(uint64(n)), v) },
		}
	}
}

// drawAddr draws an IPv4 or IPv6 address, or an invalid one.
func drawAddr(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
	a, _ := netip.AddrFromSlice(b[:rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "octets of address")])
	return a
}

// What was appended is read, and of what was cut short anywhere nothing is
// taken for whole.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Custom(drawValue), 1, 20).Draw(t, "values")
		var b []byte
		for _, v := range values {
			b = v.append(b)
		}
		r := octets.NewReader(b)
		for i, v := range values {
			if !v.read(&r) {
				t.Fatalf("value %d of % x was read as another (%v)", i, b, r.Err())
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}

		short := octets.NewReader(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")])
		for _, v := range values {
			v.read(&short)
		}
		if err := short.Close(); !errors.Is(err, octets.ErrCorrupt) {
			t.Fatalf("cut short: %v", err)
		}
		if short.Len() != 0 || short.Uvarint() != 0 || short.Octet() != 0 || short.Text() != "" {
			t.Fatal("values after a failure")
		}
	})
}

func TestReaderRefuses(t *testing.T) {
	endless := bytes.Repeat([]byte{0xff}, 11)
	for _, test := range []struct {
		name string
		b    []byte
		read func(*octets.Reader)
	}{
		{"a Uvarint of more than 64 bits", endless, func(r *octets.Reader) { r.Uvarint() }},
		{"a Varint of more than 64 bits", endless, func(r *octets.Reader) { r.Varint() }},
		{"a length beyond the end", []byte{3, 'a', 'b'}, func(r *octets.Reader) { r.Bytes() }},
		{"a length of 2^64-1", append(binary.AppendUvarint(nil, 1<<64-1), 'a'), func(r *octets.Reader) { r.Bytes() }},
		{"more elements than octets", []byte{3, 'a', 'b'}, func(r *octets.Reader) { r.Count() }},
		{"an octet at the end", nil, func(r *octets.Reader) { r.Octet() }},
		{"octets left at the end", []byte{1, 2}, func(r *octets.Reader) { r.Octet() }},
		{"an address of 5 octets", []byte{5, 1, 2, 3, 4, 5}, func(r *octets.Reader) { r.Addr() }},
		{"a prefix of 33 bits of an IPv4 address", []byte{4, 192, 0, 2, 0, 33}, func(r *octets.Reader) { r.Prefix() }},
		{"what the caller refuses", []byte{1}, func(r *octets.Reader) { r.Fail() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := octets.NewReader(test.b)
			test.read(&r)
			if err := r.Close(); !errors.Is(err, octets.ErrCorrupt) {
				t.Errorf("error %v, want %v", err, octets.ErrCorrupt)
			}
		})
	}
}

// What is appended to octets that were read leaves those behind as they are.
func TestReaderOctetsAreApart(t *testing.T) {
	b := []byte{1, 'a', 1, 'b'}
	r := octets.NewReader(b)
	_ = append(r.Bytes(), 0, 0)
	if got := r.Text(); got != "b" {
		t.Errorf("then %q, want %q", got, "b")
	}
}

// FuzzReader reads random values from random octets. Whatever they are, what is
// read lies within them, in order, and a failure stays.
func FuzzReader(f *testing.F) {
	f.Add([]byte{3, 'a', 'b', 'c', 0x80, 1, 1, 2, 'd', 'e'}, []byte{4, 0, 1, 5, 6, 2, 3})
	f.Add(bytes.Repeat([]byte{0xff}, 12), []byte{0, 1, 5})
	f.Fuzz(func(t *testing.T, b, kinds []byte) {
		r := octets.NewReader(b)
		for _, kind := range kinds {
			before, failed := r.Len(), r.Err()
			took := 0
			switch kind % 9 {
			case 0:
				took = len(binary.AppendUvarint(nil, r.Uvarint()))
			case 1:
				took = len(binary.AppendVarint(nil, r.Varint()))
			case 2:
				r.Octet()
				took = 1
			case 3:
				r.Bool()
				took = 1
			case 4:
				took = len(octets.AppendString(nil, r.Text()))
			case 5:
				took = len(octets.AppendBytes(nil, r.Bytes()))
			case 6:
				if n := r.Count(); n > r.Len() {
					t.Fatalf("%d elements in %d octets", n, r.Len())
				}
				took = 1
			case 7:
				took = len(octets.AppendAddr(nil, r.Addr()))
			case 8:
				took = len(octets.AppendPrefix(nil, r.Prefix()))
			}
			switch {
			case failed != nil && r.Err() == nil:
				t.Fatal("a failure was forgotten")
			case r.Err() != nil && r.Len() != 0:
				t.Fatalf("%d octets are left after a failure", r.Len())
			case r.Err() == nil && before-r.Len() < took: // a varint may be longer than it need be
				t.Fatalf("%d octets were taken for a value of %d", before-r.Len(), took)
			}
		}
		rest := r.Rest()
		if r.Err() == nil && !bytes.HasSuffix(b, rest) {
			t.Fatalf("% x is left of % x", rest, b)
		}
	})
}
