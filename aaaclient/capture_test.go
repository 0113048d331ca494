package aaaclient

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"tollbridge/dict"
	"tollbridge/internal/peertest"
)

// A capture writes the octets of connections as packets, so that a judge of
// its own can read them.
type capture struct {
	t     *testing.T
	port  string
	mu    sync.Mutex
	file  *os.File
	w     *pcapgo.Writer
	conns uint16
}

func newCapture(t *testing.T, port string) *capture {
	t.Helper()
	c := &capture{t: t, port: port}
	var err error
	if c.file, err = os.Create(filepath.Join(peertest.Readable(t), "diameter.pcap")); err != nil {
		t.Fatal(err)
	}
	c.w = pcapgo.NewWriter(c.file)
	if err := c.w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *capture) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns++
	return &capturedConn{Conn: nc, capture: c, local: 40000 + layers.TCPPort(c.conns), remote: layers.TCPPort(nc.RemoteAddr().(*net.TCPAddr).Port), seq: [2]uint32{1, 1}}, nil
}

type capturedConn struct {
	net.Conn
	capture       *capture
	local, remote layers.TCPPort
	seq           [2]uint32 // ours, theirs
}

func (c *capturedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.packets(b[:n], 1)
	return n, err
}

func (c *capturedConn) Write(b []byte) (int, error) {
	c.packets(b, 0) // before the answer can come
	return c.Conn.Write(b)
}

// packets writes b as segments from one side.
func (c *capturedConn) packets(b []byte, side int) {
	c.capture.mu.Lock()
	defer c.capture.mu.Unlock()
	for len(b) > 0 {
		n := min(len(b), 16000)
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{127, 0, 0, 1}, DstIP: net.IP{127, 0, 0, 1}}
		tcp := &layers.TCP{SrcPort: c.local, DstPort: c.remote, Seq: c.seq[side], Ack: c.seq[1-side], ACK: true, PSH: true, Window: 65535}
		if side == 1 {
			tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
		}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			c.capture.t.Error(err)
		}
		buf := gopacket.NewSerializeBuffer()
		ethernet := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4}
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ethernet, ip, tcp, gopacket.Payload(b[:n])); err != nil {
			c.capture.t.Error(err)
		}
		packet := buf.Bytes()
		if err := c.capture.w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(packet), Length: len(packet)}, packet); err != nil {
			c.capture.t.Error(err)
		}
		c.seq[side] += uint32(n)
		b = b[n:]
	}
}

// judge has tshark read the capture: nothing malformed, no AVP unknown. It gets
// our vendor's AVPs as any user of it would, in its Custom.xml.
func (c *capture) judge() {
	c.t.Helper()
	c.mu.Lock()
	c.file.Close()
	c.mu.Unlock()
	peertest.NewWireshark(c.t, dict.For(0).Wireshark()).JudgeDiameter(c.t, c.file.Name(), c.port)
}
