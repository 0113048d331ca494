package export

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"tollbridge/ipfix"
)

// templateCopies is how often a Template is sent before its first record, in
// Messages of their own (RFC 7011, Section 8.4).
const templateCopies = 2

// udp carries Messages as datagrams. All Templates are sent before the first
// record of a new one, that one more than once, and all again from time to
// time, as any may get lost or the Collecting Process may be a new one (RFC
// 7011, Section 8.4).
type udp struct {
	sender
	socket    net.Conn  // what sends the datagrams
	wanted    int       // the configured MaxMessage
	refreshed time.Time // when Templates were last sent
	since     int       // Messages sent after that
	failing   bool      // the latest datagram was refused
}

func newUDP(s sender, socket net.Conn) *udp {
	c := &udp{sender: s, socket: socket, wanted: s.cfg.MaxMessage}
	forbidFragments(socket)
	c.fit()
	return c
}

// fit makes Messages fit the path, and reports whether they are shorter now.
func (c *udp) fit() (shorter bool) {
	before := c.cfg.MaxMessage
	c.cfg.MaxMessage = c.unmeasured
	if octets := pathLimit(c.socket); octets > 0 {
		c.cfg.MaxMessage = max(min(c.wanted, octets-c.cfg.overhead()), minMessage)
	}
	c.limit(c.cfg.MaxMessage)
	return c.cfg.MaxMessage < before
}

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
		c.sequence += uint32(m.skipped)
		if err := c.message(m, templates, now); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// message sends one Message, in several where the path asks for it. Only the
// end of the socket is an error.
func (c *udp) message(m message, templates []*ipfix.Template, now time.Time) error {
	if len(m.octets) > c.cfg.MaxMessage {
		return c.parts(m, templates, now)
	}
	c.stamp(m.octets, now)
	err := c.write(m.octets)
	if errors.Is(err, syscall.EMSGSIZE) && c.fit() {
		return c.parts(m, templates, now)
	}
	c.sequence += uint32(m.records) // also of those lost: the gap tells
	c.since++
	c.note(len(m.octets), err)
	if err != nil {
		c.counted.LostMessages++
		c.counted.LostRecords += uint64(m.records)
		return ended(err)
	}
	c.counted.Messages++
	c.counted.Records += uint64(m.records)
	return nil
}

// parts sends a Message that does not fit the path as several that do.
func (c *udp) parts(m message, templates []*ipfix.Template, now time.Time) error {
	parts, lost := split(m, templates, c.cfg.MaxMessage)
	for _, part := range parts {
		if err := c.message(part, templates, now); err != nil {
			return err
		}
	}
	if lost > 0 {
		c.sequence += uint32(lost)
		c.counted.LostRecords += uint64(lost)
		c.cfg.Log.Error("records do not fit the path's MTU", "collector", c.socket.RemoteAddr(),
			"octets", c.cfg.MaxMessage, "records", lost)
	}
	return nil
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

// announce sends all Templates, those that are new in several copies. If one
// can't be sent they are still due.
func (c *udp) announce(templates []*ipfix.Template, now time.Time) error {
	messages := c.templateMessages(templates, now)
	for range templateCopies - 1 {
		messages = append(messages, c.templateMessages(templates[c.announced:], now)...)
	}
	for _, msg := range messages {
		err := c.write(msg)
		if errors.Is(err, syscall.EMSGSIZE) && c.fit() {
			return c.announce(templates, now)
		}
		c.note(len(msg), err)
		if err != nil {
			return ended(err)
		}
		c.counted.TemplateMessages++
	}
	c.announced, c.refreshed, c.since = len(templates), now, 0
	return nil
}

// write sends one datagram.
func (c *udp) write(b []byte) error {
	_, err := c.conn.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		_, err = c.conn.Write(b) // the refusal was of an earlier datagram, this one was not sent
	}
	return err
}

// note counts and logs what became of a datagram.
func (c *udp) note(octets int, err error) {
	switch {
	case err == nil:
		c.counted.Octets += uint64(octets)
	case !c.failing && ended(err) == nil:
		c.cfg.Log.Warn("datagrams are lost", "collector", c.socket.RemoteAddr(), "octets", octets, "error", err)
	}
	c.failing = err != nil
}

// ended returns err if it means that there is no socket any more. Otherwise a
// datagram is lost, and the next may do better.
func ended(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// gone never receives.
func (c *udp) gone() <-chan error { return nil }

func (c *udp) finish(context.Context) error { return nil }

func (c *udp) close() { c.conn.Close() }
