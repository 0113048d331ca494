package main

import (
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollbridge/internal/peertest"
	"tollbridge/internal/wiretest"
	"tollbridge/ipfix"
)

// TestRandomTemplatesAsTshark has the encoder make Messages of random
// Templates: all abstract data types, reduced sizes, variable lengths, reverse
// and unknown enterprise elements, Options Templates with scopes, structured
// data, padding. tshark and Session.Decode find the same records in them, and
// in these the same octets at the same places, field by field. What tshark
// knows the type of it also shows as the same value, but for what tsharkReads
// excepts.
func TestRandomTemplatesAsTshark(t *testing.T) {
	peertest.Need(t, "tshark")
	datagrams := randomMessages(t, 40, 12)
	name := filepath.Join(t.TempDir(), "random.pcap")
	savePcap(t, name, datagrams...)
	if c := countsOf(t, name); c.Messages != uint64(len(datagrams)) || c.Templates < 300 || c.OptionsTemplates < 100 || len(c.Errors) > 0 {
		t.Errorf("the capture has %+v", c)
	}
	packets := readPDML(t, name)
	if len(packets) != len(datagrams) {
		t.Fatalf("tshark has %d packets of %d", len(packets), len(datagrams))
	}
	var j tsharkJudge
	session := ipfix.NewSession(ipfix.UDP)
	for i, d := range datagrams {
		theirs := packets[i].flows(t)
		n := 0
		_, err := session.Decode(d, func(s ipfix.DataSet) {
			const header = 28 // IPv4 and UDP
			at := header + s.Offset + 4
			for r, ok := s.Next(); ok; r, ok = s.Next() {
				if n++; n > len(theirs) {
					continue
				}
				for k, f := range s.Template.Fields {
					value := r.Field(k)
					if f.Length == ipfix.VariableLength {
						if at++; len(value) >= 255 {
							at += 2
						}
					}
					if err := j.compare(f, value, at, theirs[n-1]); err != nil {
						t.Errorf("packet %d: record %d: field %d: %v", i+1, n, k, err)
					}
					at += len(value)
				}
			}
		})
		if err != nil || n != len(theirs) {
			t.Errorf("packet %d: %d records, error %v; tshark has %d", i+1, n, err, len(theirs))
		}
	}
	if j.values < 6000 {
		t.Error("too little was compared")
	}
	t.Logf("%d messages; fields with equal octets: %d, of which with equal values: %d", len(datagrams), j.octets, j.values)
}

// randomExported is the Export Time of randomMessages, in Unix seconds.
const randomExported = 1_700_000_000

// randomMessages returns Messages of so many domains, of so many Templates
// each with a few records. They are the same each time.
func randomMessages(t *testing.T, domains, templates int) (all [][]byte) {
	t.Helper()
	m := &mixer{Rand: rand.New(rand.NewPCG(7011, 7012)), t: t}
	for e := range ipfix.Elements() {
		if e.Type != ipfix.TypeUnsigned256 && tsharkReads[e.ID] != elsewhere {
			m.elements = append(m.elements, e)
		}
	}
	listed, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.InterfaceName, Length: ipfix.VariableLength})
	if err != nil {
		t.Fatal(err)
	}
	m.listed = listed
	for domain := range domains {
		e := ipfix.NewEncoder(uint32(domain), 1400+1000*domain)
		e.Padding = domain%2 == 0
		flush := func() {
			if msg := e.Flush(randomExported); msg != nil {
				all = append(all, bytes.Clone(msg))
			}
		}
		add := func(do func() error) {
			err := do()
			if errors.Is(err, ipfix.ErrFull) {
				flush()
				err = do()
			}
			if err != nil && !errors.Is(err, ipfix.ErrLength) { // too long for this encoder
				t.Fatal(err)
			}
		}
		add(func() error { return e.AddTemplate(listed) })
		for i := range templates {
			template := m.template(uint16(257+i), i%4 == 3)
			add(func() error { return e.AddTemplate(template) })
			for range 1 + m.IntN(4) {
				record := m.record(template)
				add(func() error { return e.AppendRecord(template, record) })
			}
			if m.IntN(3) == 0 {
				flush()
			}
		}
		flush()
	}
	return all
}

// A mixer makes Templates of all kinds and records of them.
type mixer struct {
	*rand.Rand
	t        *testing.T
	elements []ipfix.InformationElement
	listed   *ipfix.Template // of the records in lists
}

