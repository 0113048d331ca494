package file_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

var (
	exporter4  = netip.MustParseAddrPort("192.0.2.1:40000")
	collector4 = netip.MustParseAddrPort("192.0.2.2:4739")
	exporter6  = netip.MustParseAddrPort("[2001:db8::1]:40000")
	collector6 = netip.MustParseAddrPort("[2001:db8::2]:4739")
)

// ip returns an IP packet of a protocol.
func ip(from, to netip.AddrPort, protocol byte, segment []byte) []byte {
	if from.Addr().Is6() {
		b := []byte{0x60, 0, 0, 0}
		b = binary.BigEndian.AppendUint16(b, uint16(len(segment)))
		b = append(b, protocol, 64)
		b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
		return append(b, segment...)
	}
	b := []byte{0x45, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(segment)))
	b = append(b, 0, 0, 0, 0, 64, protocol, 0, 0)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return append(b, segment...)
}

func ports(from, to netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port())
}

func udp(from, to netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(ports(from, to), uint16(8+len(payload)))
	return ip(from, to, 17, append(append(b, 0, 0), payload...))
}

func tcp(from, to netip.AddrPort, sequence uint32, flags byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(ports(from, to), sequence)
	b = append(b, 0, 0, 0, 0, 5<<4, flags, 0, 0, 0, 0, 0, 0)
	return ip(from, to, 6, append(b, payload...))
}

// found is what a capture gave.
type found struct {
	messages [][]byte
	sessions []file.Session
	packets  []int64
	damage   []error
}

func find(t interface{ Fatal(...any) }, ports []uint16, packets ...[]byte) (f found) {
	c := file.NewCapture(file.CaptureConfig{
		Ports: ports,
		Message: func(m file.Message) error {
			f.messages = append(f.messages, bytes.Clone(m.Octets))
			f.sessions = append(f.sessions, m.Session)
			f.packets = append(f.packets, m.Packet)
			return nil
		},
		Damage: func(err error) error {
			f.damage = append(f.damage, err)
			return nil
		},
	})
	for i, p := range packets {
		if err := c.Packet(int64(i+1), time.Unix(int64(i), 0), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCaptureUDP(t *testing.T) {
	msgs := messages(t, 1, 256, 3)
	netflow5 := append([]byte{0, 5, 0, 1}, make([]byte, 20+48)...)
	netflow9 := append([]byte{0, 9, 0, 1}, make([]byte, 16)...)
	netflow9 = append(netflow9, 1, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8)
	counting := func(count byte, records int) []byte {
		return append([]byte{0, 5, 0, count}, make([]byte, 20+48*records)...)
	}
	dns := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01")
	damaged := append(bytes.Clone(msgs[0]), 1, 2, 3)
	options := ip(exporter6, collector6, 60, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp(exporter6, collector6, msgs[0])[40:]...))
	fragment := udp(exporter4, collector4, msgs[0])
	fragment[6] = 0x20
	for _, row := range []struct {
		name    string
		ports   []uint16
		packets [][]byte
		want    [][]byte
		damage  error
	}{
		{"IPv4 and IPv6", nil, [][]byte{udp(exporter4, collector4, msgs[0]), udp(exporter6, collector6, msgs[1])}, msgs[:2], nil},
		{"behind an extension header", nil, [][]byte{options}, msgs[:1], nil},
		{"several Messages in a datagram", nil, [][]byte{udp(exporter4, collector4, slices.Concat(msgs...))}, msgs, nil},
		{"NetFlow 5", nil, [][]byte{udp(exporter4, collector4, netflow5)}, [][]byte{netflow5}, nil},
		{"NetFlow 5, end to end", nil, [][]byte{udp(exporter4, collector4, netflow5), udp(exporter4, collector4, slices.Concat(counting(2, 2), netflow5))},
			[][]byte{netflow5, counting(2, 2), netflow5}, nil},
		{"NetFlow 5 that counts more than it has", nil, [][]byte{udp(exporter4, collector4, netflow5), udp(exporter4, collector4, counting(3, 2))},
			[][]byte{netflow5, counting(3, 2)}, nil},
		{"NetFlow 5 that counts none", nil, [][]byte{udp(exporter4, collector4, netflow5), udp(exporter4, collector4, counting(0, 2))},
			[][]byte{netflow5, counting(0, 2)}, nil},
		{"NetFlow 5 that ends within a record", nil, [][]byte{udp(exporter4, collector4, netflow5), udp(exporter4, collector4, counting(3, 2)[:100])},
			[][]byte{netflow5}, io.ErrUnexpectedEOF},
		{"NetFlow 9", nil, [][]byte{udp(exporter4, collector4, netflow9)}, [][]byte{netflow9}, nil},
		{"what does not look like a message", nil, [][]byte{udp(exporter4, collector4, dns)}, nil, nil},
		{"but goes to a port that was named", []uint16{4739}, [][]byte{udp(exporter4, collector4, dns)}, nil, ipfix.ErrVersion},
		{"or to where a Message went before", nil, [][]byte{udp(exporter4, collector4, msgs[0]), udp(exporter4, collector4, dns)}, msgs[:1], ipfix.ErrVersion},
		{"octets behind a Message", nil, [][]byte{udp(exporter4, collector4, damaged)}, msgs[:1], ipfix.ErrVersion},
		{"fragments", nil, [][]byte{fragment}, nil, nil},
		{"cut off by the snap length", nil, [][]byte{udp(exporter4, collector4, msgs[0])[:60]}, nil, io.ErrUnexpectedEOF},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := find(t, row.ports, row.packets...)
			if !slices.EqualFunc(f.messages, row.want, bytes.Equal) {
				t.Errorf("%d messages, want %d", len(f.messages), len(row.want))
			}
			if row.damage == nil && f.damage != nil || row.damage != nil && (len(f.damage) != 1 || !errors.Is(f.damage[0], row.damage)) {
				t.Errorf("damage %v, want %v", f.damage, row.damage)
			}
		})
	}
	f := find(t, nil, nil, udp(exporter4, collector4, msgs[0]))
	if want := (file.Session{Transport: ipfix.UDP, Exporter: exporter4, Collector: collector4}); f.sessions[0] != want || f.packets[0] != 2 {
		t.Errorf("session %v, packet %d", f.sessions[0], f.packets[0])
	}
}

