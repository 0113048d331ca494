package export

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the headers of a datagram take, in octets.
const (
	headers4 = 20 + 8 // IPv4 without options, UDP
	headers6 = 40 + 8 // IPv6 without extensions, UDP
)

// forbidFragments lets the kernel send no datagram that would not fit the
// path's MTU, and learn that MTU from routers on the path. conn may be no
// socket, which then can't be told.
func forbidFragments(conn net.Conn) {
	control(conn, func(fd, level int) {
		if level == unix.IPPROTO_IP {
			_ = unix.SetsockoptInt(fd, level, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			_ = unix.SetsockoptInt(fd, level, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
}

// pathLimit returns the longest payload of a datagram that fits the path's
// MTU, as far as the kernel knows it now; 0 if it does not.
func pathLimit(conn net.Conn) (octets int) {
	control(conn, func(fd, level int) {
		option, headers := unix.IP_MTU, headers4
		if level == unix.IPPROTO_IPV6 {
			option, headers = unix.IPV6_MTU, headers6
		}
		if mtu, err := unix.GetsockoptInt(fd, level, option); err == nil {
			octets = max(mtu-headers, minMessage)
		}
	})
	return octets
}

// control calls f with the descriptor of a connected UDP socket and the level
// of its IP options.
func control(conn net.Conn, f func(fd, level int)) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	remote, ok := conn.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	level := unix.IPPROTO_IPV6
	if remote.IP.To4() != nil {
		level = unix.IPPROTO_IP
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd), level) })
}
