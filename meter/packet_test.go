package meter

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/meter/pcap"
)

// Pieces of packets, in hex. IPv4 headers say how long the packet is.
const (
	ethernet4 = "00005e005301 00005e005311 0800 "
	ethernet6 = "00005e005301 00005e005311 86dd "
	addrs4    = "c000020b c633640a "
	addrs6    = "20010db8000100010000000000000011 20010db8ffff00000000000000000010 "
	udp4      = "45b8 0020 0001 4000 40 11 0000 " + addrs4 // DSCP 46, 32 octets
	udp6      = "6b80 0000 000c 11 40 " + addrs6           // DSCP 46, 12 octets of payload
	udp       = "0400 0035 000c 0000 01020304 "
)

var packetRows = []struct {
	name    string
	link    pcap.LinkType
	hex     string
	length  int // 0: all was captured
	want    verdict
	octets  uint64
	version byte
	proto   byte
	ports   [2]uint16
	icmp    uint16
	flags   uint16
}{
	{name: "Ethernet, IPv4, UDP", link: pcap.LinkEthernet, hex: ethernet4 + udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "Ethernet, IPv6, UDP", link: pcap.LinkEthernet, hex: ethernet6 + udp6 + udp, octets: 52, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "802.1Q tag", link: pcap.LinkEthernet, hex: "00005e005301 00005e005311 8100 0064 0800" + udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "802.1ad and 802.1Q tags", link: pcap.LinkEthernet, hex: "00005e005301 00005e005311 88a8 0001 8100 0064 86dd" + udp6 + udp, octets: 52, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "tag cut off", link: pcap.LinkEthernet, hex: "00005e005301 00005e005311 8100 00", want: truncated},
	{name: "Ethernet header cut off", link: pcap.LinkEthernet, hex: "00005e005301", want: truncated},
	{name: "ARP", link: pcap.LinkEthernet, hex: "ffffffffffff 00005e005311 0806 0001", want: notIP},
	{name: "802.3 length field", link: pcap.LinkEthernet, hex: "0180c2000000 00005e005311 0026 424203", want: notIP},
	{name: "Linux cooked", link: pcap.LinkLinuxSLL, hex: "0000 0001 0006 00005e0053110000 0800" + udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "Linux cooked 2", link: pcap.LinkLinuxSLL2, hex: "86dd 0000 00000002 0001 00 06 00005e0053110000" + udp6 + udp, octets: 52, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "BSD loopback, little-endian", link: pcap.LinkNull, hex: "02000000" + udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "BSD loopback, big-endian", link: pcap.LinkNull, hex: "0000001e" + udp6 + udp, octets: 52, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "OpenBSD loopback", link: pcap.LinkLoop, hex: "00000002" + udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "loopback of another family", link: pcap.LinkNull, hex: "07000000 45", want: notIP},
	{name: "raw IPv4", link: pcap.LinkRaw, hex: udp4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "raw IPv6", link: pcap.LinkIPv6, hex: udp6 + udp, octets: 52, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "raw of no IP version", link: pcap.LinkRaw, hex: "55", want: badVersion},
	{name: "raw without octets", link: pcap.LinkRaw, want: truncated},
	{name: "unknown link type", link: 147, hex: udp4, want: unknownLink},

	{name: "Total Length counts, not what was captured", link: pcap.LinkRaw, hex: "4500 05dc 0001 4000 40 06 0000" + addrs4 + "0050 c000", length: 1500, octets: 1500, version: 4, proto: 6, ports: [2]uint16{80, 49152}},
	{name: "Ethernet padding is no payload", link: pcap.LinkRaw, hex: "4500 0014 0001 4000 40 11 0000" + addrs4 + "0400 0035 000c 0000", octets: 20, version: 4, proto: 17},
	{name: "IPv4 options (RFC 791, 3.1)", link: pcap.LinkRaw, hex: "4600 0024 0001 4000 40 11 0000" + addrs4 + "94040000" + udp, octets: 36, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "IPv4 options cut off", link: pcap.LinkRaw, hex: "4f00 0054 0001 4000 40 11 0000" + addrs4 + "94040000", length: 84, octets: 84, version: 4, proto: 17},
	{name: "first fragment has ports", link: pcap.LinkRaw, hex: "4500 0020 0001 2000 40 11 0000" + addrs4 + udp, octets: 32, version: 4, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "later fragment has none", link: pcap.LinkRaw, hex: "4500 0020 0001 2001 40 11 0000" + addrs4 + udp, octets: 32, version: 4, proto: 17},
	{name: "TCP flags (RFC 9293, 3.1)", link: pcap.LinkRaw, hex: "4500 0028 0001 4000 40 06 0000" + addrs4 + "0050 c000 00000000 00000000 51ff 0000 00000000", octets: 40, version: 4, proto: 6, ports: [2]uint16{80, 49152}, flags: 0x1ff},
	{name: "SCTP", link: pcap.LinkRaw, hex: "4500 0020 0001 4000 40 84 0000" + addrs4 + "0f1c 0f1d 00000000 00000000", octets: 32, version: 4, proto: 132, ports: [2]uint16{3868, 3869}},
	{name: "ICMP type and code", link: pcap.LinkRaw, hex: "4500 001c 0001 4000 40 01 0000" + addrs4 + "0301 0000 00000000", octets: 28, version: 4, proto: 1, icmp: 0x0301},
	{name: "ICMPv6 type and code", link: pcap.LinkRaw, hex: "6000 0000 0008 3a 40" + addrs6 + "8000 0000 00000000", octets: 48, version: 6, proto: 58, icmp: 0x8000},
	{name: "protocol without ports", link: pcap.LinkRaw, hex: "4500 0018 0001 4000 40 2f 0000" + addrs4 + "00000800", octets: 24, version: 4, proto: 47},
	{name: "IPv4 header cut off", link: pcap.LinkRaw, hex: "4500 0020 0001 4000 40 11 0000 c000020b", want: truncated},
	{name: "IHL below 5", link: pcap.LinkRaw, hex: "4400 0020 0001 4000 40 11 0000" + addrs4 + udp, want: badHeader},
	{name: "Total Length below the header", link: pcap.LinkRaw, hex: "4500 0013 0001 4000 40 11 0000" + addrs4 + udp, want: badLength},
	{name: "Total Length beyond the packet", link: pcap.LinkRaw, hex: "4500 0021 0001 4000 40 11 0000" + addrs4 + udp, want: beyondPacket},
	{name: "Total Length 0: not yet cut by offloads", link: pcap.LinkRaw, hex: "4500 0000 0001 4000 40 06 0000" + addrs4 + "0050 c000", length: 70000, octets: 70000, version: 4, proto: 6, ports: [2]uint16{80, 49152}},
	{name: "version 6 in an IPv4 frame", link: pcap.LinkEthernet, hex: ethernet4 + udp6 + udp, want: badVersion},
	{name: "version 4 in an IPv6 frame", link: pcap.LinkEthernet, hex: ethernet6 + udp4 + udp + "00000000 00000000", want: badVersion},

	{name: "IPv6 header cut off", link: pcap.LinkRaw, hex: "6000 0000 000c 11 40 20010db8", want: truncated},
	{name: "Payload Length beyond the packet", link: pcap.LinkRaw, hex: "6000 0000 000d 11 40" + addrs6 + udp, want: beyondPacket},
	{name: "extension headers (RFC 8200, 4)", link: pcap.LinkRaw, hex: "6000 0000 002c 00 40" + addrs6 +
		"2b00 050200000000" + // Hop-by-Hop Options
		"3c00 000000000000" + // Routing
		"3300 010400000000" + // Destination Options
		"1100 0000 00000001" + // Authentication Header
		udp, octets: 84, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "IPv6 first fragment", link: pcap.LinkRaw, hex: "6000 0000 0014 2c 40" + addrs6 + "1100 0001 00000001" + udp, octets: 60, version: 6, proto: 17, ports: [2]uint16{1024, 53}},
	{name: "IPv6 later fragment", link: pcap.LinkRaw, hex: "6000 0000 0014 2c 40" + addrs6 + "1100 0009 00000001" + udp, octets: 60, version: 6, proto: 17},
	{name: "extension header cut off", link: pcap.LinkRaw, hex: "6000 0000 0014 00 40" + addrs6 + "1100", length: 60, octets: 60, version: 6, proto: 17},
	{name: "extension header longer than the packet", link: pcap.LinkRaw, hex: "6000 0000 0008 3c 40" + addrs6 + "11ff 000000000000", octets: 48, version: 6, proto: 17},
	{name: "no next header", link: pcap.LinkRaw, hex: "6000 0000 0000 3b 40" + addrs6, octets: 40, version: 6, proto: 59},
	{name: "jumbogram (RFC 2675)", link: pcap.LinkRaw, hex: "6000 0000 0000 00 40" + addrs6 + "0600 c204 00011170" + "0050 c000", length: 70048, octets: 70048, version: 6, proto: 6, ports: [2]uint16{80, 49152}},
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestObserve(t *testing.T) {
	for _, row := range packetRows {
		t.Run(row.name, func(t *testing.T) {
			data := unhex(t, row.hex)
			p := Packet{Time: 7, Link: row.link, Interface: 3, Length: max(row.length, len(data)), Data: data}
			var o observation
			if v := o.observe(&p); v != row.want {
				t.Fatalf("verdict %d, want %d", v, row.want)
			}
			if row.want != ok {
				return
			}
			got := row
			got.octets, got.version, got.proto, got.flags = o.octets, o.key[keyVersion], o.key[keyProtocol], o.flags
			got.ports, got.icmp = [2]uint16{}, 0
			if o.key.isICMP() {
				got.icmp = binary.BigEndian.Uint16(o.key[keyICMP:])
			} else {
				got.ports = [2]uint16{binary.BigEndian.Uint16(o.key[keyPorts:]), binary.BigEndian.Uint16(o.key[keyPorts+2:])}
			}
			if got != row {
				t.Errorf("got  %+v\nwant %+v", got, row)
			}
			source, destination := o.addresses()
			if row.version == 4 && (source != netip.MustParseAddr("192.0.2.11") || destination != netip.MustParseAddr("198.51.100.10")) ||
				row.version == 6 && (source != netip.MustParseAddr("2001:db8:1:1::11") || destination != netip.MustParseAddr("2001:db8:ffff::10")) {
				t.Errorf("from %v to %v", source, destination)
			}
			if o.at != 7 || binary.BigEndian.Uint32(o.key[keyInterface:]) != 3 {
				t.Errorf("time or interface is lost: %+v", o)
			}
			if want := strings.Contains(row.hex, "45b8") || strings.Contains(row.hex, "6b80"); want != (o.key[keyDSCP] == 46) {
				t.Errorf("DSCP %d", o.key[keyDSCP])
			}
		})
	}
}

func (o *observation) addresses() (source, destination netip.Addr) {
	n := 16
	if o.key[keyVersion] == 4 {
		n = 4
	}
	source, _ = netip.AddrFromSlice(o.key[keySource : keySource+n])
	destination, _ = netip.AddrFromSlice(o.key[keyDestination : keyDestination+n])
	return source, destination
}

// TestObserveAsGopacket compares the parser with gopacket's, packet by packet.
func TestObserveAsGopacket(t *testing.T) {
	compared := 0
	for _, p := range capture(t) {
		var o observation
		if v := o.observe(&p); v != ok {
			continue
		}
		compared++
		packet := gopacket.NewPacket(p.Data, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
		var source, destination []byte
		var octets int
		var dscp, protocol byte
		var ports, icmp []byte
		if ip, is := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4); is {
			source, destination, octets, dscp, protocol = ip.SrcIP, ip.DstIP, int(ip.Length), ip.TOS>>2, byte(ip.Protocol)
			if ip.Flags&layers.IPv4MoreFragments != 0 && ip.FragOffset == 0 { // which gopacket leaves undecoded
				icmp = ip.Payload[:2]
			}
		} else if ip, is := packet.Layer(layers.LayerTypeIPv6).(*layers.IPv6); is {
			source, destination, octets, dscp, protocol = ip.SrcIP, ip.DstIP, 40+int(ip.Length), ip.TrafficClass>>2, byte(ip.NextHeader)
			for _, l := range packet.Layers() {
				switch e := l.(type) {
				case *layers.IPv6Fragment:
					protocol = byte(e.NextHeader)
					if e.FragmentOffset == 0 { // the same
						icmp = e.Payload[:2]
					}
				case *layers.IPv6HopByHop:
					protocol = byte(e.NextHeader)
				}
			}
		}
		var flags uint16
		switch l := packet.Layer(layers.LayerTypeTCP).(type) {
		case *layers.TCP:
			ports = l.Contents[:4]
			flags = binary.BigEndian.Uint16(l.Contents[12:]) & 0xfff
		default:
			if l, is := packet.Layer(layers.LayerTypeUDP).(*layers.UDP); is {
				ports = l.Contents[:4]
			} else if l, is := packet.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); is {
				icmp = l.Contents[:2]
			} else if l, is := packet.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); is {
				icmp = l.Contents[:2]
			}
		}
		want := make([]byte, 4)
		copy(want, ports)
		copy(want[2:], icmp)
		from, to := o.addresses()
		if !bytes.Equal(from.AsSlice(), source) || !bytes.Equal(to.AsSlice(), destination) || int(o.octets) != octets ||
			o.key[keyDSCP] != dscp || o.key[keyProtocol] != protocol || o.flags != flags || !bytes.Equal(o.key[keyPorts:keyPorts+4], want) {
			t.Errorf("%v\nobserved %+v", packet, o)
		}
	}
	if compared < 7000 {
		t.Errorf("compared %d packets only", compared)
	}
}

