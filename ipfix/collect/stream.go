package collect

import (
	"errors"
	"io"
	"iter"
	"time"

	"tollbridge/ipfix"
)

// A stream splits the octets of a connection into Messages by their Length
// fields.
type stream struct {
	r     io.Reader
	now   func() time.Time
	buf   []byte
	start int // of what was read and not returned, in buf
	end   int

	at time.Time // when the last octet of the latest message was read
}

func newStream(r io.Reader, now func() time.Time) *stream {
	return &stream{r: r, now: now, buf: make([]byte, ipfix.MaxMessage+1)}
}

// next returns the next Message, which is valid until the call after. The
// error is io.EOF where the stream ends after a whole Message and
// io.ErrUnexpectedEOF where it ends within one. A malformed Message Header is
// an error of ipfix.ParseHeader: where the next Message begins is then
// unknown, and so is every later one.
func (s *stream) next() ([]byte, error) {
	for {
		unread := s.buf[s.start:s.end]
		if len(unread) >= ipfix.HeaderLength {
			h, err := ipfix.ParseHeader(unread)
			if err != nil {
				return nil, err
			}
			if n := int(h.Length); n <= len(unread) {
				s.start += n
				return unread[:n:n], nil
			}
		}
		// A Message is at most as long as the buffer, so there is room.
		if s.start > 0 {
			s.start, s.end = 0, copy(s.buf, unread)
		}
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		switch {
		case n > 0:
			s.at = s.now()
		case errors.Is(err, io.EOF) && s.end > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// since returns what next returned last, and the whole Messages behind it that
// were read already.
func (s *stream) since(last []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := s.buf[s.start-len(last) : s.end]; len(rest) >= ipfix.HeaderLength; {
			h, err := ipfix.ParseHeader(rest)
			if err != nil || int(h.Length) > len(rest) || !yield(rest[:h.Length:h.Length]) {
				return
			}
			rest = rest[h.Length:]
		}
	}
}
