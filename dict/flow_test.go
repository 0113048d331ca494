package dict

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// field returns a Field Specifier of IANA's.
func field(id, length uint16) ipfix.FieldSpecifier {
	return ipfix.FieldSpecifier{ID: id, Length: length}
}

// drawField draws a Field Specifier: of the registry and of full or reduced
// size, reverse, unknown, of an enterprise, of variable length, or of a length
// that its type can't have.
func drawField(t *rapid.T) ipfix.FieldSpecifier {
	var f ipfix.FieldSpecifier
	id := func() uint16 { return uint16(rapid.IntRange(1, 533).Draw(t, "id")) }
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		f.ID, f.Enterprise = uint16(rapid.IntRange(0, 32767).Draw(t, "id")), rapid.SampledFrom([]uint32{1, 9, 6871, ipfix.ReversePEN, 1<<32 - 1}).Draw(t, "enterprise")
	case 1:
		f.ID = uint16(rapid.IntRange(0, 32767).Draw(t, "id"))
	case 2, 3:
		f.ID, f.Enterprise = id(), ipfix.ReversePEN
	default:
		f.ID = id()
	}
	natural := uint16(f.Element().Type.Length())
	switch rapid.IntRange(0, 5).Draw(t, "length") {
	case 0:
		f.Length = ipfix.VariableLength
	case 1:
		f.Length = uint16(rapid.IntRange(0, 40).Draw(t, "octets"))
	case 2:
		f.Length = uint16(rapid.IntRange(0, int(max(natural, 1))).Draw(t, "octets"))
	case 3:
		f.Length = rapid.SampledFrom([]uint16{0, 1, 254, 255, 256, 4000}).Draw(t, "octets")
	default:
		if f.Length = natural; natural == 0 {
			f.Length = ipfix.VariableLength
		}
	}
	return f
}

// drawFlow draws a Template and a record of it.
func drawFlow(t *rapid.T) (*ipfix.Template, []byte) {
	fields := rapid.SliceOfN(rapid.Custom(drawField), 1, 30).Draw(t, "fields")
	id := uint16(rapid.IntRange(256, 65535).Draw(t, "template"))
	template, err := ipfix.NewTemplate(id, fields...)
	if rapid.Bool().Draw(t, "options") {
		template, err = ipfix.NewOptionsTemplate(id, rapid.IntRange(1, len(fields)).Draw(t, "scope"), fields...)
	}
	if err != nil {
		t.Skip("no template: ", err)
	}
	template.Domain = rapid.Uint32().Draw(t, "domain")
	var record []byte
	for _, f := range fields {
		n := int(f.Length)
		if f.Length == ipfix.VariableLength {
			n = rapid.SampledFrom([]int{0, 1, 4, 8, 254, 255, 300}).Draw(t, "octets")
			if n < 255 && rapid.Bool().Draw(t, "short") {
				record = append(record, byte(n))
			} else {
				record = append(record, 255, byte(n>>8), byte(n))
			}
		}
		record = append(record, drawOctets(t, n)...)
	}
	return template, record
}

// drawOctets draws values that are likely to be special: numbers, texts and
// not a number.
func drawOctets(t *rapid.T, n int) []byte {
	switch rapid.IntRange(0, 4).Draw(t, "value") {
	case 0:
		return make([]byte, n)
	case 1:
		return bytes.Repeat([]byte{0xff}, n)
	case 2:
		return bytes.Repeat([]byte("a"), n)
	case 3:
		v := make([]byte, n)
		if n > 0 {
			v[n-1] = byte(rapid.IntRange(0, 3).Draw(t, "small"))
		}
		return v
	}
	seed := rapid.Uint64().Draw(t, "seed")
	v := make([]byte, n)
	for i := range v {
		seed = seed*6364136223846793005 + 1442695040888963407
		v[i] = byte(seed >> 56)
	}
	return v
}

