package ipfix

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// accounting is a Template of 13 fields as an accounting meter exports it.
func accounting(tb testing.TB) *Template {
	tb.Helper()
	t, err := NewTemplate(256, []FieldSpecifier{
		{ID: FlowStartMilliseconds, Length: 8},
		{ID: FlowEndMilliseconds, Length: 8},
		{ID: SourceIPv4Address, Length: 4},
		{ID: DestinationIPv4Address, Length: 4},
		{ID: SourceTransportPort, Length: 2},
		{ID: DestinationTransportPort, Length: 2},
		{ID: ProtocolIdentifier, Length: 1},
		{ID: IpDiffServCodePoint, Length: 1},
		{ID: IngressInterface, Length: 4},
		{ID: EgressInterface, Length: 4},
		{ID: OctetDeltaCount, Length: 8},
		{ID: PacketDeltaCount, Length: 8},
		{ID: FlowEndReason, Length: 1},
	}...)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// accountingColumns are what an accounting pipeline wants of any Template.
var accountingColumns = []Column{
	{0, Address, []Element{{0, SourceIPv4Address}, {0, SourceIPv6Address}}},
	{2, Address, []Element{{0, DestinationIPv4Address}, {0, DestinationIPv6Address}}},
	{4, Number, []Element{{0, SourceTransportPort}}},
	{5, Number, []Element{{0, DestinationTransportPort}}},
	{6, Number, []Element{{0, ProtocolIdentifier}}},
	{7, Number, []Element{{0, IpDiffServCodePoint}}},
	{8, Number, []Element{{0, OctetDeltaCount}}},
	{9, Number, []Element{{0, PacketDeltaCount}}},
	{10, UnixMilli, []Element{{0, FlowStartMilliseconds}, {0, FlowStartSeconds}, {0, FlowStartMicroseconds}, {0, FlowStartNanoseconds}}},
	{11, UnixMilli, []Element{{0, FlowEndMilliseconds}, {0, FlowEndSeconds}, {0, FlowEndMicroseconds}, {0, FlowEndNanoseconds}}},
	{12, Number, []Element{{0, FlowEndReason}}},
	{13, Number, []Element{{0, IngressInterface}}},
	{14, Number, []Element{{0, EgressInterface}}},
}

// accountingMessage returns a Message with t, and one of records whose first
// values are given.
func accountingMessage(tb testing.TB, t *Template, records int, first ...any) (templates, data []byte) {
	tb.Helper()
	e := NewEncoder(1, 0)
	if err := e.AddTemplate(t); err != nil {
		tb.Fatal(err)
	}
	templates = append(templates, e.Flush(1784851200)...)
	for i := range records {
		at := time.UnixMilli(1784851200000 + int64(i))
		values := append(slices.Clone(first),
			at, at.Add(time.Second), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}),
			50000+i, 443, 6, 46, 1, 2, 1<<20, 1000+i, 3,
		)
		if err := e.AddRecord(t, values...); err != nil {
			tb.Fatal(err)
		}
	}
	return templates, append(data, e.Flush(1784851200)...)
}

// A decoding is a way in which records of 13 fields come.
type decoding struct {
	name string
	more []FieldSpecifier // before these
	vals []any
}

// decodings are records as accounting has them, and such as have more in them
// that few exporters send: what they cost is not to be paid by the others.
func decodings(tb testing.TB) []decoding {
	tb.Helper()
	list, err := AppendBasicList(nil, AllOf, FieldSpecifier{ID: SourceTransportPort, Length: 2}, 80, 443, 8080)
	if err != nil {
		tb.Fatal(err)
	}
	return []decoding{
		{name: "fixed"},
		{"variable", []FieldSpecifier{{ID: InterfaceName, Length: VariableLength}}, []any{"eth0"}},
		{"biflow", []FieldSpecifier{
			{Enterprise: ReversePEN, ID: OctetDeltaCount, Length: 8}, {Enterprise: ReversePEN, ID: PacketDeltaCount, Length: 8},
		}, []any{1 << 10, 2}},
		{"list", []FieldSpecifier{{ID: BasicList, Length: VariableLength}}, []any{list}},
	}
}

// messages returns a Message with the Template, and one of records.
func (d decoding) messages(tb testing.TB, records int) (templates, data []byte) {
	tb.Helper()
	t, err := NewTemplate(256, slices.Concat(d.more, accounting(tb).Fields)...)
	if err != nil {
		tb.Fatal(err)
	}
	return accountingMessage(tb, t, records, d.vals...)
}

