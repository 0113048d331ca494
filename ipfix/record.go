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
	spans  *[]span // scratch for a record's values of variable length
}

// NewDataSet returns a Data Set of records of t, as a Message with that header
// would have brought it. octets must hold whole records and nothing else:
// ErrLength.
func NewDataSet(h Header, t *Template, octets []byte) (DataSet, error) {
	n, ok := t.count(octets)
	if !ok || t.Fixed() && n*t.minLength != len(octets) {
		return DataSet{}, fmt.Errorf("ipfix: %d octets as records of template %d: %w", len(octets), t.ID, ErrLength)
	}
	spans := make([]span, len(t.runs)-1)
	return DataSet{Template: t, ID: t.ID, Header: h, Records: n, octets: octets, spans: &spans}, nil
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
	return Record{s.octets[start:s.at:s.at], t, nil}, true
}

func (s *DataSet) nextVariable() (Record, bool) {
	n := s.Template.scan(s.octets[s.at:], *s.spans)
	if n == 0 {
		panic("ipfix: internal error: a validated set ends within a record")
	}
	start := s.at
	s.at += n
	return Record{s.octets[start:s.at:s.at], s.Template, s.spans}, true
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

// A Record is a view of a Data Record in its Message.
type Record struct {
	octets   []byte
	template *Template
	spans    *[]span // of the values of variable length; nil if there are none
}

// Record views b as a record of t, which it must be exactly: ErrLength.
func (t *Template) Record(b []byte) (Record, error) {
	r := Record{octets: b, template: t}
	n := t.minLength
	if !t.Fixed() {
		spans := make([]span, len(t.runs)-1)
		n = t.scan(b, spans)
		r.spans = &spans
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
	return r.value(&r.template.places[i])
}

func (r Record) value(p *place) []byte {
	if p.length == VariableLength {
		s := (*r.spans)[p.base]
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
	return int((*r.spans)[values-1].end)
}