// checkFlow fails unless a flow comes back as it was.
func checkFlow(t testing.TB, d *Dictionary, flow []byte, template *ipfix.Template, record []byte) {
	t.Helper()
	gotTemplate, gotRecord, err := d.ParseFlow(flow)
	if err != nil {
		t.Fatalf("ParseFlow: %v\ntemplate %+v\nrecord %x\nflow %x", err, template.Fields, record, flow)
	}
	if gotTemplate.ID != template.ID || gotTemplate.Domain != template.Domain || gotTemplate.Scope != template.Scope ||
		!slices.Equal(gotTemplate.Fields, template.Fields) || gotTemplate.Fingerprint() != template.Fingerprint() {
		t.Fatalf("template %+v\nwant     %+v", gotTemplate, template)
	}
	if !bytes.Equal(gotRecord, record) {
		t.Fatalf("record %x\nwant   %x\nof %+v", gotRecord, record, template.Fields)
	}
}

func TestFlowIsLossless(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := For(rapid.SampledFrom([]uint32{0, 9, 1<<32 - 1}).Draw(r, "vendor"))
		template, record := drawFlow(r)
		flow, err := d.AppendFlow([]byte("before"), template, record)
		if err != nil {
			r.Fatal(err)
		}
		flow = AppendClassifier(flow, template, record, ClassifierOptions{})
		if err := avp.Check(flow[6:]); err != nil {
			r.Fatal(err)
		}
		for a := range allAVPs(flow[6:]) {
			if a.Vendor != 0 && a.Mandatory() {
				r.Fatalf("AVP %d of the vendor has the M bit", a.Code)
			}
		}
		checkFlow(fatal{t, r}, d, flow[6:], template, record)
	})
}

// fatal is a testing.TB whose failures are rapid's, which then shrinks them.
type fatal struct {
	testing.TB
	r *rapid.T
}

func (f fatal) Fatalf(format string, args ...any) { f.r.Fatalf(format, args...) }

// allAVPs yields the AVPs of b, and those within Grouped ones of the vendor.
func allAVPs(b []byte) func(func(avp.AVP) bool) {
	return func(yield func(avp.AVP) bool) {
		for a := range avp.Scan(b) {
			if !yield(a) {
				return
			}
			if a.Code == Flow || a.Code == InformationElement || a.Code == ClassUsage {
				for member := range allAVPs(a.Data) {
					if !yield(member) {
						return
					}
				}
			}
		}
	}
}

// Every element of the registry has one AVP, forward and reverse, and a value
// of its own size needs no word in Flow-Template.
func TestEveryElement(t *testing.T) {
	d := For(0)
	forward, reverse := 0, 0
	codes := make(map[uint32]bool)
	for e := range elements() {
		code := elementCode(e.Enterprise, e.ID)
		if codes[code] {
			t.Fatalf("%s: code %d is another's", e.Name, code)
		}
		codes[code] = true
		if enterprise, id, ok := CodeElement(code); !ok || enterprise != e.Enterprise || id != e.ID {
			t.Fatalf("CodeElement(%d) = %d, %d, %v; want %s", code, enterprise, id, ok, e.Name)
		}
		if forward++; e.Enterprise != 0 {
			forward--
			reverse++
		}

		length, record := uint16(e.Type.Length()), make([]byte, e.Type.Length())
		if length == 0 {
			length, record = ipfix.VariableLength, []byte{3, 'a', 'b', 'c'}
		}
		record[len(record)-1] = 1
		template, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: e.ID, Enterprise: e.Enterprise, Length: length})
		if err != nil {
			t.Fatal(err)
		}
		flow, err := d.AppendFlow(nil, template, record)
		if err != nil {
			t.Fatal(err)
		}
		checkFlow(t, d, flow, template, record)
		group, _, _ := avp.Next(flow)
		if a, _, _ := avp.Next(group.Data); a.Code != code || a.Vendor != DefaultVendor || a.Mandatory() {
			t.Errorf("%s is carried by %+v", e.Name, a)
		}
		if a, _ := avp.Find(group.Data, FlowTemplate, DefaultVendor); len(a.Data) != flowTemplateHeader {
			t.Errorf("%s needs an exception: %x", e.Name, a.Data)
		}
	}
	if forward < 480 || reverse < 400 {
		t.Errorf("%d elements and %d reverse ones", forward, reverse)
	}
}

