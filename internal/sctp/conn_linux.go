package sctp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// Policies of partial reliability, in the flags of a message (RFC 7496).
const policyLifetime = 0x10

// A Conn is an association. It is a net.Conn whose Read and Write take whole
// messages, of stream 0 for Write. One goroutine may read while another
// writes; every other method may be called at any time.
type Conn struct {
	socket        *socket
	local, remote Addr
	dry           chan struct{}
	oob           []byte // of the read under way
}

func newConn(fd int, remote Addr) (*Conn, error) {
	own, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sctp: %w", err)
	}
	s, err := newSocket(fd)
	if err != nil {
		return nil, fmt.Errorf("sctp: %w", err)
	}
	return &Conn{socket: s, local: fromSockaddr(own), remote: remote, dry: make(chan struct{}, 1), oob: make([]byte, 256)}, nil
}

// Dial makes an association. The end of ctx ends the attempt.
func Dial(ctx context.Context, to netip.AddrPort, cfg Config) (*Conn, error) {
	c, err := dial(ctx, to, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("sctp: dial %v: %w", to, err)
	}
	return c, nil
}

func dial(ctx context.Context, to netip.AddrPort, cfg Config) (*Conn, error) {
	sa, err := sockaddr(to)
	if err != nil {
		return nil, err
	}
	fd, err := open(to.Addr(), cfg)
	if err != nil {
		return nil, err
	}
	// A signal may interrupt the call, and the association is made all the same.
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		unix.Close(fd)
		return nil, err
	}
	c, err := newConn(fd, fromSockaddr(sa))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err = c.established()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = c.learnLocal()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// established waits until the association is. That it was, and has ended
// since, is for the first Read to say.
func (c *Conn) established() (err error) {
	werr := c.socket.write(func(fd int) bool {
		var errno int
		if errno, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return true
		}
		if errno != 0 {
			err = unix.Errno(errno)
			return true
		}
		s, serr := status(fd)
		return serr == nil && s.state >= stateEstablished || ended(fd)
	})
	return errors.Join(werr, err)
}

// ended says whether the other end has ended the association. An association
// that is gone has no status, like one that is not there yet.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// Streams returns how many streams messages can be written on, at least 1.
func (c *Conn) Streams() uint16 {
	n := uint16(1)
	_ = c.socket.control(func(fd int) error { // of one that is closed no matter
		s, err := status(fd)
		if err == nil {
			n = max(1, s.out)
		}
		return err
	})
	return n
}

// stateEstablished is ESTABLISHED as Linux numbers states; the library's
// numbers are one less.
const stateEstablished = int32(sctp.SCTP_ESTABLISHED) - 1

// A state is what the kernel says of an association.
type state struct {
	state   int32
	unacked uint16 // pieces of messages that were sent and neither acknowledged nor given up
	out     uint16 // streams to write on
}

func status(fd int) (state, error) {
	var s [256]byte
	if err := getsockopt(fd, sctp.SCTP_STATUS, s[:]); err != nil {
		return state{}, err
	}
	return state{
		state:   int32(binary.NativeEndian.Uint32(s[4:])),
		unacked: binary.NativeEndian.Uint16(s[12:]),
		out:     binary.NativeEndian.Uint16(s[18:]),
	}, nil
}