// capture returns the packets of the bundled capture.
func capture(tb testing.TB) []Packet {
	tb.Helper()
	var all []Packet
	f := pcap.NewReader(bytes.NewReader(demodata.Capture))
	for {
		ps := make([]Packet, batch)
		n, err := f.Read(ps)
		if err == io.EOF {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		for _, p := range ps[:n] {
			p.Data = bytes.Clone(p.Data)
			all = append(all, p)
		}
	}
}

func FuzzObserve(f *testing.F) {
	for _, row := range packetRows {
		data := unhex(f, row.hex)
		f.Add(uint16(row.link), max(row.length, len(data)), data)
	}
	for _, p := range capture(f)[:200] {
		f.Add(uint16(p.Link), p.Length, p.Data)
	}
	f.Fuzz(func(t *testing.T, link uint16, length int, data []byte) {
		p := Packet{Link: pcap.LinkType(link), Length: length, Data: data}
		var o observation
		if o.observe(&p) != ok {
			return
		}
		if o.octets > uint64(max(length, len(data))) || o.octets < 20 {
			t.Errorf("%d octets of IP in a packet of %d", o.octets, length)
		}
		if v := o.key[keyVersion]; v != 4 && v != 6 {
			t.Errorf("IP version %d", v)
		}
		// What lies past the packet's end must not matter.
		again := p
		again.Data = append(bytes.Clone(data), 0xff, 0xff, 0xff, 0xff)[:len(data)]
		var o2 observation
		if o2.observe(&again) != ok || o2 != o {
			t.Errorf("second look differs: %+v, %+v", o, o2)
		}
	})
}
