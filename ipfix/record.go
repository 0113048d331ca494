package ipfix

import (
	"encoding/binary"
	"fmt"
)

// A DataSet is a Data Set of a Message, and a cursor over its records. It
// refers to the Message and to the Session, so it is valid until the visit
// function returns.
type DataSet struct {
	Template *Template // nil if it is not known (yet): there are no records to read
	ID       uint16
	Header   Header // of the Message
	Offset   int    // of the Set Header in the Message
	Records  int    // Data Records in the Set; 0 without a Template

	octets []byte  // content
	at     int     // of the next record
	layout *layout // of the record at hand
}

// NewDataSet returns a Data Set of records of t, as a Message with that header
// would have brought it. octets must hold whole records and nothing else:
// ErrLength.
func NewDataSet(h Header, t *Template, octets []byte) (DataSet, error) {
	n, ok := t.count(octets)
	if !ok || t.Fixed() && n*t.minLength != len(octets) {
		return DataSet{}, fmt.Errorf("ipfix: %d octets as records of template %d: %w", len(octets), t.ID, ErrLength)
	}
	return DataSet{Template: t, ID: t.ID, Header: h, Records: n, octets: octets, layout: t.layout(new(layout))}, nil
}

// Octets returns the Set's content: all but the Set Header, padding included.
func (s DataSet) Octets() []byte { return s.octets }

// Next returns the next record, false at the end. The record is valid until
// the following Next of any DataSet of the same Session.
func (s *DataSet) Next() (Record, bool) {
	t := s.Template
	if t == nil || len(s.octets)-s.at < t.minLength {
		return Record{}, false // the rest is padding
	}
	if !t.Fixed() {
		return s.nextVariable()
	}
	start := s.at
	s.at += t.minLength
	return Record{s.octets[start:s.at:s.at], s.layout}, true
}

func (s *DataSet) nextVariable() (Record, bool) {
	n := s.layout.scan(s.Template, s.octets[s.at:])
	if n == 0 {
		panic("ipfix: internal error: a validated set ends within a record")
	}
	start := s.at
	s.at += n
	return Record{s.octets[start:s.at:s.at], s.layout}, true
}

// scan finds the values of variable length in the record at the start of b,
// and returns the record's length, 0 if it is cut off. A nil spans takes no
// values.
func (t *Template) scan(b []byte, spans []span) int {
	last := len(t.runs) - 1
	at := 0
	for i, run := range t.runs[:last] {
		at += int(run)
		if at >= len(b) {
			return 0
		}
		n := int(b[at])
		at++
		if n == 255 { // the three-octet form
			if at+2 > len(b) {
				return 0
			}
			n = int(binary.BigEndian.Uint16(b[at:]))
			at += 2
		}
		if spans != nil {
			spans[i] = span{uint32(at), uint32(at + n)}
		}
		at += n
	}
	at += int(t.runs[last])
	if at > len(b) {
		return 0
	}
	return at
}

// count returns the records in the content of a Data Set, false if the last
// one is cut off.
func (t *Template) count(b []byte) (int, bool) {
	if t.Fixed() {
		return len(b) / t.minLength, true
	}
	records := 0
	for ; len(b) >= t.minLength; records++ {
		n := t.scan(b, nil)
		if n == 0 {
			return 0, false
		}
		b = b[n:]
	}
	return records, true
}

// A Record is a view of a Data Record in its Message. It is of four words,
// which is what the compiler keeps in registers.
type Record struct {
	octets []byte
	layout *layout
}

// A layout says where the values of a record lie. Records of fixed length have
// that of their Template; others share a scratch, which is of one of them at a
// time.
type layout struct {
	template *Template
	spans    []span // of the values of variable length
}

// layout returns that of records of t: its own, or scratch with enough room.
func (t *Template) layout(scratch *layout) *layout {
	if t.Fixed() {
		return &t.fixed
	}
	scratch.template = t
	if n := len(t.runs) - 1; len(scratch.spans) < n {
		scratch.spans = make([]span, n)
	}
	return scratch
}

// scan is Template.scan for the next record of t.
func (l *layout) scan(t *Template, b []byte) int {
	l.template = t
	return t.scan(b, l.spans)
}

// Record views b as a record of t, which it must be exactly: ErrLength.
func (t *Template) Record(b []byte) (Record, error) {
	r := Record{b, t.layout(new(layout))}
	n := t.minLength
	if !t.Fixed() {
		n = r.layout.scan(t, b)
	}
	if n != len(b) {
		return Record{}, fmt.Errorf("ipfix: %d octets as a record of template %d: %w", len(b), t.ID, ErrLength)
	}
	return r, nil
}

// Bytes returns the octets of the whole record.
func (r Record) Bytes() []byte { return r.octets }

// Field returns the value of the Template's field i, without the length that
// goes before a value of variable length.
func (r Record) Field(i int) []byte {
	return r.value(&r.layout.template.places[i])
}

func (r Record) value(p *place) []byte {
	if p.length == VariableLength {
		s := r.layout.spans[p.base]
		return r.octets[s.start:s.end:s.end]
	}
	start := uint32(r.base(p.base)) + p.offset
	end := start + uint32(p.length)
	return r.octets[start:end:end]
}

// base returns where what follows that many values of variable length begins.
func (r Record) base(values uint16) int {
	if values == 0 {
		return 0
	}
	return int(r.layout.spans[values-1].end)
}
