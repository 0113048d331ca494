package file

import (
	"cmp"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"time"

	"tollbridge/ipfix"
)

// ErrConfig says that a Config can't be.
var ErrConfig = errors.New("invalid config")

// Config says what a Writer adds to the Messages it is given.
type Config struct {
	// Checksums adds a checksum record to every Message (RFC 5655,
	// Section 8.1.1) that has room for it and none yet.
	Checksums bool

	// Window adds a record of the earliest flow start and the latest flow end
	// at the end of the File (Section 8.1.2), unless a Message brought one.
	Window bool

	// Details of the Transport Session that the Messages come from begin the
	// File (Section 8.1.3). The zero Details adds none.
	Details Details
}

// Details say where Messages were exported from and to.
type Details struct {
	Exporter, Collector netip.AddrPort // both of one IP version
	Protocol            uint8          // IANA number: 6 TCP, 17 UDP, 132 SCTP
	Version             uint8          // of the export protocol; 0 means 10
}

// A domain is an Observation Domain of the File.
type domain struct {
	inserted uint32          // records of ours so far: later sequence numbers rise by it
	next     uint32          // number that the next Message has, as written
	ids      map[role]uint16 // our Options Templates that hold in the File
}

// A role is what an Options Template of ours is for.
type role uint8

const (
	checksums role = iota
	window
	details
)

// A Writer writes an IPFIX File. Messages go into it as they are, but for what
// the Config adds: a record that is added to an Observation Domain raises the
// sequence numbers of the Messages after it, so that a reader finds the same
// gaps as before, and no others. It belongs to one goroutine.
//
// The Writer does not buffer. After a failed write the File ends within a
// Message, and nothing more is written.
type Writer struct {
	w       io.Writer
	config  Config
	session *ipfix.Session
	domains map[uint32]*domain
	begun   bool
	first   ipfix.Header // of the File
	latest  uint32       // Export Time
	octets  int64
	err     error // of w
	b       []byte

	plans      map[*ipfix.Template]flowTimes
	start, end int64 // of the flows in the File, Unix milliseconds; start > end for none
	hasWindow  bool  // a Message brought one
}

// NewWriter returns a Writer of the file w. Its error matches ErrConfig.
func NewWriter(w io.Writer, cfg Config) (*Writer, error) {
	d := cfg.Details
	if d.Exporter.IsValid() != d.Collector.IsValid() || d.Exporter.Addr().Unmap().Is4() != d.Collector.Addr().Unmap().Is4() {
		return nil, fmt.Errorf("file: Config.Details: exporter %v and collector %v are not of one IP version: %w", d.Exporter, d.Collector, ErrConfig)
	}
	return &Writer{
		w: w, config: cfg, session: ipfix.NewSession(ipfix.UDP), domains: make(map[uint32]*domain),
		plans: make(map[*ipfix.Template]flowTimes), start: math.MaxInt64, end: math.MinInt64,
	}, nil
}

// Octets returns how long the File is so far.
func (w *Writer) Octets() int64 { return w.octets }

// Write writes a Message. A malformed one is not written; its error is an
// ipfix.DecodeError. Other errors are those of the file, and stay.
func (w *Writer) Write(msg []byte) error {
	if w.err != nil {
		return w.err
	}
	if _, err := ipfix.ParseHeader(msg); err != nil || binary.BigEndian.Uint16(msg) != ipfix.Version {
		return fmt.Errorf("file: write: %w", cmp.Or(err, ipfix.ErrVersion))
	}
	sum := !w.config.Checksums
	r, err := w.session.Decode(msg, func(s ipfix.DataSet) {
		w.see(s)
		if found, _ := VerifyChecksum(msg, s); found {
			sum = true
		}
	})
	if err != nil {
		return fmt.Errorf("file: write: %w", err)
	}
	if !w.begun {
		w.begun, w.first = true, r.Header
		if w.config.Details != (Details{}) {
			d := w.domain(r.Header.Domain)
			d.next = r.Header.Sequence
			w.options(details, w.detailsFields(), w.config.Details.values()...)
		}
	}
	d := w.domain(r.Header.Domain)
	for _, t := range r.New {
		w.yield(d, t.ID, r.Header)
	}
	if withdrawsOptions(msg) {
		clear(d.ids)
	}
	w.latest = r.Header.ExportTime
	w.b = append(w.b[:0], msg...)
	binary.BigEndian.PutUint32(w.b[8:], r.Header.Sequence+d.inserted)
	d.next = r.Header.Sequence + d.inserted + uint32(r.Records)
	return w.finish(d, r.Header.Domain, sum)
}

// domain returns the state of an Observation Domain.
func (w *Writer) domain(id uint32) *domain {
	d := w.domains[id]
	if d == nil {
		d = &domain{ids: make(map[role]uint16)}
		w.domains[id] = d
	}
	return d
}

