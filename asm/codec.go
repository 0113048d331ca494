package asm

import (
	"net/netip"

	"tollbridge/internal/octets"
)

// ErrCorrupt is matched by the errors of journal entries and stored state
// that can't be read.
var ErrCorrupt = octets.ErrCorrupt

// appendAddr appends a, or one zero octet if it is invalid.
func appendAddr(b []byte, a netip.Addr) []byte {
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

func appendPrefix(b []byte, p netip.Prefix) []byte {
	b = appendAddr(b, p.Addr())
	return append(b, byte(max(p.Bits(), 0)))
}

// A reader is an octets.Reader that knows values of the pipeline.
type reader struct{ octets.Reader }

func newReader(b []byte) reader { return reader{octets.NewReader(b)} }

func (r *reader) addr() netip.Addr {
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

func (r *reader) prefix() netip.Prefix {
	a := r.addr()
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
