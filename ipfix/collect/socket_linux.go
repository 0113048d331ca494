package collect

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is the most datagrams taken by one system call. It is what makes
// the call's cost small beside that of copying.
const batchSize = 64

// A udpSocket reads datagrams in batches, each into a buffer of its own that
// the next read overwrites. It allocates nothing per datagram.
//
// It is kept out of the runtime's poller, which would wake a thread for every
// datagram, be it waited for or not: a read blocks in the kernel.
type udpSocket struct {
	fd     int
	noWait bool // read returns 0 datagrams where it would have to wait

	messages []unix.Mmsghdr
	vectors  []unix.Iovec
	names    []unix.RawSockaddrInet6 // large enough for IPv4
	controls [][controlSize]byte
	buffers  []byte
	received int

	drops drops
}

// gatherTime is how long datagrams gather in the kernel after a read that did
// not fill a batch. To wake for each of them costs more than all the rest of
// receiving; at a gigabit per second 125 kilooctets come in that time.
const gatherTime = time.Millisecond

// A datagram is one that the latest read received.
type datagram struct {
	peer      udpPeer
	octets    []byte // valid until the next read
	truncated bool   // it was longer than its buffer
}

// newUDPSocket takes the socket over from conn, and closes conn. A read waits
// no longer than timeout.
func newUDPSocket(conn *net.UDPConn, maxDatagram int, timeout time.Duration) (*udpSocket, error) {
	fd, err := takeOver(conn)
	if err != nil {
		return nil, err
	}
	s := &udpSocket{
		fd:       fd,
		messages: make([]unix.Mmsghdr, batchSize),
		vectors:  make([]unix.Iovec, batchSize),
		names:    make([]unix.RawSockaddrInet6, batchSize),
		controls: make([][controlSize]byte, batchSize),
		buffers:  make([]byte, batchSize*maxDatagram),
		received: batchSize, // so that the first read prepares them all
	}
	for i := range s.messages {
		s.vectors[i].Base = &s.buffers[i*maxDatagram]
		s.vectors[i].SetLen(maxDatagram)
		h := &s.messages[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Iov = &s.vectors[i]
		h.SetIovlen(1)
		h.Control = &s.controls[i][0]
	}
	wait := unix.NsecToTimeval(max(timeout, time.Millisecond).Nanoseconds())
	err = errors.Join(
		unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		askDrops(fd),
	)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// takeOver returns a descriptor of the socket of conn, and closes conn.
func takeOver(conn *net.UDPConn) (fd int, err error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return 0, cerr
	}
	return fd, err
}

// read waits for at least one datagram, takes as many as there are, up to a
// batch, and returns their number. It returns 0 after the timeout, and when it
// was woken and the socket is empty.
func (s *udpSocket) read() (int, error) {
	for i := range s.received { // the kernel wrote to these
		h := &s.messages[i].Hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	s.received = 0
	flags := uintptr(unix.MSG_WAITFORONE)
	if s.noWait {
		flags = unix.MSG_DONTWAIT
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[0])), batchSize, flags, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	default:
		return 0, errno
	}
	s.received = int(n)
	if n == 1 && s.messages[0].Hdr.Namelen == 0 {
		return 0, nil // no datagram: the end of a socket that was shut down
	}
	for i := range s.received {
		s.drops.read(s.controls[i][:s.messages[i].Hdr.Controllen])
	}
	return s.received, nil
}

// gather lets datagrams gather. It sleeps in the kernel, as a timer of the
// runtime costs two more switches between threads.
func (s *udpSocket) gather() {
	_ = unix.Nanosleep(&unix.Timespec{Nsec: gatherTime.Nanoseconds()}, nil) // shorter is fine too
}

// wake ends a read that waits, and every later one that would. It may be
// called while another goroutine reads.
func (s *udpSocket) wake() {
	_ = unix.Shutdown(s.fd, unix.SHUT_RD) // wakes, although it fails: there is no connection
}

func (s *udpSocket) close() { _ = unix.Close(s.fd) }

// datagram returns the i-th of the latest read.
func (s *udpSocket) datagram(i int) datagram {
	m := &s.messages[i]
	octets := unsafe.Slice(s.vectors[i].Base, m.Len)
	return datagram{
		peer:      s.peer(i),
		octets:    octets[:len(octets):len(octets)],
		truncated: m.Hdr.Flags&unix.MSG_TRUNC != 0,
	}
}

func (s *udpSocket) peer(i int) udpPeer {
	name := &s.names[i]
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	p := uint16(port[0])<<8 | uint16(port[1])
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return udpPeer{addr: netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), p)}
	}
	return udpPeer{netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), p), name.Scope_id}
}

// remote returns the peer's address with its zone, if it has one.
func (p udpPeer) remote() netip.AddrPort {
	if p.scope == 0 {
		return p.addr
	}
	zone := strconv.FormatUint(uint64(p.scope), 10)
	return netip.AddrPortFrom(p.addr.Addr().WithZone(zone), p.addr.Port())
}

// finalDrops returns how many datagrams were dropped that nobody was told of.
func (s *udpSocket) finalDrops() uint32 {
	_ = s.drops.ask(s.fd) // known as before where it fails
	return s.drops.take()
}

// askReceiveBuffer asks for a receive buffer of so many octets, beyond the
// system's limit where the process may, and returns what it got. The kernel
// doubles it for its own bookkeeping; both figures here are without that.
func (s *udpSocket) askReceiveBuffer(octets int) (got int, err error) {
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, octets) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, octets); err != nil {
			return 0, err
		}
	}
	doubled, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return doubled / 2, err
}
