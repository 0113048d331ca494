package sctp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Listener accepts associations. It is a net.Listener whose connections are
// of type *Conn. Its methods may be called at once.
type Listener struct {
	socket *socket
	addr   Addr
}

// Listen listens on an address and port.
func Listen(at netip.AddrPort, cfg Config) (*Listener, error) {
	ln, err := listen(at, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("sctp: listen %v: %w", at, err)
	}
	return ln, nil
}

func listen(at netip.AddrPort, cfg Config) (*Listener, error) {
	sa, err := sockaddr(at)
	if err != nil {
		return nil, err
	}
	fd, err := open(at.Addr(), cfg)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	var own unix.Sockaddr
	if err == nil {
		own, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s, err := newSocket(fd)
	if err != nil {
		return nil, err
	}
	return &Listener{s, fromSockaddr(own)}, nil
}

// Accept waits for an association. The error is net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	var (
		fd   int
		from unix.Sockaddr
		err  error
	)
	if rerr := l.socket.read(func(own int) bool {
		fd, from, err = unix.Accept4(own, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return !again(err)
	}); rerr != nil {
		return nil, fmt.Errorf("sctp: accept: %w", rerr)
	}
	if err != nil {
		return nil, fmt.Errorf("sctp: accept: %w", err)
	}
	if err := prepare(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sctp: accept: %w", errors.Join(unix.ECONNABORTED, err))
	}
	return newConn(fd, fromSockaddr(from))
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close ends Accept. Associations that were accepted stay.
func (l *Listener) Close() error { return l.socket.close() }
