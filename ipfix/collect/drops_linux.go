package collect

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// drops counts the datagrams that the kernel dropped at one socket. It belongs
// to one goroutine.
type drops struct {
	seen  uint32 // the kernel's count, modulo 2^32, as last read
	known uint32 // the part of seen that take has reported
}

// controlSize holds the one control message that askDrops asks for.
const controlSize = 64

// askDrops has a socket send the count with what it receives.
func askDrops(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) }

// read reads the SO_RXQ_OVFL of a datagram: how many the socket had dropped
// when this one was queued, modulo 2^32. A socket that has dropped none sends
// none.
func (d *drops) read(control []byte) {
	if len(control) == 0 {
		return
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err == nil && h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
		d.seen = *(*uint32)(unsafe.Pointer(&data[0]))
	}
}

// take returns how many datagrams were dropped since the call before, as far
// as read and ask tell. It is right as long as fewer than 2^32 were.
func (d *drops) take() uint32 {
	n := d.seen - d.known
	d.known = d.seen
	return n
}

// ask asks the socket itself: it also knows of drops after the last datagram
// that was queued.
func (d *drops) ask(fd int) error {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	d.seen = info[unix.SK_MEMINFO_DROPS]
	return nil
}

// onSocket calls f with the descriptor of conn.
func onSocket(conn *net.UDPConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}
