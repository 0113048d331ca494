package wiretest

import "encoding/binary"

// A Pcap is a capture in the making: datagrams to port 4739, one a second.
type Pcap struct {
	octets []byte
	count  int
}

// Add adds a datagram from an IPv4 address of 10.0.0.0/16, which from numbers.
func (p *Pcap) Add(from uint16, payload []byte) {
	if p.octets == nil {
		const linkRaw = 101 // IP packets
		p.octets = binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
		p.octets = append(p.octets, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, linkRaw, 0, 0, 0)
	}
	n := 28 + len(payload)
	b := p.octets
	for _, v := range []int{1_700_000_000 + p.count, 0, n, n} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = append(b, 0x45, 0, byte(n>>8), byte(n), byte(p.count>>8), byte(p.count), 0, 0, 64, 17, 0, 0)
	b = append(b, 10, 0, byte(from>>8), byte(from), 192, 0, 2, 2)
	b = append(b, 0x83, 0x12, 0x12, 0x83, byte((n-20)>>8), byte(n-20), 0, 0)
	p.octets = append(b, payload...)
	p.count++
}

// Bytes returns the file.
func (p *Pcap) Bytes() []byte { return p.octets }
