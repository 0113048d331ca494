package collect

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"tollbridge/internal/sctp"
	"tollbridge/ipfix"
)

// A StreamJournal is a Journal that also keeps the SCTP stream of a Message,
// in which its sequence number counts (RFC 7011, Section 3.1). Where the
// Journal is none, Message is called, and what was lost can't be told.
type StreamJournal interface {
	StreamMessage(at time.Time, session uint64, stream uint16, data []byte) (position uint64, err error)
}

// ServeSCTP is ServeTCP for SCTP (RFC 7011, Section 10.2). An SCTP message
// holds one Message, of whichever stream.
//
// To stop, it ends every association in an orderly way: what an exporter had
// sent before it heard of it is read.
func (p *Process) ServeSCTP(ctx context.Context, ln *sctp.Listener) error {
	return p.serveListener(ctx, ln, p.serveSCTP)
}

func (p *Process) serveSCTP(conn net.Conn) error {
	defer conn.Close()
	remote := unmap(conn.RemoteAddr())
	e := p.exporters.connect(remote.Addr())
	if e == nil {
		p.logRefused(remote)
		return nil
	}
	defer p.exporters.disconnect(e)
	c := sctpSession{
		transportSession: transportSession{
			Process:  p,
			exporter: e,
			session:  Session{Transport: ipfix.SCTP, Exporter: e.name, Remote: remote, Local: unmap(conn.LocalAddr())},
			answers:  p.answer(conn, e, remote),
		},
		conn: conn.(*sctp.Conn),
	}
	return c.end(c.collect())
}

// An sctpSession is a Transport Session over SCTP.
type sctpSession struct {
	transportSession
	conn *sctp.Conn
}

// collect reads until the association ends. A malformed Message is discarded
// and, as the next begins where it should, ends nothing, unless the last few
// were all malformed.
func (c *sctpSession) collect() error {
	b := make([]byte, ipfix.MaxMessage)
	for {
		n, m, err := c.conn.ReadMessage(b)
		at := c.cfg.Now()
		switch {
		case errors.Is(err, sctp.ErrTooLong):
			err = errTruncated
		case err != nil:
			c.ended(err)
			return nil
		default:
			err = ipfix.Validate(b[:n])
		}
		if err != nil {
			if c.refuse(err) {
				return nil
			}
			continue
		}
		if !c.opened && c.answers != nil {
			c.answers.ahead(slices.Values([][]byte{b[:n]}))
		}
		if err := c.take(at, m.Stream, b[:n]); err != nil {
			return err
		}
	}
}

// ended logs why no more is read, where it is not in order.
func (c *sctpSession) ended(err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.logSession(slog.LevelWarn, "exporter did not close in time", c.exporter, "remote", c.session.Remote)
	default:
		c.logSession(slog.LevelWarn, "connection lost", c.exporter, "remote", c.session.Remote, "error", err)
	}
}
