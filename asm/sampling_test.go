package asm

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// sampledTemplate is of records that name an interface and a sampler.
var sampledTemplate = must(ipfix.NewTemplate(320,
	field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.SourceTransportPort, 2),
	field(ipfix.OctetDeltaCount, 4), field(ipfix.PacketDeltaCount, 4),
	field(ipfix.IngressInterface, 4), field(ipfix.EgressInterface, 4), field(ipfix.FlowDirection, 1), field(ipfix.SamplerId, 1),
))

// plainTemplate is of records that name neither.
var plainTemplate = must(ipfix.NewTemplate(321,
	field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.SourceTransportPort, 2),
	field(ipfix.OctetDeltaCount, 4), field(ipfix.PacketDeltaCount, 4),
))

// An announcement is an options record.
type announcement struct {
	fields []ipfix.FieldSpecifier // the first is the scope
	values []any
}

// Each case is what an exporter announces, and what a record of 100 octets and
// 3 packets, in by interface 7, out by 8, of sampler 1, comes to.
func TestSampling(t *testing.T) {
	type fields = []ipfix.FieldSpecifier
	domain, observed := field(ipfix.ObservationDomainId, 4), field(ipfix.MeteringProcessId, 4)
	iface, sampler, selector := field(ipfix.IngressInterface, 4), field(ipfix.SamplerId, 1), field(ipfix.SelectorId, 8)
	interval := field(ipfix.SamplingInterval, 4)
	for _, c := range []struct {
		name           string
		announced      []announcement
		exporter       uint32 // the settings' rate
		egress         bool
		plain, sampled acct.Count // accounted of a record without interface and sampler, and of one with them
	}{
		{"nothing", nil, 0, false, count(1, 100, 3), count(1, 100, 3)},
		{"samplingInterval of the domain", []announcement{{fields{domain, interval}, []any{1, 10}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"samplingInterval of 1 is no sampling", []announcement{{fields{domain, interval}, []any{1, 1}}}, 0, false, count(1, 100, 3), count(1, 100, 3)},
		{"samplingInterval of 0 is none", []announcement{{fields{domain, interval}, []any{1, 0}}}, 0, false, count(1, 100, 3), count(1, 100, 3)},
		{"samplingPacketInterval and Space", []announcement{{fields{observed, field(305, 4), field(306, 4)}, []any{1, 2, 3}}}, 0, false,
			count(1, 250, 8), count(1, 250, 8)}, // 7.5 packets round up
		{"samplingPacketInterval alone is the rate", []announcement{{fields{observed, field(305, 4)}, []any{1, 100}}}, 0, false, count(1, 10000, 300), count(1, 10000, 300)},
		{"samplingSize of samplingPopulation", []announcement{{fields{observed, field(309, 4), field(310, 4)}, []any{1, 3, 10}}}, 0, false, count(1, 333, 10), count(1, 333, 10)},
		{"samplingProbability", []announcement{{fields{observed, field(311, 8)}, []any{1, 0.25}}}, 0, false, count(1, 400, 12), count(1, 400, 12)},
		{"samplingTimeInterval and Space", []announcement{{fields{observed, field(307, 4), field(308, 4)}, []any{1, 1000, 9000}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"a filter is no sampling", []announcement{{fields{observed, field(304, 2), field(305, 4)}, []any{1, 5, 10}}}, 0, false, count(1, 100, 3), count(1, 100, 3)},
		{"the settings overrule", []announcement{{fields{domain, interval}, []any{1, 10}}}, 2, false, count(1, 200, 6), count(1, 200, 6)},
		{"the settings may say that nothing is sampled", []announcement{{fields{domain, interval}, []any{1, 10}}}, 1, false, count(1, 100, 3), count(1, 100, 3)},
		{"another announcement takes the place of the one before", []announcement{{fields{domain, interval}, []any{1, 10}}, {fields{domain, interval}, []any{1, 20}}}, 0, false,
			count(1, 2000, 60), count(1, 2000, 60)},

		{"the only sampler is also that of records that name none", []announcement{{fields{domain, sampler, field(50, 4)}, []any{1, 1, 10}}}, 0, false,
			count(1, 1000, 30), count(1, 1000, 30)},
		{"of several samplers a record names its own", []announcement{{fields{domain, sampler, field(50, 4)}, []any{1, 1, 10}}, {fields{domain, sampler, field(50, 4)}, []any{1, 2, 20}}}, 0, false,
			count(1, 100, 3), count(1, 1000, 30)},
		{"selectorId is a samplerId", []announcement{{fields{selector, field(304, 2), field(309, 4), field(310, 4)}, []any{1, 3, 1, 10}}}, 0, false,
			count(1, 1000, 30), count(1, 1000, 30)},
		{"an unknown sampler", []announcement{{fields{domain, sampler, field(50, 4)}, []any{1, 2, 10}}}, 0, false, count(1, 1000, 30), count(1, 100, 3)},

		{"of the interface", []announcement{{fields{iface, interval}, []any{7, 10}}, {fields{iface, interval}, []any{8, 20}}}, 0, false, count(1, 100, 3), count(1, 100, 3)},
		{"interface 0 is all", []announcement{{fields{iface, interval}, []any{0, 10}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"of a line card, which is said of the domain", []announcement{{fields{field(ipfix.LineCardId, 4), interval}, []any{3, 10}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"of the exporter by its address, likewise", []announcement{{fields{field(ipfix.ExporterIPv6Address, 16), interval}, []any{netip.MustParseAddr("2001:db8::1"), 10}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"of an Exporting Process, likewise", []announcement{{fields{field(ipfix.ExportingProcessId, 4), interval}, []any{3, 10}}}, 0, false, count(1, 1000, 30), count(1, 1000, 30)},
		{"of the Template", []announcement{{fields{field(ipfix.TemplateId, 2), interval}, []any{321, 10}}}, 0, false, count(1, 1000, 30), count(1, 100, 3)},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			if c.exporter != 0 {
				settings.Exporters = []ExporterSettings{{Name: "router", Sampling: c.exporter}}
			}
			b := mapped(t, settings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			for i, a := range c.announced {
				b.sendRecords(s, must(ipfix.NewOptionsTemplate(uint16(400+i), 1, a.fields...)), a.values)
			}
			ann := netip.MustParseAddr("192.0.2.1")
			var before acct.Count
			for i, x := range []struct {
				t      *ipfix.Template
				values []any
				want   acct.Count
			}{
				{plainTemplate, []any{b.clock, ann, 1, 100, 3}, c.plain},
				{sampledTemplate, []any{b.clock, ann, 2, 100, 3, 7, 8, 0, 1}, c.sampled},
			} {
				b.checkpoint()
				b.restart() // what was announced survives
				b.sendRecords(s, x.t, x.values)
				sum := b.checkpoint()
				if got := sum.Accounted.Minus(before); got != x.want {
					t.Errorf("record %d: accounted %+v, want %+v", i, got, x.want)
				}
				before = sum.Accounted
			}
		})
	}
}

// Interfaces are sampled each at its own rate, and a record is metered where
// its flow came in, or where it left if it says so.
func TestSamplingByInterface(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	noSampler := must(ipfix.NewTemplate(322, sampledTemplate.Fields[:8]...))
	options := must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.IngressInterface, 4), field(ipfix.SamplingInterval, 4)))
	b.sendRecords(s, options, []any{7, 10}, []any{8, 20})
	ann := netip.MustParseAddr("192.0.2.1")
	for i, x := range []struct{ in, out, direction, octets int }{
		{7, 8, 0, 1000}, {7, 8, 1, 2000}, {9, 8, 0, 100}, {8, 7, 0, 2000},
	} {
		before := b.checkpoint().Accounted
		b.sendRecords(s, noSampler, []any{b.clock, ann, i, 100, 1, x.in, x.out, x.direction})
		if got := b.checkpoint().Accounted.Minus(before).Octets; got != uint64(x.octets) {
			t.Errorf("in by %d, out by %d, direction %d: %d octets, want %d", x.in, x.out, x.direction, got, x.octets)
		}
	}
}

// A record may tell its own rate; that of the settings comes before it.
func TestSamplingOfTheRecord(t *testing.T) {
	for _, c := range []struct {
		name     string
		fields   []ipfix.FieldSpecifier
		values   []any
		settings uint32
		octets   uint64 // of 100
	}{
		{"samplingInterval", []ipfix.FieldSpecifier{field(ipfix.SamplingInterval, 4)}, []any{10}, 0, 1000},
		{"samplerRandomInterval", []ipfix.FieldSpecifier{field(ipfix.SamplerRandomInterval, 1)}, []any{10}, 0, 1000},
		{"samplingPacketInterval and Space", []ipfix.FieldSpecifier{field(305, 4), field(306, 4)}, []any{1, 9}, 0, 1000},
		{"samplingSize and Population", []ipfix.FieldSpecifier{field(309, 4), field(310, 4)}, []any{2, 20}, 0, 1000},
		{"samplingProbability", []ipfix.FieldSpecifier{field(311, 8)}, []any{0.1}, 0, 1000},
		{"zero says nothing: that of the domain", []ipfix.FieldSpecifier{field(ipfix.SamplingInterval, 4)}, []any{0}, 0, 500},
		{"the settings overrule", []ipfix.FieldSpecifier{field(ipfix.SamplingInterval, 4)}, []any{10}, 2, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			if c.settings != 0 {
				settings.Exporters = []ExporterSettings{{Name: "router", Sampling: c.settings}}
			}
			b := mapped(t, settings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			b.sendRecords(s, must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplingInterval, 4))), []any{1, 5})
			b.checkpoint()
			b.restart()
			tmpl := must(ipfix.NewTemplate(323, append(slices.Clone(plainTemplate.Fields), c.fields...)...))
			b.sendRecords(s, tmpl, append([]any{b.clock, netip.MustParseAddr("192.0.2.1"), 1, 100, 1}, c.values...))
			if sum := b.checkpoint(); sum.Accounted.Octets != c.octets || sum.Estimated != sum.Accounted {
				t.Errorf("accounted %+v, estimated %+v", sum.Accounted, sum.Estimated)
			}
		})
	}
}

// netFlow9 is a packet of Source ID 7, two minutes after its exporter began,
// around FlowSets given as an ID and their content.
func netFlow9(at time.Time, sequence uint32, sets ...[]byte) []byte {
	b := []byte{0, 9, 0, byte(len(sets))}
	for _, n := range []uint32{120_000, uint32(at.Unix()), sequence, 7} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, slices.Concat(sets...)...)
}

// flowSet is a FlowSet of numbers of 16 bits, and octets behind them.
func flowSet(id int, numbers []int, octets ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(id))
	b = binary.BigEndian.AppendUint16(b, uint16(4+2*len(numbers)+len(octets)))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return append(b, octets...)
}

// NetFlow version 9 tells of sampling in options of the system, of interfaces
// and of samplers, and in records, all across our restart. Its times are by the
// up time of the header.
func TestSamplingOfNetFlow9(t *testing.T) {
	const system, iface = 1, 2 // scopes
	const srcAddr, inBytes, inPackets, last, first, inputIf = 8, 1, 2, 21, 22, 10
	base := []int{srcAddr, 4, inBytes, 4, inPackets, 4, first, 4, last, 4, inputIf, 2}
	record := []byte{192, 0, 2, 1, 0, 0, 0, 100, 0, 0, 0, 3, 0, 0, 0xea, 0x60, 0, 1, 0x5f, 0x90, 0, 7} // from 60 to 90 s of up time, in by interface 7
	for _, c := range []struct {
		name    string
		options []int  // scope length, option length, fields
		says    []byte // its records
		fields  []int  // further ones of the record, and their values
		values  []byte
		rate    uint64
	}{
		{"nothing", nil, nil, nil, nil, 1},
		{"SAMPLING_INTERVAL (34) of the system", []int{4, 4, system, 4, 34, 4}, []byte{0, 0, 0, 7, 0, 0, 0, 10}, nil, nil, 10},
		{"SAMPLING_INTERVAL of the interface", []int{4, 4, iface, 2, 34, 2}, []byte{0, 7, 0, 10, 0, 8, 0, 20}, nil, nil, 10},
		{"FLOW_SAMPLER (48, 49, 50) that the record names", []int{4, 12, system, 4, 48, 1, 49, 1, 50, 2},
			[]byte{0, 0, 0, 7, 1, 2, 0, 20, 0, 0, 0, 7, 2, 2, 0, 10}, []int{48, 1}, []byte{2}, 10},
		{"the only FLOW_SAMPLER, of a record that names none", []int{4, 12, system, 4, 48, 1, 49, 1, 50, 2}, []byte{0, 0, 0, 7, 2, 2, 0, 10}, nil, nil, 10},
		{"SAMPLING_INTERVAL in the record", nil, nil, []int{34, 2, 35, 1}, []byte{0, 10, 1}, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mapped(t, testSettings)
			s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
			if c.options != nil {
				b.add(acct.EntryMessage, s, netFlow9(b.clock, 1, flowSet(1, append([]int{300}, c.options...)), flowSet(300, nil, c.says...)))
			}
			fields := append(slices.Clone(base), c.fields...)
			b.add(acct.EntryMessage, s, netFlow9(b.clock, 2, flowSet(0, append([]int{260, len(fields) / 2}, fields...))))
			b.checkpoint()
			b.restart()
			b.add(acct.EntryMessage, s, netFlow9(b.clock, 3, flowSet(260, nil, append(slices.Clone(record), c.values...)...)))
			if f := &b.m.decoder.flows[0]; f.start != b.clock.Add(-time.Minute).UnixMilli() || f.end != b.clock.Add(-30*time.Second).UnixMilli() {
				t.Errorf("from %v to %v", time.UnixMilli(f.start).UTC(), time.UnixMilli(f.end).UTC())
			}
			sum := b.checkpoint()
			if sum.Accounted != count(1, 100*c.rate, 3*c.rate) || c.rate > 1 && sum.Estimated != sum.Accounted || c.rate == 1 && !sum.Estimated.IsZero() {
				t.Errorf("accounted %+v, estimated %+v", sum.Accounted, sum.Estimated)
			}
		})
	}
}