func TestFlowValues(t *testing.T) {
	const vendor = DefaultVendor
	for _, row := range []struct {
		name  string
		field ipfix.FieldSpecifier
		value []byte
		want  []byte // the AVP; nil for an Information-Element
	}{
		{"unsigned8 is Unsigned32", field(ipfix.ProtocolIdentifier, 1), []byte{6},
			avp.AppendUint32(nil, 65536+4, vendor, 0, 6)},
		{"a reduced counter is an Unsigned64 (RFC 7011, 6.2)", field(ipfix.OctetDeltaCount, 3), []byte{1, 0, 2},
			avp.AppendUint64(nil, 65536+1, vendor, 0, 65538)},
		{"signed32 keeps its sign", field(434, 2), []byte{0xff, 0xfe},
			avp.AppendInt32(nil, 65536+434, vendor, 0, -2)},
		{"a reduced float64 is a Float64 (RFC 7011, 6.2)", field(ipfix.SamplingProbability, 4), []byte{0x3f, 0, 0, 0},
			avp.AppendFloat64(nil, 65536+311, vendor, 0, 0.5)},
		{"a reduced float64 that is not a number", field(ipfix.SamplingProbability, 4), []byte{0x7f, 0x80, 0, 1}, nil},
		{"true is 1 (RFC 7011, 6.1.5)", field(ipfix.DataRecordsReliability, 1), []byte{1},
			avp.AppendUint32(nil, 65536+276, vendor, 0, 1)},
		{"a boolean that is neither", field(ipfix.DataRecordsReliability, 1), []byte{0}, nil},
		{"ipv4Address is Address", field(ipfix.SourceIPv4Address, 4), []byte{192, 0, 2, 1},
			avp.Append(nil, 65536+8, vendor, 0, []byte{0, 1, 192, 0, 2, 1})},
		{"ipv6Address is Address", field(ipfix.SourceIPv6Address, 16), make([]byte, 16),
			avp.Append(nil, 65536+27, vendor, 0, append([]byte{0, 2}, make([]byte, 16)...))},
		{"macAddress is OctetString", field(ipfix.SourceMacAddress, 6), []byte{1, 2, 3, 4, 5, 6},
			avp.Append(nil, 65536+56, vendor, 0, []byte{1, 2, 3, 4, 5, 6})},
		{"dateTimeSeconds is Time", field(ipfix.FlowStartSeconds, 4), []byte{0, 0, 0, 0},
			avp.Append(nil, 65536+150, vendor, 0, []byte{0x83, 0xaa, 0x7e, 0x80})},
		{"the last dateTimeSeconds", field(ipfix.FlowStartSeconds, 4), []byte{0xff, 0xff, 0xff, 0xff},
			avp.Append(nil, 65536+150, vendor, 0, []byte{0x83, 0xaa, 0x7e, 0x7f})},
		{"dateTimeMilliseconds is Unsigned64", field(ipfix.FlowStartMilliseconds, 8), []byte{0, 0, 1, 0, 0, 0, 0, 0},
			avp.AppendUint64(nil, 65536+152, vendor, 0, 1<<40)},
		{"dateTimeNanoseconds is the NTP timestamp", field(ipfix.FlowStartNanoseconds, 8), []byte{0x83, 0xaa, 0x7e, 0x80, 0x80, 0, 0, 0},
			avp.AppendUint64(nil, 65536+156, vendor, 0, 0x83aa7e80_80000000)},
		{"string is UTF8String", field(ipfix.UserName, 4), []byte("zoë"),
			avp.AppendString(nil, 65536+371, vendor, 0, "zoë")},
		{"a string that is not UTF-8", field(ipfix.UserName, 2), []byte{0xff, 0}, nil},
		{"octetArray is OctetString", field(ipfix.IpPayloadPacketSection, 2), []byte{1, 0},
			avp.Append(nil, 65536+314, vendor, 0, []byte{1, 0})},
		{"an unknown element", field(32000, 2), []byte{1, 0}, nil},
		{"a counter of nine octets", field(ipfix.OctetDeltaCount, 9), make([]byte, 9), nil},
		{"an address of 16 octets where 4 are right", field(ipfix.SourceIPv4Address, 16), make([]byte, 16), nil},
		{"an element without octets", field(ipfix.OctetDeltaCount, 0), nil, nil},
		{"an enterprise's element", ipfix.FieldSpecifier{ID: 1, Enterprise: 9, Length: 1}, []byte{7}, nil},
		{"a reverse element has the next 32768 codes (RFC 5103)", ipfix.FieldSpecifier{ID: 1, Enterprise: ipfix.ReversePEN, Length: 8}, make([]byte, 8),
			avp.AppendUint64(nil, 98304+1, vendor, 0, 0)},
		{"an element without a reverse one", ipfix.FieldSpecifier{ID: 40, Enterprise: ipfix.ReversePEN, Length: 8}, make([]byte, 8), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			template, err := ipfix.NewTemplate(256, row.field, field(ipfix.ProtocolIdentifier, 1))
			if err != nil {
				t.Fatal(err)
			}
			record := append(slices.Clone(row.value), 17)
			flow, err := For(0).AppendFlow(nil, template, record)
			if err != nil {
				t.Fatal(err)
			}
			group, _, _ := avp.Next(flow)
			a, _, err := avp.Next(group.Data)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Append(nil); row.want != nil && !bytes.Equal(got, row.want) {
				t.Errorf("AVP %x\nwant %x", got, row.want)
			}
			if row.want == nil && a.Code != InformationElement {
				t.Errorf("carried by AVP %d, want an Information-Element", a.Code)
			}
			checkFlow(t, For(0), flow, template, record)
		})
	}
}

