package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
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
	template *ipfix.Template
	names    []string // in order of their first field
	fields   [][]int  // by name: the fields that have it
	types    []ipfix.Type
}

// layouts remembers those of the Templates in use.
type layouts map[*ipfix.Template]*layout

const maxLayouts = 4096

func newLayouts() layouts { return make(layouts) }

func (l layouts) of(t *ipfix.Template) *layout {
	if known := l[t]; known != nil {
		return known
	}
	if len(l) == maxLayouts {
		clear(l)
	}
	out := &layout{template: t}
	at := map[string]int{}
	for i, f := range t.Fields {
		e := f.Element()
		name := elementName(e)
		n, seen := at[name]
		if !seen {
			n = len(out.names)
			at[name] = n
			out.names = append(out.names, name)
			out.fields = append(out.fields, nil)
		}
		out.fields[n] = append(out.fields[n], i)
		out.types = append(out.types, e.Type)
	}
	l[t] = out
	return out
}

// elementName is an element's name, or "enterprise.number" where it has none.
func elementName(e ipfix.InformationElement) string {
	if e.Name != "" {
		return e.Name
	}
	return fmt.Sprintf("%d.%d", e.Enterprise, e.ID)
}

// appendJSON appends a record as a JSON object: elements by name, those that
// occur more than once as arrays.
func (l *layout) appendJSON(b []byte, r ipfix.Record) []byte {
	b = append(b, '{')
	for n, name := range l.names {
		if n > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, name)
		b = append(b, ':')
		fields := l.fields[n]
		if len(fields) > 1 {
			b = append(b, '[')
		}
		for i, f := range fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONValue(b, l.types[f], r.Field(f))
		}
		if len(fields) > 1 {
			b = append(b, ']')
		}
	}
	return append(b, '}')
}

// appendJSONValue appends a value: numbers and booleans as JSON has them,
// other values as text, what is empty as null.
func appendJSONValue(b []byte, t ipfix.Type, value []byte) []byte {
	if len(value) == 0 && t != ipfix.TypeString {
		return append(b, "null"...)
	}
	text := formatValue(t, value)
	switch {
	case t >= ipfix.TypeUnsigned8 && t <= ipfix.TypeSigned64 && len(value) <= 8:
		return append(b, text...)
	case t == ipfix.TypeFloat32 || t == ipfix.TypeFloat64:
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) && (len(value) == 4 || len(value) == 8) {
			return append(b, text...)
		}
	case text == "true" || text == "false":
		if t == ipfix.TypeBoolean {
			return append(b, text...)
		}
	case t == ipfix.TypeString && utf8.Valid(value):
		text = string(trimPadding(value))
	}
	return appendJSONString(b, text)
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
	q, err := json.Marshal(s)
	if err != nil {
		panic("tollbridge: internal error: " + err.Error())
	}
	return append(b, q...)
}

// appendRecordLine appends a record as a line of JSON that says where it comes
// from.
func (l *layout) appendRecordLine(b []byte, m *message, s ipfix.DataSet, r ipfix.Record) []byte {
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
	b = append(b, `,"record":`...)
	b = l.appendJSON(b, r)
	return append(b, "}\n"...)
}

func exportTime(h ipfix.Header) string {
	return time.Unix(int64(h.ExportTime), 0).UTC().Format(time.RFC3339)
}

// A dumper prints messages.
type dumper struct {
	w       *bufio.Writer
	format  format
	layouts layouts
	line    []byte
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
	ok := m.decode(func(s ipfix.DataSet) {
		begin(s.Header)
		templatesUpTo(s.Offset)
		d.set(m, s, &record)
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

// set prints a Data Set.
func (d *dumper) set(m *message, s ipfix.DataSet, record *int) {
	if s.Template == nil {
		if d.format == "table" {
			fmt.Fprintf(d.w, "  data set %d of %d octets: its template is not known\n", s.ID, len(s.Octets()))
		}
		return
	}
	l := d.layouts.of(s.Template)
	if d.format == "table" {
		what := "data"
		if s.Template.Scope > 0 {
			what = "options data"
		}
		fmt.Fprintf(d.w, "  %s set %d, records: %d\n", what, s.ID, s.Records)
	}
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		*record++
		switch d.format {
		case "json":
			d.line = l.appendRecordLine(d.line[:0], m, s, r)
			d.w.Write(d.line) //nolint:errcheck // bufio keeps the error
		case "csv":
			d.csv(m, s, l, r, *record)
		default:
			d.line = append(d.line[:0], "   "...)
			for i, t := range l.types {
				d.line = append(d.line, ' ')
				d.line = append(d.line, elementName(s.Template.Fields[i].Element())...)
				d.line = append(d.line, '=')
				d.line = append(d.line, tableValue(formatValue(t, r.Field(i)))...)
			}
			d.w.Write(append(d.line, '\n')) //nolint:errcheck // bufio keeps the error
		}
	}
}

// tableValue quotes what would run into the next value.
func tableValue(s string) string {
	if s == "" || strings.ContainsRune(s, ' ') && !strings.HasPrefix(s, `"`) {
		return strconv.Quote(s)
	}
	return s
}

// csv prints a row for each value.
func (d *dumper) csv(m *message, s ipfix.DataSet, l *layout, r ipfix.Record, record int) {
	c := csv.NewWriter(d.w)
	packet, offset, exporter := "", "", ""
	if m.Packet > 0 {
		packet, exporter = strconv.FormatInt(m.Packet, 10), m.Session.Exporter.String()
	} else {
		offset = strconv.FormatInt(m.Offset, 10)
	}
	for i, t := range l.types {
		c.Write([]string{ //nolint:errcheck // bufio keeps the error
			m.name, packet, offset, exporter, strconv.FormatUint(uint64(s.Header.Domain), 10), exportTime(s.Header),
			strconv.Itoa(int(s.ID)), strconv.Itoa(record),
			elementName(s.Template.Fields[i].Element()), formatValue(t, r.Field(i)),
		})
	}
	c.Flush()
}