// Segments of a connection come in any order, some twice, some overlapping,
// with sequence numbers around 2^32, and the Messages are those that were sent.
func TestCaptureTCPOrder(t *testing.T) {
	want := messages(t, 1, 256, 20)
	stream := slices.Concat(want...)
	rapid.Check(t, func(t *rapid.T) {
		isn := rapid.Uint32().Draw(t, "initial sequence number")
		segments := [][]byte{}
		for at := 0; at < len(stream); {
			n := min(rapid.IntRange(1, 900).Draw(t, "length"), len(stream)-at)
			from := max(0, at-rapid.IntRange(0, 50).Draw(t, "overlap"))
			segments = append(segments, tcp(exporter4, collector4, isn+1+uint32(from), 0x18, stream[from:at+n]))
			at += n
		}
		// Each may change places with one up to four later.
		for i := range segments {
			k := min(i+rapid.IntRange(0, 4).Draw(t, "late"), len(segments)-1)
			segments[i], segments[k] = segments[k], segments[i]
		}
		for i := range segments {
			if rapid.Bool().Draw(t, "twice") {
				segments = append(segments, segments[i])
			}
		}
		f := find(t, nil, append([][]byte{tcp(exporter4, collector4, isn, 2, nil)}, segments...)...)
		if !slices.EqualFunc(f.messages, want, bytes.Equal) || f.damage != nil {
			t.Fatalf("%d messages of %d, damage %v", len(f.messages), len(want), f.damage)
		}
	})
}

