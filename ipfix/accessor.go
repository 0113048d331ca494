package ipfix

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// An Accessor reads one field of a Template's records. It holds no pointer
// and may be copied and used by many goroutines at once. Records of another
// Template give nonsense or a panic.
type Accessor struct {
	load  load
	index uint16
	typ   Type
}

// A load reads up to eight octets at a constant place in a record as one
// big-endian word, of which the value is cut out. Reading a whole word where a
// shorter value lies costs no branch; place makes sure that the word is within
// every record of the Template. The zero load reads nothing.
type load struct {
	offset uint32
	shift  uint8
	mask   uint64 // 0 if there is no such place
}

func (l load) read(b []byte) uint64 {
	return binary.BigEndian.Uint64(b[l.offset:]) >> (l.shift & 63) & l.mask
}

// place returns a load for n octets at an offset of records that have at
// least length octets.
func place(offset, n, length int) load {
	if n < 1 || n > 8 {
		return load{}
	}
	mask := uint64(math.MaxUint64) >> (64 - 8*n)
	switch {
	case offset+n >= 8: // a word that ends with the value
		return load{uint32(offset + n - 8), 0, mask}
	case offset+8 <= length: // a word that begins with it
		return load{uint32(offset), uint8(64 - 8*n), mask}
	}
	return load{}
}

// Accessor returns the way to the first field of an Information Element,
// false if the Template has none.
func (t *Template) Accessor(enterprise uint32, id uint16) (Accessor, bool) {
	i, ok := t.Index(enterprise, id)
	if !ok {
		return Accessor{}, false
	}
	return t.AccessorAt(i), true
}

// AccessorAt returns the way to field i.
func (t *Template) AccessorAt(i int) Accessor {
	f := t.Fields[i]
	a := Accessor{index: uint16(i), typ: f.Element().Type}
	if i < t.prefix {
		a.load = place(t.offset(i), int(f.Length), t.minLength)
	}
	return a
}

// offset returns where in every record field i lies, which must be before
// the first of variable length.
func (t *Template) offset(i int) int {
	at := 0
	for _, f := range t.Fields[:i] {
		at += int(f.Length)
	}
	return at
}

// Type returns the abstract data type of the element, octetArray if the
// registry does not know it.
func (a Accessor) Type() Type { return a.typ }

// Index returns the field's number in the Template.
func (a Accessor) Index() int { return int(a.index) }

// Bytes returns the octets of the value.
func (a Accessor) Bytes(r Record) []byte { return r.Field(int(a.index)) }

// Uint64 reads an unsigned integer, also one of reduced size (RFC 7011,
// Section 6.2). A value beyond 64 bits reads as the largest uint64.
func (a Accessor) Uint64(r Record) uint64 {
	if a.load.mask != 0 {
		return a.load.read(r.octets)
	}
	return unsigned(r.Field(int(a.index)))
}

// Int64 reads a signed integer, also one of reduced size.
func (a Accessor) Int64(r Record) int64 { return signed(a.Bytes(r)) }

// Float64 reads a float64, also one reduced to a float32, or a float32.
func (a Accessor) Float64(r Record) float64 { return float(a.Bytes(r)) }

// Addr reads an IPv4 or IPv6 address; the zero Addr if the value has not the
// length of one.
func (a Accessor) Addr(r Record) netip.Addr { return address(a.Bytes(r)) }

// UnixMilli reads a time of any of the four encodings (RFC 7011, Sections
// 6.1.7 to 6.1.10) in Unix milliseconds, rounded down; 0 if the value is no
// time, or an NTP timestamp of zero. Milliseconds too large for an int64 are
// the largest.
func (a Accessor) UnixMilli(r Record) int64 {
	ms, _ := unixMilli(a.typ, a.Bytes(r))
	return ms
}

// Time reads a time of any of the four encodings, in UTC and at its own
// precision, false if the value is no time or an NTP timestamp of zero.
func (a Accessor) Time(r Record) (time.Time, bool) { return timeOf(a.typ, a.Bytes(r)) }
