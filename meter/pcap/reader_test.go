package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"tollbridge/cmd/tollbridge/demodata"
)

// A forge writes capture files.
type forge struct {
	binary.AppendByteOrder
	b []byte
}

var (
	littleForge = forge{AppendByteOrder: binary.LittleEndian}
	bigForge    = forge{AppendByteOrder: binary.BigEndian}
)

func (f forge) u16(vs ...uint16) forge {
	for _, v := range vs {
		f.b = f.AppendUint16(f.b, v)
	}
	return f
}

func (f forge) u32(vs ...uint32) forge {
	for _, v := range vs {
		f.b = f.AppendUint32(f.b, v)
	}
	return f
}

func (f forge) octets(b ...byte) forge {
	f.b = append(f.b, b...)
	return f
}

// block appends a pcapng block with this body, padded.
func (f forge) block(blockType uint32, body forge) forge {
	for len(body.b)%4 != 0 {
		body = body.octets(0)
	}
	length := uint32(len(body.b) + 12)
	return f.u32(blockType, length).octets(body.b...).u32(length)
}

func (f forge) empty() forge { return forge{AppendByteOrder: f.AppendByteOrder} }

func (f forge) section() forge {
	return f.block(blockSectionHeader, f.empty().u32(byteOrderMagic).u16(1, 0).u32(0xffffffff, 0xffffffff))
}

func (f forge) describe(link LinkType, options forge) forge {
	return f.block(blockInterface, f.empty().u16(uint16(link), 0).u32(0).octets(options.b...))
}

func (f forge) enhanced(number uint32, stamp uint64, data []byte, length int) forge {
	return f.block(blockEnhancedPacket, f.empty().u32(number, uint32(stamp>>32), uint32(stamp), uint32(len(data)), uint32(length)).octets(data...))
}

func (f forge) pcap(magic uint32, link LinkType) forge {
	return f.u32(magic).u16(2, 4).u32(0, 0, 65535, uint32(link))
}

func (f forge) packet(seconds, fraction uint32, data []byte, length int) forge {
	return f.u32(seconds, fraction, uint32(len(data)), uint32(length)).octets(data...)
}

// all returns the packets of a capture file, their data copied, and the error
// that ended it, nil for its end.
func all(r io.Reader) ([]Packet, error) {
	f := NewReader(r)
	var ps []Packet
	for {
		var some [32]Packet
		n, err := f.Read(some[:])
		for _, p := range some[:n] {
			p.Data = bytes.Clone(p.Data)
			ps = append(ps, p)
		}
		if err == io.EOF {
			return ps, nil
		}
		if err != nil {
			return ps, err
		}
	}
}