func TestCaptureTCP(t *testing.T) {
	msgs := messages(t, 1, 256, 6)
	segment := func(sequence int, payload []byte) []byte {
		return tcp(exporter6, collector6, uint32(sequence), 0x18, payload)
	}
	syn := func(sequence int) []byte { return tcp(exporter6, collector6, uint32(sequence), 2, nil) }
	at := []int{1}
	for _, m := range msgs {
		at = append(at, at[len(at)-1]+len(m))
	}
	http := []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	late := [][]byte{syn(0), segment(at[0], msgs[0])}
	for i := range 40_000 { // more than is held back
		late = append(late, segment(at[3]+i*len(msgs[3]), msgs[3]))
	}
	for _, row := range []struct {
		name    string
		packets [][]byte
		want    int // Messages
		damage  error
	}{
		{"a Message in each segment", [][]byte{syn(0), segment(at[0], msgs[0]), segment(at[1], msgs[1])}, 2, nil},
		{"the capture begins within the connection", [][]byte{segment(at[1], msgs[1]), segment(at[2], msgs[2])}, 2, nil},
		{"and within a Message", [][]byte{segment(at[0]+9, msgs[0][9:]), segment(at[1], msgs[1])}, 1, nil},
		{"another protocol", [][]byte{syn(0), segment(1, http), segment(1+len(http), http)}, 0, nil},
		{"a segment is missing", [][]byte{syn(0), segment(at[0], msgs[0]), segment(at[2], msgs[2]), segment(at[3], msgs[3])}, 3, file.ErrGap},
		{"the end of a Message is missing", [][]byte{syn(0), segment(at[0], msgs[0][:30]), segment(at[1], msgs[1])}, 1, file.ErrGap},
		{"the start of a Message is missing", [][]byte{syn(0), segment(at[0], msgs[0]), segment(at[1]+9, slices.Concat(msgs[1][9:], msgs[2]))}, 2, file.ErrGap},
		{"the connection ends within a Message", [][]byte{syn(0), segment(at[0], msgs[0]), segment(at[1], msgs[1][:40])}, 1, file.ErrGap},
		{"a new connection between the same ports", [][]byte{syn(0), segment(at[0], msgs[0]), syn(90000), segment(90001, msgs[1])}, 2, nil},
		{"SYN sent again", [][]byte{syn(0), syn(0), segment(at[0], msgs[0])}, 1, nil},
		{"no Message behind a Message", [][]byte{syn(0), segment(at[0], slices.Concat(msgs[0], http)), segment(at[1]+len(http), msgs[2])}, 2, ipfix.ErrVersion},
		{"a gap that nothing fills", late, 40_001, file.ErrGap},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := find(t, nil, row.packets...)
			if len(f.messages) != row.want {
				t.Errorf("%d messages, want %d", len(f.messages), row.want)
			}
			if row.damage == nil && f.damage != nil || row.damage != nil && (len(f.damage) != 1 || !errors.Is(f.damage[0], row.damage)) {
				t.Errorf("damage %v, want %v", f.damage, row.damage)
			}
		})
	}
}

// Connections beyond the bound push out the oldest.
func TestCaptureManyConnections(t *testing.T) {
	msgs := messages(t, 1, 256, 1)
	var packets [][]byte
	const connections = 3000
	for i := range connections {
		from := netip.AddrPortFrom(exporter4.Addr(), uint16(1000+i))
		packets = append(packets, tcp(from, collector4, 0, 2, nil), tcp(from, collector4, 1, 0x18, msgs[0]))
	}
	if f := find(t, nil, packets...); len(f.messages) != connections || f.damage != nil {
		t.Errorf("%d messages of %d, damage %v", len(f.messages), connections, f.damage)
	}
}

func TestCaptureStops(t *testing.T) {
	stop := errors.New("stop")
	msg := messages(t, 1, 256, 1)[0]
	c := file.NewCapture(file.CaptureConfig{Message: func(file.Message) error { return stop }})
	for _, p := range [][]byte{udp(exporter4, collector4, msg), tcp(exporter4, collector4, 1, 0x18, msg)} {
		if err := c.Packet(1, time.Time{}, p); err != stop {
			t.Errorf("error %v, want that of Message", err)
		}
	}
}

func FuzzCapture(f *testing.F) {
	msg := messages(f, 1, 256, 1)[0]
	f.Add(udp(exporter4, collector4, msg), tcp(exporter6, collector6, 1, 0x18, msg), uint16(0))
	f.Add(tcp(exporter4, collector4, 1, 2, nil), tcp(exporter4, collector4, 2, 0x18, msg[:30]), uint16(4739))
	f.Fuzz(func(t *testing.T, a, b []byte, port uint16) {
		got := find(t, []uint16{port}, a, b, a, b)
		octets := 0
		for _, m := range got.messages {
			octets += len(m)
		}
		if octets > 2*(len(a)+len(b)) {
			t.Errorf("%d octets of messages in %d", octets, 2*(len(a)+len(b)))
		}
	})
}
