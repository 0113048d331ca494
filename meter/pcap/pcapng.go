package pcap

import (
	"fmt"
	"math"
	"math/bits"
)

// Block types of pcapng files (draft-ietf-opsawg-pcapng, Section 4). Other
// blocks are skipped.
const (
	blockSectionHeader  = 0x0a0d0d0a // the same in both byte orders
	blockInterface      = 1
	blockObsoletePacket = 2
	blockSimplePacket   = 3
	blockEnhancedPacket = 6
)

// Options of an Interface Description Block.
const (
	optionEnd        = 0
	optionResolution = 9  // if_tsresol
	optionOffset     = 14 // if_tsoffset
)

const (
	byteOrderMagic = 0x1a2b3c4d
	// maxInterfaces bounds the interfaces of a section.
	maxInterfaces = 1 << 16
)

// A pcapng is the format of pcapng files.
type pcapng struct {
	order      byteOrder
	interfaces []captureInterface
	time       int64 // of the latest packet that had one
}

// A captureInterface is an interface that a pcapng section describes.
type captureInterface struct {
	link       LinkType
	snapLength uint32 // 0 for no limit
	resolution byte   // if_tsresol: a negative power of 10, or of 2 with the top bit
	offset     int64  // if_tsoffset, seconds
}

// nano turns a time stamp into Unix nanoseconds. One that does not fit
// becomes the latest time there is.
func (i *captureInterface) nano(stamp uint64) int64 {
	var seconds, fraction uint64
	if n := i.resolution & 0x7f; i.resolution&0x80 != 0 {
		if n > 63 {
			return 0 // finer than any time can be told by 64 bits
		}
		seconds = stamp >> n
		high, low := bits.Mul64(stamp&(1<<n-1), 1e9)
		fraction = high<<(64-n) | low>>n
	} else {
		if n > 19 {
			return 0
		}
		unit := uint64(1)
		for range n {
			unit *= 10
		}
		seconds = stamp / unit
		high, low := bits.Mul64(stamp%unit, 1e9)
		fraction, _ = bits.Div64(high, low, unit)
	}
	const limit = math.MaxInt64 / 2 / 1_000_000_000
	if seconds > limit || i.offset > limit || i.offset < -limit {
		return math.MaxInt64
	}
	return (int64(seconds)+i.offset)*1e9 + int64(fraction)
}

func (f *pcapng) next(b []byte, p *Packet) (int, bool, error) {
	if len(b) < 12 {
		return 12, false, nil
	}
	blockType := f.order.uint32(b)
	if blockType == blockSectionHeader {
		// Only its magic says which byte order its own length has.
		f.order = little
		if f.order.uint32(b[8:]) != byteOrderMagic {
			f.order = big
		}
		if f.order.uint32(b[8:]) != byteOrderMagic {
			return 0, false, fmt.Errorf("byte-order magic %#x: %w", f.order.uint32(b[8:]), ErrFormat)
		}
		f.interfaces = f.interfaces[:0]
	}
	length := f.order.uint32(b[4:])
	if length < 12 || length%4 != 0 || length > maxBlock {
		return 0, false, fmt.Errorf("block of %d octets: %w", length, ErrFormat)
	}
	size := int(length)
	if len(b) < size {
		return size, false, nil
	}
	if trailer := f.order.uint32(b[size-4:]); trailer != length {
		return 0, false, fmt.Errorf("block of %d octets ends as one of %d: %w", length, trailer, ErrFormat)
	}
	body := b[8 : size-4 : size-4]
	var err error
	packet := false
	switch blockType {
	case blockInterface:
		err = f.describe(body)
	case blockEnhancedPacket:
		packet, err = true, f.enhanced(body, p)
	case blockSimplePacket:
		packet, err = true, f.simple(body, p)
	case blockObsoletePacket:
		packet, err = true, f.obsolete(body, p)
	}
	if err != nil {
		return 0, false, err
	}
	return size, packet, nil
}

// describe reads an Interface Description Block (Section 4.2).
func (f *pcapng) describe(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("interface description of %d octets: %w", len(b), ErrFormat)
	}
	if len(f.interfaces) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces: %w", maxInterfaces, ErrFormat)
	}
	i := captureInterface{link: LinkType(f.order.uint16(b)), snapLength: f.order.uint32(b[4:]), resolution: 6}
	for b = b[8:]; len(b) >= 4; {
		code, length := f.order.uint16(b), int(f.order.uint16(b[2:]))
		b = b[4:]
		if code == optionEnd {
			break
		}
		padded := (length + 3) &^ 3
		if padded > len(b) {
			return fmt.Errorf("option %d of %d octets in an interface description: %w", code, length, ErrFormat)
		}
		switch {
		case code == optionResolution && length == 1:
			i.resolution = b[0]
		case code == optionOffset && length == 8:
			i.offset = int64(f.order.uint64(b))
		}
		b = b[padded:]
	}
	f.interfaces = append(f.interfaces, i)
	return nil
}

// enhanced reads an Enhanced Packet Block (Section 4.3).
func (f *pcapng) enhanced(b []byte, p *Packet) error {
	if len(b) < 20 {
		return fmt.Errorf("packet block of %d octets: %w", len(b), ErrFormat)
	}
	return f.packet(f.order.uint32(b), b[4:], p)
}

// obsolete reads a Packet Block (Appendix A), which differs in how long the
// interface's number is.
func (f *pcapng) obsolete(b []byte, p *Packet) error {
	if len(b) < 20 {
		return fmt.Errorf("packet block of %d octets: %w", len(b), ErrFormat)
	}
	return f.packet(uint32(f.order.uint16(b)), b[4:], p)
}

// packet reads what follows the interface: time, lengths and data.
func (f *pcapng) packet(number uint32, b []byte, p *Packet) error {
	if uint64(number) >= uint64(len(f.interfaces)) {
		return fmt.Errorf("packet of interface %d, which is not described: %w", number, ErrFormat)
	}
	i := &f.interfaces[number]
	captured := f.order.uint32(b[8:])
	if captured > maxCaptured || int(captured) > len(b)-16 {
		return fmt.Errorf("packet of %d octets: %w", captured, ErrFormat)
	}
	f.time = i.nano(uint64(f.order.uint32(b))<<32 | uint64(f.order.uint32(b[4:])))
	*p = Packet{Time: f.time, Link: i.link, Length: int(f.order.uint32(b[12:])), Data: b[16 : 16+captured]}
	return nil
}

// simple reads a Simple Packet Block (Section 4.4). It has no time, and gets
// that of the packet before.
func (f *pcapng) simple(b []byte, p *Packet) error {
	if len(b) < 4 || len(f.interfaces) == 0 {
		return fmt.Errorf("simple packet block of %d octets: %w", len(b), ErrFormat)
	}
	i := &f.interfaces[0]
	length := f.order.uint32(b)
	captured := uint32(min(uint64(length), uint64(len(b)-4)))
	if i.snapLength > 0 {
		captured = min(captured, i.snapLength)
	}
	*p = Packet{Time: f.time, Link: i.link, Length: int(length), Data: b[4 : 4+captured]}
	return nil
}
