package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// sector is the unit that a disk writes whole or not at all, as SQLite and others
// take it. A frame begins at a multiple of it, so no sector that holds something
// durable is written again.
const sector = 512

// A frame is a group as it lies in a segment, in big-endian order:
//
//	uint32  "TBjg"
//	uint32  octets of the group
//	uint64  position of its first entry
//	uint64  octets of the segment that were durable before it was written
//	uint32  zero
//	uint32  CRC-32C of the segment's name (name.sum), the 28 octets above, and
//	        the group's header (16 octets)
//	group, with a checksum of its own (group.go)
//	zeros up to the next sector
//
// The name in the checksum makes what lies in another file, or was left on the
// disk by one, no frame of this one. A frame whose group has no entry is the end
// mark of a segment that was closed in order; its first position is the next.
type frame struct {
	offset  int64 // in the segment
	length  int   // octets of the group
	first   uint64
	count   uint32
	durable int64 // octets of the segment that were durable before
	time    int64 // of the first entry, Unix nanoseconds
}

const (
	frameMagic  = 0x54426a67
	frameHeader = 32
)

// last returns the position of the latest entry; first-1 for an end mark.
func (f *frame) last() uint64 { return f.first + uint64(f.count) - 1 }

// end returns the offset of the next frame.
func (f *frame) end() int64 { return f.offset + padded(frameHeader+f.length) }

// padded returns n rounded up to whole sectors.
func padded(n int) int64 { return (int64(n) + sector - 1) / sector * sector }

// seal completes the header of a frame, whose group is sealed, for the segment
// whose name has that sum. It may be done again for another.
func sealFrame(b []byte, sum uint32, first uint64, durable int64) {
	binary.BigEndian.PutUint32(b, frameMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-frameHeader))
	binary.BigEndian.PutUint64(b[8:], first)
	binary.BigEndian.PutUint64(b[16:], uint64(durable))
	binary.BigEndian.PutUint32(b[24:], 0)
	binary.BigEndian.PutUint32(b[28:], frameSum(sum, b))
}

func frameSum(sum uint32, b []byte) uint32 {
	sum = crc32.Update(sum, castagnoli, b[:28])
	return crc32.Update(sum, castagnoli, b[frameHeader:frameHeader+groupHeader])
}

// parseFrame reads the header of a frame from the sector that it begins with. It
// returns false for everything else. The group is not looked at.
func parseFrame(b []byte, sum uint32, offset int64) (frame, bool) {
	if len(b) < frameHeader+groupHeader || binary.BigEndian.Uint32(b) != frameMagic ||
		binary.BigEndian.Uint32(b[28:]) != frameSum(sum, b) {
		return frame{}, false
	}
	f := frame{
		offset:  offset,
		length:  int(binary.BigEndian.Uint32(b[4:])),
		first:   binary.BigEndian.Uint64(b[8:]),
		durable: int64(binary.BigEndian.Uint64(b[16:])),
		count:   binary.BigEndian.Uint32(b[frameHeader+4:]),
		time:    int64(binary.BigEndian.Uint64(b[frameHeader+8:])),
	}
	return f, f.length >= groupHeader+groupTrailer && f.first > 0 && f.last() >= f.first-1
}