func TestRecordThatDoesNotFit(t *testing.T) {
	template, err := ipfix.NewTemplate(256, field(ipfix.ProtocolIdentifier, 1), field(ipfix.UserName, ipfix.VariableLength))
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range [][]byte{nil, {6}, {6, 2, 'a'}, {6, 255, 0}, {6, 255, 1, 0}, {6, 1, 'a', 'b'}} {
		b, err := For(0).AppendFlow([]byte("x"), template, record)
		if !errors.Is(err, ErrRecord) || string(b) != "x" {
			t.Errorf("record %x: %q, %v", record, b, err)
		}
	}
}

func TestParseFlowRefuses(t *testing.T) {
	const vendor = DefaultVendor
	group := func(members ...[]byte) []byte {
		b, at := avp.Begin(nil, Flow, vendor, 0)
		b = append(b, slices.Concat(members...)...)
		avp.End(b, at)
		return b
	}
	template := func(data ...byte) []byte {
		return avp.Append(nil, FlowTemplate, vendor, 0, append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, data...))
	}
	protocol := avp.AppendUint32(nil, 65536+4, vendor, 0, 6)
	for _, row := range []struct {
		name string
		flow []byte
		err  error
	}{
		{"nothing", nil, ErrNoFlow},
		{"another vendor's", avp.Append(nil, Flow, 9, 0, nil), ErrNoFlow},
		{"no Flow-Template", group(protocol), ErrFlow},
		{"two Flow-Templates", group(protocol, template(), template()), ErrFlow},
		{"a short Flow-Template", group(protocol, avp.Append(nil, FlowTemplate, vendor, 0, []byte{1, 0, 0, 0})), ErrFlow},
		{"no element", group(template()), ErrFlow},
		{"Template ID below 256 (RFC 7011, 3.4.1)", group(protocol, avp.Append(nil, FlowTemplate, vendor, 0, make([]byte, 8))), ErrFlow},
		{"more scope fields than fields (RFC 7011, 3.4.2.2)", group(protocol, avp.Append(nil, FlowTemplate, vendor, 0, []byte{1, 0, 0, 2, 0, 0, 0, 0})), ErrFlow},
		{"an exception for no element", group(protocol, template(0, 1, 0, 1)), ErrFlow},
		{"exceptions out of order", group(protocol, protocol, template(0, 1, 0, 1, 0, 0, 0, 1)), ErrFlow},
		{"a length that the type can't have", group(protocol, template(0, 0, 0, 2)), ErrFlow},
		{"a number of variable length", group(protocol, template(0, 0, 255, 255)), ErrFlow},
		{"a value too large for its length", group(avp.AppendUint32(nil, 65536+4, vendor, 0, 256), template()), ErrFlow},
		{"a value of another type", group(avp.AppendUint64(nil, 65536+4, vendor, 0, 6), template()), ErrFlow},
		{"a long prefix of a fixed length", group(protocol, template(0x80, 0, 0, 1)), ErrFlow},
		{"an element of tomorrow", group(avp.AppendUint32(nil, 65536+32000, vendor, 0, 6), template()), ErrUnknownElement},
		{"another vendor's element", group(avp.AppendUint32(nil, 65536+4, 9, 0, 6), template()), ErrUnknownElement},
		{"an Information-Element without octets", group(avp.Append(nil, InformationElement, vendor, 0, avp.AppendUint32(nil, ElementID, vendor, 0, 6)), template()), ErrFlow},
		{"an Element-Id of 16 bits", group(avp.Append(nil, InformationElement, vendor, 0,
			append(avp.AppendUint32(nil, ElementID, vendor, 0, 40000), avp.Append(nil, ElementOctets, vendor, 0, []byte{1})...)), template()), ErrFlow},
		{"a malformed group", avp.Append(nil, Flow, vendor, 0, []byte{1, 2, 3}), avp.ErrTruncated},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, _, err := For(0).ParseFlow(row.flow); !errors.Is(err, row.err) {
				t.Errorf("ParseFlow: %v, want %v", err, row.err)
			}
		})
	}
}

