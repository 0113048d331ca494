package ipfix

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// An Accessor reads one field of a Template's records. It may be copied and
// used by many goroutines at once. Records of another Template give nonsense
// or a panic, and so does the zero Accessor.
type Accessor struct{ place *place }

// A load reads up to eight octets at a constant distance from a base as one
// big-endian word, of which the value is cut out. Reading a whole word where a
// shorter value lies costs no branch; Template.load makes sure that the word
// is within every record of the Template. The zero load reads nothing.
type load struct {
	offset int32 // from the base
	base   uint16
	shift  uint8
	mask   uint64 // 0 if there is no such word
}

// read reads from the octets of a record that follow the load's base.
func (l *load) read(b []byte) uint64 {
	return binary.BigEndian.Uint64(b[l.offset:]) >> (l.shift & 63) & l.mask
}

// load returns a load for n octets that begin at an offset within field i.
func (t *Template) load(i, at, n int) load {
	p := &t.places[i]
	if p.length == VariableLength || n < 1 || n > 8 {
		return load{}
	}
	least := int(p.least) + at
	offset := int32(p.offset) + int32(at)
	mask := uint64(math.MaxUint64) >> (64 - 8*n)
	switch {
	case least+n >= 8: // a word that ends with the value
		return load{offset + int32(n) - 8, p.base, 0, mask}
	case least+8 <= t.minLength: // a word that begins with it
		return load{offset, p.base, uint8(64 - 8*n), mask}
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
func (t *Template) AccessorAt(i int) Accessor { return Accessor{&t.places[i]} }

// Type returns the abstract data type of the element, octetArray if the
// registry does not know it.
func (a Accessor) Type() Type { return a.place.typ }

// Index returns the field's number in the Template.
func (a Accessor) Index() int { return int(a.place.index) }

// Bytes returns the octets of the value.
func (a Accessor) Bytes(r Record) []byte { return r.value(a.place) }

// Uint64 reads an unsigned integer, also one of reduced size (RFC 7011,
// Section 6.2). A value beyond 64 bits reads as the largest uint64.
func (a Accessor) Uint64(r Record) uint64 {
	if a.place.direct {
		return a.place.load.read(r.octets)
	}
	return a.place.scan(r)
}

func (p *place) scan(r Record) uint64 { return unsigned(r.value(p)) }

// Int64 reads a signed integer, also one of reduced size.
func (a Accessor) Int64(r Record) int64 { return signed(r.value(a.place)) }

// Float64 reads a float64, also one reduced to a float32, or a float32.
func (a Accessor) Float64(r Record) float64 { return float(r.value(a.place)) }

// Addr reads an IPv4 or IPv6 address; the zero Addr if the value has not the
// length of one.
func (a Accessor) Addr(r Record) netip.Addr { return address(r.value(a.place)) }

// UnixMilli reads a time of any of the four encodings (RFC 7011, Sections
// 6.1.7 to 6.1.10) in Unix milliseconds, rounded down; 0 if the value is no
// time, or an NTP timestamp of zero. The highest bit of a dateTimeMilliseconds
// is ignored.
func (a Accessor) UnixMilli(r Record) int64 {
	ms, _ := unixMilli(a.place.typ, r.value(a.place))
	return ms
}

// Time reads a time of any of the four encodings, in UTC and at its own
// precision, false if the value is no time or an NTP timestamp of zero.
func (a Accessor) Time(r Record) (time.Time, bool) { return timeOf(a.place.typ, r.value(a.place)) }
