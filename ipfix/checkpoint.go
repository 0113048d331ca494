package ipfix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// checkpointVersion is the first octet of an encoded Session.
const checkpointVersion = 1

// ErrCorrupt says that an encoded Session can't be read.
var ErrCorrupt = errors.New("corrupt encoding")

// AppendBinary appends the state of the Session: its Templates and sequence
// accounting, but not its Limits. Equal states have equal encodings. It never
// fails.
func (s *Session) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, checkpointVersion, byte(s.transport))
	b = binary.AppendUvarint(b, uint64(len(s.domains)))
	for _, id := range slices.Sorted(maps.Keys(s.domains)) {
		d := s.domains[id]
		b = binary.BigEndian.AppendUint32(b, id)
		b = d.sequence.append(b)
		b = binary.AppendUvarint(b, uint64(len(d.templates)))
		for _, id := range slices.Sorted(maps.Keys(d.templates)) {
			t := d.templates[id]
			var options byte
			if t.Scope > 0 {
				options = 1
			}
			b = t.Append(append(b, options))
		}
	}
	return b, nil
}

// UnmarshalBinary replaces the Session's state, Transport included, by what
// AppendBinary wrote. Errors match ErrCorrupt and leave the Session as it was.
func (s *Session) UnmarshalBinary(b []byte) error {
	if len(b) < 2 || b[0] != checkpointVersion {
		return fmt.Errorf("ipfix: session of an unknown version: %w", ErrCorrupt)
	}
	out := NewSession(Transport(b[1]))
	c := checkpoint{b: b[2:]}
	var last uint32
	for i := range c.uvarint() {
		d := &domain{id: c.uint32(), sequence: c.sequence(), templates: make(map[uint16]*Template)}
		if c.err != nil || i > 0 && d.id <= last {
			c.fail()
			break
		}
		last = d.id
		out.domains[d.id] = d
		c.templates(out, d)
	}
	if c.err == nil && len(c.b) != 0 {
		c.fail()
	}
	if c.err != nil {
		return fmt.Errorf("ipfix: session: %w", c.err)
	}
	s.transport, s.domains, s.templates, s.fields = out.transport, out.domains, out.templates, out.fields
	return nil
}

// Bits of an encoded sequence.
const (
	sequenceStarted = 1 << iota
	sequenceOpen
)

func (q *sequence) append(b []byte) []byte {
	var flags byte
	if q.started {
		flags |= sequenceStarted
	}
	if q.open {
		flags |= sequenceOpen
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, q.next)
	b = binary.BigEndian.AppendUint32(b, q.latest)
	b = binary.AppendUvarint(b, uint64(len(q.gaps)))
	for _, g := range q.gaps {
		b = binary.BigEndian.AppendUint32(b, g.first)
		b = binary.BigEndian.AppendUint32(b, g.end)
	}
	return b
}

// A checkpoint reads an encoded Session off the front of b. After the first
// failure err is set and every value is zero.
type checkpoint struct {
	b   []byte
	err error
}

func (c *checkpoint) fail() { c.b, c.err = nil, ErrCorrupt }

func (c *checkpoint) octet() byte {
	if len(c.b) < 1 {
		c.fail()
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *checkpoint) uint32() uint32 {
	if len(c.b) < 4 {
		c.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// uvarint reads a count, in its one shortest form, of things that take at
// least an octet each.
func (c *checkpoint) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 || v > uint64(len(c.b)) {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *checkpoint) sequence() sequence {
	flags := c.octet()
	if flags > sequenceStarted|sequenceOpen {
		c.fail()
	}
	q := sequence{
		started: flags&sequenceStarted != 0, open: flags&sequenceOpen != 0,
		next: c.uint32(), latest: c.uint32(),
	}
	n := c.uvarint()
	if n > maxGaps {
		c.fail()
		return sequence{}
	}
	for range n {
		q.gaps = append(q.gaps, gap{c.uint32(), c.uint32()})
	}
	return q
}

func (c *checkpoint) templates(s *Session, d *domain) {
	var last uint16
	for range c.uvarint() {
		options := c.octet()
		def, n, err := parseDefinition(c.b, options == 1)
		if err != nil || options > 1 || def.count == 0 || def.id <= last {
			c.fail()
			return
		}
		last = def.id
		c.b = c.b[n:]
		s.put(d, def.id, def.template(d.id))
	}
}