// When a record's up time was zero, options of the domain may say; it holds
// across our restart, until another is said.
func TestSystemInitTime(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	for i, booted := range []time.Time{b.clock.Add(-time.Hour), b.clock.Add(-time.Minute)} {
		b.sendRecords(s, initTemplate, []any{1, booted})
		b.checkpoint()
		b.restart()
		b.sendRecords(s, upTimeTemplate, []any{50_000 + i, netip.MustParseAddr("192.0.2.1"), 100})
		want := booted.Add(50*time.Second + time.Duration(i)*time.Millisecond)
		if f := &b.m.decoder.flows[0]; f.end != want.UnixMilli() {
			t.Errorf("started %v: the flow ended %v, want %v", booted, time.UnixMilli(f.end).UTC(), want)
		}
	}
}

// Records of a sampler that nothing was said of count as they are, and the
// ledger tells them from those that were scaled.
func TestUnknownSampler(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.sendRecords(s, must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplerId, 1), field(ipfix.SamplerRandomInterval, 4))), []any{1, 1, 10})
	ann := netip.MustParseAddr("192.0.2.1")
	b.sendRecords(s, sampledTemplate, []any{b.clock, ann, 1, 100, 3, 7, 8, 0, 1}) // of that sampler
	if sum := b.checkpoint(); sum.Unscaled != 0 || sum.Estimated != count(1, 1000, 30) {
		t.Errorf("of a known sampler: %d unscaled, estimated %+v", sum.Unscaled, sum.Estimated)
	}
	b.sendRecords(s, sampledTemplate, []any{b.clock, ann, 2, 100, 3, 7, 8, 0, 2}, []any{b.clock, ann, 3, 100, 3, 7, 8, 0, 2})
	b.checkpoint()
	b.restart()
	b.sendRecords(s, sampledTemplate, []any{b.clock, ann, 4, 100, 3, 7, 8, 0, 2})
	if sum := b.checkpoint(); sum.Unscaled != 3 || sum.Estimated != count(4, 1300, 39) {
		t.Errorf("of an unknown sampler: %d unscaled, estimated %+v", sum.Unscaled, sum.Estimated)
	}
}

