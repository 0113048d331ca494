package flowfiles

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"strconv"
	"time"

	"tollbridge/cmd/tollbridge/internal/flowtext"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

// A dumper prints messages.
type dumper struct {
	w        *bufio.Writer
	format   listing.Format
	printers map[*ipfix.Session]*flowtext.Printer
	line     []byte
}

// header begins the output.
func (d *dumper) header() {
	if d.format == listing.CSV {
		fmt.Fprintln(d.w, "file,packet,offset,exporter,domain,export_time,template,record,element,value")
	}
}

// message prints a message. Its error is that of the output.
func (d *dumper) message(m *message) error {
	var sets []file.Set
	if d.format == listing.ForPeople {
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
		if !begun && d.format == listing.ForPeople {
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
	fmt.Fprintf(d.w, "%s: message of %d octets, domain %d, sequence %d, exported %s", m.where(), len(m.Octets), h.Domain, h.Sequence, flowtext.ExportTime(h))
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
func (d *dumper) printer(session *ipfix.Session, domain uint32) *flowtext.Printer {
	p := d.printers[session]
	if p == nil {
		if d.printers == nil {
			d.printers = make(map[*ipfix.Session]*flowtext.Printer)
		}
		p = flowtext.NewPrinter(session)
		d.printers[session] = p
	}
	p.SetDomain(domain)
	return p
}

// set prints a Data Set.
func (d *dumper) set(m *message, p *flowtext.Printer, s ipfix.DataSet, record *int) {
	if s.Template == nil {
		if d.format == listing.ForPeople {
			fmt.Fprintf(d.w, "  data set %d of %d octets: its template is not known\n", s.ID, len(s.Octets()))
		}
		return
	}
	if d.format == listing.ForPeople {
		what := "data"
		if s.Template.Scope > 0 {
			what = "options data"
		}
		fmt.Fprintf(d.w, "  %s set %d, records: %d\n", what, s.ID, s.Records)
	}
	origin := 0
	if d.format == listing.JSON {
		d.line = appendOrigin(d.line[:0], m, s)
		origin = len(d.line)
	}
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		*record++
		switch d.format {
		case listing.JSON:
			d.line = p.AppendJSON(d.line[:origin], s.Template, r)
			d.w.Write(append(d.line, "}\n"...)) //nolint:errcheck // bufio keeps the error
		case listing.CSV:
			d.csv(m, s, p, r, *record)
		default:
			d.line = p.AppendText(append(d.line[:0], "   "...), s.Template, r)
			d.w.Write(append(d.line, '\n')) //nolint:errcheck // bufio keeps the error
		}
	}
}

// csv prints a row for each value.
func (d *dumper) csv(m *message, s ipfix.DataSet, p *flowtext.Printer, r ipfix.Record, record int) {
	c := csv.NewWriter(d.w)
	packet, offset, exporter := "", "", ""
	if m.Packet > 0 {
		packet, exporter = strconv.FormatInt(m.Packet, 10), m.Session.Exporter.String()
	} else {
		offset = strconv.FormatInt(m.Offset, 10)
	}
	for name, value := range p.Values(s.Template, r) {
		c.Write([]string{ //nolint:errcheck // bufio keeps the error
			m.name, packet, offset, exporter, strconv.FormatUint(uint64(s.Header.Domain), 10), flowtext.ExportTime(s.Header),
			strconv.Itoa(int(s.ID)), strconv.Itoa(record), name, value,
		})
	}
	c.Flush()
}

// appendOrigin appends the start of a line of JSON for each record of a set:
// where it comes from.
func appendOrigin(b []byte, m *message, s ipfix.DataSet) []byte {
	b = append(b, `{"file":`...)
	b = flowtext.AppendJSONString(b, m.name)
	if m.Packet > 0 {
		b = fmt.Appendf(b, `,"packet":%d,"captured":"%s","transport":"%s","exporter":"%s","collector":"%s"`, m.Packet,
			m.Time.Format(time.RFC3339Nano), m.Session.Transport, m.Session.Exporter, m.Session.Collector)
	} else {
		b = fmt.Appendf(b, `,"offset":%d`, m.Offset)
	}
	b = fmt.Appendf(b, `,"domain":%d,"sequence":%d,"export_time":"%s","template":%d`,
		s.Header.Domain, s.Header.Sequence, flowtext.ExportTime(s.Header), s.ID)
	if n := s.Template.Scope; n > 0 {
		b = fmt.Appendf(b, `,"scope_fields":%d`, n)
	}
	return append(b, `,"record":`...)
}
