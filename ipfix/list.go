package ipfix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
)

// ErrList says that a value of structured data can't be read (RFC 6313).
var ErrList = errors.New("malformed structured data")

// A ListSemantic says how the elements of a list belong together (RFC 6313,
// Section 4.4).
type ListSemantic uint8

const (
	NoneOf       ListSemantic = 0
	ExactlyOneOf ListSemantic = 1
	OneOrMoreOf  ListSemantic = 2
	AllOf        ListSemantic = 3
	Ordered      ListSemantic = 4
	Undefined    ListSemantic = 255
)

func (s ListSemantic) String() string {
	switch s {
	case NoneOf:
		return "noneOf"
	case ExactlyOneOf:
		return "exactlyOneOf"
	case OneOrMoreOf:
		return "oneOrMoreOf"
	case AllOf:
		return "allOf"
	case Ordered:
		return "ordered"
	case Undefined:
		return "undefined"
	}
	return fmt.Sprintf("ListSemantic(%d)", uint8(s))
}

// A List is a value of type basicList, subTemplateList or
// subTemplateMultiList (RFC 6313, Section 4.5). It refers to the octets it was
// read from. Lists within it are values like any other, to be read in turn.
//
// Decode does not look into lists: a record with a malformed one is as good as
// any in all else, so it is not discarded for it. Whoever reads the list finds
// out.
type List struct {
	Type     Type
	Semantic ListSemantic
	Field    FieldSpecifier // of the elements of a basicList

	content   []byte
	templates TemplateFunc
}

// A TemplateFunc returns the Template of an ID, nil if it is not known.
type TemplateFunc func(id uint16) *Template

// TemplatesOf returns the way to the Templates of an Observation Domain, for
// ParseList. It is valid as long as the Session.
func (s *Session) TemplatesOf(domain uint32) TemplateFunc {
	return func(id uint16) *Template { return s.Template(domain, id) }
}

// ParseList reads a value of a structured type. It checks all of the list but
// for what is in its elements. A nil templates knows none. Errors match
// ErrList.
func ParseList(t Type, b []byte, templates TemplateFunc) (List, error) {
	if len(b) == 0 {
		return List{}, fmt.Errorf("ipfix: %v of no octets: %w", t, ErrList)
	}
	l := List{Type: t, Semantic: ListSemantic(b[0]), content: b[1:], templates: templates}
	ok := false
	switch t {
	case TypeBasicList:
		ok = l.parseBasic()
	case TypeSubTemplateList:
		ok = len(l.content) >= 2 && l.checkParts()
	case TypeSubTemplateMultiList:
		ok = l.checkParts()
	}
	if !ok {
		return List{}, fmt.Errorf("ipfix: %v of %d octets: %w", t, len(b), ErrList)
	}
	return l, nil
}

// parseBasic reads the Field Specifier of a basicList, and checks that its
// values end with it.
func (l *List) parseBasic() bool {
	n := fieldLength(l.content)
	if n == 0 {
		return false
	}
	l.Field, l.content = parseField(l.content)
	if l.Field.Length != VariableLength {
		if l.Field.Length == 0 {
			return len(l.content) == 0
		}
		return len(l.content)%int(l.Field.Length) == 0
	}
	for rest := l.content; len(rest) > 0; {
		value, after := cutVariable(rest)
		if value == nil {
			return false
		}
		rest = after
	}
	return true
}

// cutVariable reads the value of variable length at the start of b, and
// returns what follows; a nil value if it is cut off.
func cutVariable(b []byte) (value, rest []byte) {
	n, at := int(b[0]), 1
	if n == 255 {
		if len(b) < 3 {
			return nil, nil
		}
		n, at = int(binary.BigEndian.Uint16(b[1:])), 3
	}
	if len(b)-at < n {
		return nil, nil
	}
	return b[at : at+n : at+n], b[at+n:]
}

// checkParts checks the parts of a list of records.
func (l *List) checkParts() bool {
	for rest := l.content; len(rest) > 0; {
		var p Part
		if p, rest = l.cut(rest); p.octets == nil || !p.valid() {
			return false
		}
	}
	return true
}

