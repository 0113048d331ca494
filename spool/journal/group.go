package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"tollbridge/asm/acct"
)

// A group is consecutive entries that are written at once, encoded as
//
//	octet   version, 1
//	3       zero
//	uint32  number of entries
//	int64   Unix nanoseconds that the first entry's time counts from
//	entries: octet kind, varint nanoseconds since the entry before,
//	         uvarint session, uvarint length, data
//	uint32  CRC-32C of the first position (uint64) and all of the above
//
// in big-endian order. The position is in the checksum but not in the octets:
// a group found at another place than it was written to is damaged.
const (
	groupVersion  = 1
	groupHeader   = 16
	groupTrailer  = 4
	entryOverhead = 1 + 3*binary.MaxVarintLen64 // at most, without data
	entryMinimum  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errGroup = errors.New("malformed journal group")

// A group under construction, and later one that is durable. Octets before len
// are never written again, so whoever holds them may read them.
type group struct {
	first uint64
	count uint32
	time  int64  // of the latest entry
	frame []byte // room for the header of a frame, and the group

	// Of one in memory, guarded by Journal.mu: its octets are used again once
	// it is dropped and nobody reads it.
	readers int
	dropped bool
}

// newGroup returns a group without entries, whose octets begin in room.
func newGroup(first uint64, at int64, room []byte) *group {
	b := append(room[:0], make([]byte, frameHeader+groupHeader)...)
	b[frameHeader] = groupVersion
	binary.BigEndian.PutUint64(b[frameHeader+8:], uint64(at))
	return &group{first: first, time: at, frame: b}
}

// octets returns the encoding.
func (g *group) octets() []byte { return g.frame[frameHeader:] }

// last returns the position of the latest entry.
func (g *group) last() uint64 { return g.first + uint64(g.count) - 1 }

func (g *group) append(kind acct.EntryKind, at int64, session uint64, data []byte) {
	b := append(g.frame, byte(kind))
	b = binary.AppendVarint(b, at-g.time)
	b = binary.AppendUvarint(b, session)
	b = binary.AppendUvarint(b, uint64(len(data)))
	g.frame = append(b, data...)
	g.time = at
	g.count++
}

// seal completes the encoding. Nothing may be appended after it.
func (g *group) seal() {
	binary.BigEndian.PutUint32(g.octets()[4:], g.count)
	g.frame = binary.BigEndian.AppendUint32(g.frame, groupSum(g.first, g.octets()))
}

// unseal takes the latest seal back.
func (g *group) unseal() { g.frame = g.frame[:len(g.frame)-groupTrailer] }

// whole returns the frame of a sealed group, up to the end of its last sector.
func (g *group) whole() []byte {
	n := len(g.frame)
	g.frame = slices.Grow(g.frame, sector)
	b := g.frame[:padded(n)]
	clear(b[n:])
	return b
}

func groupSum(first uint64, body []byte) uint32 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], first)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, body)
}

// verify checks the version and the checksum of a group read from the disk.
func verify(first uint64, octets []byte) error {
	if len(octets) < groupHeader+groupTrailer {
		return fmt.Errorf("%w: %d octets", errGroup, len(octets))
	}
	if octets[0] != groupVersion {
		return fmt.Errorf("%w: version %d", errGroup, octets[0])
	}
	body := octets[:len(octets)-groupTrailer]
	want := binary.BigEndian.Uint32(octets[len(body):])
	if got := groupSum(first, body); got != want {
		return fmt.Errorf("%w: checksum %08x, computed %08x", errGroup, want, got)
	}
	return nil
}

// entries appends the entries of a sealed group from position from on. Their
// Data are parts of octets. It checks every length but no checksum.
func entries(dst []acct.Entry, first uint64, octets []byte, from uint64) ([]acct.Entry, error) {
	if len(octets) < groupHeader+groupTrailer {
		return dst, fmt.Errorf("%w: %d octets", errGroup, len(octets))
	}
	count := binary.BigEndian.Uint32(octets[4:])
	at := int64(binary.BigEndian.Uint64(octets[8:]))
	b := octets[groupHeader : len(octets)-groupTrailer]
	if uint64(count)*entryMinimum > uint64(len(b)) {
		return dst, fmt.Errorf("%w: %d entries in %d octets", errGroup, count, len(b))
	}
	for i := range uint64(count) {
		if len(b) < entryMinimum {
			return dst, fmt.Errorf("%w: ends in entry %d", errGroup, i)
		}
		kind := acct.EntryKind(b[0])
		b = b[1:]
		since, n := binary.Varint(b)
		if n <= 0 {
			return dst, fmt.Errorf("%w: time of entry %d", errGroup, i)
		}
		b = b[n:]
		session, n := binary.Uvarint(b)
		if n <= 0 {
			return dst, fmt.Errorf("%w: session of entry %d", errGroup, i)
		}
		b = b[n:]
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return dst, fmt.Errorf("%w: length of entry %d", errGroup, i)
		}
		b = b[n:]
		at += since
		if first+i >= from {
			dst = append(dst, acct.Entry{
				Position: first + i, Kind: kind, Time: at, Session: session,
				Data: b[:length:length],
			})
		}
		b = b[length:]
	}
	if len(b) != 0 {
		return dst, fmt.Errorf("%w: %d octets after the last entry", errGroup, len(b))
	}
	return dst, nil
}
