package ipfix

import (
	"encoding/binary"
	"unsafe"
)

// A pair is two loads of a Plan without a shift. Where there is an odd one out,
// it is both.
type pair [2]pairLoad

type pairLoad struct {
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

// column does one load for n records of size octets each, one after another,
// into as many rows of stride slots. These must have the word and the slot, as
// ReadRows makes sure. It is not inlined for the same reason.
//
//go:noinline
func (l *pairLoad) column(records *byte, size int, rows *uint64, stride, n int) {
	mask, or := l.mask, l.or
	record, slot := unsafe.Pointer(records), unsafe.Pointer(rows)
	at, to := uintptr(l.offset), uintptr(l.slot)
	for range n {
		v := binary.BigEndian.Uint64((*[8]byte)(unsafe.Add(record, at))[:])
		*(*uint64)(unsafe.Add(slot, to)) = v&mask | or
		at += uintptr(size)
		to += uintptr(stride) * 8
	}
}

func word(record *byte, offset uint32) uint64 {
	return binary.BigEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(record), offset))[:])
}