// getsockopt asks the kernel for an option whose value is a structure.
func getsockopt(fd, option int, s []byte) error {
	size := uint32(len(s))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_SCTP, uintptr(option),
		uintptr(unsafe.Pointer(&s[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// prAssocStatus is SCTP_PR_ASSOC_STATUS (RFC 7496, Section 4.4).
const prAssocStatus = 115

// Abandoned returns how many messages were given up since the association
// began, as their Message.Lifetime was over. Of messages in many pieces Linux
// misses one now and then, and counts some whose acknowledgement was late.
// There is no telling once the association has ended.
func (c *Conn) Abandoned() (messages uint64, err error) {
	var s [24]byte // association, stream, policy; then messages that were never sent, and that were
	binary.NativeEndian.PutUint16(s[6:], policyLifetime)
	err = c.socket.control(func(fd int) error { return getsockopt(fd, prAssocStatus, s[:]) })
	if err != nil {
		return 0, fmt.Errorf("sctp: %w", err)
	}
	return binary.NativeEndian.Uint64(s[8:]) + binary.NativeEndian.Uint64(s[16:]), nil
}

// Unacknowledged returns how many pieces of messages were sent and neither
// acknowledged nor given up.
func (c *Conn) Unacknowledged() (pieces int, err error) {
	var s state
	err = c.socket.control(func(fd int) (err error) {
		s, err = status(fd)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sctp: %w", err)
	}
	return int(s.unacked), nil
}

// learnLocal finds out which address the kernel chose.
func (c *Conn) learnLocal() (err error) {
	var sa unix.Sockaddr
	err = c.socket.control(func(fd int) (err error) {
		sa, err = unix.Getsockname(fd)
		return err
	})
	if err == nil {
		c.local = fromSockaddr(sa)
	}
	return err
}

// ReadMessage reads one whole message into b, which should hold 64 octets at
// least. The error is io.EOF once the other end
// has ended the association in an orderly way, ErrTooLong for a message that b
// has no room for, net.ErrClosed after Close.
func (c *Conn) ReadMessage(b []byte) (n int, m Message, err error) {
	var (
		discard []byte // what there is no room for
		tooLong bool
	)
	for {
		into := b[n:]
		if len(into) == 0 {
			if discard == nil {
				discard = make([]byte, 4096)
			}
			into = discard
		}
		got, info, end, err := c.ReadPart(into)
		if errors.Is(err, ErrAbandoned) {
			n, tooLong = 0, false
			continue
		}
		if err != nil {
			return 0, Message{}, err
		}
		if len(b) == n {
			tooLong = true
		} else {
			n += got
		}
		if end {
			if tooLong {
				return 0, info, fmt.Errorf("sctp: read: %w", ErrTooLong)
			}
			return n, info, nil
		}
	}
}

// ReadPart reads a message, or as much of it as b takes, which should hold 64
// octets at least; end says that this was the last of it. Parts of different
// messages do not mix: ErrAbandoned comes instead of the rest of one that its
// sender has given up. Other errors are those of ReadMessage, but for ErrTooLong.
func (c *Conn) ReadPart(b []byte) (n int, m Message, end bool, err error) {
	for {
		got, info, flags, err := c.receive(b)
		switch {
		case err != nil:
			return 0, Message{}, false, err
		case flags&sctp.MSG_NOTIFICATION != 0:
			if err := c.notified(b[:got]); err != nil {
				return 0, Message{}, false, err
			}
		case got == 0:
			return 0, Message{}, false, io.EOF
		default:
			return got, info, flags&unix.MSG_EOR != 0, nil
		}
	}
}

// receive reads a piece of a message, or of a notification.
func (c *Conn) receive(b []byte) (n int, m Message, flags int, err error) {
	var oobn int
	if rerr := c.socket.read(func(fd int) bool {
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, c.oob, 0)
		return !again(err)
	}); rerr != nil {
		err = rerr
	}
	if err != nil {
		return 0, m, 0, &net.OpError{Op: "read", Net: "sctp", Source: c.local, Addr: c.remote, Err: err}
	}
	if flags&sctp.MSG_NOTIFICATION == 0 {
		m = parseInfo(c.oob[:oobn])
	}
	return n, m, flags, nil
}

// parseInfo reads the control message that comes with a message.
func parseInfo(oob []byte) (m Message) {
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return m
	}
	for _, x := range controls {
		if x.Header.Level == unix.IPPROTO_SCTP && x.Header.Type == sctp.SCTP_CMSG_SNDRCV && len(x.Data) >= int(unsafe.Sizeof(sctp.SndRcvInfo{})) {
			info := (*sctp.SndRcvInfo)(unsafe.Pointer(&x.Data[0]))
			m = Message{Stream: info.Stream, Unordered: info.Flags&sctp.SCTP_UNORDERED != 0, Protocol: swap(info.PPID)}
		}
	}
	return m
}

// notified handles a notification: that the other end has everything, that the
// rest of a message will not come, or that the association has ended. A call to read knows of an end that we began by
// the notification alone.
func (c *Conn) notified(b []byte) error {
	if len(b) < 2 {
		return nil
	}
	switch sctp.SCTPNotificationType(binary.NativeEndian.Uint16(b)) {
	case sctp.SCTP_SENDER_DRY_EVENT:
		select {
		case c.dry <- struct{}{}:
		default: // nobody has taken the one before
		}
	case sctp.SCTP_PARTIAL_DELIVERY_EVENT: // RFC 6458, Section 6.1.7
		return fmt.Errorf("sctp: read: %w", ErrAbandoned)
	case sctp.SCTP_ASSOC_CHANGE:
		if len(b) < 10 {
			return nil
		}
		switch sctp.SCTPState(binary.NativeEndian.Uint16(b[8:])) {
		case sctp.SCTP_SHUTDOWN_COMP:
			return io.EOF
		case sctp.SCTP_COMM_LOST, sctp.SCTP_RESTART: // what restarted knows nothing of before
			return &net.OpError{Op: "read", Net: "sctp", Source: c.local, Addr: c.remote, Err: unix.ECONNRESET}
		}
	}
	return nil
}

// Dry receives when the other end has acknowledged, or SCTP given up, all that
// was written. It needs somebody who reads. Unacknowledged tells apart what it
// has from before the latest write.
func (c *Conn) Dry() <-chan struct{} { return c.dry }

// WriteMessage writes one whole message. It blocks while the kernel has no
// room for it.
func (c *Conn) WriteMessage(b []byte, m Message) error {
	var oob [64]byte
	control := oob[:unix.CmsgSpace(int(unsafe.Sizeof(sctp.SndRcvInfo{})))]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV
	h.SetLen(unix.CmsgLen(int(unsafe.Sizeof(sctp.SndRcvInfo{}))))
	info := (*sctp.SndRcvInfo)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
	info.Stream, info.PPID = m.Stream, swap(m.Protocol)
	if m.Unordered {
		info.Flags |= sctp.SCTP_UNORDERED
	}
	if m.Lifetime > 0 {
		info.Flags |= policyLifetime
		info.TTL = uint32(max(m.Lifetime.Milliseconds(), 1))
	}
	var err error
	if werr := c.socket.write(func(fd int) bool {
		_, err = unix.SendmsgN(fd, b, control, nil, unix.MSG_NOSIGNAL)
		return !again(err)
	}); werr != nil {
		err = werr
	}
	if err != nil {
		return &net.OpError{Op: "write", Net: "sctp", Source: c.local, Addr: c.remote, Err: err}
	}
	return nil
}

// swap turns a Payload Protocol Identifier into network octet order and back.
func swap(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

// Read reads one whole message, of whichever stream.
func (c *Conn) Read(b []byte) (int, error) {
	n, _, err := c.ReadMessage(b)
	return n, err
}

// Write writes one message on stream 0.
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.WriteMessage(b, Message{}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// CloseWrite ends the association in an orderly way: the other end gets what
// was written, and what it has sent can be read until io.EOF. SCTP knows no
// association that is closed at one end (RFC 9260, Section 9.2).
func (c *Conn) CloseWrite() error {
	return c.socket.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// Close ends the association in an orderly way, in the background, and wakes
// who reads or writes.
func (c *Conn) Close() error { return c.socket.close() }

// LocalAddr returns the address of our end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.socket.why(c.socket.file.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.socket.why(c.socket.file.SetReadDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.socket.why(c.socket.file.SetWriteDeadline(t))
}
