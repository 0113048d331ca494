package collect

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/dtls/v3"
	"golang.org/x/sync/errgroup"

	"tollbridge/ipfix"
)

// maxRecord is the longest datagram that the DTLS library reads, in octets.
const maxRecord = 8192

// stopGrace is how long nothing must have come from a DTLS association before a
// Process that was told to stop believes that nothing is on its way.
const stopGrace = 100 * time.Millisecond

// ServeDTLS is ServeUDP for DTLS 1.2 over UDP. The exporter is who its
// certificate says, whatever address it comes from; Config.TLS is required.
//
// Handshakes are bounded in number and in time, and associations as UDP
// sessions are. What an exporter sends faster than it is journaled is dropped
// and counted. To stop, it tells the exporters, so that they connect again.
//
//	kernel ──► ServeDTLS ──┬─► association ── decrypts, validates ──► Journal
//	              ▲        └─► ...
//	              │                ▲
//	              └── AfterFunc(ctx), read deadlines
func (p *Process) ServeDTLS(ctx context.Context, conn *net.UDPConn) error {
	defer conn.Close()
	if p.cfg.TLS == nil {
		return errors.New("collect: ServeDTLS: Config.TLS is required")
	}
	s := newDTLSServer(p, conn)
	if err := s.prepare(); err != nil {
		return fmt.Errorf("collect: %v: %w", s.local, err)
	}
	defer s.finalDrops()
	g, serving := errgroup.WithContext(ctx)
	stop := context.AfterFunc(serving, func() { conn.SetReadDeadline(time.Now().Add(stopGrace)) })
	defer stop()
	g.Go(func() error {
		return s.read(func(a *association) {
			g.Go(func() error { return s.serve(serving, a) })
		})
	})
	return g.Wait()
}

// A dtlsServer serves one socket.
type dtlsServer struct {
	*Process
	conn         *net.UDPConn
	local        netip.AddrPort
	associations associations
	drops        drops // of the goroutine that reads
}

func newDTLSServer(p *Process, conn *net.UDPConn) *dtlsServer {
	s := &dtlsServer{Process: p, conn: conn, local: unmap(conn.LocalAddr())}
	s.associations = associations{
		max:         p.cfg.MaxSessions,
		maxExporter: p.cfg.MaxExporterSessions,
		standing:    make(map[netip.AddrPort]*association),
		pending:     make(map[netip.AddrPort]*association),
	}
	return s
}

// prepare asks for a receive buffer, and to be told what the kernel drops.
func (s *dtlsServer) prepare() error {
	if err := s.conn.SetReadBuffer(s.cfg.ReceiveBuffer); err != nil {
		return fmt.Errorf("ask for a receive buffer: %w", err)
	}
	return onSocket(s.conn, askDrops)
}

// finalDrops counts what the kernel dropped after the last datagram.
func (s *dtlsServer) finalDrops() {
	if onSocket(s.conn, s.drops.ask) == nil { // it is open
		s.countDrops(s.local, s.drops.take())
	}
}

// read hands datagrams to their associations until the socket's deadline, and
// begins an association with each peer's first.
func (s *dtlsServer) read(begin func(*association)) error {
	b, control := make([]byte, maxRecord+1), make([]byte, controlSize)
	for {
		n, controls, _, from, err := s.conn.ReadMsgUDPAddrPort(b, control)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("collect: read from %v: %w", s.local, err)
		}
		s.drops.read(control[:controls])
		s.countDrops(s.local, s.drops.take())
		peer := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if isClientHello(b[:n]) {
			if a := s.associations.begin(peer, s.conn); a != nil {
				begin(a)
			}
		}
		if n > maxRecord || !s.associations.deliver(peer, b[:n], int64(s.cfg.ReceiveBuffer)) {
			s.countDrops(s.local, 1)
		}
	}
}

// isClientHello reports whether a datagram asks for a new association: a
// record of epoch 0 that holds the beginning of a ClientHello (RFC 6347,
// Sections 4.1 and 4.2.2).
func isClientHello(b []byte) bool {
	const handshake, clientHello = 22, 1
	return len(b) > 13 && b[0] == handshake && b[3] == 0 && b[4] == 0 && b[13] == clientHello
}

