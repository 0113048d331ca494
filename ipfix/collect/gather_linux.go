package collect

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A gatherer reads from a TCP connection in larger pieces than an exporter
// writes, where it writes often. After a read that brought little it lets
// octets gather, and asks the kernel not to tell of so few (SO_RCVLOWAT): the
// runtime's poller would wake a thread for each segment. When none came it
// waits for the next octet as any reader does.
type gatherer struct {
	net.Conn
	raw       syscall.RawConn
	gathering bool // the kernel tells of many octets only
	much      bool // the latest read left no reason to wait

	try   func(fd uintptr) bool // made once, or every read would allocate it
	buf   []byte                // of the read under way
	n     int
	errno error
}

// newGatherer returns conn itself where it is not a socket.
func newGatherer(conn net.Conn) net.Conn {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return conn // is closed, as reading it will tell
	}
	g := &gatherer{Conn: conn, raw: raw}
	g.try = func(fd uintptr) bool {
		g.n, g.errno = unix.Read(int(fd), g.buf)
		return true
	}
	return g
}

func (g *gatherer) Read(b []byte) (int, error) {
	if g.gathering {
		if !g.much {
			time.Sleep(gatherTime)
		}
		if n, err := g.tryRead(b); n > 0 || err != nil {
			g.much = n >= len(b)/2
			return n, err
		}
		g.gather(1)
		g.gathering = false
	}
	n, err := g.Conn.Read(b)
	if n > 0 {
		g.much = n >= len(b)/2
		g.gathering = g.gather(len(b) / 2)
	}
	return n, err
}

// tryRead reads without waiting. It returns 0 and no error where there is
// nothing to be read yet, or ever: Conn will say which.
func (g *gatherer) tryRead(b []byte) (int, error) {
	g.buf = b
	err := g.raw.Read(g.try)
	g.buf = nil
	switch {
	case err != nil: // the deadline has passed, or Conn is closed
		return 0, nil
	case g.errno == nil:
		return g.n, nil
	case errors.Is(g.errno, unix.EAGAIN), errors.Is(g.errno, unix.EINTR):
		return 0, nil
	}
	local, remote := g.LocalAddr(), g.RemoteAddr()
	return 0, &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: remote, Err: os.NewSyscallError("read", g.errno)}
}

// gather asks the kernel to tell only of so many octets or more.
func (g *gatherer) gather(octets int) bool {
	var err error
	cerr := g.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, octets)
	})
	return cerr == nil && err == nil
}
