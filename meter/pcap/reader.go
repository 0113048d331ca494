// Package pcap reads packets out of capture files, pcap and pcapng, in place
// and in bounded memory. It trusts no length that it finds.
//
// gopacket's pcapgo would do here, but costs more than all else that a meter
// does with a packet, and trusts the lengths it finds.
package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrFormat says that a file is no pcap or pcapng file, or breaks off its
// format's rules. A file that ends within a packet is io.ErrUnexpectedEOF.
var ErrFormat = errors.New("not a valid capture file")

const (
	// maxCaptured is the most octets of a packet that a file may hold, as in libpcap.
	maxCaptured = 262144
	// maxBlock bounds a pcapng block, which may be as long as the decryption
	// secrets of a whole session.
	maxBlock = 16 << 20
	// readSize is how much is read at once.
	readSize = 1 << 18
)

// A Packet is one captured packet.
type Packet struct {
	Time      int64 // when it was observed, Unix nanoseconds
	Link      LinkType
	Interface uint32 // where it was observed, as a meter numbers interfaces; 0 for unknown, as in files
	Length    int    // octets on the wire, from the link-layer header on; at least len(Data)
	Data      []byte // as many of them as were captured, from the first
}

// A format takes the records or blocks of a capture file apart.
type format interface {
	// next reads what is at the start of b. It returns its size, which is more
	// than len(b) if the rest must be read first, and whether p has been filled.
	next(b []byte, p *Packet) (size int, packet bool, err error)
}

// A Reader cuts packets out of a stream in place. It belongs to one goroutine.
type Reader struct {
	r      io.Reader
	format format
	buf    []byte // read and not yet forgotten
	at     int    // up to where in buf packets were cut
	want   int    // octets that the next record or block needs
	offset int64  // of buf in the file
	end    bool
}

// NewReader returns a Reader of a pcap or pcapng file, which it tells apart by
// their magic numbers.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Read fills ps, which has room for one at least, with the packets that come
// next, one or more; they are valid until the next Read. The error is io.EOF
// after the last packet; others match ErrFormat, io.ErrUnexpectedEOF or the
// stream's, and say at which octet.
func (f *Reader) Read(ps []Packet) (int, error) {
	for {
		n, err := f.cut(ps)
		if n > 0 {
			return n, nil // the next Read finds the error again
		}
		if err == errRefill {
			err = f.refill()
		}
		if err == io.EOF {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("at octet %d: %w", f.offset+int64(f.at), err)
		}
	}
}

// Octets returns how much of the stream has been read.
func (f *Reader) Octets() int64 { return f.offset + int64(len(f.buf)) }

// IsCapture reports whether a file that begins with b, at least four octets,
// is a pcap or pcapng file by its magic number.
func IsCapture(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	_, err := detect(b)
	return err == nil
}

// errRefill says that the stream must be read on.
var errRefill = errors.New("internal: more octets wanted")

// cut fills ps with packets that lie whole in the buffer. They are valid until
// refill. At the end the error is io.EOF.
func (f *Reader) cut(ps []Packet) (int, error) {
	if f.format == nil {
		if len(f.buf) < 4 {
			if f.end {
				return 0, io.ErrUnexpectedEOF
			}
			f.want = 4
			return 0, errRefill
		}
		var err error
		if f.format, err = detect(f.buf); err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(ps) {
		size, packet, err := f.format.next(f.buf[f.at:], &ps[n])
		if err != nil {
			return n, err
		}
		if size > len(f.buf)-f.at {
			f.want = size
			return n, f.more()
		}
		f.at += size
		if packet {
			n++
		}
	}
	return n, nil
}

// more returns why nothing more can be cut out of the buffer.
func (f *Reader) more() error {
	switch {
	case !f.end:
		return errRefill
	case f.at < len(f.buf):
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// refill forgets what was cut and reads until what is wanted is there, or the
// file's end.
func (f *Reader) refill() error {
	rest := f.buf[f.at:]
	f.offset += int64(f.at)
	f.at = 0
	if need := max(f.want, readSize); cap(f.buf) < need {
		f.buf = append(make([]byte, 0, need), rest...)
	} else {
		f.buf = f.buf[:copy(f.buf, rest)]
	}
	n, err := io.ReadAtLeast(f.r, f.buf[len(f.buf):cap(f.buf)], f.want-len(f.buf))
	f.buf = f.buf[:len(f.buf)+n]
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		f.end = true
		return nil
	}
	return err
}

// detect tells a file's format by its magic number, at least four octets.
func detect(b []byte) (format, error) {
	magic := binary.LittleEndian.Uint32(b)
	switch magic {
	case pcapMicro:
		return &pcap{order: little, nano: 1000}, nil
	case pcapNano:
		return &pcap{order: little, nano: 1}, nil
	case blockSectionHeader:
		return &pcapng{}, nil
	}
	switch binary.BigEndian.Uint32(b) {
	case pcapMicro:
		return &pcap{order: big, nano: 1000}, nil
	case pcapNano:
		return &pcap{order: big, nano: 1}, nil
	}
	return nil, fmt.Errorf("magic number %#08x: %w", magic, ErrFormat)
}

// A byteOrder is that of the host which wrote a file.
type byteOrder bool

const (
	little byteOrder = false
	big    byteOrder = true
)

func (o byteOrder) uint16(b []byte) uint16 {
	if o == big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (o byteOrder) uint32(b []byte) uint32 {
	if o == big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (o byteOrder) uint64(b []byte) uint64 {
	if o == big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}
