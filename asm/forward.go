package asm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// An origin is a Transport Session that another collector has: who passes it
// on, and what that one calls it. Zero is one of our own.
type origin struct {
	collector string // the exporter that it is to us
	instance  ack.Instance
	session   uint64
}

func (o origin) append(b []byte) []byte {
	b = octets.AppendString(b, o.collector)
	b = append(b, o.instance[:]...)
	return binary.AppendUvarint(b, o.session)
}

func readOrigin(r *octets.Reader) (o origin) {
	o.collector = r.Text()
	for i := range o.instance {
		o.instance[i] = r.Octet()
	}
	o.session = r.Uvarint()
	return o
}

// split is where in an entry a Message begins that lies in two.
const split = -1

// message returns the Message in an entry's data that begins at inner.
func message(data []byte, inner int) []byte {
	if inner == 0 || inner > len(data) {
		return data
	}
	data = data[inner:]
	if n, err := ipfix.MessageLength(data); err == nil && n <= len(data) {
		data = data[:n]
	}
	return data
}

// forwarded takes note of what another collector passes on, unless it did
// before. It is applied once the Message that brings it is done.
func (m *Module) forwarded(f ack.Forwarded, d *domain) {
	c := &m.decoder
	switch {
	case !m.forwards[d.key.Exporter] || c.inner != 0:
		m.stats.ForwardsRefused++
		m.logs.warn(m.log, "an exporter passes on what others exported and is not configured to (exporters[].forwards)", d.key, 0)
	case c.identified.novelty == resent || c.passing == (ack.Instance{}):
	default:
		c.forwarded = append(c.forwarded, f)
	}
}

// passedOn applies what the Message of entry e brought of another collector's
// journal, as that journal had it.
func (m *Module) passedOn(ctx context.Context, e acct.Entry, collector string) error {
	c := &m.decoder
	list := c.forwarded
	c.forwarded = nil
	defer func() { c.inner, c.forwarded = 0, list[:0] }()
	for _, f := range list {
		from := origin{collector, c.passing, f.Session}
		t := m.transports.far[from]
		switch f.Kind {
		case ack.Began:
			m.transports.beginAnew(from, m.now)
		case ack.Opened:
			info, err := ParseSessionInfo(f.Octets)
			if err != nil {
				m.broken(e, err)
				continue
			}
			m.transports.openSession(e.Position, info, from)
			m.transports.open[e.Position].name(m.identityOf(info.Exporter))
		case ack.Closed:
			if t != nil {
				m.transports.close(t)
			}
		case ack.Head, ack.Rest, ack.Received:
			if t == nil {
				m.undecodable(e, acct.LedgerKey{Exporter: collector}, fmt.Errorf("asm: transport session %d of %s is not open", f.Session, collector))
				continue
			}
			head := t.head
			if head != nil || f.Kind == ack.Head {
				t.head = nil
				m.transports.touch(t)
			}
			c.inner = bytes.Index(e.Data, f.Octets) // wherever that is, it is the same
			switch {
			case f.Kind == ack.Head:
				t.head = bytes.Clone(f.Octets)
				c.inner = 0
				continue
			case f.Kind == ack.Rest && head == nil:
				m.broken(e, fmt.Errorf("asm: the rest of a message that %s passes on, without its head: %w", collector, ErrCorrupt))
				c.inner = 0
				continue
			case f.Kind == ack.Rest:
				f.Octets, c.inner = append(head, f.Octets...), split
			}
			m.stats.ForwardedMessages++
			err := m.message(ctx, acct.Entry{
				Position: e.Position, Kind: acct.EntryMessage, Time: min(f.Time, e.Time),
				Session: acct.OfStream(t.number, f.Stream), Data: f.Octets,
			})
			c.inner = 0
			if err != nil {
				return err
			}
		default:
			m.broken(e, fmt.Errorf("asm: kind %d of what %s passes on: %w", f.Kind, collector, ErrCorrupt))
		}
	}
	return nil
}
