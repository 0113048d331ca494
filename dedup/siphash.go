package dedup

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"tollbridge/internal/octets"
)

// IdentitySize is the length of an encoded Identity in octets.
const IdentitySize = 16

// An Identity stands for a Data Record or a Message. Two different ones have
// the same Identity with a chance of 2^-128; among a billion the chance that
// any two have is about 1.5e-21.
type Identity struct{ lo, hi uint64 }

// ParseIdentity reads the first IdentitySize octets of b, which must not be
// shorter.
func ParseIdentity(b []byte) Identity {
	_ = b[IdentitySize-1]
	return Identity{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// ReadIdentity takes what Append wrote.
func ReadIdentity(r *octets.Reader) Identity {
	if b := r.Take(IdentitySize); b != nil {
		return ParseIdentity(b)
	}
	return Identity{}
}

// Weak returns id with all but its leading bits, up to 32, cleared: a hash that
// collides, for tests.
func (id Identity) Weak(bits int) Identity {
	return Identity{hi: id.hi &^ (1<<(64-bits) - 1)}
}

// Append appends the IdentitySize octets of id.
func (id Identity) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, id.lo)
	return binary.LittleEndian.AppendUint64(b, id.hi)
}

// String returns id in hexadecimal.
func (id Identity) String() string { return hex.EncodeToString(id.Append(nil)) }

// A Key makes identities unpredictable for those who choose the records. It
// is random, secret and the same for as long as identities are kept.
type Key [16]byte

// A Hash is a SipHash-1-3-128 (Aumasson and Bernstein) of octets that come in
// parts: SipHash with one round for each eight octets and three at the end. It is a value: a copy continues on its own, so what many records
// share is hashed once.
//
//	prefix := key.Hash().String(exporter).Uint64(uint64(domain)).Uint64(fingerprint)
//	...
//	id := prefix.Sum(record)
type Hash struct {
	v0, v1, v2, v3 uint64
	n              uint64 // octets so far; a multiple of 8
}

// Hash returns the Hash of no octets under k.
func (k Key) Hash() Hash {
	k0, k1 := binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:])
	return Hash{
		v0: k0 ^ 0x736f6d6570736575,
		v1: k1 ^ 0x646f72616e646f6d ^ 0xee,
		v2: k0 ^ 0x6c7967656e657261,
		v3: k1 ^ 0x7465646279746573,
	}
}

// Uint64 returns h continued by the eight octets of x, the least significant
// first.
func (h Hash) Uint64(x uint64) Hash {
	v0, v1, v2, v3 := h.v0, h.v1, h.v2, h.v3^x
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	return Hash{v0 ^ x, v1, v2, v3, h.n + 8}
}

// String returns h continued by the length of s as Uint64 and its octets,
// padded with zeros to a multiple of eight. No two sequences of calls of
// Uint64 and String that agree in kind hash the same octets.
func (h Hash) String(s string) Hash {
	h = h.Uint64(uint64(len(s)))
	for len(s) > 0 {
		var word [8]byte
		s = s[copy(word[:], s):]
		h = h.Uint64(binary.LittleEndian.Uint64(word[:]))
	}
	return h
}

// Sum returns the Identity of what h holds followed by octets. It does not
// change h and does not allocate.
func (h Hash) Sum(octets []byte) Identity {
	v0, v1, v2, v3 := h.v0, h.v1, h.v2, h.v3
	n := h.n + uint64(len(octets))

	// The up to seven octets that make no whole word, read with those before
	// them where there are any.
	var tail uint64
	if r := len(octets) % 8; len(octets) >= 8 {
		tail = binary.LittleEndian.Uint64(octets[len(octets)-8:]) >> (64 - 8*r)
	} else {
		for i, o := range octets {
			tail |= uint64(o) << (8 * i)
		}
	}
	for len(octets) >= 16 {
		m := binary.LittleEndian.Uint64(octets)
		v3 ^= m
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
		v0 ^= m
		m = binary.LittleEndian.Uint64(octets[8:])
		v3 ^= m
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
		v0 ^= m
		octets = octets[16:]
	}
	if len(octets) >= 8 {
		m := binary.LittleEndian.Uint64(octets)
		v3 ^= m
		v0, v1, v2, v3 = round(v0, v1, v2, v3)
		v0 ^= m
	}
	m := n<<56 | tail
	v3 ^= m
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0 ^= m

	v2 ^= 0xee
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	id := Identity{lo: v0 ^ v1 ^ v2 ^ v3}
	v1 ^= 0xdd
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	v0, v1, v2, v3 = round(v0, v1, v2, v3)
	id.hi = v0 ^ v1 ^ v2 ^ v3
	return id
}

// round is one SipRound. It is small enough to be inlined, which the speed of
// Sum rests on.
func round(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32) + v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	return v0, v1, bits.RotateLeft64(v2, 32), v3
}
