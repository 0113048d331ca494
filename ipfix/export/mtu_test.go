package export_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
)

// ownNetwork moves the test, on a thread of its own, to a network of its own
// whose loopback has an MTU. It returns how to change that.
func ownNetwork(t *testing.T, mtu int) (setMTU func(int)) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		t.Skipf("no network namespace can be made: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	set := func(request uint, value uint32) {
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			t.Fatal(err)
		}
		ifr.SetUint32(value)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(ifr))); errno != 0 {
			t.Fatal(errno)
		}
	}
	setMTU = func(mtu int) { set(unix.SIOCSIFMTU, uint32(mtu)) }
	setMTU(mtu)
	set(unix.SIOCSIFFLAGS, unix.IFF_UP|unix.IFF_LOOPBACK|unix.IFF_RUNNING)
	return setMTU
}

// A Message is as long as the path's MTU allows (RFC 7011, Section 10.3.3),
// also once that gets smaller while records wait.
func TestMessagesFitThePath(t *testing.T) {
	for _, tt := range []struct {
		name, host    string
		first, second int // MTU
		headers       int
	}{
		{"IPv4", "127.0.0.1:0", 900, 600, 28},
		{"IPv6", "[::1]:0", 1400, 1280, 48},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setMTU := ownNetwork(t, tt.first)
			collector := listenUDP(t, tt.host)
			local := collector.LocalAddr().String()
			socket, err := net.Dial("udp", local) // in this network, where Run's thread is not
			if err != nil {
				t.Skip(err)
			}
			d := newDecoder()
			collectUDP(t, d, collector)
			p := start(t, export.Config{
				Transport: ipfix.UDP, Address: local, MaxMessage: 8000,
				Dial: func(context.Context, string, string) (net.Conn, error) { return socket, nil },
			})
			const n = 1000
			exportNumbers(t, p, 0, n)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, n)
			nearly(t, d, tt.first-tt.headers)
			setMTU(tt.second)
			exportNumbers(t, p, n, 2*n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, 2*n)
			d.exactly(t, 2*n)
			nearly(t, d, tt.second-tt.headers)
			if s := p.Stats(); s.LostMessages != 0 || s.Records != 2*n {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// nearly checks that Messages were as long as they may be, and forgets them.
func nearly(t *testing.T, d *decoder, most int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.longest > most || d.longest < most-8 {
		t.Errorf("longest message %d octets, want nearly %d", d.longest, most)
	}
	d.longest = 0
}

// Where nobody knows the path's MTU a packet has 512 octets, unless the operator
// says otherwise (RFC 7011, Section 10.3.3).
func TestUnknownPath(t *testing.T) {
	for _, tt := range []struct {
		name             string
		configured, want int
	}{{"by default", 0, 512 - 28}, {"as configured", 1000, 1000}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				longest := 0
				p := runUDP(t, export.Config{MaxMessage: tt.configured}, func(b []byte) error {
					longest = max(longest, len(b))
					return nil
				})
				exportNumbers(t, p, 0, 1000)
				if err := p.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if longest > tt.want || longest < tt.want-8 {
					t.Errorf("longest message %d octets, want nearly %d", longest, tt.want)
				}
				if s := p.Stats(); s.Records != 1000 || s.LostRecords != 0 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

// A datagram that the kernel finds too long, without saying what would not be,
// is lost and counted like any that it refuses.
func TestTooLongForAnUnknownPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := runUDP(t, export.Config{MaxMessage: 1000}, func(b []byte) error {
			if len(b) > 500 {
				return syscall.EMSGSIZE
			}
			return nil
		})
		exportNumbers(t, p, 0, 200)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if s := p.Stats(); s.LostMessages != 2 || s.LostRecords != 200 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Datagrams have a checksum (RFC 7011, Section 10.3.2): the kernel puts it in
// unless a socket tells it not to.
func TestUDPChecksum(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			d, conn := newDecoder(), listenUDP(t, host)
			collectUDP(t, d, conn)
			to := conn.LocalAddr().(*net.UDPAddr)
			p := start(t, export.Config{Transport: ipfix.UDP, Address: to.String()})
			exportNumbers(t, p, 0, 1)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, 1)
			found := 0
			entries, err := os.ReadDir("/proc/self/fd") // one of them is that of Messages
			if err != nil {
				t.Skip("skipped: ", err)
			}
			for _, entry := range entries {
				fd, err := strconv.Atoi(entry.Name())
				if err != nil {
					t.Fatal(err)
				}
				peer, err := unix.Getpeername(fd)
				if err != nil {
					continue
				}
				port := 0
				switch a := peer.(type) {
				case *unix.SockaddrInet4:
					port = a.Port
				case *unix.SockaddrInet6:
					port = a.Port
				}
				if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM || port != to.Port {
					continue
				}
				found++
				if off, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK); err != nil || off != 0 {
					t.Errorf("SO_NO_CHECK is %d (%v)", off, err)
				}
			}
			if found != 1 {
				t.Errorf("%d sockets send to the collector", found)
			}
		})
	}
}
