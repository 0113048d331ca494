package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"tollbridge/ipfix"
)

// ServeUDP collects from conn until ctx ends, the Journal fails or conn is
// closed, and closes conn. The end of ctx is no error. A datagram holds one
// Message (RFC 7011, Section 10.3).
//
// To stop, it takes what the socket still holds. The sessions stay open in
// the Journal, as no exporter can know of the stop.
//
//	kernel ── recvmmsg ──► ServeUDP ── validates ──► Journal
//	                          ▲ ends its read by a deadline
//	                       AfterFunc(ctx)
func (p *Process) ServeUDP(ctx context.Context, conn *net.UDPConn) error {
	defer conn.Close()
	socket, err := newUDPSocket(conn, p.cfg.MaxDatagram)
	if err != nil {
		return fmt.Errorf("collect: %v: %w", conn.LocalAddr(), err)
	}
	if err := p.askReceiveBuffer(conn, socket); err != nil {
		return fmt.Errorf("collect: %v: ask for a receive buffer: %w", conn.LocalAddr(), err)
	}
	s := &udpServer{Process: p, conn: conn, socket: socket, sessions: newUDPSessions(p, unmap(conn.LocalAddr()))}
	defer s.sessions.release()
	defer s.countDrops(socket.finalDrops)

	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		close(woken)
	})
	defer stop()
	for ctx.Err() == nil {
		if err := s.receive(); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
	}
	<-woken // or its deadline would end the draining
	return s.drain()
}

// A udpServer collects from one socket, in one goroutine.
type udpServer struct {
	*Process
	conn     *net.UDPConn
	socket   *udpSocket
	sessions *udpSessions
	armed    bool // a read deadline is set for the session that idles longest
}

// receive waits for datagrams, journals them, and closes idle sessions.
func (s *udpServer) receive() error {
	n, err := s.socket.read()
	switch {
	case err == nil:
		if err := s.batch(n); err != nil {
			return err
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.armed = false
	default:
		return fmt.Errorf("collect: read from %v: %w", s.conn.LocalAddr(), err)
	}
	now := s.cfg.Now()
	if err := s.sessions.expire(now); err != nil {
		return err
	}
	return s.arm(now)
}

// arm sets the read deadline by which the next session may have to be closed.
// Where one is set already it is left alone, early as it may be: that costs a
// wake-up now and then, not a timer per batch.
func (s *udpServer) arm(now time.Time) error {
	if s.armed {
		return nil
	}
	var deadline time.Time
	if oldest := s.sessions.oldest(); oldest != nil {
		deadline = time.Now().Add(oldest.last.Add(s.cfg.IdleTimeout).Sub(now))
		s.armed = true
	}
	return s.conn.SetReadDeadline(deadline)
}

// drain takes what the kernel still holds for the socket.
func (s *udpServer) drain() error {
	end := time.Now().Add(s.cfg.StopTimeout)
	if err := s.conn.SetReadDeadline(end); err != nil {
		return nil // closed
	}
	s.socket.noWait = true
	for time.Now().Before(end) {
		n, err := s.socket.read()
		if err != nil || n == 0 {
			return nil
		}
		if err := s.batch(n); err != nil {
			return err
		}
	}
	return nil
}

// batch journals the n datagrams of one read. They share its time.
func (s *udpServer) batch(n int) error {
	at := s.cfg.Now()
	for i := range n {
		if err := s.datagram(at, s.socket.datagram(i)); err != nil {
			return err
		}
	}
	s.countDrops(s.socket.newDrops)
	return nil
}

func (s *udpServer) datagram(at time.Time, d datagram) error {
	err := d.validate()
	session := s.sessions.find(d.peer)
	switch {
	case err == nil && session != nil:
		s.sessions.touch(session, at)
		return s.message(at, session.exporter, session.number, d.octets)
	case session != nil:
		s.malformed(session.exporter, d.peer.addr, err)
		return nil
	}
	e := s.exporters.acquire(d.peer.addr.Addr())
	if e == nil {
		s.logRefused(d.peer.addr)
		return nil
	}
	if err != nil {
		s.malformed(e, d.peer.addr, err)
		s.exporters.release(e)
		return nil
	}
	session, err = s.sessions.begin(at, d.peer, e)
	if err != nil {
		return err
	}
	return s.message(at, e, session.number, d.octets)
}

func (s *udpServer) countDrops(drops func() uint32) {
	if n := drops(); n > 0 {
		total := s.dropped.Add(uint64(n))
		s.logDrops(s.conn.LocalAddr(), total-uint64(n), total)
	}
}

// validate says whether a datagram is a well-formed Message.
func (d datagram) validate() error {
	if d.truncated {
		return errTruncated
	}
	return ipfix.Validate(d.octets)
}

// askReceiveBuffer asks the kernel to hold more datagrams for the socket.
func (p *Process) askReceiveBuffer(conn *net.UDPConn, socket *udpSocket) error {
	got, err := socket.askReceiveBuffer(p.cfg.ReceiveBuffer)
	if err != nil {
		return err
	}
	if got < p.cfg.ReceiveBuffer/2 {
		p.cfg.Log.Warn("receive buffer is small, datagrams may be dropped",
			"local", conn.LocalAddr(), "octets", got, "asked", p.cfg.ReceiveBuffer)
	}
	return nil
}
