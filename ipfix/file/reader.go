package file

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"tollbridge/ipfix"
)

// A Message is a Message, or a NetFlow packet, as it was found. Its Octets are
// valid until the next one is read.
type Message struct {
	Octets []byte
	Offset int64 // of the Message in the file; 0 in captures

	// Of captures only:
	Packet  int64     // number of the packet that completed the Message, from 1
	Time    time.Time // when that packet was captured
	Session Session
}

// A Session identifies a Transport Session.
type Session struct {
	Transport           ipfix.Transport
	Exporter, Collector netip.AddrPort
}

// A DamageError says where a file is damaged. Err is io.ErrUnexpectedEOF if
// the file ends within a Message, or matches ipfix.ErrVersion or
// ipfix.ErrLength if there is no Message Header where one must be.
type DamageError struct {
	Offset int64 // octets from the start of the file
	Err    error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("file: message at octet %d: %v", e.Offset, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// readSize is how much a Reader reads at once. It holds the longest Message
// and a header behind it.
const readSize = 1 << 18

// A Reader reads a File Message by Message: an IPFIX File, or raw payloads end
// to end. It holds a quarter of a mebibyte, and belongs to one goroutine.
type Reader struct {
	r      io.Reader
	buf    []byte
	at     int   // up to where in buf Messages were read
	offset int64 // of buf in the file
	end    bool
	damage *DamageError // until Resync
}

// NewReader returns a Reader of the file r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, buf: make([]byte, 0, readSize)}
}

// Octets returns how much of the file has been read.
func (r *Reader) Octets() int64 { return r.offset + int64(len(r.buf)) }

// AtEnd reports whether nothing is left to read.
func (r *Reader) AtEnd() bool { return r.end && r.at == len(r.buf) }

// Next returns the next Message, framed but not otherwise checked. The error
// is io.EOF at the end, a DamageError that stays until Resync, or the file's
// own.
func (r *Reader) Next() (Message, error) {
	if r.damage != nil {
		return Message{}, r.damage
	}
	for {
		rest := r.buf[r.at:]
		n, err := frame(rest, r.end)
		switch {
		case r.end && len(rest) == 0:
			return Message{}, io.EOF
		case err != nil && !r.end && errors.Is(err, ipfix.ErrLength) && len(rest) < maxMessage:
			n = maxMessage // may yet prove to be the file's one packet
		case err == nil && n <= len(rest):
			m := Message{Octets: rest[:n:n], Offset: r.offset + int64(r.at)}
			r.at += n
			return m, nil
		case err == nil && r.end:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			r.damage = &DamageError{r.offset + int64(r.at), err}
			return Message{}, r.damage
		}
		if err := r.fill(n); err != nil {
			return Message{}, err
		}
	}
}

// Resync looks behind a damaged place for the next octet where a well-formed
// IPFIX Message begins and is followed by another or the end of the file, so
// that Next goes on there. It returns how many octets are skipped, all the rest
// if there is no such place. Errors are the file's own.
func (r *Reader) Resync() (skipped int64, err error) {
	r.damage = nil
	from := r.offset + int64(r.at)
	for r.at++; ; r.at++ {
		// A candidate needs its whole Message and the header behind it.
		if len(r.buf)-r.at < maxMessage+ipfix.HeaderLength && !r.end {
			if err := r.fill(maxMessage + ipfix.HeaderLength); err != nil {
				return r.offset + int64(r.at) - from, err
			}
		}
		if r.at >= len(r.buf) {
			r.at = len(r.buf)
			return r.offset + int64(r.at) - from, nil
		}
		if startsMessage(r.buf[r.at:]) {
			return r.offset + int64(r.at) - from, nil
		}
	}
}

// startsMessage reports whether b begins with a well-formed Message that holds
// anything, with nothing or a Message Header behind it.
func startsMessage(b []byte) bool {
	if !looksLikeMessage(b) {
		return false
	}
	h, err := ipfix.ParseHeader(b)
	if err != nil || int(h.Length) > len(b) || ipfix.Validate(b[:h.Length]) != nil {
		return false
	}
	rest := b[h.Length:]
	if len(rest) == 0 {
		return true
	}
	_, err = frame(rest, true)
	return err == nil
}

// fill forgets what was read and reads until n octets are there, or the end.
func (r *Reader) fill(n int) error {
	r.offset += int64(r.at)
	r.buf = r.buf[:copy(r.buf, r.buf[r.at:])]
	r.at = 0
	got, err := io.ReadAtLeast(r.r, r.buf[len(r.buf):cap(r.buf)], n-len(r.buf))
	r.buf = r.buf[:len(r.buf)+got]
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		r.end = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: read at octet %d: %w", r.offset+int64(len(r.buf)), err)
	}
	return nil
}
