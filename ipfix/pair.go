package ipfix

import (
	"encoding/binary"
	"unsafe"
)

// A pair is two loads of a Plan without a shift. Where there is an odd one out,
// it is both.
type pair [2]struct {
	mask, or uint64
	offset   uint32 // of the word, in the record
	slot     uint32 // in octets, in the row
}

// appendPair adds a load.
func appendPair(pairs []pair, odd bool, l planLoad) []pair {
	var p pair
	for i := range p {
		p[i].mask, p[i].or = l.mask, l.or
		p[i].offset, p[i].slot = uint32(l.offset), uint32(l.slot)*8
	}
	if !odd {
		return append(pairs, p)
	}
	pairs[len(pairs)-1][1] = p[1]
	return pairs
}

// readPairs does the loads that most values need: this is where decoding spends
// its time, and checking each index again would add a quarter to it. The
// record must have every word and the row every slot, as Read makes sure. It is
// not inlined because it would then spill its registers.
//
//go:noinline
func readPairs(pairs []pair, record *byte, row *uint64) {
	for i := range pairs {
		p := &pairs[i]
		a, b := &p[0], &p[1]
		v, w := word(record, a.offset), word(record, b.offset)
		*(*uint64)(unsafe.Add(unsafe.Pointer(row), a.slot)) = v&a.mask | a.or
		*(*uint64)(unsafe.Add(unsafe.Pointer(row), b.slot)) = w&b.mask | b.or
	}
}

func word(record *byte, offset uint32) uint64 {
	return binary.BigEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(record), offset))[:])
}
