// Package octets reads and appends the values that stored encodings are made
// of: integers of variable length (encoding/binary's), octets and strings
// behind their length, and addresses.
package octets

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// ErrCorrupt says that an encoding can't be read: it ends within a value, or
// holds one that can't be.
var ErrCorrupt = errors.New("corrupt encoding")

// AppendString appends s behind its length, in octets.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendBytes appends v behind its length, in octets.
func AppendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// AppendBool appends one octet, 1 or 0.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendAddr appends the length of a, in octets, and a; a zero octet if it is
// invalid.
func AppendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, 0)
	case a.Is4():
		v := a.As4()
		return append(append(b, 4), v[:]...)
	default:
		v := a.As16()
		return append(append(b, 16), v[:]...)
	}
}

// AppendPrefix appends the address of p and its length in bits.
func AppendPrefix(b []byte, p netip.Prefix) []byte {
	b = AppendAddr(b, p.Addr())
	return append(b, byte(max(p.Bits(), 0)))
}

// A Reader reads values off the front of an encoding. After the first failure
// Err is set, nothing is left and every value is zero, so one look at the end
// is enough. The octets that it returns are part of the encoding.
//
// The zero Reader has nothing to read.
type Reader struct {
	rest []byte
	err  error
}

// NewReader returns a Reader of b.
func NewReader(b []byte) Reader { return Reader{rest: b} }

// Err returns ErrCorrupt once a value could not be read.
func (r *Reader) Err() error { return r.err }

// Fail makes the Reader fail, for who read a value that can't be.
func (r *Reader) Fail() { r.rest, r.err = nil, ErrCorrupt }

// Len returns how many octets are left.
func (r *Reader) Len() int { return len(r.rest) }

// Rest takes all that is left.
func (r *Reader) Rest() []byte { return r.Take(uint64(len(r.rest))) }

// Close returns the error of the reading, which is also that something is left.
func (r *Reader) Close() error {
	if len(r.rest) > 0 {
		r.Fail()
	}
	return r.err
}

// Take takes the next n octets. What is appended to them does not touch those
// behind.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.Fail()
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

// Octet takes the next octet.
func (r *Reader) Octet() byte {
	if len(r.rest) == 0 {
		r.Fail()
		return 0
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

// Bool takes an octet, which is 1 for true.
func (r *Reader) Bool() bool { return r.Octet() == 1 }

// Uvarint takes what binary.AppendUvarint wrote.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Varint takes what binary.AppendVarint wrote.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Count takes the number of elements that follow, of at least one octet each,
// so that a false number can't make the caller allocate.
func (r *Reader) Count() int {
	n := r.Uvarint()
	if n > uint64(len(r.rest)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Bytes takes what AppendBytes or AppendString wrote.
func (r *Reader) Bytes() []byte { return r.Take(r.Uvarint()) }

// Text is Bytes as a string.
func (r *Reader) Text() string { return string(r.Bytes()) }

// Uint16 takes what binary.BigEndian.AppendUint16 wrote.
func (r *Reader) Uint16() uint16 {
	if b := r.Take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Addr takes what AppendAddr wrote.
func (r *Reader) Addr() netip.Addr {
	switch n := r.Octet(); n {
	case 0:
		return netip.Addr{}
	case 4, 16:
		a, _ := netip.AddrFromSlice(r.Take(uint64(n)))
		return a
	default:
		r.Fail()
		return netip.Addr{}
	}
}

// Prefix takes what AppendPrefix wrote.
func (r *Reader) Prefix() netip.Prefix {
	a := r.Addr()
	bits := int(r.Octet())
	if !a.IsValid() {
		return netip.Prefix{}
	}
	p := netip.PrefixFrom(a, bits)
	if !p.IsValid() {
		r.Fail()
	}
	return p
}
