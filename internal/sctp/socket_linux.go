package sctp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// A socket is an SCTP socket that waits in the runtime's poller.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
}

// open opens a one-to-one style socket (RFC 6458, Section 4).
func open(addr netip.Addr, cfg Config) (int, error) {
	family := unix.AF_INET6
	if addr.Unmap().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return -1, fmt.Errorf("this kernel has no SCTP: %w", errors.ErrUnsupported)
	} else if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	init := sctp.InitMsg{NumOstreams: cfg.Streams, MaxInstreams: cfg.Streams}
	err = errors.Join(
		set(fd, sctp.SCTP_INITMSG, unsafe.Pointer(&init), unsafe.Sizeof(init)),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, cfg.Buffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, cfg.Buffer),
		prepare(fd),
	)
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// prepare sets what an accepted socket might not inherit: no delay for small
// messages, and to be told of streams, of the end, of all being sent, and of a
// message whose rest will not come.
func prepare(fd int) error {
	events := sctp.EventSubscribe{DataIO: 1, Association: 1, PartialDelivery: 1, SenderDry: 1}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1),
		set(fd, sctp.SCTP_EVENTS, unsafe.Pointer(&events), unsafe.Sizeof(events)),
	)
}

func set(fd, option int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_SCTP, uintptr(option), uintptr(value), size, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// newSocket gives fd, which is non-blocking, to the poller.
func newSocket(fd int) (*socket, error) {
	file := os.NewFile(uintptr(fd), "sctp")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &socket{file: file, raw: raw}, nil
}

// read calls f when there may be something to be read, until it is done.
func (s *socket) read(f func(fd int) (done bool)) error {
	return s.why(s.raw.Read(func(fd uintptr) bool { return f(int(fd)) }))
}

// write is read for writing.
func (s *socket) write(f func(fd int) (done bool)) error {
	return s.why(s.raw.Write(func(fd uintptr) bool { return f(int(fd)) }))
}

// control calls f once.
func (s *socket) control(f func(fd int) error) error {
	var err error
	cerr := s.raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(s.why(cerr), err)
}

func (s *socket) close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	return s.file.Close()
}

// why returns err, or net.ErrClosed for any error of a socket that is closed:
// what package os says of it has no name.
func (s *socket) why(err error) error {
	if err != nil && s.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// again reports whether a call has to wait, or is to be repeated.
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	addr := a.Addr().Unmap()
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		} else {
			return nil, fmt.Errorf("zone %q: %w", zone, err)
		}
	}
	return sa, nil
}

func fromSockaddr(sa unix.Sockaddr) Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return Addr{netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))}
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return Addr{netip.AddrPortFrom(addr, uint16(sa.Port))}
	}
	return Addr{}
}
