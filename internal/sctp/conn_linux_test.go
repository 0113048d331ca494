package sctp

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An association that the other end has ended before we look at it was made
// all the same, and reading says that it has ended. Its status is no longer
// known by then, and nothing will happen that could wake who waits for it.
func TestDialFindsAnAssociationThatHasEnded(t *testing.T) {
	ln, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), Config{})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(Addr).AddrPort()

	// As dial does it, but for the moment at which it looks.
	sa, err := sockaddr(at)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := open(at.Addr(), Config{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	c, err := newConn(fd, fromSockaddr(sa))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	theirs, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	for gone := false; !gone; {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 20_000); n != 1 || err != nil {
			t.Fatalf("the end was not seen: %d, %v", n, err)
		}
		_, err := status(fd)
		gone = err != nil
	}

	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := c.established(); err != nil {
		t.Errorf("established: %v", err)
	}
	if _, err := c.Read(make([]byte, 64)); err != io.EOF {
		t.Errorf("read: %v, want %v", err, io.EOF)
	}
}