// What is scaled is marked: in the ledger, in the record, and there until the
// session stops.
func TestEstimated(t *testing.T) {
	b := mapped(t, testSettings)
	b.users("file", bind("192.0.2.1", "ann"), bind("192.0.2.2", "bob"))
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	other := b.open(ipfix.TCP, "other", "198.51.100.2:999")
	b.sendRecords(s, must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplingInterval, 4))), []any{1, 10})
	b.sendRecords(s, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 1, 100, 3})
	b.sendRecords(other, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 1, 100, 3}) // that exporter samples nothing
	b.sendRecords(other, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.2"), 1, 100, 3})
	b.sendRecords(s, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.3"), 1, 100, 3}) // waits for its user
	b.checkpoint()
	b.restart()
	b.after(time.Minute)
	b.users("late", bind("192.0.2.3", "eve"))
	b.sendRecords(other, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 2, 100, 3})
	b.after(time.Minute)
	sum := b.checkpoint()
	if sum.Accounted != count(5, 2300, 69) || sum.Estimated != count(2, 2000, 60) {
		t.Errorf("accounted %+v, estimated %+v", sum.Accounted, sum.Estimated)
	}
	for _, r := range b.s.records {
		want := r.Type != acct.Start && r.User != "bob"
		if r.Estimated != want {
			t.Errorf("%s %s/%d %v: estimated %v", r.User, r.SessionID, r.Number, r.Type, r.Estimated)
		}
	}
}