// yield gives up the Template ID of ours that an exporter's Template takes, in
// a Message of its own before (RFC 7011, Section 8.1).
func (w *Writer) yield(d *domain, id uint16, h ipfix.Header) {
	for role, own := range d.ids {
		if own != id {
			continue
		}
		delete(d.ids, role)
		w.b = ipfix.Header{Length: 24, ExportTime: h.ExportTime, Sequence: h.Sequence + d.inserted, Domain: h.Domain}.Append(w.b[:0])
		w.b = append(w.b, 0, 3, 0, 8, byte(id>>8), byte(id), 0, 0)
		w.write()
	}
}

// withdrawsOptions reports whether a Message withdraws all Options Templates
// of its domain, ours with them (RFC 7011, Section 8.1).
func withdrawsOptions(msg []byte) bool {
	for s := range Sets(msg) {
		for _, r := range s.Records {
			if r.Options && r.ID == s.ID && r.Fields == 0 {
				return true
			}
		}
	}
	return false
}

// allot returns a Template ID that nobody uses in the domain, from the top.
func (w *Writer) allot(d *domain, id uint32) uint16 {
	for n := uint16(math.MaxUint16); ; n-- {
		taken := w.session.Template(id, n) != nil
		for _, own := range d.ids {
			taken = taken || own == n
		}
		if !taken || n == minTemplateID {
			return n
		}
	}
}

// checksumFields are those of the Message Checksum Options Template.
var checksumFields = []ipfix.FieldSpecifier{
	{ID: ipfix.MessageScope, Length: 1},
	{ID: ipfix.MessageMD5Checksum, Length: md5.Size},
}

// optionsTemplate returns our Options Template for a role, and whether the File
// has it already.
func (w *Writer) optionsTemplate(d *domain, id uint32, r role, fields []ipfix.FieldSpecifier) (*ipfix.Template, bool) {
	number, defined := d.ids[r]
	if !defined {
		number = w.allot(d, id)
		d.ids[r] = number
	}
	t, err := ipfix.NewOptionsTemplate(number, 1, fields...)
	if err != nil {
		panic("file: internal error: " + err.Error())
	}
	return t, defined
}

// finish writes the Message in w.b, with a checksum unless it has one.
func (w *Writer) finish(d *domain, id uint32, hasSum bool) error {
	// Options Template Set, Data Set, and the record in it.
	const template, data = setHeader + 6 + 8, setHeader + 1 + md5.Size
	if hasSum {
		return w.write()
	}
	whole := w.b
	if w.b = withoutTail(w.b); len(w.b)+template+data > maxMessage {
		w.b = whole
		return w.write()
	}
	t, defined := w.optionsTemplate(d, id, checksums, checksumFields)
	if !defined {
		w.b = append(w.b, 0, 3, 0, template)
		w.b = t.Append(w.b)
	}
	w.b = binary.BigEndian.AppendUint16(w.b, t.ID)
	w.b = append(w.b, 0, data)
	w.b = append(w.b, make([]byte, 1+md5.Size)...) // the scope is 0: this Message
	d.inserted++
	d.next++
	binary.BigEndian.PutUint16(w.b[2:], uint16(len(w.b)))
	sum := md5.Sum(w.b)
	copy(w.b[len(w.b)-md5.Size:], sum[:])
	return w.write()
}

// withoutTail returns a Message without the zeros that it may be filled up
// with behind its last Set: nothing can follow them.
func withoutTail(msg []byte) []byte {
	end := ipfix.HeaderLength
	for s := range Sets(msg) {
		end = s.Offset + s.Length
	}
	return msg[:end]
}

func (w *Writer) write() error {
	if w.err != nil {
		return w.err
	}
	n, err := w.w.Write(w.b)
	w.octets += int64(n)
	if err != nil {
		w.err = fmt.Errorf("file: write: %w", err)
	}
	return w.err
}

// options writes a Message with an options record of ours, in the domain of
// the first Message. Its scope is the session: 0, this one.
func (w *Writer) options(r role, fields []ipfix.FieldSpecifier, values ...any) error {
	id := w.first.Domain
	d := w.domain(id)
	t, _ := w.optionsTemplate(d, id, r, fields)
	e := ipfix.NewEncoder(id, 0)
	if err := errors.Join(e.AddTemplate(t), e.AddRecord(t, values...)); err != nil {
		panic("file: internal error: " + err.Error())
	}
	w.b = append(w.b[:0], e.Flush(max(w.latest, w.first.ExportTime))...)
	binary.BigEndian.PutUint32(w.b[8:], d.next)
	d.inserted++
	d.next++
	return w.finish(d, id, !w.config.Checksums)
}

