package radius

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A socket answers from the address that a request was sent to, which a NAS
// insists on: a host that has several may otherwise send from another.
type socket struct {
	conn *net.UDPConn
	any  bool // it is bound to no address of its own
	oob  [128]byte
}

// A reply is where an answer goes, and from where.
type reply struct {
	to   netip.AddrPort
	from netip.Addr // not valid: the socket's own
}

func newSocket(conn *net.UDPConn) (*socket, error) {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	s := &socket{conn: conn, any: local.IsUnspecified()}
	if !s.any {
		return s, nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		if local.Is4() {
			level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
		}
		failed = unix.SetsockoptInt(int(fd), level, option, 1)
	})
	if err == nil {
		err = failed
	}
	return s, err
}

// read reads a datagram into b. One goroutine may read at a time.
func (s *socket) read(b []byte) (int, reply, error) {
	n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(b, s.oob[:])
	if err != nil {
		return 0, reply{}, err
	}
	r := reply{to: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	if s.any {
		r.from = destination(s.oob[:oobn])
	}
	return n, r, nil
}

// destination reads from control messages where a datagram was sent to.
func destination(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			if local := netip.AddrFrom4([4]byte(m.Data[4:8])); !local.IsUnspecified() { // ipi_spec_dst
				return local
			}
			return netip.AddrFrom4([4]byte(m.Data[8:12])) // ipi_addr: it came before the option was set
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		}
	}
	return netip.Addr{}
}

// write sends an answer. Any goroutines may.
func (s *socket) write(b []byte, r reply) error {
	var oob []byte
	to := r.to
	switch {
	case !r.from.IsValid():
	case r.from.Is4():
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: r.from.As4()})
	default:
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: r.from.As16()})
	}
	if _, _, err := s.conn.WriteMsgUDPAddrPort(b, oob, to); err != nil {
		return fmt.Errorf("answer %v: %w", r.to, err)
	}
	return nil
}