// A scaled counter that no record can have is rejected.
func TestSamplingOverflow(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.sendRecords(s, must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplingInterval, 4))), []any{1, uint32(1<<32 - 1)})
	b.sendRecords(s, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 1, 1 << 20, 3})
	if sum := b.checkpoint(); sum.Rejected != count(1, 0, 0) || sum.Received != sum.Rejected {
		t.Errorf("received %+v, rejected %+v", sum.Received, sum.Rejected)
	}
}

// An exporter can't make us hold more rates than the bounds, and does not hurt
// another by trying.
func TestSamplingBounds(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "hostile", "198.51.100.1:999")
	other := b.open(ipfix.TCP, "other", "198.51.100.2:999")
	options := must(ipfix.NewOptionsTemplate(400, 1, field(ipfix.SelectorId, 8), field(ipfix.SamplingInterval, 4)))
	const rates, domains = 4096, 1024 // that there is room for
	for i := range rates + 10 {
		b.sendRecords(s, options, []any{i, 10})
	}
	if n := b.m.Stats().OptionsRefused; n != 10 {
		t.Errorf("%d rates refused", n)
	}
	for i := range domains + 10 {
		e := ipfix.NewEncoder(uint32(i+1), 0)
		if err := e.AddTemplate(options); err != nil {
			t.Fatal(err)
		}
		if err := e.AddRecord(options, 1, 10); err != nil {
			t.Fatal(err)
		}
		if i%512 == 511 { // a Transport Session has 1024 domains at most
			s = b.open(ipfix.TCP, "hostile", fmt.Sprintf("198.51.100.1:%d", 1000+i))
		}
		b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	}
	if n := b.m.Stats().OptionsRefused; n != 20 {
		t.Errorf("%d rates and observation domains refused", n)
	}
	b.sendRecords(other, options, []any{1, 10})
	if n := b.m.Stats().OptionsRefused; n != 20 {
		t.Error("another exporter has no room")
	}
}

