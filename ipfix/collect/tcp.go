package collect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"tollbridge/ipfix"
)

// acceptPause is how long no connection is accepted after the system had no
// descriptor or memory left for one.
const acceptPause = 100 * time.Millisecond

// ServeTCP collects from the connections that ln accepts until ctx ends or the
// Journal fails, and closes ln. The end of ctx is no error. Where ln is closed
// by another, the connections that were accepted are served on.
//
// An end of a connection is closed once what came over it is durable, if the
// Journal is a DurableJournal. Where that takes longer than StopTimeout the
// connection is reset, so that nobody takes its end for that word.
//
// To stop, it accepts no more, closes its end of every connection and reads
// until the exporter has closed the other, or StopTimeout has passed (RFC
// 7011, Section 10.4). Everything that was read is journaled. A connection
// that the kernel completed and ServeTCP had not accepted yet is reset.
//
//	accept ──┬─► serveTCP ── reads, frames, validates ──► Journal
//	   ▲     ├─► serveTCP ──────────────────────────────► Journal
//	   │     └─► ...
//	   │           ▲ half-closes conn, sets its read deadline
//	   │           │
//	   │       AfterFunc(ctx), one per connection
//	   │ closes ln
//	AfterFunc(ctx)
func (p *Process) ServeTCP(ctx context.Context, ln net.Listener) error {
	return p.serveListener(ctx, ln, p.serveTCP)
}

// serveListener is ServeTCP with the serving of one connection left to serve.
func (p *Process) serveListener(ctx context.Context, ln net.Listener, serve func(net.Conn) error) error {
	g, serving := errgroup.WithContext(ctx)
	closed := make(chan struct{})
	stop := context.AfterFunc(serving, func() {
		ln.Close()
		close(closed)
	})
	defer stop()
	defer ln.Close()

	// Nobody is told to go while coming back would end in a queue that is
	// about to be thrown away. A stop that was asked for is orderly, but a
	// connection whose Messages can't be journaled any more is cut at once.
	end := func(conn net.Conn) {
		<-closed
		if ctx.Err() == nil || p.sync() != nil || !p.halfClose(conn) {
			reset(conn)
		}
	}
	g.Go(func() error {
		return p.accept(serving, ln, func(conn net.Conn) {
			g.Go(func() error {
				stop := context.AfterFunc(serving, func() { end(conn) })
				defer stop()
				return serve(conn)
			})
		})
	})
	return g.Wait()
}

func (p *Process) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	for pauses := uint64(0); ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			serve(conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.ECONNABORTED):
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			pauses++
			if times, due := logDue(pauses); due {
				p.cfg.Log.Error("accepting connections pauses", "local", ln.Addr(), "error", err, "times", times)
			}
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		default:
			return fmt.Errorf("collect: accept on %v: %w", ln.Addr(), err)
		}
	}
}

func (p *Process) serveTCP(conn net.Conn) error {
	defer conn.Close()
	remote := unmap(conn.RemoteAddr())
	e := p.exporters.connect(remote.Addr())
	if e == nil {
		p.logRefused(remote)
		return nil
	}
	return p.serveExporter(ipfix.TCP, conn, newGatherer(conn), e)
}

// serveExporter collects from one connection, which it reads through r, and
// lets go of its exporter. Only a failing Journal is an error; what the
// exporter does wrong ends its own connection and no other.
func (p *Process) serveExporter(t ipfix.Transport, conn net.Conn, r io.Reader, e *exporter) error {
	defer p.exporters.disconnect(e)
	c := tcpSession{
		transportSession: transportSession{
			Process:  p,
			exporter: e,
			session:  Session{Transport: t, Exporter: e.name, Remote: unmap(conn.RemoteAddr()), Local: unmap(conn.LocalAddr())},
		},
		stream: newStream(r, p.cfg.Now),
	}
	c.answers = p.answer(conn, e, c.session.Remote)
	// Should this process be killed, the kernel must not tell the exporter
	// that all was well.
	linger(conn, 0)
	if err := c.end(c.collect()); err != nil {
		reset(conn)
		return err
	}
	if err := p.sync(); err != nil {
		reset(conn)
		p.logSession(slog.LevelWarn, "connection reset, what it brought is not durable yet", e, "remote", c.session.Remote, "error", err)
		return nil
	}
	linger(conn, -1)
	return nil
}

// linger sets how conn ends at its close, or with the process: 0 resets it, -1
// ends it in order.
func linger(conn net.Conn, seconds int) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(seconds) // fails where it is closed already
	}
}

// reset ends a connection in a way that is no orderly end to the exporter.
func reset(conn net.Conn) {
	linger(conn, 0)
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn() // without the alert that all is well
	}
	conn.Close()
}

// halfClose tells the exporter to close, and bounds how long it may take. It
// reports whether conn can do that. What was read is acknowledged before,
// where the exporter wants that.
func (p *Process) halfClose(conn net.Conn) bool {
	if a := p.answering(conn); a != nil {
		a.last()
	}
	half, ok := conn.(interface{ CloseWrite() error })
	linger(conn, -1)
	return ok && half.CloseWrite() == nil && conn.SetReadDeadline(time.Now().Add(p.cfg.StopTimeout)) == nil
}

// A tcpSession is a Transport Session over TCP, or TLS over it.
type tcpSession struct {
	transportSession
	stream *stream
}

func (c *tcpSession) collect() error {
	for {
		msg, err := c.stream.next()
		if err == nil {
			err = ipfix.Validate(msg)
		}
		if err != nil {
			c.ended(err)
			return nil
		}
		if !c.opened && c.answers != nil {
			c.answers.ahead(c.stream.since(msg))
		}
		if err := c.take(c.stream.at, 0, msg); err != nil {
			return err
		}
	}
}

// ended counts and logs why no more is read. A malformed Message may end a
// connection (RFC 7011, Section 9.1), and as the Messages after it can't be
// told from garbage, it does.
func (c *tcpSession) ended(err error) {
	var network net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.logSession(slog.LevelWarn, "exporter did not close in time", c.exporter, "remote", c.session.Remote)
	case errors.As(err, &network):
		c.logSession(slog.LevelWarn, "connection lost", c.exporter, "remote", c.session.Remote, "error", err)
	default:
		c.malformed(c.exporter, c.session.Remote, err)
	}
}

// unmap returns the address and port of a socket, IPv4 as such.
func unmap(a net.Addr) netip.AddrPort {
	t, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
