package ipfix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const (
	netFlowTime = 1784851200 // Unix seconds
	netFlowUp   = 100000     // milliseconds
)

// wireNetFlow9 builds a packet of Source ID 1 around its FlowSets.
func wireNetFlow9(sequence uint32, sets ...[]byte) []byte {
	b := wire(9, 1)
	for _, n := range []uint32{netFlowUp, netFlowTime, sequence, 1} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, bytes.Join(sets, nil)...)
}

// wireNetFlow5 builds a packet of engine 1/2 around its records.
func wireNetFlow5(sequence uint32, sampling uint16, records ...[]byte) []byte {
	b := wire(5, len(records))
	for _, n := range []uint32{netFlowUp, netFlowTime, 5e8, sequence} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint16(append(b, 1, 2), sampling)
	return append(b, bytes.Join(records, nil)...)
}

// netFlow5Record is a flow from 10.0.0.1:1024 to 10.0.0.2:80.
func netFlow5Record(first, last uint32) []byte {
	b := []byte{10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 254, 0, 3, 0, 4}
	for _, n := range []uint32{7, 4200, first, last} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, 4, 0, 0, 80, 0, 0x1b, 6, 0xb8, 0xfd, 0xe8, 0xfd, 0xe9, 24, 16, 0, 0)
}

func TestMalformedNetFlow(t *testing.T) {
	template := wire(256, 1, 1, 4)
	for _, test := range []struct {
		name   string
		msg    []byte
		offset int
		err    error
	}{
		{"9: a header cut off (5.1)", wireNetFlow9(0)[:19], 0, ErrLength},
		{"9: a FlowSet header cut off (5.2)", wireNetFlow9(0, []byte{0, 0, 1}), 20, ErrLength},
		{"9: a FlowSet Length below 4 (5.2)", wireNetFlow9(0, wire(256, 3)), 22, ErrLength},
		{"9: a FlowSet beyond the packet (5.2)", wireNetFlow9(0, wire(256, 5)), 22, ErrLength},
		{"9: a Template ID below 256 (5.2)", wireNetFlow9(0, wireSet(0, wire(255, 1, 1, 4))), 24, ErrTemplateID},
		{"9: a Template of no fields", wireNetFlow9(0, wireSet(0, template, wire(257, 0))), 32, ErrEmpty},
		{"9: a Template of no octets", wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 0))), 24, ErrEmpty},
		{"9: fewer fields than Field Count (5.2)", wireNetFlow9(0, wireSet(0, wire(256, 2, 1, 4))), 24, ErrLength},
		{"9: an Options Template cut off (6.1)", wireNetFlow9(0, wireSet(1, wire(256, 4))), 24, ErrLength},
		{"9: Option Scope Length is no number of fields (6.1)", wireNetFlow9(0, wireSet(1, wire(256, 2, 4, 1, 4, 34, 4))), 24, ErrLength},
		{"9: Option Length is no number of fields (6.1)", wireNetFlow9(0, wireSet(1, wire(256, 4, 3, 1, 4, 34, 4))), 24, ErrLength},
		{"9: Options beyond the FlowSet (6.1)", wireNetFlow9(0, wireSet(1, wire(256, 4, 8, 1, 4, 34, 4))), 24, ErrLength},
		{"9: a Template after a good one", wireNetFlow9(0, wireSet(0, template, wire(1, 1, 1, 4))), 32, ErrTemplateID},
		{"9: a FlowSet that ends within a record", wireNetFlow9(0, wireSet(0, wire(256, 1, 82, VariableLength)), wireSet(256, []byte{3, 'a'})), 32, ErrLength},
		{"5: a header cut off", wireNetFlow5(0, 0)[:23], 0, ErrLength},
		{"5: fewer records than the count", wireNetFlow5(0, 0, netFlow5Record(1, 2))[:71], 2, ErrLength},
		{"5: more records than the count", append(wireNetFlow5(0, 0), netFlow5Record(1, 2)...), 2, ErrLength},
		{"5: a count beyond any packet", append(wire(5, 65535), make([]byte, 100)...), 2, ErrCount},
		{"5: one record less than the count", wireNetFlow5(0, 0, netFlow5Record(1, 2), netFlow5Record(1, 2))[:72], 2, ErrCount},
		{"5: the last record cut off", wireNetFlow5(0, 0, netFlow5Record(1, 2), netFlow5Record(1, 2))[:119], 2, ErrCount},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(UDP)
			before, _ := s.AppendBinary(nil)
			_, decodeErr := s.Decode(test.msg, func(DataSet) { t.Error("a set was visited") })
			errs := []error{decodeErr, Validate(test.msg)}
			if test.name == "9: a FlowSet that ends within a record" {
				errs = errs[:1] // it takes the Template to know
			}
			for _, err := range errs {
				var d *DecodeError
				if !errors.As(err, &d) || !errors.Is(err, test.err) || d.Offset != test.offset {
					t.Errorf("%v, want %v at octet %d", err, test.err, test.offset)
				}
			}
			if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) {
				t.Errorf("the session is changed: %x", after)
			}
		})
	}
}

