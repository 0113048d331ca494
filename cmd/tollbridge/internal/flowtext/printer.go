// Package flowtext prints Data Records, with their elements by name.
package flowtext

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tollbridge/ipfix"
)

// A layout is how records of a Template are printed.
type layout struct {
	names   []string     // of fields
	types   []ipfix.Type // of fields
	columns [][]int      // fields by name, in order of the first that has it
	keys    [][]byte     // of columns: the name as JSON, with a colon
	unnamed bool         // the exporter may yet tell of an element (RFC 5610)
}

// A Printer prints the Data Records of a Transport Session as text and as JSON.
type Printer struct {
	session *ipfix.Session
	domain  uint32
	layouts map[*ipfix.Template]*layout
}

// NewPrinter returns a Printer of records that session has decoded.
func NewPrinter(session *ipfix.Session) *Printer { return &Printer{session: session} }

// SetDomain says of which Observation Domain the next records are.
func (p *Printer) SetDomain(domain uint32) { p.domain = domain }

const (
	maxLayouts = 4096
	// maxNesting bounds lists within lists; deeper ones are printed in
	// hexadecimal.
	maxNesting = 8
)

// layout returns that of a Template, and remembers it.
func (p *Printer) layout(t *ipfix.Template) *layout {
	if l := p.layouts[t]; l != nil && !l.unnamed {
		return l
	}
	if p.layouts == nil || len(p.layouts) >= maxLayouts {
		p.layouts = make(map[*ipfix.Template]*layout)
	}
	l := &layout{}
	at := map[string]int{}
	for i, f := range t.Fields {
		e := p.element(f)
		l.unnamed = l.unnamed || e.Name == ""
		name := elementName(e)
		l.names, l.types = append(l.names, name), append(l.types, e.Type)
		n, seen := at[name]
		if !seen {
			n = len(l.columns)
			at[name] = n
			l.columns = append(l.columns, nil)
			l.keys = append(l.keys, append(AppendJSONString(nil, name), ':'))
		}
		l.columns[n] = append(l.columns[n], i)
	}
	p.layouts[t] = l
	return l
}

// element returns what is known of a field's element, by the registry or from
// the exporter.
func (p *Printer) element(f ipfix.FieldSpecifier) ipfix.InformationElement {
	if e, ok := p.session.Lookup(f.Enterprise, f.ID); ok {
		return e
	}
	return f.Element()
}

// elementName is an element's name, or "enterprise/number" where it has none.
func elementName(e ipfix.InformationElement) string {
	if e.Name != "" {
		return e.Name
	}
	return fmt.Sprintf("%d/%d", e.Enterprise, e.ID)
}

// AppendText appends a record of t as text: a space, a name, "=" and a value for
// each field.
func (p *Printer) AppendText(b []byte, t *ipfix.Template, r ipfix.Record) []byte {
	l := p.layout(t)
	for i, t := range l.types {
		b = append(b, ' ')
		b = append(b, l.names[i]...)
		b = append(b, '=')
		b = append(b, quoted(t, p.text(t, r.Field(i)))...)
	}
	return b
}

// Values visits the name and value of each field of a record of t.
func (p *Printer) Values(t *ipfix.Template, r ipfix.Record) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		l := p.layout(t)
		for i, t := range l.types {
			if !yield(l.names[i], p.text(t, r.Field(i))) {
				return
			}
		}
	}
}

// AppendJSON appends a record of t as a JSON object: elements by name, those
// that occur more than once as arrays.
func (p *Printer) AppendJSON(b []byte, t *ipfix.Template, r ipfix.Record) []byte {
	return p.appendJSON(b, t, r, 0)
}

func (p *Printer) appendJSON(b []byte, t *ipfix.Template, r ipfix.Record, depth int) []byte {
	l := p.layout(t)
	b = append(b, '{')
	for n, fields := range l.columns {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(b, l.keys[n]...)
		if len(fields) > 1 {
			b = append(b, '[')
		}
		for i, f := range fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = p.appendJSONValue(b, l.types[f], r.Field(f), depth)
		}
		if len(fields) > 1 {
			b = append(b, ']')
		}
	}
	return append(b, '}')
}