// template returns a Template of 1 to 14 fields; an Options Template is one
// with a scope. One field takes four octets or more: to tshark, fields of
// variable length take none, so that it takes a Template of those alone for
// unknown and padding for a record of shorter ones. At most one is the time of
// a flow's start or end, as tshark makes a duration of two.
func (m *mixer) template(id uint16, options bool) *ipfix.Template {
	fields := make([]ipfix.FieldSpecifier, 1+m.IntN(14))
	timed := false
	for i := range fields {
		fields[i] = m.field()
		for isFlowTime(fields[i].ID) && timed {
			fields[i] = m.field()
		}
		timed = timed || isFlowTime(fields[i].ID)
	}
	fields[m.IntN(len(fields))] = ipfix.FieldSpecifier{ID: ipfix.PacketDeltaCount, Length: uint16(4 + m.IntN(5))}
	var template *ipfix.Template
	var err error
	if options {
		template, err = ipfix.NewOptionsTemplate(id, 1+m.IntN(min(3, len(fields))), fields...)
	} else {
		template, err = ipfix.NewTemplate(id, fields...)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return template
}

// isFlowTime reports whether an element, or the reverse of it, is the start or
// end of a flow.
func isFlowTime(id uint16) bool {
	switch id {
	case ipfix.FlowStartSysUpTime, ipfix.FlowEndSysUpTime:
		return true
	}
	return id >= ipfix.FlowStartSeconds && id <= ipfix.FlowEndDeltaMicroseconds
}

// field returns a field of any element and of any length that it may have.
func (m *mixer) field() ipfix.FieldSpecifier {
	if m.IntN(12) == 0 { // an element that nobody knows
		f := ipfix.FieldSpecifier{Enterprise: 100_000 + m.Uint32N(1000), ID: uint16(1 + m.IntN(0x7fff)), Length: uint16(1 + m.IntN(20))}
		if m.IntN(3) == 0 {
			f.Length = ipfix.VariableLength
		}
		return f
	}
	e := m.elements[m.IntN(len(m.elements))]
	f := ipfix.FieldSpecifier{ID: e.ID, Length: uint16(e.Type.Length())}
	if e.Reversible && m.IntN(8) == 0 {
		f.Enterprise = ipfix.ReversePEN
	}
	switch e.Type {
	case ipfix.TypeString, ipfix.TypeOctetArray:
		f.Length = uint16(1 + m.IntN(30))
		if m.IntN(2) == 0 {
			f.Length = ipfix.VariableLength
		}
	case ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList:
		f.Length = ipfix.VariableLength
	default:
		if n := uint16(1 + m.IntN(e.Type.Length())); m.IntN(3) == 0 && e.Type.ValidLength(n) && tsharkReads[e.ID] < wholly {
			f.Length = n
		}
	}
	return f
}

// value returns a value that suits a field.
func (m *mixer) value(f ipfix.FieldSpecifier) any {
	n := int(f.Length)
	switch typ := f.Element().Type; typ {
	case ipfix.TypeUnsigned8, ipfix.TypeUnsigned16, ipfix.TypeUnsigned32, ipfix.TypeUnsigned64:
		return m.Uint64() >> (64 - 8*n)
	case ipfix.TypeSigned8, ipfix.TypeSigned16, ipfix.TypeSigned32, ipfix.TypeSigned64:
		return m.Int64() >> (64 - 8*n)
	case ipfix.TypeFloat32, ipfix.TypeFloat64:
		return math.Ldexp(m.Float64()-0.5, m.IntN(200)-100)
	case ipfix.TypeBoolean:
		return m.IntN(2) == 0
	case ipfix.TypeMacAddress:
		return net.HardwareAddr(m.octets(6))
	case ipfix.TypeIpv4Address:
		return netip.AddrFrom4([4]byte(m.octets(4)))
	case ipfix.TypeIpv6Address:
		return netip.AddrFrom16([16]byte(m.octets(16)))
	case ipfix.TypeDateTimeSeconds, ipfix.TypeDateTimeMilliseconds, ipfix.TypeDateTimeMicroseconds, ipfix.TypeDateTimeNanoseconds:
		const until = 4_233_600_000 // in 2104; tshark takes later NTP times for ones before 1970
		return time.Unix(m.Int64N(until), m.Int64N(1e9))
	case ipfix.TypeString:
		b := m.octets(m.length(n))
		for i := range b {
			b[i] = ' ' + b[i]%95
		}
		return string(b)
	case ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList:
		return m.list(typ)
	default:
		return m.octets(m.length(n))
	}
}

// length returns the octets of a value, where a field leaves it open; a few
// need the long form of the length.
func (m *mixer) length(n int) int {
	if n != ipfix.VariableLength {
		return n
	}
	if m.IntN(10) == 0 {
		return 250 + m.IntN(60)
	}
	return m.IntN(20)
}

// list returns a value of structured data.
func (m *mixer) list(typ ipfix.Type) []byte {
	semantic := []ipfix.ListSemantic{ipfix.NoneOf, ipfix.ExactlyOneOf, ipfix.OneOrMoreOf, ipfix.AllOf, ipfix.Ordered, ipfix.Undefined}[m.IntN(6)]
	var b []byte
	var err error
	part := func() ipfix.SubTemplate {
		p := ipfix.SubTemplate{Template: m.listed}
		for range m.IntN(4) {
			p.Records = append(p.Records, m.record(p.Template))
		}
		return p
	}
	switch typ {
	case ipfix.TypeBasicList:
		f := ipfix.FieldSpecifier{ID: ipfix.SourceTransportPort, Length: 2}
		if m.IntN(2) == 0 {
			f = ipfix.FieldSpecifier{ID: ipfix.InterfaceName, Length: ipfix.VariableLength}
		}
		values := make([]any, m.IntN(5))
		for i := range values {
			values[i] = m.value(f)
		}
		b, err = ipfix.AppendBasicList(nil, semantic, f, values...)
	case ipfix.TypeSubTemplateList:
		p := part()
		b, err = ipfix.AppendSubTemplateList(nil, semantic, p.Template, p.Records...)
	default:
		parts := make([]ipfix.SubTemplate, m.IntN(3))
		for i := range parts {
			parts[i] = part()
		}
		b, err = ipfix.AppendSubTemplateMultiList(nil, semantic, parts...)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func (m *mixer) record(template *ipfix.Template) []byte {
	values := make([]any, len(template.Fields))
	for i, f := range template.Fields {
		values[i] = m.value(f)
	}
	b, err := template.AppendRecord(nil, values...)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func (m *mixer) octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

// savePcap writes a capture of datagrams to port 4739.
func savePcap(t *testing.T, name string, datagrams ...[]byte) {
	t.Helper()
	var capture wiretest.Pcap
	for _, d := range datagrams {
		capture.Add(1, d)
	}
	if err := os.WriteFile(name, capture.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A reading is what tshark 4.0 makes of an element, where it is not what RFC
// 7012 says.
type reading int

const (
	elsewhere reading = 1 + iota // dissects the content as a packet, and gives up if it is none: left out
	otherwise                    // shows something else; its octets are compared

	// It reads as many octets of these as the type has even where the field has
	// less, so the test never reduces their size.
	wholly
	milliDelta // shows milliseconds as seconds
	microDelta // shows microseconds as seconds
	before     // shows the Export Time less so many microseconds
)

var tsharkReads = map[uint16]reading{
	ipfix.IpHeaderPacketSection: elsewhere, ipfix.DataLinkFrameSection: elsewhere,
	ipfix.ForwardingStatus:         otherwise, // its two parts
	ipfix.MinFlowStartMilliseconds: otherwise, // its upper half, as milliseconds
	ipfix.SourceTransportPort:      wholly, ipfix.DestinationTransportPort: wholly,
	ipfix.UdpSourcePort: wholly, ipfix.UdpDestinationPort: wholly,
	ipfix.TcpSourcePort: wholly, ipfix.TcpDestinationPort: wholly,
	ipfix.IcmpTypeCodeIPv4: wholly, ipfix.IcmpTypeCodeIPv6: wholly,
	ipfix.FlowStartSysUpTime: milliDelta, ipfix.FlowEndSysUpTime: milliDelta,
	ipfix.FlowDurationMilliseconds: milliDelta, ipfix.FlowDurationMicroseconds: microDelta,
	ipfix.FlowStartDeltaMicroseconds: before, ipfix.FlowEndDeltaMicroseconds: before,
}

// A tsharkJudge counts the fields in which we and tshark agree.
type tsharkJudge struct{ octets, values int }

// compare returns an error if tshark has no such value at a place of the
// packet.
func (j *tsharkJudge) compare(f ipfix.FieldSpecifier, value []byte, at int, theirs []pdmlField) error {
	e := f.Element()
	if len(value) == 0 {
		return nil // tshark shows nothing of the kind
	}
	// Some elements are several fields to tshark, which lie end to end.
	octets := hex.EncodeToString(value)
	var parts []pdmlField
	for rest, p := octets, at; rest != ""; {
		i := slices.IndexFunc(theirs, func(t pdmlField) bool {
			return t.Pos == p && t.Size > 0 && len(t.Value) == 2*t.Size && strings.HasPrefix(rest, t.Value)
		})
		if i < 0 {
			break
		}
		parts = append(parts, theirs[i])
		rest, p = rest[2*theirs[i].Size:], p+theirs[i].Size
	}
	found := 0
	for _, part := range parts {
		found += part.Size
	}
	switch {
	case found == len(value) && len(parts) > 1:
		j.octets++
		return nil
	case found == len(value):
		j.octets++
		if strings.ReplaceAll(parts[0].Show, ":", "") == octets {
			return nil // tshark shows octets: the element is new to it, or a set of flags
		}
	case len(parts) == 1 && isFlowTime(f.ID): // shown as if of four octets, but with all of its value
	case e.Type == ipfix.TypeSubTemplateList: // shown without octets
		if slices.ContainsFunc(theirs, func(t pdmlField) bool { return t.Pos == at && t.Size == len(value) }) {
			return nil
		}
		fallthrough
	default:
		return fmt.Errorf("%v of %d octets at %d: %s is not in %+v", e, len(value), at, octets, theirs)
	}
	if ours := ipfix.FormatValue(e.Type, value); !tsharkShows(e, value, ours, parts[0].Show) {
		return fmt.Errorf("%v of %d octets at %d: %s, tshark shows %+v", e, len(value), at, ours, parts[0])
	}
	j.values++
	return nil
}

// tsharkShows reports whether what tshark shows of a value is what we do.
func tsharkShows(e ipfix.InformationElement, value []byte, ours, shown string) bool {
	switch how := tsharkReads[e.ID]; how {
	case otherwise:
		return true
	case milliDelta, microDelta:
		unit := map[reading]string{milliDelta: "ms", microDelta: "us"}[how]
		d, err := time.ParseDuration(ours + unit)
		return err == nil && shown == fmt.Sprintf("%d.%09d", d/time.Second, d%time.Second)
	case before:
		d, err := time.ParseDuration(ours + "us")
		return err == nil && shown == time.Unix(randomExported, 0).Add(-d).UTC().Format("Jan _2, 2006 15:04:05.000000000 MST")
	}
	switch e.Type {
	case ipfix.TypeUnsigned8, ipfix.TypeUnsigned16, ipfix.TypeUnsigned32, ipfix.TypeUnsigned64:
		n, err := strconv.ParseUint(shown, 0, 64)
		return err == nil && ours == strconv.FormatUint(n, 10)
	case ipfix.TypeFloat32, ipfix.TypeFloat64:
		v, err := strconv.ParseFloat(ours, 8*len(value))
		digits := map[int]int{4: 6, 8: 15}[len(value)]
		return err == nil && shown == fmt.Sprintf("%.*g", digits, v)
	case ipfix.TypeDateTimeSeconds, ipfix.TypeDateTimeMilliseconds, ipfix.TypeDateTimeMicroseconds, ipfix.TypeDateTimeNanoseconds:
		at, err := time.Parse("Jan _2, 2006 15:04:05.999999999 MST", shown)
		if e.Type == ipfix.TypeDateTimeMicroseconds {
			at = at.Truncate(time.Microsecond) // tshark takes the unused bits of the fraction for part of it
		}
		return err == nil && ours == at.UTC().Format(time.RFC3339Nano)
	case ipfix.TypeString:
		return shown == string(value)
	case ipfix.TypeOctetArray, ipfix.TypeBasicList, ipfix.TypeSubTemplateList, ipfix.TypeSubTemplateMultiList, ipfix.TypeBoolean:
		return true
	}
	return ours == shown
}

// A pdmlPacket is a packet as tshark shows it.
type pdmlPacket struct {
	Protos []pdmlField `xml:"proto"`
}

// A pdmlField is a field of tshark's, with those within it.
type pdmlField struct {
	Name   string      `xml:"name,attr"`
	Show   string      `xml:"show,attr"`
	Size   int         `xml:"size,attr"`
	Pos    int         `xml:"pos,attr"`
	Value  string      `xml:"value,attr"`
	Fields []pdmlField `xml:"field"`
}

// readPDML has tshark decode a capture.
func readPDML(t *testing.T, name string) []pdmlPacket {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", name, "-T", "pdml").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pdml struct {
		Packets []pdmlPacket `xml:"packet"`
	}
	if err := xml.Unmarshal(out, &pdml); err != nil {
		t.Fatal(err)
	}
	return pdml.Packets
}

// flows returns the Data Records of a packet, each as the fields in it.
func (p pdmlPacket) flows(t *testing.T) (all [][]pdmlField) {
	t.Helper()
	for _, proto := range p.Protos {
		if strings.HasPrefix(proto.Name, "_ws.malformed") {
			t.Errorf("tshark says that a packet is malformed: %+v", proto)
		}
		if proto.Name == "cflow" {
			all = proto.flows(all)
		}
	}
	return all
}

// flows appends the Data Records in a field.
func (f pdmlField) flows(all [][]pdmlField) [][]pdmlField {
	if f.Name == "" && strings.HasPrefix(f.Show, "Flow ") {
		return append(all, f.all(nil))
	}
	for _, within := range f.Fields {
		all = within.flows(all)
	}
	return all
}

// all appends the fields in a field, and those in them.
func (f pdmlField) all(fields []pdmlField) []pdmlField {
	for _, within := range f.Fields {
		fields = within.all(append(fields, within))
	}
	return fields
}
