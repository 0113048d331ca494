package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A layout is how records of a Template are printed.
type layout struct {
	names   []string     // of fields
	types   []ipfix.Type // of fields
	columns [][]int      // fields by name, in order of the first that has it
	keys    [][]byte     // of columns: the name as JSON, with a colon
	unnamed bool         // the exporter may yet tell of an element (RFC 5610)
}

// A printer prints the records of a session as text and as JSON.
type printer struct {
	session *ipfix.Session
	domain  uint32
	layouts map[*ipfix.Template]*layout
}

const (
	maxLayouts = 4096
	// maxNesting bounds lists within lists; deeper ones are printed in
	// hexadecimal.
	maxNesting = 8
)

// layout returns that of a Template, and remembers it.
func (p *printer) layout(t *ipfix.Template) *layout {
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
			l.keys = append(l.keys, append(appendJSONString(nil, name), ':'))
		}
		l.columns[n] = append(l.columns[n], i)
	}
	p.layouts[t] = l
	return l
}

// element returns what is known of a field's element, by the registry or from
// the exporter.
func (p *printer) element(f ipfix.FieldSpecifier) ipfix.InformationElement {
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

// appendText appends a record as text: a space, a name, "=" and a value for each
// field.
func (p *printer) appendText(b []byte, l *layout, r ipfix.Record) []byte {
	for i, t := range l.types {
		b = append(b, ' ')
		b = append(b, l.names[i]...)
		b = append(b, '=')
		b = append(b, tableValue(t, p.text(t, r.Field(i)))...)
	}
	return b
}

// appendJSON appends a record as a JSON object: elements by name, those that
// occur more than once as arrays.
func (p *printer) appendJSON(b []byte, t *ipfix.Template, r ipfix.Record, depth int) []byte {
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
func (p *printer) appendJSONValue(b []byte, t ipfix.Type, value []byte, depth int) []byte {
	if len(value) == 0 && t != ipfix.TypeString {
		return append(b, "null"...)
	}
	switch t {
	case ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList:
		return p.appendJSONList(b, t, value, depth)
	case ipfix.TypeString:
		if utf8.Valid(value) {
			return appendJSONString(b, string(trimPadding(value)))
		}
	}
	text := formatValue(t, value)
	if isJSON(t, text, len(value)) {
		return append(b, text...)
	}
	return appendJSONString(b, text)
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
func (p *printer) appendJSONList(b []byte, t ipfix.Type, value []byte, depth int) []byte {
	l, err := ipfix.ParseList(t, value, p.session.TemplatesOf(p.domain))
	if err != nil || depth == maxNesting {
		return appendJSONString(b, hex.EncodeToString(value))
	}
	b = append(b, `{"semantic":`...)
	b = appendJSONString(b, l.Semantic.String())
	if t == ipfix.TypeBasicList {
		e := p.element(l.Field)
		b = append(b, `,"element":`...)
		b = appendJSONString(b, elementName(e))
		b = append(b, `,"values":[`...)
		for v := range l.Values() {
			b = append(p.appendJSONValue(b, e.Type, v, depth+1), ',')
		}
	} else {
		b = append(b, `,"records":[`...)
		for part := range l.Parts() {
			if part.Template == nil {
				b = append(appendJSONString(b, hex.EncodeToString(part.Octets())), ',')
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
func (p *printer) text(t ipfix.Type, value []byte) string {
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

func appendJSONString(b []byte, s string) []byte {
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

// appendOrigin appends the start of a line of JSON for each record of a set:
// where it comes from.
func appendOrigin(b []byte, m *message, s ipfix.DataSet) []byte {
	b = append(b, `{"file":`...)
	b = appendJSONString(b, m.name)
	if m.Packet > 0 {
		b = fmt.Appendf(b, `,"packet":%d,"captured":"%s","transport":"%s","exporter":"%s","collector":"%s"`, m.Packet,
			m.Time.Format(time.RFC3339Nano), m.Session.Transport, m.Session.Exporter, m.Session.Collector)
	} else {
		b = fmt.Appendf(b, `,"offset":%d`, m.Offset)
	}
	b = fmt.Appendf(b, `,"domain":%d,"sequence":%d,"export_time":"%s","template":%d`,
		s.Header.Domain, s.Header.Sequence, exportTime(s.Header), s.ID)
	if n := s.Template.Scope; n > 0 {
		b = fmt.Appendf(b, `,"scope_fields":%d`, n)
	}
	return append(b, `,"record":`...)
}

func exportTime(h ipfix.Header) string {
	return time.Unix(int64(h.ExportTime), 0).UTC().Format(time.RFC3339)
}

// A dumper prints messages.
type dumper struct {
	w        *bufio.Writer
	format   format
	printers map[*ipfix.Session]*printer
	line     []byte
}

// header begins the output.
func (d *dumper) header() {
	if d.format == "csv" {
		fmt.Fprintln(d.w, "file,packet,offset,exporter,domain,export_time,template,record,element,value")
	}
}

// message prints a message. Its error is that of the output.
func (d *dumper) message(m *message) error {
	var sets []file.Set
	if d.format == "table" {
		for s := range file.Sets(m.Octets) {
			if len(s.Records) > 0 {
				sets = append(sets, s)
			}
		}
	}
	begun, record := false, 0
	templatesUpTo := func(offset int) {
		for len(sets) > 0 && sets[0].Offset < offset {
			d.templates(sets[0])
			sets = sets[1:]
		}
	}
	begin := func(h ipfix.Header) {
		if !begun && d.format == "table" {
			d.head(m, h)
		}
		begun = true
	}
	ok := m.decode(func(session *ipfix.Session, s ipfix.DataSet) {
		begin(s.Header)
		templatesUpTo(s.Offset)
		d.set(m, d.printer(session, s.Header.Domain), s, &record)
	})
	if ok {
		begin(m.result.Header)
		templatesUpTo(len(m.Octets))
	}
	if _, err := d.w.Write(nil); err != nil {
		return fmt.Errorf("ipfix dump: %w", err)
	}
	return nil
}

// head prints what a message is.
func (d *dumper) head(m *message, h ipfix.Header) {
	fmt.Fprintf(d.w, "%s: message of %d octets, domain %d, sequence %d, exported %s", m.where(), len(m.Octets), h.Domain, h.Sequence, exportTime(h))
	if m.Packet > 0 {
		fmt.Fprintf(d.w, ", %s from %s to %s", m.Session.Transport, m.Session.Exporter, m.Session.Collector)
	}
	fmt.Fprintln(d.w)
}

// templates prints a Template Set.
func (d *dumper) templates(s file.Set) {
	for _, t := range s.Records {
		what := "template"
		if t.Options {
			what = "options template"
		}
		if t.Fields == 0 {
			fmt.Fprintf(d.w, "  %s %d withdrawn\n", what, t.ID)
		} else {
			fmt.Fprintf(d.w, "  %s %d of %d fields\n", what, t.ID, t.Fields)
		}
	}
}

// printer returns that of a session, set to a domain.
func (d *dumper) printer(session *ipfix.Session, domain uint32) *printer {
	p := d.printers[session]
	if p == nil {
		if d.printers == nil {
			d.printers = make(map[*ipfix.Session]*printer)
		}
		p = &printer{session: session}
		d.printers[session] = p
	}
	p.domain = domain
	return p
}

// set prints a Data Set.
func (d *dumper) set(m *message, p *printer, s ipfix.DataSet, record *int) {
	if s.Template == nil {
		if d.format == "table" {
			fmt.Fprintf(d.w, "  data set %d of %d octets: its template is not known\n", s.ID, len(s.Octets()))
		}
		return
	}
	if d.format == "table" {
		what := "data"
		if s.Template.Scope > 0 {
			what = "options data"
		}
		fmt.Fprintf(d.w, "  %s set %d, records: %d\n", what, s.ID, s.Records)
	}
	l := p.layout(s.Template)
	origin := 0
	if d.format == "json" {
		d.line = appendOrigin(d.line[:0], m, s)
		origin = len(d.line)
	}
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		*record++
		switch d.format {
		case "json":
			d.line = p.appendJSON(d.line[:origin], s.Template, r, 0)
			d.w.Write(append(d.line, "}\n"...)) //nolint:errcheck // bufio keeps the error
		case "csv":
			d.csv(m, s, p, r, *record)
		default:
			d.line = p.appendText(append(d.line[:0], "   "...), l, r)
			d.w.Write(append(d.line, '\n')) //nolint:errcheck // bufio keeps the error
		}
	}
}

// tableValue quotes strings that would run into the next value.
func tableValue(t ipfix.Type, s string) string {
	if s == "" || t == ipfix.TypeString && strings.ContainsRune(s, ' ') && !strings.HasPrefix(s, `"`) {
		return strconv.Quote(s)
	}
	return s
}

// csv prints a row for each value.
func (d *dumper) csv(m *message, s ipfix.DataSet, p *printer, r ipfix.Record, record int) {
	c := csv.NewWriter(d.w)
	packet, offset, exporter := "", "", ""
	if m.Packet > 0 {
		packet, exporter = strconv.FormatInt(m.Packet, 10), m.Session.Exporter.String()
	} else {
		offset = strconv.FormatInt(m.Offset, 10)
	}
	l := p.layout(s.Template)
	for i, t := range l.types {
		c.Write([]string{ //nolint:errcheck // bufio keeps the error
			m.name, packet, offset, exporter, strconv.FormatUint(uint64(s.Header.Domain), 10), exportTime(s.Header),
			strconv.Itoa(int(s.ID)), strconv.Itoa(record), l.names[i], p.text(t, r.Field(i)),
		})
	}
	c.Flush()
}
