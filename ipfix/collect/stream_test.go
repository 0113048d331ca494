package collect

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"tollbridge/ipfix"
)

// chunks is a Reader that returns at most so many octets at a time.
type chunks struct {
	r    io.Reader
	size int
}

func (c chunks) Read(b []byte) (int, error) { return c.r.Read(b[:min(len(b), c.size)]) }

// split is the plain model of a stream: it sees all of it at once.
func split(b []byte) (messages [][]byte, err error) {
	for len(b) >= ipfix.HeaderLength {
		h, err := ipfix.ParseHeader(b)
		if err != nil {
			return messages, err
		}
		if int(h.Length) > len(b) {
			break
		}
		messages = append(messages, b[:h.Length])
		b = b[h.Length:]
	}
	if len(b) > 0 {
		return messages, io.ErrUnexpectedEOF
	}
	return messages, io.EOF
}

func checkStream(t *testing.T, octets []byte, r io.Reader) {
	t.Helper()
	want, wantErr := split(octets)
	s := newStream(r, time.Now)
	for i := 0; ; i++ {
		msg, err := s.next()
		if err != nil {
			if i != len(want) || causeOf(err) != causeOf(wantErr) || errors.Is(err, io.EOF) != errors.Is(wantErr, io.EOF) {
				t.Fatalf("after %d messages %v, want %d and %v", i, err, len(want), wantErr)
			}
			return
		}
		if i >= len(want) || !bytes.Equal(msg, want[i]) {
			t.Fatalf("message %d is %x", i, msg)
		}
	}
}

// longest is a Message as long as one can be.
func longest() []byte {
	b := make([]byte, ipfix.MaxMessage)
	ipfix.Header{Length: ipfix.MaxMessage}.Append(b[:0])
	return b
}

func TestStream(t *testing.T) {
	for name, octets := range map[string][]byte{
		"nothing":                  nil,
		"one message":              message(1),
		"the longest between two":  bytes.Join([][]byte{message(1), longest(), message(2)}, nil),
		"two of the longest":       append(longest(), longest()...),
		"a header only":            ipfix.Header{Length: 16}.Append(nil),
		"cut off in the header":    append(message(1), message(2)[:7]...),
		"cut off after the header": append(message(1), message(2)[:17]...),
		"garbage after a message":  append(message(1), "a line of text, not a message"...),
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 2, 15, 16, 17, 1000, 1 << 20} {
				checkStream(t, octets, chunks{bytes.NewReader(octets), size})
			}
			checkStream(t, octets, iotest.DataErrReader(bytes.NewReader(octets)))
		})
	}
}

func FuzzStream(f *testing.F) {
	f.Add(message(1), 1)
	f.Add(append(message(1), message(2)...), 5)
	f.Add(append(message(1), message(2)[:10]...), 24)
	f.Add(append(message(1), malformed[2].msg...), 100)
	f.Add(longest(), 4096)
	f.Fuzz(func(t *testing.T, octets []byte, size int) {
		checkStream(t, octets, chunks{bytes.NewReader(octets), max(1, size)})
	})
}
