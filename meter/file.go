package meter

import (
	"context"
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

// ReadFile meters the packets of a pcap or pcapng file: all that come whole, even
// if it then returns an error. Those match ErrFormat, io.ErrUnexpectedEOF, the
// reader's, ctx's or the Exporter's. Flows that have not ended at the end of the file
// stay, since the next file may go on with them; Flush exports them. After each
// piece read progress, if not nil, gets the octets read so far.
//
// pcapgo would do here, but costs more than all else that the meter does with a
// packet, and trusts the lengths it finds.
func (m *Meter) ReadFile(ctx context.Context, r io.Reader, progress func(octets int64)) error {
	f := &file{r: r}
	var ps [batch]Packet
	for {
		n, err := f.read(ps[:])
		if n > 0 {
			if err := m.Packets(ctx, ps[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err == errRefill {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("meter: read capture file: %w", err)
			}
			err = f.refill()
			if progress != nil {
				progress(f.offset + int64(len(f.buf)))
			}
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("meter: read capture file: at octet %d: %w", f.offset+int64(f.at), err)
		}
	}
}

// A format takes the records or blocks of a capture file apart.
type format interface {
	// next reads what is at the start of b. It returns its size, which is more
	// than len(b) if the rest must be read first, and whether p has been filled.
	next(b []byte, p *Packet) (size int, packet bool, err error)
}

// A file cuts packets out of a stream in place.
type file struct {
	r      io.Reader
	format format
	buf    []byte // read and not yet forgotten
	at     int    // up to where in buf packets were cut
	want   int    // octets that the next record or block needs
	offset int64  // of buf in the file
	end    bool
}

// errRefill says that a file must be read on.
var errRefill = errors.New("internal: more octets wanted")

// read fills ps with packets that lie whole in the buffer. They are valid until
// refill. At the end the error is io.EOF.
func (f *file) read(ps []Packet) (int, error) {
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
func (f *file) more() error {
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
func (f *file) refill() error {
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
