package ipfix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// checkpointVersion is the first octet of an encoded Session. Version 2 had no
// type information.
const (
	checkpointVersion    = 3
	checkpointOldVersion = 2
)

// ErrCorrupt says that an encoded Session can't be read.
var ErrCorrupt = errors.New("corrupt encoding")

// AppendBinary appends the state of the Session: its Templates, sequence
// accounting and type information, but not its Limits. Equal states have equal encodings. It never
// fails.
func (s *Session) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, checkpointVersion, byte(s.transport))
	for i := range s.shared {
		b = s.shared[i].append(b)
	}
	b = binary.AppendUvarint(b, uint64(len(s.domains)))
	for _, key := range slices.Sorted(maps.Keys(s.domains)) {
		d := s.domains[key]
		b = append(b, byte(key.version()))
		b = binary.BigEndian.AppendUint32(b, key.id())
		b = d.sequence.append(b)
		b = binary.AppendUvarint(b, uint64(len(d.streams)))
		for _, stream := range slices.Sorted(maps.Keys(d.streams)) {
			b = binary.BigEndian.AppendUint16(b, stream)
			b = d.streams[stream].append(b)
		}
		b = d.appendTemplates(b)
	}
	b = binary.AppendUvarint(b, uint64(len(s.elements)))
	for _, e := range slices.SortedFunc(maps.Keys(s.elements), Element.compare) {
		b = s.elements[e].append(b)
	}
	return b, nil
}

// Bits that precede an encoded Template.
const (
	templateOptions = 1 << iota
	templateLives
)

// appendTemplates appends the Templates; of those that are built in the ID.
func (d *domain) appendTemplates(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(d.templates)))
	for _, id := range slices.Sorted(maps.Keys(d.templates)) {
		if d.key.version() == NetFlow5 {
			b = binary.BigEndian.AppendUint16(b, id)
			continue
		}
		t := d.templates[id].asSent()
		var flags byte
		if t.Scope > 0 {
			flags |= templateOptions
		}
		defined, lives := d.defined[id]
		if lives {
			flags |= templateLives
		}
		b = t.Append(append(b, flags))
		if lives {
			b = binary.BigEndian.AppendUint32(b, defined)
		}
	}
	return b
}

// UnmarshalBinary replaces the Session's state, Transport included, by what
// AppendBinary wrote. Errors match ErrCorrupt and leave the Session as it was.
// A Template whose definition had no time, as there was no TemplateLifetime,
// holds until it is defined again.
func (s *Session) UnmarshalBinary(b []byte) error {
	if len(b) < 2 || b[0] != checkpointVersion && b[0] != checkpointOldVersion {
		return fmt.Errorf("ipfix: session of an unknown version: %w", ErrCorrupt)
	}
	out := NewSession(Transport(b[1]))
	c := checkpoint{b: b[2:]}
	for i := range out.shared {
		c.shared(&out.shared[i])
	}
	var last domainKey
	for range c.uvarint() {
		key := domainKey(c.octet())<<32 | domainKey(c.uint32())
		if c.err != nil || key <= last || !slices.Contains(versions[:], key.version()) {
			c.fail()
			break
		}
		last = key
		d := newDomain(key)
		out.domains[key] = d
		c.sequence(&d.sequence)
		lastStream := 0
		for range c.uvarint() {
			stream := c.uint16()
			if int(stream) <= lastStream {
				c.fail()
				break
			}
			lastStream = int(stream)
			c.sequence(out.newStream(d, stream))
		}
		c.templates(out, d)
	}
	if b[0] == checkpointVersion {
		c.elements(out)
	}
	if c.err == nil && len(c.b) != 0 {
		c.fail()
	}
	if c.err != nil {
		return fmt.Errorf("ipfix: session: %w", c.err)
	}
	s.latest = nil
	s.transport, s.domains, s.shared = out.transport, out.domains, out.shared
	s.templates, s.fields, s.streams = out.templates, out.fields, out.streams
	s.elements, s.text = out.elements, out.text
	return nil
}

// Bits of an encoded sequence.
const (
	sequenceStarted = 1 << iota
	sequenceOpen
	sequenceLastOpen
	sequenceFlags
)

func (q *sequence) append(b []byte) []byte {
	var flags byte
	if q.started {
		flags |= sequenceStarted
	}
	if q.open {
		flags |= sequenceOpen
	}
	if q.lastOpen {
		flags |= sequenceLastOpen
	}
	b = append(b, flags, byte(q.unit), q.quiet)
	b = append(b, q.votes[:]...)
	for _, v := range []uint32{q.next, q.latest, q.mean, q.last} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = q.advance.append(b)
	b = binary.BigEndian.AppendUint64(b, q.owed.records)
	b = binary.BigEndian.AppendUint64(b, q.owed.messages)
	b = binary.AppendUvarint(b, uint64(len(q.gaps)))
	for _, g := range q.gaps {
		for _, v := range []uint32{g.first, g.end, g.each, g.domain} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		b = append(b, g.rivals)
	}
	return b
}