// What exporters of NetFlow 9 do, and what it is taken for.
func TestNetFlow9(t *testing.T) {
	data := func(octets ...byte) []byte { return wireSet(256, octets) }
	for _, test := range []struct {
		name    string
		msg     []byte
		scope   int
		fields  []FieldSpecifier
		records []string
	}{
		{"a Template and its records (5.2)", wireNetFlow9(0, wireSet(0, wire(256, 2, 8, 4, 1, 2)), data(10, 0, 0, 1, 0, 7, 10, 0, 0, 2, 0, 8)), 0,
			[]FieldSpecifier{{8, 0, 4}, {1, 0, 2}}, []string{"\x0a\x00\x00\x01\x00\x07", "\x0a\x00\x00\x02\x00\x08"}},
		{"padding of a data FlowSet (5.3)", wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 5)), data(1, 2, 3, 4, 5, 0, 0, 0)), 0,
			[]FieldSpecifier{{1, 0, 5}}, []string{"\x01\x02\x03\x04\x05"}},
		{"zeros after the last Template", wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 4, 0, 0, 0, 0)), data(1, 2, 3, 4)), 0,
			[]FieldSpecifier{{1, 0, 4}}, []string{"\x01\x02\x03\x04"}},
		{"zeros after the last FlowSet", wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 4)), data(1, 2, 3, 4), make([]byte, 100)), 0,
			[]FieldSpecifier{{1, 0, 4}}, []string{"\x01\x02\x03\x04"}},
		{"a few zeros after the last FlowSet", wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 4)), data(1, 2, 3, 4), make([]byte, 3)), 0,
			[]FieldSpecifier{{1, 0, 4}}, []string{"\x01\x02\x03\x04"}},
		{"fields of no octets", wireNetFlow9(0, wireSet(0, wire(256, 3, 8, 0, 1, 1, 12, 0)), data(7)), 0,
			[]FieldSpecifier{{8, 0, 0}, {1, 0, 1}, {12, 0, 0}}, []string{"\x07"}},
		{"fields of vendors have the highest bit", wireNetFlow9(0, wireSet(0, wire(256, 2, 57590, 2, 1, 2)), data(1, 2, 3, 4)), 0,
			[]FieldSpecifier{{57590 - 32768, NetFlowPEN, 2}, {1, 0, 2}}, []string{"\x01\x02\x03\x04"}},
		{"fields of variable length, of H3C", wireNetFlow9(0, wireSet(0, wire(256, 2, 82, 65535, 1, 1)), data(2, 'l', 'o', 7, 1, 'x', 8)), 0,
			[]FieldSpecifier{{82, 0, VariableLength}, {1, 0, 1}}, []string{"\x02lo\x07", "\x01x\x08"}},
		{"scope fields (6.1)", wireNetFlow9(0, wireSet(1, wire(256, 20, 4, 1, 1, 2, 1, 3, 1, 4, 1, 5, 1, 34, 1)), data(1, 2, 3, 4, 5, 6)), 5,
			[]FieldSpecifier{{ExportingProcessId, 0, 1}, {IngressInterface, 0, 1}, {LineCardId, 0, 1}, {MeteringProcessId, 0, 1}, {TemplateId, 0, 1}, {34, 0, 1}},
			[]string{"\x01\x02\x03\x04\x05\x06"}},
		{"a scope that is an element", wireNetFlow9(0, wireSet(1, wire(256, 4, 4, 302, 2, 34, 1)), data(1, 2, 3)), 1,
			[]FieldSpecifier{{302, 0, 2}, {34, 0, 1}}, []string{"\x01\x02\x03"}},
		{"no scope is the System's", wireNetFlow9(0, wireSet(1, wire(256, 0, 8, 34, 1, 35, 1)), data(1, 2)), 1,
			[]FieldSpecifier{{ExportingProcessId, 0, 0}, {34, 0, 1}, {35, 0, 1}}, []string{"\x01\x02"}},
		{"reserved FlowSets", wireNetFlow9(0, wireSet(2, wire(256, 1, 1, 9)), wireSet(0, wire(256, 1, 1, 1)), wireSet(3, []byte{1}), data(7)), 0,
			[]FieldSpecifier{{1, 0, 1}}, []string{"\x07"}},
		{"systemInitTimeMilliseconds of the exporter's own", wireNetFlow9(0, wireSet(0, wire(256, 2, 21, 4, 160, 8)), data(make([]byte, 12)...)), 0,
			[]FieldSpecifier{{21, 0, 4}, {160, 0, 8}}, []string{string(make([]byte, 12))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := Validate(test.msg); err != nil {
				t.Fatal(err)
			}
			s := NewSession(UDP)
			var records []string
			r, err := s.Decode(test.msg, func(set DataSet) {
				for r, ok := set.Next(); ok; r, ok = set.Next() {
					records = append(records, string(r.Bytes()))
				}
			})
			if err != nil || r.Header.Version != NetFlow9 || r.Header.Domain != 1 {
				t.Fatalf("%+v, %v", r.Header, err)
			}
			got := s.Template(1, 256)
			if got == nil || got.Scope != test.scope || !slices.Equal(got.Fields, test.fields) {
				t.Fatalf("template %+v", got)
			}
			if !slices.Equal(records, test.records) || r.Records != uint64(len(records)) {
				t.Errorf("%d records %q", r.Records, records)
			}
			// The same Template again is no change, nor is a checkpoint.
			if r, err := s.Decode(test.msg, nil); err != nil || r.TemplatesChanged || r.Repeated != 1 || r.Lost > 0 {
				t.Errorf("again: %+v, %v", r, err)
			}
			b, _ := s.AppendBinary(nil)
			again := NewSession(UDP)
			if err := again.UnmarshalBinary(b); err != nil || again.Template(1, 256).Fingerprint() != got.Fingerprint() {
				t.Errorf("restored: %v", err)
			}
		})
	}
}