func TestFormats(t *testing.T) {
	data := []byte{0x45, 0, 0, 20, 1}
	none := forge{AppendByteOrder: binary.LittleEndian}
	want := Packet{Time: 1_800_000_000_000_001_000, Link: LinkRaw, Length: 1500, Data: data}
	const micros = 1_800_000_000_000_001
	for _, row := range []struct {
		name string
		file forge
		want []Packet
	}{
		{"pcap, microseconds", littleForge.pcap(pcapMicro, LinkRaw).packet(1_800_000_000, 1, data, 1500), []Packet{want}},
		{"pcap, big-endian", bigForge.pcap(pcapMicro, LinkRaw).packet(1_800_000_000, 1, data, 1500), []Packet{want}},
		{"pcap, nanoseconds", littleForge.pcap(pcapNano, LinkRaw).packet(1_800_000_000, 1000, data, 1500), []Packet{want}},
		{"pcap, nanoseconds, big-endian", bigForge.pcap(pcapNano, LinkRaw).packet(1_800_000_000, 1000, data, 1500), []Packet{want}},
		{"pcap with a frame check sequence", littleForge.u32(pcapMicro).u16(2, 4).u32(0, 0, 65535, 0x24000000|uint32(LinkRaw)).packet(1_800_000_000, 1, data, 1500), []Packet{want}},
		{"pcap without packets", littleForge.pcap(pcapMicro, LinkRaw), nil},
		{"pcapng", littleForge.section().describe(LinkRaw, none).enhanced(0, micros, data, 1500), []Packet{want}},
		{"pcapng, big-endian", bigForge.section().describe(LinkRaw, none).enhanced(0, micros, data, 1500), []Packet{want}},
		{"blocks of other types are skipped", littleForge.section().block(5, littleForge.u32(1, 2, 3)).describe(LinkRaw, none).block(0xbad, none).enhanced(0, micros, data, 1500), []Packet{want}},
		{"each interface has its link type", littleForge.section().describe(LinkEthernet, none).describe(LinkRaw, none).enhanced(1, micros, data, 1500), []Packet{want}},
		{"if_tsresol 9", littleForge.section().describe(LinkRaw, none.u16(2, 3).octets('e', 't', 'h', 0).u16(9, 1).octets(9, 0, 0, 0).u16(0, 0)).enhanced(0, micros*1000, data, 1500), []Packet{want}},
		{"if_tsresol 12", littleForge.section().describe(LinkRaw, none.u16(9, 1).octets(12, 0, 0, 0)).enhanced(0, 5_000_000_001_234, data, 1500), []Packet{{5_000_000_001, LinkRaw, 0, 1500, data}}},
		{"if_tsresol 2^-10", littleForge.section().describe(LinkRaw, none.u16(9, 1).octets(0x8a, 0, 0, 0)).enhanced(0, 1<<10|512, data, 1500), []Packet{{1_500_000_000, LinkRaw, 0, 1500, data}}},
		{"if_tsoffset", littleForge.section().describe(LinkRaw, none.u16(14, 8).u32(1_800_000_000, 0)).enhanced(0, 1, data, 1500), []Packet{want}},
		{"if_tsresol that no time has", littleForge.section().describe(LinkRaw, none.u16(9, 1).octets(0x7f, 0, 0, 0)).enhanced(0, 1, data, 1500), []Packet{{0, LinkRaw, 0, 1500, data}}},
		{"Simple Packet Block has the time before", littleForge.section().describe(LinkRaw, none).enhanced(0, micros, data, 1500).block(blockSimplePacket, littleForge.u32(5).octets(data...)),
			[]Packet{want, {want.Time, LinkRaw, 0, 5, data}}},
		{"Simple Packet Block cut to the snap length", littleForge.section().block(blockInterface, littleForge.u16(uint16(LinkRaw), 0).u32(5)).block(blockSimplePacket, littleForge.u32(1500).octets(data...)),
			[]Packet{{0, LinkRaw, 0, 1500, data}}},
		{"obsolete Packet Block", littleForge.section().describe(LinkRaw, none).block(blockObsoletePacket, littleForge.u16(0, 3).u32(micros>>32, micros&0xffffffff, 5, 1500).octets(data...)), []Packet{want}},
		{"a new section has interfaces and byte order of its own", littleForge.section().describe(LinkEthernet, none).octets(bigForge.section().describe(LinkRaw, none).enhanced(0, micros, data, 1500).b...), []Packet{want}},
	} {
		for how, r := range map[string]io.Reader{
			"whole":          bytes.NewReader(row.file.b),
			"octet by octet": iotest.OneByteReader(bytes.NewReader(row.file.b)),
		} {
			t.Run(row.name+"/"+how, func(t *testing.T) {
				got, err := all(r)
				if err != nil || len(got) != len(row.want) {
					t.Fatalf("packets %+v, error %v; want %+v", got, err, row.want)
				}
				for i := range got {
					if !bytes.Equal(got[i].Data, row.want[i].Data) {
						t.Errorf("data % x", got[i].Data)
					}
					got[i].Data, row.want[i].Data = nil, nil
					if g, w := got[i], row.want[i]; g.Time != w.Time || g.Link != w.Link || g.Length != w.Length {
						t.Errorf("packet %+v, want %+v", g, w)
					}
					row.want[i].Data = data
				}
			})
		}
	}
}

