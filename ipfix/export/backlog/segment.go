package backlog

import (
	"encoding/binary"
	"math"
)

// A segment file:
//
//	"tbexport" version instance checksum
//	entries: checksum length kind position records octets
//
// Numbers are in network byte order, checksums CRC-32C of what follows them in
// the entry, or comes before in the header.
const (
	segmentSuffix = ".segment"
	magic         = "tbexport"
	version       = 1
	headerLength  = len(magic) + 1 + 16 + 4
	entryHeader   = 4 + 4 + 1 + 8 + 4
	maxOctets     = math.MaxUint16 // of a Message

	// optionsFlag marks a Template's kind.
	optionsFlag = 0x80
)

func appendHeader(b []byte, instance [16]byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, version)
	b = append(b, instance[:]...)
	return binary.BigEndian.AppendUint32(b, checksum(b[start:]))
}

func appendEntry(b []byte, e Entry) []byte {
	start := len(b)
	kind := byte(e.Kind)
	if e.Options {
		kind |= optionsFlag
	}
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Octets)))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, e.Position)
	b = binary.BigEndian.AppendUint32(b, e.Records)
	b = append(b, e.Octets...)
	binary.BigEndian.PutUint32(b[start:], checksum(b[start+4:]))
	return b
}

// parseEntry reads the entry at the start of b and returns its length, 0 where
// it is not whole or not what was written.
func parseEntry(b []byte) (Entry, int) {
	if len(b) < entryHeader {
		return Entry{}, 0
	}
	n := binary.BigEndian.Uint32(b[4:])
	kind := Kind(b[8] &^ optionsFlag)
	if kind < Template || kind > Report || n > maxOctets || int(n) > len(b)-entryHeader {
		return Entry{}, 0
	}
	length := entryHeader + int(n)
	if binary.BigEndian.Uint32(b) != checksum(b[4:length]) {
		return Entry{}, 0
	}
	return Entry{
		Kind: kind, Options: b[8]&optionsFlag != 0,
		Position: binary.BigEndian.Uint64(b[9:]), Records: binary.BigEndian.Uint32(b[17:]),
		Octets: b[entryHeader:length:length],
	}, length
}