// appendJSONValue appends a value: numbers and booleans as JSON has them,
// lists as objects, other values as text, what is empty as null.
func (p *Printer) appendJSONValue(b []byte, t ipfix.Type, value []byte, depth int) []byte {
	if len(value) == 0 && t != ipfix.TypeString {
		return append(b, "null"...)
	}
	switch t {
	case ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList:
		return p.appendJSONList(b, t, value, depth)
	case ipfix.TypeString:
		if utf8.Valid(value) {
			return AppendJSONString(b, string(trimPadding(value)))
		}
	}
	text := formatValue(t, value)
	if isJSON(t, text, len(value)) {
		return append(b, text...)
	}
	return AppendJSONString(b, text)
}

// isJSON reports whether the text of a value of that many octets is one that
// JSON has.
func isJSON(t ipfix.Type, text string, length int) bool {
	switch t {
	case ipfix.TypeBoolean:
		return text == "true" || text == "false"
	case ipfix.TypeFloat32, ipfix.TypeFloat64:
		v, err := strconv.ParseFloat(text, 64)
		return (length == 4 || length == 8) && err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
	}
	return t >= ipfix.TypeUnsigned8 && t <= ipfix.TypeSigned64 && length <= 8
}

// appendJSONList appends a value of structured data (RFC 6313): its semantic,
// and its values or records.
func (p *Printer) appendJSONList(b []byte, t ipfix.Type, value []byte, depth int) []byte {
	l, err := ipfix.ParseList(t, value, p.session.TemplatesOf(p.domain))
	if err != nil || depth == maxNesting {
		return AppendJSONString(b, hex.EncodeToString(value))
	}
	b = append(b, `{"semantic":`...)
	b = AppendJSONString(b, l.Semantic.String())
	if t == ipfix.TypeBasicList {
		e := p.element(l.Field)
		b = append(b, `,"element":`...)
		b = AppendJSONString(b, elementName(e))
		b = append(b, `,"values":[`...)
		for v := range l.Values() {
			b = append(p.appendJSONValue(b, e.Type, v, depth+1), ',')
		}
	} else {
		b = append(b, `,"records":[`...)
		for part := range l.Parts() {
			if part.Template == nil {
				b = append(AppendJSONString(b, hex.EncodeToString(part.Octets())), ',')
				continue
			}
			for r := range part.Records() {
				b = append(p.appendJSON(b, part.Template, r, depth+1), ',')
			}
		}
	}
	return append(bytes.TrimSuffix(b, []byte{','}), "]}"...)
}

// text returns a value for people.
func (p *Printer) text(t ipfix.Type, value []byte) string {
	switch t {
	case ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList:
		return ipfix.FormatList(t, value, p.session.TemplatesOf(p.domain))
	}
	return formatValue(t, value)
}

// formatValue is ipfix.FormatValue without the zeros that pad strings of fixed
// length.
func formatValue(t ipfix.Type, value []byte) string {
	if t == ipfix.TypeString {
		value = trimPadding(value)
	}
	return ipfix.FormatValue(t, value)
}

func trimPadding(b []byte) []byte { return bytes.TrimRight(b, "\x00") }

// AppendJSONString appends s as JSON has it.
func AppendJSONString(b []byte, s string) []byte {
	special := func(c rune) bool { return c < ' ' || c >= 0x7f || strings.ContainsRune(`"\<>&`, c) }
	if !strings.ContainsFunc(s, special) {
		return append(append(append(b, '"'), s...), '"')
	}
	q, err := json.Marshal(s)
	if err != nil {
		panic("tollbridge: internal error: " + err.Error())
	}
	return append(b, q...)
}

// quoted quotes strings that would run into the next value.
func quoted(t ipfix.Type, s string) string {
	if s == "" || t == ipfix.TypeString && strings.ContainsRune(s, ' ') && !strings.HasPrefix(s, `"`) {
		return strconv.Quote(s)
	}
	return s
}

// ExportTime is that of a Message as people read it.
func ExportTime(h ipfix.Header) string {
	return time.Unix(int64(h.ExportTime), 0).UTC().Format(time.RFC3339)
}
