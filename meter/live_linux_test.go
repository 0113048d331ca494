package meter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/ipfix"
)

// enterNetwork moves the test's goroutine, with its thread, into a network
// namespace of its own, where a and b are the ends of a wire. The thread ends
// with the test.
func enterNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("metering a live interface needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("metering a live interface needs ip (Debian's iproute2)")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "dev", "lo", "up"},
		{"ip", "link", "add", "name", "a", "mtu", "9000", "type", "veth", "peer", "name", "b", "mtu", "9000"},
		// Without addresses the kernel itself says nothing on the wire.
		{"ip", "link", "set", "dev", "a", "addrgenmode", "none"},
		{"ip", "link", "set", "dev", "b", "addrgenmode", "none"},
		{"ip", "link", "set", "dev", "a", "up"},
		{"ip", "link", "set", "dev", "b", "up"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no wire can be made here: %v: %v: %s", args, err, bytes.TrimSpace(out))
		}
	}
}

// packetSocket returns a socket that sends frames on an interface.
func packetSocket(t *testing.T, name string) int {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// A counter counts packets of records and calls done once it has seen want.
type counter struct {
	packets, want uint64
	octets        uint64
	done          func()
}

func (c *counter) Export(_ context.Context, t *ipfix.Template, b []byte) error {
	r, err := t.Record(b)
	if err != nil {
		return err
	}
	packets, _ := t.Accessor(0, ipfix.PacketDeltaCount)
	octets, _ := t.Accessor(0, ipfix.OctetDeltaCount)
	c.octets += octets.Uint64(r)
	c.packets += packets.Uint64(r)
	if c.packets == c.want {
		c.done()
	}
	return nil
}

// TestLive sends the bundled capture over a wire, padded to what its packets
// were, and finds what a file of it gives.
func TestLive(t *testing.T) {
	enterNetwork(t)
	want, err := New(Config{Exporter: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := want.ReadFile(t.Context(), bytes.NewReader(demodata.Capture), nil); err != nil {
		t.Fatal(err)
	}
	wire := packetSocket(t, "b")
	packets := capture(t)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := &counter{want: want.Stats().Metered + 1, done: cancel}
	m, err := New(Config{Exporter: c, IdleTimeout: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// The meter must listen before anything is sent, so it is opened apart from Live.
	l, err := openLive("a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	sent := make(chan error, 1)
	go func() {
		for _, p := range packets {
			frame := make([]byte, p.Length)
			copy(frame, p.Data)
			if _, err := unix.Write(wire, frame); err != nil {
				sent <- err
				return
			}
		}
		// One more in two VLANs, of which the kernel takes off the outer.
		udp := []byte{0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 11, 198, 51, 100, 10, 4, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}
		frame := binary.BigEndian.AppendUint16(make([]byte, 12), 0x88a8)
		frame = append(frame, 0, 1, 0x81, 0, 0, 100, 8, 0)
		_, err := unix.Write(wire, append(frame, udp...))
		sent <- err
	}()
	if err := m.live(ctx, l, "a"); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got := m.Stats()
	if got.Metered != c.want || got.Octets != want.Stats().Octets+32 || c.octets != got.Octets || got.KernelDropped != 0 || got.Malformed.Sum() != 0 {
		t.Errorf("metered %+v,\nwant %+v and one packet of 32 octets", got, want.Stats())
	}
}

// TestLiveLoopback sees each packet of the loopback interface once.
func TestLiveLoopback(t *testing.T) {
	enterNetwork(t)
	conn, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l, err := openLive("lo")
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if _, err := conn.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The datagram, and the ICMP error that it is answered with.
	c := &counter{want: 2, done: cancel}
	m, err := New(Config{Exporter: c, IdleTimeout: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.live(ctx, l, "lo"); err != nil {
		t.Fatal(err)
	}
	if c.packets != 2 || c.octets != 128+156 {
		t.Errorf("%d packets, %d octets", c.packets, c.octets)
	}
}

// TestLiveTunnel meters an interface whose packets have no link-layer header.
func TestLiveTunnel(t *testing.T) {
	enterNetwork(t)
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no tunnel can be made here: %v", err)
	}
	defer tun.Close()
	request, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, request); err != nil {
		t.Skipf("no tunnel can be made here: %v", err)
	}
	for _, args := range [][]string{{"addrgenmode", "none"}, {"up"}} {
		if out, err := exec.Command("ip", append([]string{"link", "set", "dev", "tun0"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	l, err := openLive("tun0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if _, err := tun.Write(unhex(t, udp4+udp)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := &counter{want: 1, done: cancel}
	m, err := New(Config{Exporter: c, IdleTimeout: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.live(ctx, l, "tun0"); err != nil {
		t.Fatal(err)
	}
	if c.packets != 1 || c.octets != 32 {
		t.Errorf("%d packets, %d octets", c.packets, c.octets)
	}
}

func TestLiveErrors(t *testing.T) {
	enterNetwork(t)
	m, err := New(Config{Exporter: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Live(t.Context(), "nosuch0"); err == nil {
		t.Error("no error for an interface that is not there")
	}
	if out, err := exec.Command("ip", "link", "set", "dev", "a", "down").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := m.Live(t.Context(), "a"); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("interface is down: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Live(ctx, "b"); err != nil {
		t.Errorf("context has ended: error %v", err)
	}
}