// serve shakes hands with one exporter, then collects from it.
func (s *dtlsServer) serve(ctx context.Context, a *association) error {
	defer s.associations.end(a)
	conn, names, err := s.handshake(ctx, a)
	if err != nil {
		s.handshakeFailed(a.peer, err)
		return nil
	}
	defer conn.Close()
	close(a.ready)
	e := s.exporters.acquireNames(names)
	if e == nil {
		s.logRefused(a.peer)
		return nil
	}
	defer s.exporters.release(e)
	s.associations.stand(a, e, func() {
		e.evicted.Add(1)
		conn.Close()
	})
	c := dtlsSession{
		transportSession: transportSession{
			Process:  s.Process,
			exporter: e,
			session:  Session{Transport: ipfix.DTLS, Exporter: e.name, Remote: a.peer, Local: s.local},
		},
		conn:         conn,
		associations: &s.associations,
		association:  a,
	}
	return c.end(c.collect(ctx))
}

// handshake returns the names of the certificate that the exporter showed.
func (s *dtlsServer) handshake(ctx context.Context, a *association) (*dtls.Conn, []string, error) {
	// One that the exporter may hold for done already gets the time to be so.
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })()
	ctx, done := s.handshakes.begin(late, s.cfg.HandshakeTimeout)
	defer done()
	secure := s.tls.Load()
	var names []string
	conn, err := dtls.ServerWithOptions(a, net.UDPAddrFromAddrPort(a.peer),
		dtls.WithCertificates(secure.Certificate),
		dtls.WithClientAuth(dtls.RequireAndVerifyClientCert),
		dtls.WithClientCAs(secure.ClientCAs),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithVerifyConnection(func(state *dtls.State) error {
			c, err := x509.ParseCertificate(state.PeerCertificates[0])
			if err != nil {
				return err
			}
			names = certificateNames(c)
			return s.verify(ctx, a.peer.Addr(), c)
		}),
	)
	if err != nil {
		a.Close()
		return nil, nil, err
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, nil, whyEnded(ctx, err)
	}
	return conn, names, nil
}

// A dtlsSession is a Transport Session over DTLS.
type dtlsSession struct {
	transportSession
	conn         *dtls.Conn
	associations *associations
	association  *association
}

// collect reads until the exporter ends the association, malfunctions or is
// idle for too long, or ctx ends.
func (c *dtlsSession) collect(ctx context.Context) error {
	idle := time.Now().Add(c.cfg.IdleTimeout)
	var end time.Time // of reading on, once the Process is to stop
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Now().Add(2 * stopGrace)) })
	defer stop()
	b := make([]byte, maxRecord)
	for {
		c.conn.SetReadDeadline(idle)
		if ctx.Err() != nil { // not asked before, or its own deadline could be overwritten
			now := time.Now()
			if end.IsZero() {
				end = now.Add(c.cfg.StopTimeout)
			}
			if now = now.Add(2 * stopGrace); now.After(end) {
				now = end
			}
			c.conn.SetReadDeadline(now)
		}
		n, err := c.conn.Read(b)
		at := c.cfg.Now()
		if err != nil {
			c.ended(ctx, err)
			return nil
		}
		if err := ipfix.Validate(b[:n]); err != nil {
			if c.refuse(err) {
				return nil
			}
			continue
		}
		c.associations.touch(c.association)
		idle = time.Now().Add(c.cfg.IdleTimeout)
		if err := c.take(at, 0, b[:n]); err != nil {
			return err
		}
	}
}

// ended logs why no more is read, where it is not in order.
func (c *dtlsSession) ended(ctx context.Context, err error) {
	var network net.Error
	switch {
	case ctx.Err() != nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	case errors.As(err, &network) && network.Timeout():
		c.logSession(slog.LevelInfo, "association is idle", c.exporter, "remote", c.session.Remote)
	default:
		c.logSession(slog.LevelWarn, "connection lost", c.exporter, "remote", c.session.Remote, "error", err)
	}
}
