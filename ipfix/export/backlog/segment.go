package backlog

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
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
	if n > maxOctets || int(n) > len(b)-entryHeader {
		return Entry{}, 0
	}
	length := entryHeader + int(n)
	if binary.BigEndian.Uint32(b) != checksum(b[4:length]) {
		return Entry{}, 0
	}
	e := Entry{
		Kind: Kind(b[8] &^ optionsFlag), Options: b[8]&optionsFlag != 0,
		Position: binary.BigEndian.Uint64(b[9:]), Records: binary.BigEndian.Uint32(b[17:]),
		Octets: b[entryHeader:length:length],
	}
	if e.Kind < Template || e.Kind > Report {
		return Entry{}, 0
	}
	return e, length
}

// readAhead is what is read of a segment at once: room for at least one entry.
const readAhead = 256 << 10

// A reading goes through a segment's entries.
type reading struct {
	f        *os.File
	instance [16]byte
	end      int64 // of what may be read
	at       int64 // of the next entry; 0 is before the header

	buf   []byte
	start int // of the next entry in buf
}

// next returns the next entry, which is valid until the call after; false at
// the end of the whole ones.
func (r *reading) next() (Entry, bool, error) {
	for {
		if r.at > 0 {
			if e, n := parseEntry(r.buf[r.start:]); n > 0 {
				r.start += n
				r.at += int64(n)
				return e, true, nil
			}
		}
		have := int64(len(r.buf) - r.start)
		if r.at+have >= r.end || have >= readAhead {
			return Entry{}, false, nil // nothing more to read would make it whole
		}
		if err := r.fill(have); err != nil {
			return Entry{}, false, err
		}
		if r.at == 0 {
			if len(r.buf) < headerLength || string(r.buf[:headerLength]) == string(make([]byte, headerLength)) {
				return Entry{}, false, nil // the crash came before its header
			}
			if string(r.buf[:headerLength]) != string(appendHeader(nil, r.instance)) {
				return Entry{}, false, fmt.Errorf("%s is not of this spool: move it away", r.f.Name())
			}
			r.start, r.at = headerLength, int64(headerLength)
		}
	}
}

// fill reads on behind the have octets that are left.
func (r *reading) fill(have int64) error {
	if cap(r.buf) < readAhead {
		r.buf = append(make([]byte, 0, readAhead), r.buf[r.start:]...)
	} else {
		r.buf = r.buf[:copy(r.buf[:cap(r.buf)], r.buf[r.start:])]
	}
	r.start = 0
	want := min(int64(readAhead)-have, r.end-r.at-have)
	n, err := r.f.ReadAt(r.buf[have:have+want], r.at+have)
	r.buf = r.buf[:have+int64(n)]
	if err != nil && err != io.EOF { //nolint:errorlint // ReadAt returns it bare
		return err
	}
	if int64(n) < want {
		r.end = r.at + have + int64(n) // the file is shorter than it was
	}
	return nil
}
