package backlog

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const (
	// longest is the most octets that an entry has.
	longest = entryHeader + maxOctets

	// readAhead is what is read of a segment at once.
	readAhead = 256 << 10
)

// A reading goes through a segment's entries. Octets at which no whole one
// begins are passed over: whether they are damaged, or the end that a crash
// tore, shows in the positions that stand behind them.
type reading struct {
	f        *os.File
	instance [16]byte
	end      int64 // of what may be read
	at       int64 // of the next entry; 0 is before the header

	buf   []byte
	start int // of the next entry in buf

	last uint64 // position of the latest Message, or the one before the first; 0 if that is not known
	from uint64 // up to before this position missing has told what is missing

	// What damaged entries say of themselves is believed where they stand in
	// their place.
	chain    int64             // where the entry behind them begins
	expected uint64            // the position in that place; 0 if that is not known
	claimed  map[uint64]uint32 // their Data Records, by position

	templates map[uint16]bool // by ID, those that were read
	doubtful  bool            // there may have been others in what was passed over
}

// of makes a reading know which Messages its segment has.
func (r *reading) of(s *segment) {
	if r.from == 0 && s.first > 0 {
		r.last, r.from, r.expected = s.first-1, s.first, s.first
	}
}

// next returns the next whole entry, which is valid until the call after; false
// if there is none before the end.
func (r *reading) next() (Entry, bool, error) {
	r.chain = r.at
	for {
		if r.at > 0 {
			if e, n := r.entry(); n > 0 {
				r.doubtful = r.doubtful || r.at != r.chain
				r.start += n
				r.at += int64(n)
				r.know(e)
				return e, true, nil
			}
		}
		switch have := int64(len(r.buf) - r.start); {
		case have < longest && r.at+have < r.end: // more to read might make it whole
			if err := r.fill(have); err != nil {
				return Entry{}, false, err
			}
			if r.at > 0 {
				continue
			}
			if len(r.buf) < headerLength || string(r.buf[:headerLength]) == string(make([]byte, headerLength)) {
				return Entry{}, false, nil // the crash came before its header
			}
			if string(r.buf[:headerLength]) != string(appendHeader(nil, r.instance)) {
				return Entry{}, false, fmt.Errorf("%s is not of this spool: move it away", r.f.Name())
			}
			r.start, r.at, r.chain = headerLength, int64(headerLength), int64(headerLength)
		case have == 0:
			r.doubtful = r.doubtful || r.at != r.chain
			return Entry{}, false, nil
		default:
			if r.at == r.chain {
				r.claim()
			}
			r.start++
			r.at++
		}
	}
}

// entry returns the entry at the start of what is read and its length, 0 where
// there is none, or one that can't stand there.
func (r *reading) entry() (Entry, int) {
	e, n := parseEntry(r.buf[r.start:])
	if n > 0 && e.Kind != Template && (e.Position <= r.last || r.last > 0 && e.Position-r.last > maxMessages) {
		return Entry{}, 0
	}
	return e, n
}

// know takes in an entry that was read.
func (r *reading) know(e Entry) {
	if e.Kind != Template {
		r.last, r.expected = e.Position, e.Position+1
		return
	}
	if r.templates == nil {
		r.templates = make(map[uint16]bool)
	}
	r.templates[uint16(e.Position)] = true
}

// claim takes in what the header of a damaged entry says, if it is that of the
// Message that is expected.
func (r *reading) claim() {
	b := r.buf[r.start:]
	if len(b) < entryHeader {
		return
	}
	kind, position := Kind(b[8]), binary.BigEndian.Uint64(b[9:])
	octets, records := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[17:])
	end := r.at + entryHeader + int64(octets)
	if kind != Message && kind != Report || position == 0 || r.expected > 0 && position != r.expected ||
		octets > maxOctets || end > r.end || records > octets {
		return
	}
	r.chain, r.expected = end, position+1
	if r.claimed == nil {
		r.claimed = make(map[uint64]uint32)
	}
	if kind == Message {
		r.claimed[position] = records
	} else {
		r.claimed[position] = 0 // it would count what it tells of
	}
}

// earliest returns the position of the first Message of a segment that begins
// with damaged entries, where the first whole one is at a position.
func (r *reading) earliest(position uint64) uint64 {
	first := position
	for p := range r.claimed {
		if p < first && position-p < maxMessages {
			first = p
		}
	}
	return first
}

// missing returns the Messages that should have been read before the one of a
// position, and were not, each once.
func (r *reading) missing(before uint64) (all []Loss) {
	for ; r.from < before; r.from++ {
		all = append(all, Loss{Entry{Kind: Message, Position: r.from, Records: r.claimed[r.from]}, true, true})
	}
	return all
}

// decodable reports whether all Templates of a Message, as far as it can be
// known, are those that its segment defines.
func (r *reading) decodable(message []byte) bool {
	if !r.doubtful {
		return true
	}
	const messageHeader, setHeader, firstData = 16, 4, 256 // RFC 7011, Sections 3.1 and 3.3.2
	if len(message) < messageHeader {
		return false
	}
	for b := message[messageHeader:]; len(b) >= setHeader; {
		id, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n < setHeader || n > len(b) || id >= firstData && !r.templates[id] {
			return false
		}
		b = b[n:]
	}
	return true
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