// A packet of NetFlow version 5 tells of sampling in its header, and its times
// are by the exporter's up time.
func TestNetFlow5(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	packet := make([]byte, 24+48)
	put32 := func(at int, v uint32) { binary.BigEndian.PutUint32(packet[at:], v) }
	packet[1], packet[3] = 5, 1
	put32(4, 3600_000) // up for an hour
	put32(8, uint32(b.clock.Unix()))
	packet[22], packet[23] = 1<<6, 100 // one in 100, systematic
	copy(packet[24:], []byte{192, 0, 2, 1, 203, 0, 113, 9})
	put32(24+16, 3)        // packets
	put32(24+20, 1000)     // octets
	put32(24+24, 3590_000) // first
	put32(24+28, 3595_000) // last
	packet[24+38] = 17     // UDP
	b.add(acct.EntryMessage, s, packet)
	if sum := b.checkpoint(); sum.Accounted != count(1, 100_000, 300) || sum.Estimated != sum.Accounted {
		t.Errorf("accounted %+v, estimated %+v", sum.Accounted, sum.Estimated)
	}
	if f := &b.m.decoder.flows[0]; f.end != b.clock.Add(-5*time.Second).UnixMilli() || f.start != b.clock.Add(-10*time.Second).UnixMilli() {
		t.Errorf("from %v to %v", time.UnixMilli(f.start).UTC(), time.UnixMilli(f.end).UTC())
	}
}

