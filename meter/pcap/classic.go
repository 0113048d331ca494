package pcap

import "fmt"

// Magic numbers of pcap files (draft-ietf-opsawg-pcap), times in micro- and nanoseconds.
const (
	pcapMicro = 0xa1b2c3d4
	pcapNano  = 0xa1b23c4d
)

const (
	pcapFileHeader   = 24
	pcapRecordHeader = 16
)

// A pcap is the format of pcap files.
type pcap struct {
	order byteOrder
	nano  int64 // nanoseconds in a fraction's unit
	begun bool  // the file header was read
	link  LinkType
}

func (f *pcap) next(b []byte, p *Packet) (int, bool, error) {
	if !f.begun {
		if len(b) < pcapFileHeader {
			return pcapFileHeader, false, nil
		}
		// The upper octets say how long a frame check sequence is.
		f.link = LinkType(f.order.uint32(b[20:]))
		f.begun = true
		return pcapFileHeader, false, nil
	}
	if len(b) < pcapRecordHeader {
		return pcapRecordHeader, false, nil
	}
	captured := f.order.uint32(b[8:])
	if captured > maxCaptured {
		return 0, false, fmt.Errorf("packet of %d octets: %w", captured, ErrFormat)
	}
	size := pcapRecordHeader + int(captured)
	if len(b) < size {
		return size, false, nil
	}
	*p = Packet{
		Time:   int64(f.order.uint32(b))*1e9 + int64(f.order.uint32(b[4:]))*f.nano,
		Link:   f.link,
		Length: int(f.order.uint32(b[12:])),
		Data:   b[pcapRecordHeader:size:size],
	}
	return size, true, nil
}
