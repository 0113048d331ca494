package asm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// maxCollisions is how many different records of one identity are told apart.
// One more can't be proven new.
const maxCollisions = 64

// comparison is what comparing duplicates with the records that came first
// needs.
type comparison struct {
	octets uint64 // of all entries so far
	marks  []mark // ascending: which entries the journal keeps
	twins  [8]twin
	next   int   // of twins to be used anew
	err    error // of the journal, until the entry at hand is through
}

// A mark is a place in the journal.
type mark struct {
	position uint64
	octets   uint64 // of all entries before
	time     int64  // Unix milliseconds
}

// A twin is a Data Set of the journal that records were compared with: what
// comes again mostly comes in the same order.
type twin struct {
	origin      dedup.Origin
	fingerprint uint64
	known       bool     // the journal has it and it can be read
	records     [][]byte // as those of a Template; too few if it was of another
}

// marksPerJournal is how finely the journal that is kept is divided, by its
// octets and by time.
const marksPerJournal = 64

// keep notes e as one to be kept for comparing. What came before all that the
// windows remember, exporters silent for a day aside, is let go of, and the oldest where there is too much.
func (m *Module) keep(e *acct.Entry) {
	c, most := &m.comparison, uint64(m.settings.CompareOctets)
	if most == 0 {
		c.marks = nil
		return
	}
	if n := len(c.marks); n == 0 || c.octets-c.marks[n-1].octets >= most/marksPerJournal ||
		m.millis()-c.marks[n-1].time >= m.settings.DedupWindow.Milliseconds()/marksPerJournal {
		c.marks = append(c.marks, mark{e.Position, c.octets, m.millis()})
		first := e.Position
		if o := m.windows.Oldest(); o != 0 {
			first = o.Position()
		}
		old := 0
		for old < len(c.marks)-1 && (c.octets-c.marks[old].octets > most || c.marks[old+1].position <= first) {
			old++
		}
		c.marks = slices.Delete(c.marks, 0, old)
	}
	c.octets += uint64(len(e.Data))
}

// oldest returns the first entry that is kept, or otherwise if none is.
func (c *comparison) oldest(otherwise uint64) uint64 {
	if len(c.marks) == 0 {
		return otherwise
	}
	return c.marks[0].position
}

// compare says whether record number i of the chunk, one of p whose identity
// the window knows, is a duplicate: whether the record that came first is the
// same, octet by octet. One that is not gets another identity and is new. What
// the journal no longer keeps can't be compared, and the identity counts.
func (m *Module) compare(set *ipfix.DataSet, p *plan, w *dedup.Window, i int) dedup.Verdict {
	c := &m.decoder
	id := c.ids[i]
	for try := uint64(1); ; try++ {
		o, ordinal, ok := w.Origin(id, c.ends[i])
		if !ok || o == 0 || o.Position() < m.comparison.oldest(m.position+1) {
			m.stats.Uncompared++
			return dedup.Duplicate
		}
		t := m.twin(o, set, p)
		if !t.known {
			m.stats.Uncompared++
			return dedup.Duplicate
		}
		if ordinal < len(t.records) && bytes.Equal(t.records[ordinal], c.octets[i]) {
			m.stats.Compared++
			return dedup.Duplicate
		}
		m.stats.Collisions++
		m.logs.warn(m.log, "different records have one identity; both count", acct.LedgerKey{Exporter: c.domain.key.Exporter, Domain: c.domain.key.Domain}, uint64(p.template.ID))
		if try > maxCollisions {
			return dedup.BelowFloor
		}
		id = p.prefix.Uint64(collisionIdentity).Uint64(try).Sum(c.octets[i])
		if m.weaken != nil {
			id = m.weaken(id)
		}
		if v := w.AddAt(id, c.ends[i], c.ordinals[i]); v != dedup.Duplicate {
			c.ids[i] = id
			return v
		}
	}
}

// collisionIdentity begins what follows a prefix of record identities where
// the record's own identity is taken by another.
const collisionIdentity = 0x636f6c6c6964 // no length of a record

// twin returns the Data Set at o, read as records of p.
func (m *Module) twin(o dedup.Origin, set *ipfix.DataSet, p *plan) *twin {
	c := &m.comparison
	fingerprint := p.template.Fingerprint()
	for i := range c.twins {
		if t := &c.twins[i]; t.origin == o && t.fingerprint == fingerprint {
			return t
		}
	}
	t := &c.twins[c.next]
	c.next = (c.next + 1) % len(c.twins)
	*t = twin{origin: o, fingerprint: fingerprint}
	// The journal is on this machine, and an entry once begun is finished.
	e, err := m.journal.Read(context.Background(), o.Position())
	if err != nil {
		if !errors.Is(err, acct.ErrNoEntry) && c.err == nil {
			c.err = err
		}
		return t
	}
	if e.Kind != acct.EntryMessage {
		return t
	}
	var first ipfix.DataSet
	if first, t.known = m.setAt(e.Data, o.Offset(), set, p); first.Template == nil {
		return t
	}
	t.records = make([][]byte, 0, first.Records)
	for {
		r, ok := first.Next()
		if !ok {
			return t
		}
		// Those of NetFlow are put together in a buffer that is used again.
		t.records = append(t.records, bytes.Clone(r.Bytes()))
	}
}

// setAt returns the Data Set of message whose Set Header is at offset, as one
// of records of p: its Template had another ID perhaps, in another Transport
// Session. One that can't be of such records has no Template. Known is false if
// that can't be told.
func (m *Module) setAt(message []byte, offset int, set *ipfix.DataSet, p *plan) (first ipfix.DataSet, known bool) {
	h, err := ipfix.MessageHeader(message)
	if err != nil || len(message)-offset < 4 {
		return ipfix.DataSet{}, false
	}
	if h.Version != 10 {
		// Its records have more than their octets; only its own session knows.
		s := m.decoder.transport.decoder
		if s == nil {
			return ipfix.DataSet{}, false
		}
		first, err := s.DataSetAt(message, offset)
		if err != nil || first.Template == nil || first.Template.Fingerprint() != p.template.Fingerprint() {
			return ipfix.DataSet{}, false
		}
		return first, true
	}
	content := message[offset:min(len(message), offset+int(binary.BigEndian.Uint16(message[offset+2:])))]
	if len(content) < 4 {
		return ipfix.DataSet{}, false
	}
	content = content[4:]
	if p.template.Fixed() {
		content = content[:len(content)/p.template.MinLength()*p.template.MinLength()]
	}
	for padding := range min(8, len(content)+1) {
		if first, err := ipfix.NewDataSet(set.Header, p.template, content[:len(content)-padding]); err == nil {
			return first, true
		}
	}
	return ipfix.DataSet{}, true
}

// appendBinary appends what a restart needs of c.
func (c *comparison) appendBinary(b []byte) []byte {
	b = binary.AppendUvarint(b, c.octets)
	b = binary.AppendUvarint(b, uint64(len(c.marks)))
	for _, k := range c.marks {
		b = binary.AppendUvarint(b, k.position)
		b = binary.AppendUvarint(b, k.octets)
		b = binary.AppendVarint(b, k.time)
	}
	return b
}

// restore reads what appendBinary of a version of the pipeline's state wrote.
// Before version 8 marks had no time: the next one is set at once then.
func (c *comparison) restore(r *octets.Reader, version uint8) {
	c.octets = r.Uvarint()
	c.marks = make([]mark, r.Count())
	for i := range c.marks {
		c.marks[i] = mark{position: r.Uvarint(), octets: r.Uvarint()}
		if version >= 8 {
			c.marks[i].time = r.Varint()
		}
	}
}