// detailsFields are those of the Export Session Details Options Template.
func (w *Writer) detailsFields() []ipfix.FieldSpecifier {
	d := w.config.Details
	fields := []ipfix.FieldSpecifier{{ID: ipfix.SessionScope, Length: 1}}
	if d.Exporter.IsValid() {
		from, to, length := uint16(ipfix.ExporterIPv4Address), uint16(ipfix.CollectorIPv4Address), uint16(4)
		if !d.Exporter.Addr().Unmap().Is4() {
			from, to, length = ipfix.ExporterIPv6Address, ipfix.CollectorIPv6Address, 16
		}
		fields = append(fields,
			ipfix.FieldSpecifier{ID: from, Length: length}, ipfix.FieldSpecifier{ID: ipfix.ExporterTransportPort, Length: 2},
			ipfix.FieldSpecifier{ID: to, Length: length}, ipfix.FieldSpecifier{ID: ipfix.CollectorTransportPort, Length: 2})
	}
	return append(fields,
		ipfix.FieldSpecifier{ID: ipfix.ExportTransportProtocol, Length: 1},
		ipfix.FieldSpecifier{ID: ipfix.ExportProtocolVersion, Length: 1})
}

// values are those of the fields that detailsFields returns.
func (d Details) values() []any {
	if d.Version == 0 {
		d.Version = ipfix.Version
	}
	if !d.Exporter.IsValid() {
		return []any{0, d.Protocol, d.Version}
	}
	return []any{0, d.Exporter.Addr().Unmap(), d.Exporter.Port(), d.Collector.Addr().Unmap(), d.Collector.Port(), d.Protocol, d.Version}
}

// windowFields are those of the File Time Window Options Template.
var windowFields = []ipfix.FieldSpecifier{
	{ID: ipfix.SessionScope, Length: 1},
	{ID: ipfix.MinFlowStartMilliseconds, Length: 8},
	{ID: ipfix.MaxFlowEndMilliseconds, Length: 8},
}

// Close ends the File: it adds the time window, if that was asked for and there
// is any. It does not close the underlying file. Errors are the file's.
func (w *Writer) Close() error {
	if w.err != nil || !w.config.Window || w.hasWindow || w.start > w.end {
		return w.err
	}
	return w.options(window, windowFields, 0, time.UnixMilli(w.start), time.UnixMilli(w.end))
}

// windowStarts are the elements that a time window record may begin with.
var windowStarts = []uint16{
	ipfix.MinFlowStartSeconds, ipfix.MinFlowStartMilliseconds, ipfix.MinFlowStartMicroseconds, ipfix.MinFlowStartNanoseconds,
}

// maxPlans bounds how many Templates the Writer remembers.
const maxPlans = 4096

// flowTimes are how to read a Template's flow times.
type flowTimes struct {
	start, end       ipfix.Accessor
	hasStart, hasEnd bool
	round            int64 // milliseconds by which an end may be later than what is read
}

var (
	startElements = []uint16{ipfix.FlowStartMilliseconds, ipfix.FlowStartMicroseconds, ipfix.FlowStartNanoseconds, ipfix.FlowStartSeconds}
	endElements   = []uint16{ipfix.FlowEndMilliseconds, ipfix.FlowEndMicroseconds, ipfix.FlowEndNanoseconds, ipfix.FlowEndSeconds}
)

func newFlowTimes(t *ipfix.Template) (f flowTimes) {
	for _, id := range startElements {
		if f.start, f.hasStart = t.Accessor(0, id); f.hasStart {
			break
		}
	}
	for _, id := range endElements {
		if f.end, f.hasEnd = t.Accessor(0, id); f.hasEnd {
			break
		}
	}
	if !f.hasEnd {
		return f
	}
	switch f.end.Type() {
	case ipfix.TypeDateTimeMicroseconds, ipfix.TypeDateTimeNanoseconds:
		f.round = 1
	case ipfix.TypeDateTimeSeconds:
		f.round = 999
	}
	return f
}

// see widens the time window by the flows of a Data Set.
func (w *Writer) see(s ipfix.DataSet) {
	if !w.config.Window || s.Template == nil {
		return
	}
	if s.Template.Scope > 0 {
		for _, f := range s.Template.Fields {
			w.hasWindow = w.hasWindow || f.Enterprise == 0 && slices.Contains(windowStarts, f.ID)
		}
		return
	}
	f, known := w.plans[s.Template]
	if !known {
		f = newFlowTimes(s.Template)
		if len(w.plans) == maxPlans {
			clear(w.plans)
		}
		w.plans[s.Template] = f
	}
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		if f.hasStart {
			if at := f.start.UnixMilli(r); at > 0 {
				w.start = min(w.start, at)
				w.end = max(w.end, at)
			}
		}
		if f.hasEnd {
			if at := f.end.UnixMilli(r); at > 0 {
				w.end = max(w.end, at+f.round)
				w.start = min(w.start, at)
			}
		}
	}
}
