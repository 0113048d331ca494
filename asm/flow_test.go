package asm

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

func reversed(id, length uint16) ipfix.FieldSpecifier {
	return ipfix.FieldSpecifier{ID: id, Enterprise: ipfix.ReversePEN, Length: length}
}

func TestPlan(t *testing.T) {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	zero4, zero6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	const exported = 1_800_000_000
	at := time.Unix(exported-5, 0)
	ms := at.UnixMilli()
	type fields = []ipfix.FieldSpecifier
	src, octets := field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 8)
	base := flow{source: a4, start: exported * 1000, end: exported * 1000}
	with := func(change func(*flow)) flow {
		f := base
		change(&f)
		return f
	}
	forward := func(octets, packets uint64) flow {
		return with(func(f *flow) { f.forward = volume{octets, packets} })
	}
	ended := func(start, end int64) flow {
		return with(func(f *flow) { f.start, f.end, f.forward.octets = start, end, 1 })
	}
	for _, c := range []struct {
		name   string
		fields fields
		values []any
		want   flow
		why    reason
		timed  bool
	}{
		{"delta counters", fields{src, octets, field(2, 8)}, []any{a4, 7, 3}, forward(7, 3), "", false},
		{"delta beside total counts once", fields{src, octets, field(2, 8), field(85, 8), field(86, 8)}, []any{a4, 7, 3, 1000, 10}, forward(7, 3), "", false},
		{"a delta of octets beside a total of packets", fields{src, octets, field(86, 8)}, []any{a4, 7, 10}, forward(7, 10), "", false},
		{"a zero IN counter beside a real OUT counter", fields{src, octets, field(2, 8), field(23, 8), field(24, 8)}, []any{a4, 0, 0, 7, 3}, forward(7, 3), "", false},
		{"a zero OUT counter beside a real IN counter", fields{src, octets, field(2, 8), field(23, 8), field(24, 8)}, []any{a4, 7, 3, 0, 0}, forward(7, 3), "", false},
		{"zero layer 3 octets beside those of layer 2", fields{src, octets, field(352, 8)}, []any{a4, 0, 7}, forward(7, 0), "", false},
		{"layer 2 octets", fields{src, field(352, 8), field(2, 8)}, []any{a4, 7, 3}, forward(7, 3), "", false},
		{"a zero post counter beside a real one", fields{src, field(23, 8), octets}, []any{a4, 0, 7}, forward(7, 0), "", false},
		{"post counters alone", fields{src, field(23, 8), field(24, 8)}, []any{a4, 7, 3}, forward(7, 3), "", false},
		{"layer 2 post octets alone", fields{src, field(417, 8), field(24, 8)}, []any{a4, 7, 3}, forward(7, 3), "", false},
		{"layer 3, layer 2 and post octets count once", fields{src, field(417, 8), field(23, 8), field(352, 8), octets}, []any{a4, 70, 60, 50, 7}, forward(7, 0), "", false},
		{"reverse layer 2 octets and post packets", fields{src, octets, reversed(352, 8), reversed(24, 8)}, []any{a4, 7, 8, 4},
			with(func(f *flow) { f.forward.octets, f.reverse = 7, volume{8, 4} }), "", false},
		{"frames of layer 2 where there are no packets", fields{src, field(352, 8), field(430, 8), reversed(352, 8), reversed(430, 8)}, []any{a4, 7, 3, 8, 4},
			with(func(f *flow) { f.forward, f.reverse = volume{7, 3}, volume{8, 4} }), "", false},
		{"packets before frames", fields{src, field(430, 8), field(2, 8)}, []any{a4, 9, 3}, forward(0, 3), "", false},
		{"total frames", fields{src, field(353, 8), field(431, 8)}, []any{a4, 7, 3}, forward(7, 3), "", false},
		{"reverse post octets alone", fields{src, reversed(23, 8)}, []any{a4, 8}, with(func(f *flow) { f.reverse.octets = 8 }), "", false},
		{"layer 2 totals alone", fields{src, field(353, 8)}, []any{a4, 1000}, forward(1000, 0), "", false},
		{"post totals of layer 2 and 3 alone", fields{src, field(420, 8), field(171, 8), field(172, 8)}, []any{a4, 1100, 1000, 10}, forward(1000, 10), "", false},
		{"packets alone", fields{src, field(2, 8)}, []any{a4, 3}, forward(0, 3), "", false},
		{"initiator and responder", fields{src, field(231, 8), field(232, 8), field(298, 8), field(299, 8)}, []any{a4, 7, 8, 3, 4},
			with(func(f *flow) { f.forward, f.reverse = volume{7, 3}, volume{8, 4} }), "", false},
		{"initiator beside delta counts once", fields{src, octets, field(231, 8), field(232, 8)}, []any{a4, 7, 7, 8}, forward(7, 0), "", false},
		{"biflow (RFC 5103)", fields{src, octets, field(2, 8), reversed(1, 8), reversed(2, 8)}, []any{a4, 7, 3, 8, 4},
			with(func(f *flow) { f.forward, f.reverse = volume{7, 3}, volume{8, 4} }), "", false},
		{"total counters alone", fields{src, field(85, 8), field(86, 8)}, []any{a4, 1000, 10}, forward(1000, 10), "", false},
		{"total counters of a biflow", fields{src, field(85, 8), field(86, 8), reversed(85, 8), reversed(86, 8)}, []any{a4, 7, 3, 8, 4},
			with(func(f *flow) { f.forward, f.reverse = volume{7, 3}, volume{8, 4} }), "", false},
		{"initiator beside total counts once", fields{src, field(85, 8), field(231, 8), field(232, 8)}, []any{a4, 1000, 7, 8},
			with(func(f *flow) { f.forward.octets, f.reverse.octets = 7, 8 }), "", false},
		{"an aggregated flow counts its octets, not its original flows (RFC 7015)",
			fields{src, field(3, 8), field(375, 8), field(376, 8), field(377, 8), octets, field(2, 8), field(378, 8), field(381, 4)},
			[]any{a4, 100, 101, 102, 103, 7, 3, 104, 105}, forward(7, 3), "", false},
		{"an aggregated flow with post counters beside counts once", fields{src, field(3, 8), field(375, 8), octets, field(23, 8), field(2, 8), field(24, 8)},
			[]any{a4, 100, 101, 7, 6, 3, 2}, forward(7, 3), "", false},
		{"an aggregated flow with no octets stays one of none", fields{src, field(3, 8), field(376, 8), octets}, []any{a4, 100, 101, 0}, forward(0, 0), "", false},
		{"numbers of original flows and distinct values are no counters", fields{src, field(3, 8), field(375, 8), field(376, 8), field(377, 8), field(378, 8), field(379, 8)}, nil, flow{}, noCounter, false},
		{"no counter", fields{src}, nil, flow{}, noCounter, false},
		{"no address", fields{octets}, nil, flow{}, noAddress, false},
		{"counter too large", fields{src, octets}, []any{a4, uint64(acct.MaxOctets + 1)}, base, tooLarge, false},
		{"counter as large as may be", fields{src, octets}, []any{a4, uint64(acct.MaxOctets)}, forward(acct.MaxOctets, 0), "", false},
		{"both directions too large together", fields{src, octets, reversed(1, 8)}, []any{a4, uint64(acct.MaxOctets), 1}, base, tooLarge, false},

		{"IPv6", fields{field(27, 16), field(28, 16), octets}, []any{a6, b6, 7},
			with(func(f *flow) { f.source, f.destination, f.forward.octets = a6, b6, 7 }), "", false},
		{"IPv4 and IPv6, of which one is zeros (IPv4)", fields{src, field(12, 4), field(27, 16), field(28, 16), octets}, []any{a4, b4, zero6, zero6, 7},
			with(func(f *flow) { f.source, f.destination, f.forward.octets = a4, b4, 7 }), "", false},
		{"IPv4 and IPv6, of which one is zeros (IPv6)", fields{src, field(12, 4), field(27, 16), field(28, 16), octets}, []any{zero4, zero4, a6, b6, 7},
			with(func(f *flow) { f.source, f.destination, f.forward.octets = a6, b6, 7 }), "", false},
		{"ports, protocol and DSCP", fields{src, field(7, 2), field(11, 2), field(4, 1), field(195, 1), octets}, []any{a4, 1000, 53, 17, 46, 7},
			with(func(f *flow) {
				f.sourcePort, f.destinationPort, f.protocol, f.dscp, f.forward.octets = 1000, 53, 17, 46, 7
			}), "", false},
		{"class of service octet", fields{src, field(5, 1), octets}, []any{a4, 46<<2 | 3, 7},
			with(func(f *flow) { f.dscp, f.forward.octets = 46, 7 }), "", false},

		{"milliseconds", fields{src, octets, field(152, 8), field(153, 8)}, []any{a4, 1, at.Add(-time.Second), at}, ended(ms-1000, ms), "", true},
		{"seconds", fields{src, octets, field(150, 4), field(151, 4)}, []any{a4, 1, at.Add(-time.Second), at}, ended(ms-1000, ms), "", true},
		{"microseconds", fields{src, octets, field(155, 8)}, []any{a4, 1, at}, ended(ms, ms), "", true},
		{"nanoseconds", fields{src, octets, field(157, 8)}, []any{a4, 1, at}, ended(ms, ms), "", true},
		{"a start in seconds", fields{src, octets, field(150, 4), field(153, 8)}, []any{a4, 1, at.Add(-time.Second), at}, ended(ms-1000, ms), "", true},
		{"a start in microseconds (NTP)", fields{src, octets, field(154, 8), field(155, 8)}, []any{a4, 1, at.Add(-1500 * time.Microsecond), at}, ended(ms-2, ms), "", true},
		{"a start in nanoseconds (NTP)", fields{src, octets, field(156, 8), field(157, 8)}, []any{a4, 1, at.Add(-time.Second), at}, ended(ms-1000, ms), "", true},
		{"an NTP time of zero is none", fields{src, octets, field(156, 8), field(157, 8)}, []any{a4, 1, make([]byte, 8), make([]byte, 8)}, ended(exported*1000, exported*1000), "", true},
		{"no flow time at all", fields{src, octets}, []any{a4, 1}, ended(exported*1000, exported*1000), "", false},
		{"start and duration in microseconds", fields{src, octets, field(152, 8), field(162, 4)}, []any{a4, 1, at, 1_500_000}, ended(ms, ms+1500), "", true},
		{"uptime and start of the system", fields{src, octets, field(21, 4), field(160, 8)}, []any{a4, 1, 60_000, at}, ended(ms+60_000, ms+60_000), "", true},
		{"uptime alone is as good as the export time", fields{src, octets, field(21, 4)}, []any{a4, 1, 60_000}, ended(exported*1000, exported*1000), "", true},
		{"microseconds before the export", fields{src, octets, field(159, 4)}, []any{a4, 1, 2_000_000}, ended(exported*1000-2000, exported*1000-2000), "", true},
		{"start and duration", fields{src, octets, field(152, 8), field(161, 4)}, []any{a4, 1, at, 1500}, ended(ms, ms+1500), "", true},
		{"start alone", fields{src, octets, field(152, 8)}, []any{a4, 1, at}, ended(ms, ms), "", true},
		{"duration alone is no flow time", fields{src, octets, field(161, 4)}, []any{a4, 1, 1500}, ended(exported*1000-1500, exported*1000), "", false},
		{"start and end uptime", fields{src, octets, field(22, 4), field(21, 4), field(160, 8)}, []any{a4, 1, 50_000, 60_000, at}, ended(ms+50_000, ms+60_000), "", true},
		{"uptime that has wrapped", fields{src, octets, field(22, 4), field(21, 4), field(160, 8)}, []any{a4, 1, uint32(1<<32 - 1000), 60_000, at.Add(-(1 << 32) * time.Millisecond)},
			ended(ms-1000, ms+60_000), "", true},
		{"start and end before the export", fields{src, octets, field(158, 4), field(159, 4)}, []any{a4, 1, 3_000_000, 2_000_000}, ended(exported*1000-3000, exported*1000-2000), "", true},
		{"an end before the start", fields{src, octets, field(152, 8), field(153, 8)}, []any{a4, 1, at, at.Add(-time.Second)}, ended(ms-1000, ms-1000), "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmpl := must(ipfix.NewTemplate(256, c.fields...))
			p := newPlan(tmpl, dedup.Key{}.Hash(), false)
			if p.timed != c.timed {
				t.Errorf("timed %v, want %v", p.timed, c.timed)
			}
			if c.values == nil {
				if p.useless != c.why {
					t.Errorf("useless for %q, want %q", p.useless, c.why)
				}
				return
			}
			octets, err := tmpl.AppendRecord(nil, c.values...)
			if err != nil {
				t.Fatal(err)
			}
			var r rows
			r.by(p)
			var got flow
			why := p.flow(r.of(must(tmpl.Record(octets)), 0), exported, &got)
			c.want.layer = got.layer // TestLayer's
			if why != c.why || got != c.want {
				t.Errorf("flow %+v, %q; want %+v, %q", got, why, c.want, c.why)
			}
			back, err := parseFlow(got.appendBinary(nil))
			if err != nil || back != got {
				t.Errorf("encoded and parsed: %+v, %v", back, err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	good := testSettings
	good.Classes = []classes.Rule{{Name: "x", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, DSCP: []uint8{63}, Protocols: []uint8{6}, Ports: []classes.PortRange{{First: 1, Last: 2}}}}
	back, err := ParseSettings(must(good.AppendBinary(nil)))
	if err != nil || !reflect.DeepEqual(back, good.WithDefaults()) {
		t.Errorf("encoded and parsed: %+v, %v", back, err)
	}
	for name, spoil := range map[string]func(*Settings){
		"no origin":           func(s *Settings) { s.OriginHost = "" },
		"unknown mode":        func(s *Settings) { s.Mode = "magic" },
		"half a second":       func(s *Settings) { s.Interval = 1500 * time.Millisecond },
		"negative time":       func(s *Settings) { s.Linger = -1 },
		"age below interval":  func(s *Settings) { s.MaxSessionAge = time.Second },
		"tiny record":         func(s *Settings) { s.MaxRecord = 100 },
		"nameless class":      func(s *Settings) { s.Classes[0].Name = "" },
		"DSCP of seven bits":  func(s *Settings) { s.Classes[0].DSCP[0] = 64 },
		"ports upside down":   func(s *Settings) { s.Classes[0].Ports[0] = classes.PortRange{First: 2, Last: 1} },
		"no prefix":           func(s *Settings) { s.Classes[0].Prefixes[0] = netip.Prefix{} },
		"hardly any identity": func(s *Settings) { s.MaxIdentities = 1 },
	} {
		s := good
		s.Classes = []classes.Rule{{Name: "x", Prefixes: []netip.Prefix{{}}, DSCP: []uint8{0}, Ports: []classes.PortRange{{}}}}
		s.Classes[0].Prefixes[0] = netip.MustParsePrefix("10.0.0.0/8")
		spoil(&s)
		if err := s.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
