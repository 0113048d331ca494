package wiretest

import (
	"encoding/binary"
	"time"
)

// A Capture is a pcap file in the making.
type Capture struct{ octets []byte }

// Link types of a Capture.
const (
	LinkEthernet = 1
	LinkRaw      = 101 // IP packets
)

// NewCapture returns a Capture without packets.
func NewCapture(link uint32) *Capture {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0)
	return &Capture{binary.LittleEndian.AppendUint32(b, link)}
}

// Packet adds a packet of so many octets, of which some were captured.
func (c *Capture) Packet(at time.Time, length int, captured []byte) {
	for _, v := range []int{int(at.Unix()), at.Nanosecond() / 1000, len(captured), length} {
		c.octets = binary.LittleEndian.AppendUint32(c.octets, uint32(v))
	}
	c.octets = append(c.octets, captured...)
}

// Bytes returns the file.
func (c *Capture) Bytes() []byte { return c.octets }

// A Pcap is a capture in the making: datagrams to port 4739, one a second. The
// zero Pcap has none.
type Pcap struct {
	capture *Capture
	count   int
}

// Add adds a datagram from an IPv4 address of 10.0.0.0/16, which from numbers.
func (p *Pcap) Add(from uint16, payload []byte) {
	if p.capture == nil {
		p.capture = NewCapture(LinkRaw)
	}
	n := 28 + len(payload)
	b := make([]byte, 0, n)
	b = append(b, 0x45, 0, byte(n>>8), byte(n), byte(p.count>>8), byte(p.count), 0, 0, 64, 17, 0, 0)
	b = append(b, 10, 0, byte(from>>8), byte(from), 192, 0, 2, 2)
	b = append(b, 0x83, 0x12, 0x12, 0x83, byte((n-20)>>8), byte(n-20), 0, 0)
	p.capture.Packet(time.Unix(1_700_000_000+int64(p.count), 0), n, append(b, payload...))
	p.count++
}

// Bytes returns the file.
func (p *Pcap) Bytes() []byte { return p.capture.Bytes() }
