package export

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"tollbridge/internal/sctp"
	"tollbridge/ipfix"
)

func (p *Process) dialSCTP(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port) // the system may not know sctp's
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := sctp.Dial(ctx, netip.AddrPortFrom(a.Unmap(), uint16(n)), sctp.Config{Streams: uint16(p.cfg.Streams) + 1})
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// sctpCarrier carries Messages over an SCTP association. Templates go over
// stream 0, reliably and once (RFC 7011, Sections 8.1 and 10.2). Data Records
// go over the streams after it in turn, and only when the Collecting Process
// has all Templates: streams may overtake each other. Where the other end takes
// a single stream, that carries both.
type sctpCarrier struct {
	sender
	assoc     *sctp.Conn
	first     int      // stream with data
	sequences []uint32 // of the streams with data: each counts its own
	turn      int
	abandoned uint64     // Messages, of those that were counted
	ended     chan error // see carrier.gone; closed after that
	over      chan struct{}
}

func newSCTP(s sender) *sctpCarrier {
	c := &sctpCarrier{
		sender: s,
		assoc:  s.conn.(*sctp.Conn),
		ended:  make(chan error, 1),
		over:   make(chan struct{}),
	}
	streams := int(c.assoc.Streams()) // no more than the other end takes (RFC 9260, Section 5.1.1)
	c.first = min(1, streams-1)
	c.sequences = make([]uint32, min(s.cfg.Streams, streams-c.first))
	go c.watch()
	return c
}

// watch waits for the Collecting Process to end the association. It has
// nothing to say before.
func (c *sctpCarrier) watch() {
	b := make([]byte, ipfix.MaxMessage)
	var err error
	for err == nil || errors.Is(err, sctp.ErrTooLong) {
		_, err = c.assoc.Read(b)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.ended <- err
	close(c.ended)
	close(c.over)
}

func (c *sctpCarrier) send(batch []message, templates []*ipfix.Template) (int, error) {
	now := time.Now()
	for i, m := range batch {
		if m.templates > c.announced {
			if err := c.announce(templates[c.announced:m.templates], now); err != nil {
				return i, err
			}
			c.announced = m.templates
		}
		c.sequence = c.sequences[c.turn] + uint32(m.skipped)
		c.stamp(m.octets, now)
		if err := c.assoc.WriteMessage(m.octets, sctp.Message{Stream: uint16(c.first + c.turn), Lifetime: c.cfg.Lifetime}); err != nil {
			return i, err
		}
		c.sequences[c.turn] = c.sequence + uint32(m.records)
		c.turn = (c.turn + 1) % len(c.sequences)
		c.counted.Messages++
		c.counted.Records += uint64(m.records)
		c.counted.Octets += uint64(len(m.octets))
	}
	return len(batch), nil
}

// announce sends Templates and waits until they have arrived.
func (c *sctpCarrier) announce(templates []*ipfix.Template, now time.Time) error {
	c.sequence = 0
	if c.first == 0 {
		c.sequence = c.sequences[0]
	}
	for _, msg := range c.templateMessages(templates, now) {
		if err := c.assoc.WriteMessage(msg, sctp.Message{}); err != nil {
			return err
		}
		c.counted.TemplateMessages++
		c.counted.Octets += uint64(len(msg))
	}
	return c.drain(nil)
}

// drain returns when all that was sent has arrived or been given up, or at the
// latest when told to.
func (c *sctpCarrier) drain(until <-chan struct{}) error {
	for {
		if pieces, err := c.assoc.Unacknowledged(); err != nil || pieces == 0 {
			return err
		}
		select {
		case <-c.assoc.Dry():
		case <-c.over:
			return net.ErrClosed
		case <-until:
			return nil
		}
	}
}

// take also counts what was given up.
func (c *sctpCarrier) take() Stats {
	c.countAbandoned()
	return c.sender.take()
}

func (c *sctpCarrier) countAbandoned() {
	if c.cfg.Lifetime == 0 {
		return
	}
	if n, err := c.assoc.Abandoned(); err == nil { // else the association has ended
		c.counted.Abandoned += n - c.abandoned
		c.abandoned = n
	}
}

// refresh does nothing: SCTP loses no Template.
func (c *sctpCarrier) refresh([]*ipfix.Template) error { return nil }

func (c *sctpCarrier) gone() <-chan error { return c.ended }

// finish ends the association, which waits until the other end has all.
func (c *sctpCarrier) finish(ctx context.Context) error {
	if c.cfg.Lifetime > 0 { // what is given up can be asked for until the end alone
		if err := c.drain(ctx.Done()); err != nil {
			return err
		}
		c.countAbandoned()
	}
	return hangUp(ctx, c.conn, c.ended)
}

func (c *sctpCarrier) close() {
	c.assoc.Close()
	<-c.over
}
