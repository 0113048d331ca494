package ipfix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// The example of RFC 5472, Section 2.1.1, byte for byte in both directions.
func TestRFC5472Example(t *testing.T) {
	msg := messages(t, "rfc5472-2.1.1.hex")[0]
	type flow struct {
		from, to string
		dscp     uint64
		octets   uint64
	}
	want := []flow{
		{"192.0.2.12", "192.0.2.144", 46, 120868},
		{"192.0.2.24", "192.0.2.156", 46, 310364},
		{"192.0.2.36", "192.0.2.168", 46, 241239},
	}
	var got []flow
	r, err := NewSession(UDP).Decode(msg, func(s DataSet) {
		if s.ID != 256 || s.Offset != 40 || s.Records != 3 || len(s.Octets()) != 39 {
			t.Errorf("set %+v", s)
		}
		from, _ := s.Template.Accessor(0, SourceIPv4Address)
		to, _ := s.Template.Accessor(0, DestinationIPv4Address)
		dscp, _ := s.Template.Accessor(0, IpDiffServCodePoint)
		octets, _ := s.Template.Accessor(0, OctetDeltaCount)
		for r, ok := s.Next(); ok; r, ok = s.Next() {
			got = append(got, flow{from.Addr(r).String(), to.Addr(r).String(), dscp.Uint64(r), octets.Uint64(r)})
		}
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if r.Records != 3 || len(r.New) != 1 || !r.TemplatesChanged || r.New[0].Domain != 1 {
		t.Errorf("result %+v", r)
	}

	e := NewEncoder(1, 0)
	template := r.New[0]
	if err := e.AddTemplate(template); err != nil {
		t.Fatal(err)
	}
	for _, f := range want {
		if err := e.AddRecord(template, netip.MustParseAddr(f.from), netip.MustParseAddr(f.to), f.dscp, f.octets); err != nil {
			t.Fatal(err)
		}
	}
	if again := e.Flush(r.Header.ExportTime); !bytes.Equal(again, msg) {
		t.Errorf("encoded %x\nwant    %x", again, msg)
	}
}

// The example of RFC 7011, Appendix A, byte for byte in both directions.
func TestRFC7011AppendixA(t *testing.T) {
	msg := messages(t, "rfc7011-appendix-a.hex")[0]
	e := NewEncoder(1, 0)
	e.Padding = true
	var last *Template
	s := NewSession(SCTP)
	var got []string
	r, err := s.Decode(msg, func(set DataSet) {
		if set.Template != last {
			last = set.Template
			if err := e.AddTemplate(last); err != nil {
				t.Fatal(err)
			}
		}
		for r, ok := set.Next(); ok; r, ok = set.Next() {
			line := fmt.Sprint(set.Template.Scope)
			for i, f := range set.Template.Fields {
				line += " " + FormatValue(f.Element().Type, r.Field(i))
			}
			got = append(got, line)
			if err := e.AppendRecord(last, r.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil || r.Records != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	want := []string{
		"0 192.0.2.12 192.0.2.254 192.0.2.1 5009 5344385",
		"0 192.0.2.27 192.0.2.23 192.0.2.2 748 388934",
		"0 192.0.2.56 192.0.2.65 192.0.2.3 5 6534",
		"1 1 345 10201",
		"1 2 690 20402",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if again := e.Flush(0); !bytes.Equal(again, msg) {
		t.Errorf("encoded %x\nwant    %x", again, msg)
	}
}

func TestVariableLength(t *testing.T) {
	all := messages(t, "variable-length.hex")
	s := NewSession(TCP)
	var got []string
	for _, msg := range all {
		_, records := decodeAll(t, s, msg)
		for _, r := range records {
			got = append(got, fmt.Sprintf("%d %s %d", r[0][0], r[1], binary.BigEndian.Uint64(r[2])))
		}
	}
	if want := []string{"6  100", "17 eth0 101", "17 wlan0 102", "6 lo1 103"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, test := range []struct {
		name   string
		record []byte
	}{
		{"an Information Element longer than its Set (9.1)", []byte{6, 12, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"a long one longer than its Set (9.1)", []byte{6, 255, 1, 0, 0, 0, 0, 0, 0, 0}},
		{"a length of three octets cut off (7)", []byte{6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 7, 'e', 't', 'h', '0', 1, 2, 3, 4, 5}},
	} {
		msg := wireMessage(0, wireSet(2, wire(301, 1, 1, 4)), wireSet(257, test.record))
		binary.BigEndian.PutUint32(msg[12:], 7)
		before, _ := s.AppendBinary(nil)
		_, err := s.Decode(msg, func(DataSet) { t.Errorf("%s: visited", test.name) })
		if !errors.Is(err, ErrLength) {
			t.Errorf("%s: %v", test.name, err)
		}
		if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) {
			t.Errorf("%s: a malformed message changes nothing (9.1)", test.name)
		}
	}
}

func TestEnterpriseElements(t *testing.T) {
	s := NewSession(UDP)
	_, records := decodeAll(t, s, messages(t, "enterprise.hex")[0])
	template := s.Template(1, 256)
	want := []FieldSpecifier{{1, 0, 8}, {1, ReversePEN, 4}, {93, 637, 2}, {32766, 0, 2}}
	if !slices.Equal(template.Fields, want) {
		t.Errorf("fields %+v", template.Fields)
	}
	r, err := template.Record(bytes.Join(records[0], nil))
	if err != nil {
		t.Fatal(err)
	}
	reverse, ok := template.Accessor(ReversePEN, OctetDeltaCount)
	if !ok || reverse.Uint64(r) != 2 || reverse.Type() != TypeUnsigned64 || reverse.Index() != 1 {
		t.Errorf("reverse octets %d, type %v", reverse.Uint64(r), reverse.Type())
	}
	other, ok := template.Accessor(637, 93)
	if !ok || string(other.Bytes(r)) != "45" || other.Type() != TypeOctetArray {
		t.Errorf("enterprise element %q, type %v", other.Bytes(r), other.Type())
	}
	if _, ok := template.Accessor(0, 93); ok {
		t.Error("element 93 of an enterprise was taken for IANA's")
	}
}

// Template management, one row per sentence of RFC 7011.
func TestTemplateManagement(t *testing.T) {
	a := wireSet(2, wire(256, 1, int(OctetDeltaCount), 4))
	b := wireSet(2, wire(256, 1, int(OctetDeltaCount), 8))
	other := wireSet(2, wire(257, 1, 2, 4))
	options := wireSet(3, wire(258, 1, 1, 149, 4))
	withdraw := wireSet(2, wire(256, 0))
	for _, test := range []struct {
		name      string
		transport Transport
		sets      [][]byte // of one Message each
		err       error    // of the last
		held      []uint16 // Template IDs afterwards
		length    uint16   // of Template 256's field, if held
		last      Result
	}{
		{"a Template is stored for the Transport Session (8)", TCP, [][]byte{a}, nil, []uint16{256}, 4,
			Result{TemplatesChanged: true}},
		{"the same Template again is no error (8.1)", TCP, [][]byte{a, a}, nil, []uint16{256}, 4,
			Result{Repeated: 1}},
		{"another Template of an allocated ID is an error (8.1)", TCP, [][]byte{a, b}, ErrConflict, []uint16{256}, 4, Result{}},
		{"the same over SCTP (8.1)", SCTP, [][]byte{a, b}, ErrConflict, []uint16{256}, 4, Result{}},
		{"the same over TLS (8.1)", TLS, [][]byte{a, b}, ErrConflict, []uint16{256}, 4, Result{}},
		{"an ID may be used anew after its withdrawal (8.1)", TCP, [][]byte{a, withdraw, b}, nil, []uint16{256}, 8,
			Result{TemplatesChanged: true}},
		{"in one Message too (8.1)", TCP, [][]byte{a, slices.Concat(withdraw, b)}, nil, []uint16{256}, 8,
			Result{TemplatesChanged: true}},
		{"MUST stop using a withdrawn Template (8.1)", TCP, [][]byte{a, withdraw}, nil, nil, 0,
			Result{TemplatesChanged: true}},
		{"MUST ignore the withdrawal of what is not held (8.1)", TCP, [][]byte{other, withdraw}, nil, []uint16{257}, 0,
			Result{Ignored: 1}},
		{"several withdrawals in one Set (8.1)", TCP, [][]byte{a, other, wireSet(2, wire(256, 0, 257, 0))}, nil, nil, 0,
			Result{TemplatesChanged: true}},
		{"all Templates are withdrawn (8.1)", TCP, [][]byte{a, other, options, wireSet(2, wire(2, 0))}, nil, []uint16{258}, 0,
			Result{TemplatesChanged: true}},
		{"all Options Templates are withdrawn (8.1)", TCP, [][]byte{a, other, options, wireSet(3, wire(3, 0))}, nil,
			[]uint16{256, 257}, 4, Result{TemplatesChanged: true}},
		{"a withdrawn Options Template (8.1)", SCTP, [][]byte{a, options, wireSet(3, wire(258, 0))}, nil, []uint16{256}, 4,
			Result{TemplatesChanged: true}},
		{"over UDP another Template MUST replace it (8.4)", UDP, [][]byte{a, b}, nil, []uint16{256}, 8,
			Result{TemplatesChanged: true}},
		{"over DTLS too (8.4)", DTLS, [][]byte{a, b}, nil, []uint16{256}, 8, Result{TemplatesChanged: true}},
		{"over UDP withdrawals MUST be ignored (8.4)", UDP, [][]byte{a, withdraw}, nil, []uint16{256}, 4,
			Result{Ignored: 1}},
		{"over UDP those of all too (8.4)", UDP, [][]byte{a, wireSet(2, wire(2, 0))}, nil, []uint16{256}, 4,
			Result{Ignored: 1}},
		{"over UDP refresh is normal (8.4)", UDP, [][]byte{a, a}, nil, []uint16{256}, 4, Result{Repeated: 1}},
		{"a conflict undoes what went before in the Message (9.1)", TCP, [][]byte{a, slices.Concat(other, wireSet(3, wire(3, 0)), b)},
			ErrConflict, []uint16{256}, 4, Result{}},
		{"an error undoes a withdrawal (9.1)", TCP, [][]byte{a, slices.Concat(withdraw, b, wire(2, 3))}, ErrLength, []uint16{256}, 4, Result{}},
		{"an error undoes the withdrawal of all (9.1)", TCP, [][]byte{a, other, slices.Concat(wireSet(2, wire(2, 0)), a, wire(2, 3))},
			ErrLength, []uint16{256, 257}, 4, Result{}},
		{"reserved Sets are ignored (3.3.2)", TCP, [][]byte{slices.Concat(wireSet(0), wireSet(1), wireSet(4), wireSet(255), a)}, nil,
			[]uint16{256}, 4, Result{TemplatesChanged: true, Reserved: 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(test.transport)
			var r Result
			var err error
			for i, set := range test.sets {
				r, err = s.Decode(wireMessage(0, set), nil)
				if err != nil && i < len(test.sets)-1 {
					t.Fatal(err)
				}
			}
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			var held []uint16
			for _, template := range s.Templates() {
				held = append(held, template.ID)
			}
			if !slices.Equal(held, test.held) {
				t.Errorf("templates %v, want %v", held, test.held)
			}
			if template := s.Template(1, 256); template != nil && template.Fields[0].Length != test.length {
				t.Errorf("field length %d, want %d", template.Fields[0].Length, test.length)
			}
			r.Header, r.New = Header{}, nil
			if fmt.Sprint(r) != fmt.Sprint(test.last) {
				t.Errorf("result %+v, want %+v", r, test.last)
			}
			fields := 0
			for _, template := range s.Templates() {
				fields += len(template.Fields)
			}
			if s.templates != len(held) || s.fields != fields {
				t.Errorf("counts %d templates of %d fields", s.templates, s.fields)
			}
		})
	}
}

// Different Observation Domains may use the same Template ID for different
// Templates (8), as may different Transport Sessions.
func TestTemplatesPerObservationDomain(t *testing.T) {
	s := NewSession(TCP)
	for domain, length := range []int{4, 8} {
		msg := wireMessage(0, wireSet(2, wire(256, 1, 1, length)))
		binary.BigEndian.PutUint32(msg[12:], uint32(domain))
		if _, err := s.Decode(msg, nil); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := s.Template(0, 256), s.Template(1, 256); a.Fields[0].Length != 4 || b.Fields[0].Length != 8 {
		t.Errorf("templates %+v and %+v", a, b)
	}
	if s.Template(2, 256) != nil || s.Template(0, 257) != nil {
		t.Error("a template came from nowhere")
	}
}

// A Session gives out one *Template for one definition.
func TestTemplateIsKept(t *testing.T) {
	s := NewSession(UDP)
	msg := wireMessage(0, wireSet(2, wire(256, 1, 1, 4)))
	r, err := s.Decode(msg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Decode(msg, nil); err != nil || s.Template(1, 256) != r.New[0] {
		t.Errorf("another template, %v", err)
	}
}

func TestDataBeforeItsTemplate(t *testing.T) {
	all := messages(t, "late-template.hex")
	s := NewSession(UDP)
	var offset int
	r, err := s.Decode(all[0], func(set DataSet) {
		offset = set.Offset
		if _, ok := set.Next(); set.Template != nil || ok || set.Records != 0 || len(set.Octets()) != 4 {
			t.Errorf("set %+v", set)
		}
	})
	if err != nil || r.Unknown != 1 || r.Reserved != 1 || r.Records != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if set, err := s.DataSetAt(all[0], offset); err != nil || set.Template != nil {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := s.Decode(all[1], nil); err != nil {
		t.Fatal(err)
	}
	set, err := s.DataSetAt(all[0], offset)
	if err != nil || set.Records != 1 || set.Offset != offset || set.Header != r.Header {
		t.Fatalf("%+v, %v", set, err)
	}
	if record, ok := set.Next(); !ok || !bytes.Equal(record.Bytes(), []byte{0, 0, 0, 1}) {
		t.Errorf("record %x", record.Bytes())
	}
	for _, offset := range []int{-1, 0, 15, offset + 8, len(all[0]), len(all[0]) + 1} {
		if _, err := s.DataSetAt(all[0], offset); err == nil {
			t.Errorf("a data set at octet %d", offset)
		}
	}
	// What does not suit the Template that came is malformed.
	if _, err := s.Decode(wireMessage(0, wireSet(2, wire(256, 1, 82, VariableLength))), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DataSetAt(wireMessage(0, wireSet(256, []byte{9, 0})), HeaderLength); !errors.Is(err, ErrLength) {
		t.Errorf("error %v", err)
	}
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		sets   [][]byte // the last is one too many
	}{
		{"templates", Limits{Templates: 2}, [][]byte{wireSet(2, wire(256, 1, 1, 4, 257, 1, 1, 4)), wireSet(2, wire(258, 1, 1, 4))}},
		{"fields of a template", Limits{Fields: 1}, [][]byte{wireSet(2, wire(256, 1, 1, 4)), wireSet(2, wire(257, 2, 1, 4, 2, 4))}},
		{"fields of all templates", Limits{AllFields: 2}, [][]byte{wireSet(2, wire(256, 1, 1, 4, 257, 1, 1, 4)), wireSet(2, wire(256, 2, 1, 4, 2, 4))}},
	} {
		s := NewSession(UDP)
		s.Limits = test.limits
		last := len(test.sets) - 1
		for _, set := range test.sets[:last] {
			if _, err := s.Decode(wireMessage(0, set), nil); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		before, _ := s.AppendBinary(nil)
		if _, err := s.Decode(wireMessage(0, test.sets[last]), nil); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: error %v", test.name, err)
		}
		if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) {
			t.Errorf("%s: the session is changed", test.name)
		}
	}

	s := NewSession(UDP)
	s.Limits.Domains = 2
	for domain := range uint32(3) {
		_, err := s.Decode(Header{Length: HeaderLength, Domain: domain}.Append(nil), nil)
		if domain < 2 && err != nil || domain == 2 && !errors.Is(err, ErrLimit) {
			t.Errorf("domain %d: %v", domain, err)
		}
	}
}

// Whatever an exporter sends, a Session holds no more than its default Limits.
func TestTemplateFlood(t *testing.T) {
	s := NewSession(UDP)
	refused := 0
	for id := minTemplateID; id <= 65535; id++ {
		if _, err := s.Decode(wireMessage(0, wireSet(2, wire(id, 1, 1, 4))), nil); errors.Is(err, ErrLimit) {
			refused++
		}
	}
	if got := len(s.Templates()); got != 4096 || refused != 65536-minTemplateID-4096 {
		t.Errorf("%d templates, %d refused", got, refused)
	}
}

// Decoding allocates nothing, whatever records have in them beside what is
// asked for.
func TestDecodeDoesNotAllocate(t *testing.T) {
	for _, d := range decodings(t) {
		templates, data := d.messages(t, 24)
		s := NewSession(UDP)
		r, err := s.Decode(templates, nil)
		if err != nil {
			t.Fatal(err)
		}
		plan := r.New[0].Plan(accountingColumns...)
		octets, _ := r.New[0].Accessor(0, OctetDeltaCount)
		var row [15]uint64
		var sum uint64
		visit := func(set DataSet) {
			for record, ok := set.Next(); ok; record, ok = set.Next() {
				plan.Read(record, row[:])
				sum += octets.Uint64(record) + uint64(len(record.Field(0)))
			}
		}
		allocations := testing.AllocsPerRun(100, func() {
			for _, msg := range [][]byte{templates, data} {
				if _, err := s.Decode(msg, visit); err != nil {
					t.Fatal(err)
				}
			}
		})
		if allocations != 0 || sum == 0 {
			t.Errorf("%s: %v allocations", d.name, allocations)
		}
	}
}