// accountingFlow is a flow of 13 fields, as many exporters send it: four
// counters and interfaces of reduced size.
func accountingFlow(tb testing.TB) (*ipfix.Template, []byte) {
	template, err := ipfix.NewTemplate(256,
		field(ipfix.FlowStartMilliseconds, 8), field(ipfix.FlowEndMilliseconds, 8),
		field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
		field(ipfix.SourceTransportPort, 2), field(ipfix.DestinationTransportPort, 2),
		field(ipfix.ProtocolIdentifier, 1), field(ipfix.IpDiffServCodePoint, 1),
		field(ipfix.IngressInterface, 2), field(ipfix.EgressInterface, 2),
		field(ipfix.OctetDeltaCount, 4), field(ipfix.PacketDeltaCount, 4), field(ipfix.FlowEndReason, 1))
	if err != nil {
		tb.Fatal(err)
	}
	var b []byte
	b = binary.BigEndian.AppendUint64(b, 1_790_000_000_000)
	b = binary.BigEndian.AppendUint64(b, 1_790_000_001_500)
	b = append(b, 192, 0, 2, 12, 198, 51, 100, 7)
	b = append(b, 0xc0, 1, 1, 187, 6, 46, 0, 1, 0, 2)
	b = append(b, 0, 1, 0xd8, 0x24, 0, 0, 0, 99, 3)
	return template, b
}

func FuzzParseFlow(f *testing.F) {
	d := For(0)
	template, record := accountingFlow(f)
	flow, err := d.AppendFlow(nil, template, record)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(flow)
	template, err = ipfix.NewOptionsTemplate(999, 1, field(ipfix.UserName, ipfix.VariableLength), field(32000, 3),
		ipfix.FieldSpecifier{ID: 1, Enterprise: 9, Length: ipfix.VariableLength}, field(ipfix.OctetDeltaCount, 5))
	if err != nil {
		f.Fatal(err)
	}
	flow, err = d.AppendFlow(nil, template, []byte{255, 0, 1, 'x', 1, 2, 3, 2, 8, 9, 1, 2, 3, 4, 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(flow)
	f.Fuzz(func(t *testing.T, b []byte) {
		template, record, err := d.ParseFlow(b)
		if err != nil {
			return
		}
		again, err := d.AppendFlow(nil, template, record)
		if err != nil {
			t.Fatalf("a record that ParseFlow returned does not fit its Template: %v", err)
		}
		checkFlow(t, d, again, template, record)
		AppendClassifier(nil, template, record, ClassifierOptions{AllProtocols: true})
		parts, err := d.Split(again, 64)
		if err != nil {
			t.Fatal(err)
		}
		if joined, err := d.Join(parts...); err != nil || !bytes.Equal(joined, again) {
			t.Fatalf("Join of Split: %x, %v\nwant %x", joined, err, again)
		}
	})
}

func BenchmarkAppendFlow(b *testing.B) {
	d := For(0)
	template, record := accountingFlow(b)
	buffer := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out, err := d.AppendFlow(buffer, template, record)
		if err != nil {
			b.Fatal(err)
		}
		AppendClassifier(out, template, record, ClassifierOptions{})
	}
}

func BenchmarkParseFlow(b *testing.B) {
	d := For(0)
	template, record := accountingFlow(b)
	flow, err := d.AppendFlow(nil, template, record)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ReportMetric(float64(len(flow)), "octets")
	for b.Loop() {
		if _, _, err := d.ParseFlow(flow); err != nil {
			b.Fatal(err)
		}
	}
}