// Up times become absolute by a field that the record did not have.
func TestNetFlow9UpTime(t *testing.T) {
	for _, test := range []struct {
		name   string
		fields []byte
		count  int
		record []byte
	}{
		{"fixed", wire(22, 4, 21, 4, 1, 1), 3, []byte{0, 0, 0x27, 0x10, 0, 0, 0x4e, 0x20, 7}},
		{"variable", wire(82, 65535, 22, 4, 21, 4, 1, 1), 4, append([]byte("\x04eth0"), 0, 0, 0x27, 0x10, 0, 0, 0x4e, 0x20, 7)},
		{"no end", wire(22, 4), 1, []byte{0, 0, 0x4e, 0x20}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(UDP)
			data := wireSet(256, test.record, test.record)
			msg := wireNetFlow9(0, wireSet(0, wire(256, test.count), test.fields), data, data)
			want := binary.BigEndian.AppendUint64(bytes.Clone(test.record), netFlowTime*1000-netFlowUp)
			var records [][]byte // referring to what was visited, as a visitor may
			check := func(set DataSet) {
				if set.Records != 2 {
					t.Errorf("%d records", set.Records)
				}
				init, ok := set.Template.Accessor(0, SystemInitTimeMilliseconds)
				if !ok {
					t.Fatal("no systemInitTimeMilliseconds")
				}
				for r, ok := set.Next(); ok; r, ok = set.Next() {
					records = append(records, r.Bytes())
					if init.UnixMilli(r) != netFlowTime*1000-netFlowUp {
						t.Errorf("began at %d", init.UnixMilli(r))
					}
				}
			}
			var offsets []int
			r, err := s.Decode(msg, func(set DataSet) {
				offsets = append(offsets, set.Offset)
				check(set)
			})
			if err != nil || r.Records != 4 || len(records) != 4 {
				t.Fatalf("%d records, %v", r.Records, err)
			}
			for _, got := range records {
				if !bytes.Equal(got, want) {
					t.Errorf("%x, want %x", got, want)
				}
			}
			set, err := s.DataSetAt(msg, offsets[1])
			if err != nil {
				t.Fatal(err)
			}
			check(set)
			// The Template's own encoding is of what the records are now.
			again, _, err := ParseTemplate(s.Template(1, 256).Append(nil), false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Record(want); err != nil {
				t.Error(err)
			}
		})
	}
}

