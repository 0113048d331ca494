package export

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadAfter is how long a Collecting Process may leave segments without an
// acknowledgement before its connection counts as broken. One that only holds
// us up acknowledges that it has no room.
const deadAfter = 30 * time.Second

// newDialer returns a Dialer whose TCP connections notice within deadAfter
// that nobody is there any more.
func newDialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 2, Interval: deadAfter / 6, Count: 3},
		Control: func(network, _ string, raw syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return nil
			}
			var err error
			cerr := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
			})
			if cerr != nil {
				return cerr
			}
			return err
		},
	}
}