func (n *tally) append(b []byte) []byte {
	for _, v := range n {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// Bits of an encoded shared.
const (
	sharedOn = 1 << iota
	sharedStarted
	sharedLastOpen
	sharedFlags
)

func (s *shared) append(b []byte) []byte {
	var flags byte
	if s.on {
		flags |= sharedOn
	}
	if s.lastOpen {
		flags |= sharedLastOpen
	}
	if !s.started {
		return append(b, flags)
	}
	b = append(b, flags|sharedStarted)
	b = append(b, s.votes[:]...)
	b = binary.BigEndian.AppendUint32(b, s.domain)
	b = binary.BigEndian.AppendUint32(b, s.last)
	b = s.advance.append(b)
	return s.sequence.append(b)
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

func (c *checkpoint) uint16() uint16 { return uint16(c.octet())<<8 | uint16(c.octet()) }

func (c *checkpoint) uint32() uint32 {
	if len(c.b) < 4 {
		c.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// number reads a number in its one shortest form.
func (c *checkpoint) number() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || n > 1 && c.b[n-1] == 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// uvarint reads a count of things that take at least an octet each.
func (c *checkpoint) uvarint() uint64 {
	v := c.number()
	if v > uint64(len(c.b)) {
		c.fail()
		return 0
	}
	return v
}

// text reads a string of at most so many octets.
func (c *checkpoint) text(most uint64) string {
	n := c.uvarint()
	if n > most {
		c.fail()
		return ""
	}
	v := string(c.b[:n])
	c.b = c.b[n:]
	return v
}

func (c *checkpoint) uint64() uint64 { return uint64(c.uint32())<<32 | uint64(c.uint32()) }

// flags reads an octet of flags below a bound.
func (c *checkpoint) flags(bound byte) byte {
	v := c.octet()
	if v >= bound {
		c.fail()
		return 0
	}
	return v
}

func (c *checkpoint) tally(n *tally) {
	for i := range n {
		n[i] = c.uint32()
	}
}

func (c *checkpoint) sequence(q *sequence) {
	flags := c.flags(sequenceFlags)
	*q = sequence{
		started: flags&sequenceStarted != 0, open: flags&sequenceOpen != 0, lastOpen: flags&sequenceLastOpen != 0,
		unit: Unit(c.flags(byte(units))), quiet: c.octet(),
	}
	for i := range q.votes {
		q.votes[i] = c.flags(enoughVotes)
	}
	q.next, q.latest, q.mean, q.last = c.uint32(), c.uint32(), c.uint32(), c.uint32()
	c.tally(&q.advance)
	q.owed = loss{c.uint64(), c.uint64()}
	n := c.uvarint()
	if n > maxGaps {
		c.fail()
		return
	}
	for range n {
		q.gaps = append(q.gaps, gap{first: c.uint32(), end: c.uint32(), each: c.uint32(), domain: c.uint32(), rivals: c.octet()})
	}
}

func (c *checkpoint) shared(s *shared) {
	flags := c.flags(sharedFlags)
	if flags&sharedStarted == 0 {
		if flags != 0 {
			c.fail()
		}
		return
	}
	s.on, s.started, s.lastOpen = flags&sharedOn != 0, true, flags&sharedLastOpen != 0
	for i := range s.votes {
		s.votes[i] = c.flags(enoughVotes)
	}
	s.domain, s.last = c.uint32(), c.uint32()
	c.tally(&s.advance)
	c.sequence(&s.sequence)
}

func (c *checkpoint) templates(s *Session, d *domain) {
	var last uint16
	for range c.uvarint() {
		if d.key.version() == NetFlow5 {
			id := c.uint16()
			if id <= last || id != netFlow5Template && id != netFlow5SampledTemplate {
				c.fail()
				return
			}
			last = id
			d.templates[id] = newNetFlow5(d.key.id(), id)
			continue
		}
		flags := c.flags(templateLives << 1)
		def, n, err := parseDefinition(c.b, flags&templateOptions != 0)
		if err != nil || def.count == 0 || def.id <= last {
			c.fail()
			return
		}
		last = def.id
		c.b = c.b[n:]
		def.stamped = d.key.version() == NetFlow9 && def.wantsStamp()
		s.put(d, def.id, def.template(d.key.id()))
		if flags&templateLives != 0 {
			if d.defined == nil {
				d.defined = make(map[uint16]uint32)
			}
			d.defined[def.id] = c.uint32()
		}
	}
}

// append appends what elements reads.
func (i TypeInformation) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, i.Enterprise)
	b = binary.BigEndian.AppendUint16(b, i.ID)
	b = append(b, byte(i.Type), byte(i.Semantics), byte(slices.Index(elementUnits[:], i.Units)))
	b = binary.AppendUvarint(b, i.RangeBegin)
	b = binary.AppendUvarint(b, i.RangeEnd)
	for _, text := range [...]string{i.Name, i.Description} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

func (c *checkpoint) elements(s *Session) {
	var last Element
	for range c.uvarint() {
		var i TypeInformation
		i.Enterprise, i.ID = c.uint32(), c.uint16()
		i.Type = Type(c.flags(byte(len(typeNames))))
		i.Semantics = Semantics(c.flags(byte(len(semanticsNames))))
		i.Units = elementUnits[c.flags(byte(len(elementUnits)))]
		i.RangeBegin, i.RangeEnd = c.number(), c.number()
		i.Name, i.Description = c.text(maxElementName), c.text(maxElementDescription)
		e := Element{i.Enterprise, i.ID}
		if c.err != nil || e.compare(last) <= 0 || !e.told() {
			c.fail()
			return
		}
		last = e
		s.tell(i)
	}
}