// A Template of NetFlow 9 may change at any time, over whatever transport, and
// its records are then read by the new one.
func TestNetFlow9Redefinition(t *testing.T) {
	for transport := UDP; transport <= DTLS; transport++ {
		s := NewSession(transport)
		for i, element := range []uint16{OctetDeltaCount, PacketDeltaCount} {
			var got uint64
			msg := wireNetFlow9(uint32(i), wireSet(0, wire(256, 1, int(element), 4)), wireSet(256, []byte{0, 0, 0, 42}))
			r, err := s.Decode(msg, func(set DataSet) {
				r, _ := set.Next()
				a, ok := set.Template.Accessor(0, element)
				if !ok || len(set.Template.Fields) != 1 {
					t.Errorf("%v: the records are of %v", transport, set.Template.Fields)
				}
				got = a.Uint64(r)
			})
			if err != nil || len(r.New) != 1 || got != 42 {
				t.Errorf("%v: %+v, %v, the record says %d", transport, r, err, got)
			}
		}
	}
}

// Messages of all versions with one domain and number keep Templates and
// sequence numbers apart.
func TestVersionsApart(t *testing.T) {
	const domain = 0x102 // as wireNetFlow5 has it
	in := func(msg []byte, at int) []byte {
		binary.BigEndian.PutUint32(msg[at:], domain)
		return msg
	}
	s := NewSession(UDP)
	decode := func(msg []byte) Result {
		r, err := s.Decode(msg, nil)
		if err != nil || r.Restarted || r.Header.Domain != domain {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	decode(in(wireMessage(0, wireSet(2, wire(256, 1, 1, 4))), 12))
	if r := decode(in(wireNetFlow9(50, wireSet(256, make([]byte, 8))), 16)); r.Unknown != 1 {
		t.Errorf("NetFlow 9 has the Template of IPFIX: %+v", r)
	}
	if n := len(s.Templates()); n != 1 {
		t.Errorf("%d templates", n)
	}
	decode(in(wireNetFlow9(51, wireSet(0, wire(256, 1, 1, 8))), 16))
	for i := range uint32(3) {
		five := decode(wireNetFlow5(7000+2*i, 0, netFlow5Record(1, 2)))
		nine := decode(in(wireNetFlow9(52+i, wireSet(256, make([]byte, 8))), 16))
		ten := decode(in(wireMessage(2*i, wireSet(256, make([]byte, 8))), 12))
		if five.Records != 1 || nine.Records != 1 || ten.Records != 2 {
			t.Errorf("records %d, %d, %d", five.Records, nine.Records, ten.Records)
		}
		if lost := uint64(min(i, 1)); five.Lost != lost || nine.Lost != 0 || ten.Lost != 0 {
			t.Errorf("lost %d, %d, %d", five.Lost, nine.Lost, ten.Lost)
		}
	}
}

func TestNetFlow5(t *testing.T) {
	for _, test := range []struct {
		name                string
		sampling            uint16
		interval, algorithm uint64 // 0 for none
	}{
		{"not sampled", 0, 0, 0},
		{"a mode without an interval", 0x4000, 0, 0},
		{"one in 100, deterministic", 0x4064, 100, 1},
		{"one in 16383, random", 0xbfff, 16383, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(UDP)
			msg := wireNetFlow5(70, test.sampling, netFlow5Record(10000, 20000), netFlow5Record(30000, 40000))
			check := func(set DataSet) {
				if set.Template != s.Template(0x102, set.ID) || set.Records != 2 {
					t.Errorf("%d records of template %d", set.Records, set.ID)
				}
				r, ok := set.Next()
				if !ok {
					t.Fatal("no record")
				}
				got := make(map[uint16]uint64)
				for i, f := range set.Template.Fields {
					got[f.ID] = set.Template.AccessorAt(i).Uint64(r)
				}
				want := map[uint16]uint64{
					SourceIPv4Address: 0x0a000001, DestinationIPv4Address: 0x0a000002, IpNextHopIPv4Address: 0x0a0000fe,
					IngressInterface: 3, EgressInterface: 4, PacketDeltaCount: 7, OctetDeltaCount: 4200,
					FlowStartSysUpTime: 10000, FlowEndSysUpTime: 20000, SourceTransportPort: 1024, DestinationTransportPort: 80,
					TcpControlBits: 0x1b, ProtocolIdentifier: 6, IpClassOfService: 0xb8, BgpSourceAsNumber: 65000,
					BgpDestinationAsNumber: 65001, SourceIPv4PrefixLength: 24, DestinationIPv4PrefixLength: 16, PaddingOctets: 0,
					SystemInitTimeMilliseconds: netFlowTime*1000 + 500 - netFlowUp,
				}
				if test.interval > 0 {
					want[SamplingInterval], want[SamplingAlgorithm] = test.interval, test.algorithm
				}
				for id, v := range want {
					if got[id] != v {
						t.Errorf("element %d is %d, want %d", id, got[id], v)
					}
				}
				if len(got) != len(want) {
					t.Errorf("elements %v", got)
				}
			}
			r, err := s.Decode(msg, check)
			if err != nil || r.Records != 2 || r.Header.Domain != 0x102 || r.Header.Sequence != 70 || r.TemplatesChanged {
				t.Fatalf("%+v, %v", r, err)
			}
			set, err := s.DataSetAt(msg, netFlow5HeaderLength)
			if err != nil {
				t.Fatal(err)
			}
			check(set)
			// Flows are counted by records, and a checkpoint makes no difference.
			b, _ := s.AppendBinary(nil)
			if err := s.UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Decode(wireNetFlow5(75, test.sampling, netFlow5Record(1, 2)), nil); err != nil || r.Lost != 3 || r.Counting != (Counting{}) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// A packet whose header counts more records than are there is read as far as it
// goes where that is asked for, and never otherwise.
func TestNetFlow5Salvage(t *testing.T) {
	two := [][]byte{netFlow5Record(1, 2), netFlow5Record(3, 4)}
	counting := func(count, octets int) []byte {
		msg := wireNetFlow5(70, 0x4064, two...)
		binary.BigEndian.PutUint16(msg[2:], uint16(count))
		return append(msg, make([]byte, 48)...)[:octets]
	}
	for _, test := range []struct {
		name    string
		msg     []byte
		err     error
		records uint64
	}{
		{"as many as are there", counting(2, 24+96), nil, 2},
		{"one more than are there", counting(3, 24+96), ErrCount, 2},
		{"more than a packet can have", counting(65535, 24+96), ErrCount, 2},
		{"the last one cut off", counting(3, 24+96+47), ErrCount, 2},
		{"one less than are there", counting(1, 24+96), ErrLength, 0},
		{"octets behind the last", counting(2, 24+97), ErrLength, 0},
		{"none is there", counting(2, 24+47), ErrLength, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(UDP)
			s.Salvage = true
			var visited uint64
			r, err := s.Decode(test.msg, func(set DataSet) {
				octets, _ := set.Template.Accessor(0, OctetDeltaCount)
				sampling, _ := set.Template.Accessor(0, SamplingInterval)
				for r, ok := set.Next(); ok; r, ok = set.Next() {
					visited++
					if octets.Uint64(r) != 4200 || sampling.Uint64(r) != 100 {
						t.Errorf("%d octets, one packet in %d", octets.Uint64(r), sampling.Uint64(r))
					}
				}
			})
			if !errors.Is(err, test.err) || r.Records != test.records || visited != test.records {
				t.Fatalf("%d records, %d read, %v", r.Records, visited, err)
			}
			if valid := Validate(test.msg); !errors.Is(valid, test.err) {
				t.Errorf("valid: %v, decoded: %v", valid, err)
			}
			// What came is counted, and never what the header says.
			if r, err := s.Decode(wireNetFlow5(75, 0), nil); err != nil || test.records > 0 && r.Lost != 75-70-test.records {
				t.Errorf("the next packet: %+v, %v", r, err)
			}
		})
	}
}

func TestNetFlow9LostMessages(t *testing.T) {
	s := NewSession(UDP)
	data := wireSet(256, make([]byte, 40))
	decode := func(sequence uint32, sets ...[]byte) Result {
		r, err := s.Decode(wireNetFlow9(sequence, sets...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	decode(10, wireSet(0, wire(256, 1, 1, 4)))
	decode(11, data)
	if r := decode(14, data); r.Lost != 20 || r.LostMessages != 2 || r.Counting.Confidence != Estimated {
		t.Errorf("%+v", r)
	}
	if r := decode(12, data); r.Found != 10 || r.FoundMessages != 1 {
		t.Errorf("%+v", r)
	}
}

// The time of an up time is right across the start of another 49.7 days.
func TestUpTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const exported = int64(netFlowTime) * 1000
		up := rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 100000), rapid.Uint32Range(math.MaxUint32-100000, math.MaxUint32)).Draw(t, "up time")
		ago := rapid.Int64Range(-10000, 1<<31-1).Draw(t, "milliseconds ago")
		h := Header{Version: NetFlow9, ExportTime: netFlowTime, UpTime: up}
		at := up - uint32(ago)
		if got := int64(initTime(h.exportMilli(), h.UpTime, at)) + int64(at); got != exported-ago {
			t.Fatalf("%d, want %d", got, exported-ago)
		}
	})
	for _, test := range []struct {
		name string
		h    Header
		ok   bool
	}{
		{"an IPFIX Message has none", Header{Version: Version, ExportTime: netFlowTime}, false},
		{"a clock that is not set", Header{Version: NetFlow9, ExportTime: 1, UpTime: 5000}, false},
		{"NetFlow", Header{Version: NetFlow9, ExportTime: netFlowTime, UpTime: 5000}, true},
	} {
		if at, ok := test.h.InitTime(); ok != test.ok {
			t.Errorf("%s: %d, %t", test.name, at, ok)
		}
	}
}

// Files of payloads hold Messages of all versions end to end.
func TestMessageLength(t *testing.T) {
	var all [][]byte
	for range 2 {
		all = append(all,
			wireNetFlow9(0, wireSet(0, wire(256, 1, 1, 4)), wireSet(256, []byte{1, 2, 3, 4})),
			wireNetFlow9(1, wireSet(256, []byte{1, 2, 3, 4})),
			wireNetFlow5(0, 0, netFlow5Record(1, 2)),
			wireNetFlow9(2),
			wireMessage(0, wireSet(2, wire(256, 1, 1, 4))))
	}
	rest := bytes.Join(all, nil)
	for i, want := range all {
		n, err := MessageLength(rest)
		if err != nil || n != len(want) {
			t.Fatalf("message %d: %d octets, want %d, %v", i, n, len(want), err)
		}
		rest = rest[n:]
	}
	for _, b := range [][]byte{nil, {0}, wire(8, 16), wireMessage(0, wire(5, 6))[:18], wireNetFlow9(0, wire(256, 9)), wireNetFlow5(0, 0)[:20]} {
		if n, err := MessageLength(b); err == nil {
			t.Errorf("%x has %d octets", b, n)
		}
	}
}
