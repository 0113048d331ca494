package collect

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"tollbridge/ipfix"
)

// ServeUDP collects from conn until ctx ends or the Journal fails. It takes
// conn over and closes it. The end of ctx is no error. A datagram holds one
// Message (RFC 7011, Section 10.3).
//
// To stop, it takes what the socket still holds. The sessions stay open in
// the Journal, as no exporter can know of the stop.
//
//	kernel ── recvmmsg ──► ServeUDP ── validates ──► Journal
//	                          ▲ wakes
//	                       AfterFunc(ctx)
func (p *Process) ServeUDP(ctx context.Context, conn *net.UDPConn) error {
	s, err := newUDPServer(p, conn)
	if err != nil {
		return fmt.Errorf("collect: %v: %w", conn.LocalAddr(), err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.socket.wake()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
		s.close() // not before: wake must not meet another's descriptor
	}()
	for ctx.Err() == nil {
		n, err := s.receive()
		if err != nil {
			return err
		}
		if n < batchSize {
			s.socket.gather()
		}
	}
	return s.drain()
}

// A udpServer collects from one socket, in one goroutine.
type udpServer struct {
	*Process
	local    netip.AddrPort
	socket   *udpSocket
	sessions *udpSessions
}

func newUDPServer(p *Process, conn *net.UDPConn) (*udpServer, error) {
	local := unmap(conn.LocalAddr())
	// A socket that brings nothing for IdleTimeout has idle sessions only;
	// while it brings something they are looked for at every read.
	socket, err := newUDPSocket(conn, p.cfg.MaxDatagram, p.cfg.IdleTimeout)
	if err != nil {
		return nil, err
	}
	s := &udpServer{Process: p, local: local, socket: socket, sessions: newUDPSessions(p, local)}
	if err := s.askReceiveBuffer(); err != nil {
		socket.close()
		return nil, err
	}
	return s, nil
}

func (s *udpServer) close() {
	s.countDrops(s.local, s.socket.finalDrops())
	s.socket.close()
	s.sessions.release()
}

// receive waits for datagrams, journals them, and closes idle sessions. It
// returns how many there were.
func (s *udpServer) receive() (int, error) {
	n, err := s.read()
	if err != nil {
		return n, err
	}
	return n, s.sessions.expire(s.cfg.Now())
}

// drain takes what the kernel still holds for the socket.
func (s *udpServer) drain() error {
	s.socket.noWait = true
	for end := time.Now().Add(s.cfg.StopTimeout); time.Now().Before(end); {
		if n, err := s.read(); n == 0 || err != nil {
			return err
		}
	}
	return nil
}

// read journals the datagrams of one read. They share its time.
func (s *udpServer) read() (int, error) {
	n, err := s.socket.read()
	if err != nil {
		return 0, fmt.Errorf("collect: read from %v: %w", s.local, err)
	}
	at := s.cfg.Now()
	for i := range n {
		if err := s.datagram(at, s.socket.datagram(i)); err != nil {
			return n, err
		}
	}
	s.countDrops(s.local, s.socket.drops.take())
	return n, nil
}

func (s *udpServer) datagram(at time.Time, d datagram) error {
	err := d.validate()
	session := s.sessions.find(d.peer)
	switch {
	case err == nil && session != nil:
		s.sessions.touch(session, at)
		_, err := s.message(at, session.exporter, session.number, d.octets)
		return err
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
	_, err = s.message(at, e, session.number, d.octets)
	return err
}

// countDrops counts datagrams that were dropped at a socket.
func (p *Process) countDrops(local netip.AddrPort, n uint32) {
	if n > 0 {
		total := p.dropped.Add(uint64(n))
		p.logDrops(local, total-uint64(n), total)
	}
}

// askReceiveBuffer asks the kernel to hold more datagrams for the socket.
func (s *udpServer) askReceiveBuffer() error {
	got, err := s.socket.askReceiveBuffer(s.cfg.ReceiveBuffer)
	if err != nil {
		return fmt.Errorf("ask for a receive buffer: %w", err)
	}
	if got < s.cfg.ReceiveBuffer/2 {
		s.cfg.Log.Warn("receive buffer is small, datagrams may be dropped",
			"local", s.local, "octets", got, "asked", s.cfg.ReceiveBuffer)
	}
	return nil
}

// validate says whether a datagram is a well-formed Message.
func (d datagram) validate() error {
	if d.truncated {
		return errTruncated
	}
	return ipfix.Validate(d.octets)
}