// cut reads the part at the start of b, and returns what follows; a part
// without octets if it is cut off.
func (l *List) cut(b []byte) (p Part, rest []byte) {
	if len(b) < 2 {
		return p, nil
	}
	p.ID = binary.BigEndian.Uint16(b)
	if l.Type == TypeSubTemplateList {
		p.octets = b[2:len(b):len(b)]
	} else {
		if len(b) < 4 {
			return p, nil
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // with what goes before the records
		if n < 4 || n > len(b) {
			return p, nil
		}
		p.octets, rest = b[4:n:n], b[n:]
	}
	if l.templates != nil {
		if t := l.templates(p.ID); t != nil {
			p.Template = t.asSent()
		}
	}
	return p, rest
}

// Values returns the values of a basicList; of other lists none.
func (l List) Values() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if l.Type != TypeBasicList {
			return
		}
		for rest := l.content; len(rest) > 0; {
			var value []byte
			if n := int(l.Field.Length); n == VariableLength {
				value, rest = cutVariable(rest)
			} else {
				value, rest = rest[:n:n], rest[n:]
			}
			if !yield(value) {
				return
			}
		}
	}
}

// Parts returns the parts of a subTemplateList, which is one, or of a
// subTemplateMultiList; of other lists none.
func (l List) Parts() iter.Seq[Part] {
	return func(yield func(Part) bool) {
		if l.Type == TypeBasicList {
			return
		}
		for rest := l.content; len(rest) > 0; {
			var p Part
			if p, rest = l.cut(rest); !yield(p) {
				return
			}
		}
	}
}

// A Part of a list are records of one Template.
type Part struct {
	ID       uint16
	Template *Template // nil if it is not known: there are no records to read
	octets   []byte
}

// Octets returns all records.
func (p Part) Octets() []byte { return p.octets }

// valid reports whether the octets are records of the Template, or it is not
// known. There is no padding.
func (p *Part) valid() bool {
	if p.Template == nil {
		return true
	}
	for rest := p.octets; len(rest) > 0; {
		n := p.Template.scan(rest, nil)
		if n == 0 {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// Records returns the records. One is valid until the next.
func (p Part) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if p.Template == nil {
			return
		}
		layout := p.Template.layout(new(layout))
		for rest := p.octets; len(rest) > 0; {
			n := layout.scan(p.Template, rest)
			if !yield(Record{rest[:n:n], layout}) {
				return
			}
			rest = rest[n:]
		}
	}
}

// AppendBasicList appends a basicList of values, as Template.AppendRecord
// takes them. Errors match ErrValue.
func AppendBasicList(b []byte, s ListSemantic, f FieldSpecifier, values ...any) ([]byte, error) {
	start := len(b)
	b = f.Append(append(b, byte(s)))
	for i, v := range values {
		var err error
		if b, err = f.appendValue(b, v); err != nil {
			return nil, fmt.Errorf("ipfix: basicList: value %d: %T %v: %w", i, v, v, err)
		}
	}
	return listOf(b, start)
}

// AppendSubTemplateList appends a subTemplateList of records of t. Errors
// match ErrValue, for a list too long, and ErrLength, for a record that is
// none of t.
func AppendSubTemplateList(b []byte, s ListSemantic, t *Template, records ...[]byte) ([]byte, error) {
	start := len(b)
	b = binary.BigEndian.AppendUint16(append(b, byte(s)), t.ID)
	for _, r := range records {
		if _, err := t.Record(r); err != nil {
			return nil, err
		}
		b = append(b, r...)
	}
	return listOf(b, start)
}

// A SubTemplate is a Template with records, to be a Part of a list.
type SubTemplate struct {
	Template *Template
	Records  [][]byte
}

// AppendSubTemplateMultiList appends a subTemplateMultiList. Its errors are
// those of AppendSubTemplateList.
func AppendSubTemplateMultiList(b []byte, s ListSemantic, parts ...SubTemplate) ([]byte, error) {
	start := len(b)
	b = append(b, byte(s))
	for _, p := range parts {
		at := len(b)
		b = append(binary.BigEndian.AppendUint16(b, p.Template.ID), 0, 0)
		for _, r := range p.Records {
			if _, err := p.Template.Record(r); err != nil {
				return nil, err
			}
			b = append(b, r...)
		}
		if len(b)-start > math.MaxUint16 {
			break
		}
		binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
	}
	return listOf(b, start)
}

// listOf returns b if what was appended since start can be a value.
func listOf(b []byte, start int) ([]byte, error) {
	if len(b)-start > math.MaxUint16 {
		return nil, fmt.Errorf("ipfix: list of %d octets: %w", len(b)-start, ErrValue)
	}
	return b, nil
}
