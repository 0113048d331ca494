package export

import (
	"context"
	"io"
	"net"
	"time"

	"tollbridge/ipfix"
)

// tcp carries Messages over a TCP connection, with TLS or without. A Template is sent once (RFC
// 7011, Section 8.1).
type tcp struct {
	sender
	buffers net.Buffers
	ended   chan error // see carrier.gone; closed after that
}

func newTCP(s sender) *tcp {
	c := &tcp{sender: s, ended: make(chan error, 1)}
	go c.watch()
	return c
}

// watch waits for the Collecting Process to end the connection. It has nothing
// to say before.
func (c *tcp) watch() {
	_, err := io.Copy(io.Discard, c.conn)
	c.ended <- err
	close(c.ended)
}

func (c *tcp) send(batch []message, templates []*ipfix.Template) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	now := time.Now()
	needed := batch[len(batch)-1].templates
	announcing := c.templateMessages(templates[c.announced:needed], now)
	buffers := append(c.buffers[:0], announcing...)
	for i := range batch {
		c.sequence += uint32(batch[i].skipped)
		c.stamp(batch[i].octets, now)
		c.sequence += uint32(batch[i].records)
		buffers = append(buffers, batch[i].octets)
	}
	c.buffers = buffers // WriteTo consumes the local one
	written, err := buffers.WriteTo(c.conn)

	// A Message that was cut off is not counted and will be sent again: the
	// Collecting Process discards what a connection did not end.
	rest := written
	for _, b := range announcing {
		if rest -= int64(len(b)); rest < 0 {
			return 0, err
		}
		c.counted.TemplateMessages++
		c.counted.Octets += uint64(len(b))
	}
	c.announced = needed
	for i, m := range batch {
		if rest -= int64(len(m.octets)); rest < 0 {
			return i, err
		}
		c.counted.Messages++
		c.counted.Records += uint64(m.records)
		c.counted.Octets += uint64(len(m.octets))
	}
	return len(batch), err
}

// refresh does nothing: TCP loses no Template.
func (c *tcp) refresh([]*ipfix.Template) error { return nil }

func (c *tcp) gone() <-chan error { return c.ended }

// finish closes our end and waits for the Collecting Process, which reads all
// before it closes its own (RFC 7011, Section 10.4).
func (c *tcp) finish(ctx context.Context) error { return hangUp(ctx, c.conn, c.ended) }

// hangUp closes our end of a connection, if it has ends, and waits for the
// Collecting Process to close the other.
func hangUp(ctx context.Context, conn net.Conn, ended <-chan error) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return conn.Close()
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *tcp) close() {
	c.conn.Close()
	for range c.ended { // until watch has ended
	}
}