// A NetFlow 5 packet whose header counts more records than are there is damaged,
// and nothing else tells it: nothing of it is billed, and its records are missing
// by the number of the next.
func TestNetFlow5Damaged(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	packet := func(sequence uint32, said uint16) []byte {
		p := make([]byte, 24+48)
		p[1] = 5
		binary.BigEndian.PutUint16(p[2:], said)
		binary.BigEndian.PutUint32(p[4:], 3600_000+sequence) // up time
		binary.BigEndian.PutUint32(p[8:], uint32(b.clock.Unix()))
		binary.BigEndian.PutUint32(p[16:], sequence)
		r := p[24:]
		copy(r, []byte{192, 0, 2, 1, 203, 0, 113, 9})
		binary.BigEndian.PutUint32(r[16:], 3)                 // packets
		binary.BigEndian.PutUint32(r[20:], 1000)              // octets
		binary.BigEndian.PutUint32(r[28:], 3595_000+sequence) // last
		return p
	}
	b.add(acct.EntryMessage, s, packet(10, 1))
	b.checkpoint()
	damaged := packet(11, 0xd91e)
	b.add(acct.EntryMessage, s, damaged)
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, packet(12, 1))
	sum := b.checkpoint()
	if sum.Received != count(2, 2000, 6) || sum.Accounted != sum.Received || sum.Lost != 1 ||
		sum.UndecodedMessages != 1 || sum.UndecodedOctets != uint64(len(damaged)) {
		t.Errorf("%+v", sum)
	}
}

// What a Cisco router says of its sampler is understood.
func TestSamplerOfCisco(t *testing.T) {
	const dir = "../../shared/corpus/fluent-plugin-netflow/netflow.v9."
	tmpl, err := os.ReadFile(dir + "sampler_template.dump")
	if err != nil {
		t.Skip("no captures of real exporters here")
	}
	data, err := os.ReadFile(dir + "sampler.dump")
	if err != nil {
		t.Fatal(err)
	}
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.add(acct.EntryMessage, s, data) // before its Template
	b.add(acct.EntryMessage, s, tmpl)
	b.checkpoint()
	const want = "\x01\x00\x00\x00\x01\x01\x88\x27\x01\x00\x00" // of sampler 1 one packet in 5000
	if got := b.s.state[[2]string{stateSampling, "2081/router"}]; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}