// accountingRow has a slot for each value, and for the address two.
type accountingRow [15]uint64

// accountingRows are as many as a reader of records may want at once.
type accountingRows [32 * len(accountingRow{})]uint64

// read reads all records of a Data Set and returns how many there were, and
// the sum of their octets.
func (rows *accountingRows) read(plan *Plan, set *DataSet) (n int, octets uint64) {
	const width = len(accountingRow{})
	for {
		k := plan.ReadRows(set, n, rows[:], width)
		if k == 0 {
			break
		}
		n += k
		for i := range k {
			octets += rows[i*width+8]
		}
	}
	if n > 0 {
		return n, octets
	}
	for r, ok := set.Next(); ok; r, ok = set.Next() {
		plan.Read(r, rows[:width])
		octets += rows[8]
		n++
	}
	return n, octets
}

// Goal: at most 50 ns for a record of 13 fields, 24 in a Message.
func BenchmarkDecode(b *testing.B) {
	for _, d := range decodings(b) {
		b.Run(d.name, func(b *testing.B) {
			const records = 24
			templates, data := d.messages(b, records)
			s := NewSession(UDP)
			r, err := s.Decode(templates, nil)
			if err != nil {
				b.Fatal(err)
			}
			plan := r.New[0].Plan(accountingColumns...)
			var rows accountingRows
			var read int
			var octets uint64
			visit := func(set DataSet) {
				k, sum := rows.read(plan, &set)
				read, octets = read+k, octets+sum
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, err := s.Decode(data, visit); err != nil {
					b.Fatal(err)
				}
				n += records
			}
			if read != n || octets != uint64(n)<<20 {
				b.Fatalf("%d records, %d octets", read, octets)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}

func BenchmarkAccessors(b *testing.B) {
	t := accounting(b)
	_, data := accountingMessage(b, t, 1)
	r, err := t.Record(data[HeaderLength+setHeaderLength:])
	if err != nil {
		b.Fatal(err)
	}
	accessors := make([]Accessor, len(t.Fields))
	for i := range accessors {
		accessors[i] = t.AccessorAt(i)
	}
	var sum uint64
	b.ReportAllocs()
	for b.Loop() {
		for i := range accessors {
			sum += accessors[i].Uint64(r)
		}
	}
	if sum == 0 {
		b.Fatal("nothing read")
	}
}

func BenchmarkValidate(b *testing.B) {
	_, data := accountingMessage(b, accounting(b), 24)
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	t := accounting(b)
	_, data := accountingMessage(b, t, 1)
	record := data[HeaderLength+setHeaderLength:]
	e := NewEncoder(1, 1400)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.AppendRecord(t, record); err == ErrFull {
			e.Flush(0)
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// NetFlow packets of 24 records of about as many fields.
func BenchmarkDecodeNetFlow(b *testing.B) {
	const records = 24
	template := wire(256, 12, 8, 4, 12, 4, 22, 4, 21, 4, 7, 2, 11, 2, 4, 1, 5, 1, 10, 4, 14, 4, 1, 4, 2, 4)
	var flows9 []byte
	var flows5 [][]byte
	for range records {
		flows9 = append(flows9, make([]byte, 38)...)
		flows5 = append(flows5, netFlow5Record(1000, 2000))
	}
	for _, bench := range []struct {
		name string
		msg  func(sequence uint32) []byte
		step uint32
	}{
		{"9", func(sequence uint32) []byte { return wireNetFlow9(sequence, wireSet(256, flows9)) }, 1},
		{"5", func(sequence uint32) []byte { return wireNetFlow5(sequence, 0, flows5...) }, records},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := NewSession(UDP)
			if _, err := s.Decode(wireNetFlow9(0, wireSet(0, template)), nil); err != nil {
				b.Fatal(err)
			}
			var plan *Plan
			var row [15]uint64
			visit := func(set DataSet) {
				if plan == nil {
					plan = set.Template.Plan(accountingColumns...)
				}
				for record, ok := set.Next(); ok; record, ok = set.Next() {
					plan.Read(record, row[:])
				}
			}
			msg := bench.msg(bench.step)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if r, err := s.Decode(msg, visit); err != nil || r.Records != records {
					b.Fatal(r.Records, err)
				}
				n += records
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}
