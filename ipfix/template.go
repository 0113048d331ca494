package ipfix

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	withdrawalLength            = 4 // of a Template Withdrawal (RFC 7011, Section 8.1)
	templateHeaderLength        = 4
	optionsTemplateHeaderLength = 6
)

// A Template says how the Data Records of its Data Sets are laid out: a
// Template Record (RFC 7011, Section 3.4.1) or an Options Template Record
// (Section 3.4.2.2). It is never changed, so it may be used by many goroutines
// at once. Of one definition a Session gives out one *Template, as long as it
// is not withdrawn or replaced.
type Template struct {
	ID     uint16
	Domain uint32 // the Observation Domain that it was defined in
	Scope  int    // leading Fields that are scope fields; 0 if it is no Options Template
	Fields []FieldSpecifier

	wire        []byte // the Field Specifiers
	fingerprint uint64
	minLength   int // of a record, in octets; its length if nothing is of variable length
	places      []place
	fixed       layout    // of all records, if nothing is of variable length
	sent        *Template // lays out the records as the exporter sends them, if they are stamped; nil for most
	typeInfo    bool      // its records are type information (RFC 5610)
	runs        []uint32  // octets of fixed length before each field of variable length, since the one before; then those after the last
}

// A place says where in a record a field lies, and how it is read.
type place struct {
	load   load   // of the whole value
	offset uint32 // of a value of fixed length from its base
	least  uint32 // octets before it in the shortest record
	base   uint16 // fields of variable length before this one; see Record.base
	length uint16 // VariableLength, or the octets of the value
	index  uint16 // of the field
	typ    Type
	direct bool // load reads all of the value, from the start of the record
}

// A span is where in a record a value of variable length lies.
type span struct{ start, end uint32 }

// NewTemplate returns a Template for Data Records. Errors match ErrTemplateID,
// ErrEmpty and ErrLength, the last for more fields than a Message can hold.
func NewTemplate(id uint16, fields ...FieldSpecifier) (*Template, error) {
	return newTemplate(id, 0, fields)
}

// NewOptionsTemplate returns an Options Template whose first scope fields are
// its scope. Errors match those of NewTemplate and ErrScope.
func NewOptionsTemplate(id uint16, scope int, fields ...FieldSpecifier) (*Template, error) {
	if scope < 1 || scope > len(fields) {
		return nil, fmt.Errorf("ipfix: options template %d with %d scope fields of %d: %w", id, scope, len(fields), ErrScope)
	}
	return newTemplate(id, scope, fields)
}

func newTemplate(id uint16, scope int, fields []FieldSpecifier) (*Template, error) {
	d := definition{id: id, scope: scope, count: len(fields)}
	for _, f := range fields {
		d.fields = f.Append(d.fields)
		d.minLength += f.minLength()
	}
	switch {
	case id < minTemplateID:
		return nil, fmt.Errorf("ipfix: template %d: %w", id, ErrTemplateID)
	case d.minLength == 0:
		return nil, fmt.Errorf("ipfix: template %d: %w", id, ErrEmpty)
	case len(d.fields) > MaxMessage-HeaderLength-setHeaderLength-optionsTemplateHeaderLength:
		return nil, fmt.Errorf("ipfix: template %d of %d fields: %w", id, len(fields), ErrLength)
	}
	return d.template(0), nil
}

// Append appends the Template Record or Options Template Record in wire form.
func (t *Template) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, t.ID)
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Fields)))
	if t.Scope > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(t.Scope))
	}
	return append(b, t.wire...)
}

// ParseTemplate reads the Template Record, or the Options Template Record, at
// the start of b, and returns its length. A withdrawal is no Template:
// ErrEmpty. Errors match the causes of a DecodeError.
func ParseTemplate(b []byte, options bool) (*Template, int, error) {
	d, n, err := parseDefinition(b, options)
	if err == nil && d.count == 0 {
		err = ErrEmpty
	}
	if err != nil {
		return nil, 0, fmt.Errorf("ipfix: template record: %w", err)
	}
	return d.template(0), n, nil
}

// Fingerprint returns a hash of the Fields and the Scope, but not of ID and
// Domain. It is the same in every process and version.
func (t *Template) Fingerprint() uint64 { return t.fingerprint }

