package meter_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/internal/wiretest"
	"tollbridge/ipfix"
	"tollbridge/meter"
)

// discard takes records and forgets them.
type discard struct{ records int }

func (d *discard) Export(context.Context, *ipfix.Template, []byte) error {
	d.records++
	return nil
}

// synthetic returns a pcap file of n packets, 96 octets of each, of so many
// flows, one of them in five IPv6, over a minute.
func synthetic(n, flows int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	c := wiretest.NewCapture(wiretest.LinkEthernet)
	for i := range n {
		// Some flows are much busier than others.
		f := uint32(float64(flows) * rng.Float64() * rng.Float64())
		length := 82 + rng.IntN(1400)
		b := make([]byte, 12, 96)
		if f%5 == 0 {
			b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
			b = binary.BigEndian.AppendUint16(b, uint16(length-40))
			b = append(b, 17, 64, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0)
			b = binary.BigEndian.AppendUint32(b, f)
			b = append(b, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1)
		} else {
			b = append(b, 8, 0, 0x45, 0)
			b = binary.BigEndian.AppendUint16(b, uint16(length))
			b = append(b, 0, 0, 0x40, 0, 64, 6, 0, 0)
			b = binary.BigEndian.AppendUint32(b, 0x0a000000|f)
			b = append(b, 198, 51, 100, 10)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(1024+f%50000))
		b = append(b, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10)
		at := time.Unix(1_800_000_000, 0).Add(time.Duration(i) * time.Minute / time.Duration(n)).Truncate(time.Microsecond)
		c.Packet(at, 14+length, b[:cap(b)])
	}
	return c.Bytes()
}

// BenchmarkReadFile meters a million packets each time, from file to encoded
// records: s/op is what the project states per million packets.
func BenchmarkReadFile(b *testing.B) {
	const packets = 1_000_000
	for _, c := range []struct {
		name  string
		flows int
	}{{"1kflows", 1000}, {"100kflows", 100_000}} {
		file := synthetic(packets, c.flows)
		b.Run(c.name, func(b *testing.B) { benchmark(b, file, packets) })
	}
}

// BenchmarkCapture meters the bundled capture, whose flows are few.
func BenchmarkCapture(b *testing.B) { benchmark(b, demodata.Capture, 7394) }

func benchmark(b *testing.B, file []byte, packets int) {
	b.ReportAllocs()
	var d discard
	for b.Loop() {
		m, err := meter.New(meter.Config{Exporter: &d})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.ReadFile(b.Context(), struct{ io.Reader }{bytes.NewReader(file)}, nil); err != nil {
			b.Fatal(err)
		}
		if err := m.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		if s := m.Stats(); s.Metered < uint64(packets)*99/100 {
			b.Fatalf("metered %d of %d packets", s.Metered, packets)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(packets), "ns/packet")
	b.ReportMetric(float64(d.records)/float64(b.N), "records/op")
}