func TestFormatErrors(t *testing.T) {
	data := []byte{0x45, 0, 0, 20, 1}
	none := forge{AppendByteOrder: binary.LittleEndian}
	failed := errors.New("failed")
	whole := littleForge.section().describe(LinkRaw, none).enhanced(0, 1, data, 1500).b
	for _, row := range []struct {
		name string
		file io.Reader
		want error
	}{
		{"no octets", bytes.NewReader(nil), io.ErrUnexpectedEOF},
		{"text", bytes.NewReader([]byte("hello, world")), ErrFormat},
		{"ends within the magic number", bytes.NewReader([]byte{0xa1, 0xb2}), io.ErrUnexpectedEOF},
		{"ends within the pcap header", bytes.NewReader(littleForge.pcap(pcapMicro, LinkRaw).b[:23]), io.ErrUnexpectedEOF},
		{"ends within a pcap record", bytes.NewReader(littleForge.pcap(pcapMicro, LinkRaw).packet(1, 1, data, 5).b[:44]), io.ErrUnexpectedEOF},
		{"pcap record of 4 GiB", bytes.NewReader(littleForge.pcap(pcapMicro, LinkRaw).u32(1, 1, 0xffffffff, 0xffffffff).b), ErrFormat},
		{"ends within a pcapng block", bytes.NewReader(whole[:len(whole)-1]), io.ErrUnexpectedEOF},
		{"bad byte-order magic", bytes.NewReader(littleForge.u32(blockSectionHeader, 28, 0x12345678).b), ErrFormat},
		{"block of 4 GiB", bytes.NewReader(littleForge.section().u32(1, 0xfffffffc, 0).b), ErrFormat},
		{"block of 8 octets", bytes.NewReader(littleForge.section().u32(1, 8, 0).b), ErrFormat},
		{"block of 13 octets", bytes.NewReader(littleForge.section().u32(1, 13, 0).b), ErrFormat},
		{"lengths at both ends differ", bytes.NewReader(littleForge.section().u32(99, 12, 16).b), ErrFormat},
		{"interface description too short", bytes.NewReader(littleForge.section().block(blockInterface, none.u32(1)).b), ErrFormat},
		{"option beyond the block", bytes.NewReader(littleForge.section().describe(LinkRaw, none.u16(9, 5)).b), ErrFormat},
		{"packet of an unknown interface", bytes.NewReader(littleForge.section().enhanced(0, 1, data, 5).b), ErrFormat},
		{"packet longer than its block", bytes.NewReader(littleForge.section().describe(LinkRaw, none).block(blockEnhancedPacket, none.u32(0, 0, 0, 6, 6).octets(1, 2, 3, 4)).b), ErrFormat},
		{"packet block too short", bytes.NewReader(littleForge.section().describe(LinkRaw, none).block(blockEnhancedPacket, none.u32(0, 0, 0, 6)).b), ErrFormat},
		{"obsolete packet block too short", bytes.NewReader(littleForge.section().describe(LinkRaw, none).block(blockObsoletePacket, none.u32(0, 0, 0, 6)).b), ErrFormat},
		{"simple packet without an interface", bytes.NewReader(littleForge.section().block(blockSimplePacket, none.u32(0)).b), ErrFormat},
		{"reader fails", io.MultiReader(bytes.NewReader(whole), iotest.ErrReader(failed)), failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := all(row.file); !errors.Is(err, row.want) {
				t.Errorf("error %v, want %v", err, row.want)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	none := forge{AppendByteOrder: binary.LittleEndian}
	data := []byte{0x45, 0, 0, 20, 1}
	f.Add(demodata.Capture[:600])
	f.Add(littleForge.pcap(pcapNano, LinkRaw).packet(1, 1, data, 5).packet(2, 2, data, 1500).b)
	f.Add(bigForge.pcap(pcapMicro, LinkLinuxSLL).packet(1, 1, data, 5).b)
	f.Add(littleForge.section().describe(LinkRaw, none.u16(9, 1).octets(9, 0, 0, 0).u16(14, 8).u32(1, 0).u16(0, 0)).
		enhanced(0, 1, data, 1500).block(blockSimplePacket, littleForge.u32(5).octets(data...)).
		block(blockObsoletePacket, littleForge.u16(0, 3).u32(0, 1, 5, 1500).octets(data...)).b)
	f.Add(bigForge.section().describe(LinkEthernet, none).enhanced(0, 1, data, 5).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := all(bytes.NewReader(b))
		pieces, err2 := all(iotest.HalfReader(bytes.NewReader(b)))
		if len(whole) != len(pieces) || (err == nil) != (err2 == nil) {
			t.Errorf("whole: %d packets, %v; in pieces: %d packets, %v", len(whole), err, len(pieces), err2)
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		octets := 0
		for _, p := range whole {
			octets += len(p.Data)
		}
		if octets > len(b) {
			t.Errorf("%d octets of packets in a file of %d", octets, len(b))
		}
	})
}
