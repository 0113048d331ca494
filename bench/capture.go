package main

import (
	"bufio"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"time"
)

const (
	captureFlows = 50_000
	snapLength   = 96
)

// writeCapture writes a pcap file of packets packets, 10 us apart, that belong
// to 50,000 flows of TCP and UDP over IPv4 in no order.
func writeCapture(name string, packets int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	le, be := binary.LittleEndian, binary.BigEndian
	header := make([]byte, 24)
	le.PutUint32(header, 0xa1b2c3d4) // microseconds
	le.PutUint16(header[4:], 2)
	le.PutUint16(header[6:], 4)
	le.PutUint32(header[16:], snapLength)
	le.PutUint32(header[20:], 1) // Ethernet
	w.Write(header)

	random := rand.New(rand.NewPCG(1, 2)) // the same file every time
	began := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC).UnixMicro()
	var p [16 + snapLength]byte
	eth := p[16:]
	be.PutUint16(eth[12:], 0x0800)
	ip := eth[14:]
	ip[0], ip[8] = 0x45, 64
	l4 := ip[20:]
	for i := range packets {
		flow := random.Uint32N(captureFlows)
		length := uint32(60 + random.Uint32N(1441)) // of the IP packet
		if random.Uint32N(3) == 0 {
			length = 60
		}
		captured := min(14+length, snapLength)
		at := began + int64(i)*10
		le.PutUint32(p[0:], uint32(at/1e6))
		le.PutUint32(p[4:], uint32(at%1e6))
		le.PutUint32(p[8:], captured)
		le.PutUint32(p[12:], 14+length)
		be.PutUint16(ip[2:], uint16(length))
		be.PutUint32(ip[12:], userAddress(flow%10_000))
		be.PutUint32(ip[16:], 198<<24|18<<16|flow)
		be.PutUint16(l4, uint16(10_000+flow%50_000))
		be.PutUint16(l4[2:], 443)
		if flow%4 == 0 {
			ip[9] = 17
			be.PutUint16(l4[4:], uint16(length-20))
		} else {
			ip[9] = 6
			be.PutUint16(l4[4:], 0)
			l4[12], l4[13] = 5<<4, 0x10 // ACK
		}
		w.Write(p[:16+captured])
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