// MinLength returns the octets of the shortest record; of every record if
// Fixed.
func (t *Template) MinLength() int { return t.minLength }

// Fixed reports whether all records have the same length.
func (t *Template) Fixed() bool { return len(t.runs) == 1 }

// Index returns the number of the first field of an Information Element.
func (t *Template) Index(enterprise uint32, id uint16) (int, bool) {
	for i, f := range t.Fields {
		if f.ID == id && f.Enterprise == enterprise {
			return i, true
		}
	}
	return 0, false
}

// A definition is a Template Record, an Options Template Record or a
// withdrawal in wire form.
type definition struct {
	id        uint16
	scope     int
	count     int              // of fields; 0 for a withdrawal
	fields    []byte           // Field Specifiers
	minLength int              // of a record
	stamped   bool             // the Template is to have a stamp, which none of the above counts
	stamp     []FieldSpecifier // of it, beyond stampFields
}

// parseDefinition reads the record at the start of b, which holds at least
// withdrawalLength octets, and returns its length.
func parseDefinition(b []byte, options bool) (d definition, n int, err error) {
	if len(b) < withdrawalLength {
		return d, 0, ErrLength
	}
	d.id = binary.BigEndian.Uint16(b)
	d.count = int(binary.BigEndian.Uint16(b[2:]))
	if d.count == 0 {
		all := d.id == templateSet && !options || d.id == optionsTemplateSet && options
		if d.id < minTemplateID && !all {
			return d, 0, ErrTemplateID
		}
		return d, withdrawalLength, nil
	}
	if d.id < minTemplateID {
		return d, 0, ErrTemplateID
	}
	n = templateHeaderLength
	if options {
		n = optionsTemplateHeaderLength
		if len(b) < n {
			return d, 0, ErrLength
		}
		d.scope = int(binary.BigEndian.Uint16(b[4:]))
		if d.scope == 0 || d.scope > d.count {
			return d, 0, ErrScope
		}
	}
	start := n
	for range d.count {
		l := fieldLength(b[n:])
		if l == 0 {
			return d, 0, ErrLength
		}
		f, _ := parseField(b[n:])
		d.minLength += f.minLength()
		n += l
	}
	if d.minLength == 0 {
		return d, 0, ErrEmpty
	}
	d.fields = b[start:n]
	return d, n, nil
}

// defines reports whether t is what d defines.
func (d *definition) defines(t *Template) bool {
	t = t.asSent()
	return d.scope == t.Scope && d.count == len(t.Fields) && bytes.Equal(d.fields, t.wire)
}

// asSent returns the Template without its stamp.
func (t *Template) asSent() *Template {
	if t.sent != nil {
		return t.sent
	}
	return t
}

// template compiles the definition, which must not be a withdrawal, and keeps
// nothing of its octets.
func (d *definition) template(domain uint32) *Template {
	t := &Template{
		ID: d.id, Domain: domain, Scope: d.scope, Fields: make([]FieldSpecifier, d.count),
		wire: bytes.Clone(d.fields), minLength: d.minLength, places: make([]place, d.count),
	}
	var run, least uint32
	rest := t.wire
	for i := range t.Fields {
		t.Fields[i], rest = parseField(rest)
		length := t.Fields[i].Length
		t.places[i] = place{
			offset: run, least: least, base: uint16(len(t.runs)), length: length,
			index: uint16(i), typ: t.Fields[i].Element().Type,
		}
		least += uint32(t.Fields[i].minLength())
		if length == VariableLength {
			t.runs = append(t.runs, run)
			run = 0
		} else {
			run += uint32(length)
		}
	}
	t.runs = append(t.runs, run)
	t.fixed.template = t
	for i, f := range t.Fields {
		p := &t.places[i]
		p.load = t.load(i, 0, int(f.Length))
		p.direct = p.load.mask != 0 && p.base == 0
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint16(bytes.Clone(t.wire), uint16(t.Scope)))
	t.fingerprint = binary.BigEndian.Uint64(sum[:])
	t.typeInfo = t.isTypeInfo()
	if d.stamped {
		return t.stamped(d.stamp)
	}
	return t
}
