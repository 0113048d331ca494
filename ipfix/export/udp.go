package export

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"tollbridge/ipfix"
)

// udp carries Messages as datagrams. All Templates are sent before the first
// record of a new one, and again from time to time, as any may get lost or the
// Collecting Process may be a new one (RFC 7011, Section 8.4).
type udp struct {
	sender
	refreshed time.Time // when Templates were last sent
	since     int       // Messages sent after that
	failing   bool      // the latest datagram was refused
}

func newUDP(s sender) *udp { return &udp{sender: s} }

func (c *udp) send(batch []message, templates []*ipfix.Template) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	now := time.Now()
	for i, m := range batch {
		if m.templates > c.announced || c.due(now) {
			if err := c.announce(templates, now); err != nil {
				return i, err
			}
		}
		c.stamp(m.octets, now)
		c.sequence += uint32(m.records) // also of those lost: the gap tells
		c.since++
		switch sent, err := c.write(m.octets); {
		case err != nil:
			return i, err
		case sent:
			c.counted.Messages++
			c.counted.Records += uint64(m.records)
		default:
			c.counted.LostMessages++
			c.counted.LostRecords += uint64(m.records)
		}
	}
	return len(batch), nil
}

func (c *udp) due(now time.Time) bool {
	return c.since >= c.cfg.TemplateRefreshMessages || now.Sub(c.refreshed) >= c.cfg.TemplateRefresh
}

func (c *udp) refresh(templates []*ipfix.Template) error {
	if now := time.Now(); c.due(now) {
		return c.announce(templates, now)
	}
	return nil
}

// announce sends all Templates. If one can't be sent they are still due.
func (c *udp) announce(templates []*ipfix.Template, now time.Time) error {
	for _, msg := range c.templateMessages(templates, now) {
		sent, err := c.write(msg)
		if !sent {
			return err
		}
		c.counted.TemplateMessages++
	}
	c.announced, c.refreshed, c.since = len(templates), now, 0
	return nil
}

// write sends one datagram and reports whether the kernel took it. That it
// did not is no error: the next may do better. An error means that there is
// no socket any more.
func (c *udp) write(b []byte) (sent bool, err error) {
	_, err = c.conn.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		_, err = c.conn.Write(b) // the refusal was of an earlier datagram, this one was not sent
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		return false, err
	case err == nil:
		c.counted.Octets += uint64(len(b))
	case !c.failing:
		c.cfg.Log.Warn("datagrams are lost", "collector", c.cfg.Address, "octets", len(b), "error", err)
	}
	c.failing = err != nil
	return err == nil, nil
}

// gone never receives.
func (c *udp) gone() <-chan error { return nil }

func (c *udp) finish(context.Context) error { return nil }

func (c *udp) close() { c.conn.Close() }
