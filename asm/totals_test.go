package asm

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// sendRecords lets session carry records of a Template, with the Template
// itself.
func (b *bridge) sendRecords(session uint64, t *ipfix.Template, records ...[]any) {
	b.t.Helper()
	b.add(acct.EntryMessage, session, b.encodeRecords(t, records...))
}

func (b *bridge) encodeRecords(t *ipfix.Template, records ...[]any) []byte {
	b.t.Helper()
	e := b.enc[1]
	if e == nil {
		e = ipfix.NewEncoder(1, 0)
		b.enc[1] = e
	}
	if err := e.AddTemplate(t); err != nil {
		b.t.Fatal(err)
	}
	for _, values := range records {
		if err := e.AddRecord(t, values...); err != nil {
			b.t.Fatal(err)
		}
	}
	return slices.Clone(e.Flush(uint32(b.clock.Unix())))
}

// totalsTemplate is of records with nothing but total counters of 32 bits and
// an end.
var totalsTemplate = must(ipfix.NewTemplate(310,
	field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.SourceTransportPort, 2),
	field(ipfix.OctetTotalCount, 4), field(ipfix.PacketTotalCount, 4),
))

// Each case is what the totals of one flow were, one record after another, and
// what the last one adds.
func TestTotals(t *testing.T) {
	const top = 1 << 32
	type report struct{ octets, packets, end int }
	for _, c := range []struct {
		name    string
		reports []report
		want    volume
	}{
		{"the first is all that there was", []report{{1000, 10, 1}}, volume{1000, 10}},
		{"the next adds the difference", []report{{1000, 10, 1}, {1500, 12, 2}}, volume{500, 2}},
		{"the same again adds nothing", []report{{1000, 10, 1}, {1000, 10, 2}}, volume{}},
		{"octets wrap at 32 bits", []report{{top - 100, 10, 1}, {400, 12, 2}}, volume{500, 2}},
		{"packets wrap at 32 bits", []report{{1000, top - 1, 1}, {1500, 4, 2}}, volume{500, 5}},
		{"both fall: the exporter began anew", []report{{top - 100, 1000, 1}, {400, 12, 2}}, volume{400, 12}},
		{"octets fall from the lower half: anew", []report{{1000, 10, 1}, {400, 12, 2}}, volume{400, 12}},
		{"an older record that comes late adds nothing", []report{{1000, 10, 1}, {1500, 12, 3}, {1200, 11, 2}}, volume{}},
		{"and changes nothing", []report{{1000, 10, 1}, {1500, 12, 3}, {1200, 11, 2}, {1600, 13, 4}}, volume{100, 1}},
		{"after it began anew it goes on from there", []report{{1000, 10, 1}, {400, 4, 2}, {500, 5, 3}}, volume{100, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mapped(t, testSettings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			var before acct.Count
			for i, r := range c.reports {
				if i == len(c.reports)-1 {
					before = b.checkpoint().Accounted
				}
				b.restart() // what was seen last survives
				b.sendRecords(s, totalsTemplate, []any{epoch.Add(time.Duration(r.end) * time.Second), netip.MustParseAddr("192.0.2.1"), 1000, uint32(r.octets), uint32(r.packets)})
				b.checkpoint()
			}
			got := b.checkpoint().Accounted.Minus(before)
			if got.Octets != c.want.octets || got.Packets != c.want.packets || got.Records != 1 {
				t.Errorf("the last adds %+v, want %+v", got, c.want)
			}
		})
	}
}

// A report that ends ahead of the clock is suspended and adds nothing, however
// often it comes; the next one that does not adds all that was not accounted.
func TestTotalsAheadOfClock(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	report := func(octets int, end time.Time) {
		t.Helper()
		b.sendRecords(s, totalsTemplate, []any{end, netip.MustParseAddr("192.0.2.1"), 1000, octets, octets / 100})
		b.clock = b.clock.Add(time.Second)
		b.add(acct.EntryTick, 0, nil)
	}
	far := epoch.Add(time.Hour)
	report(1000, epoch)
	report(3000, far.Add(time.Second))
	report(2000, far)
	report(3000, far.Add(time.Second))
	report(2500, epoch.Add(4*time.Second))
	sum := b.checkpoint()
	if sum.Accounted != count(2, 2500, 25) || sum.Received != count(5, 2500, 25) {
		t.Errorf("accounted %+v of %+v", sum.Accounted, sum.Received)
	}
}

// A report that ended ahead of the clock was not counted. So its copy is none
// for what it adds, below the window too, whether an operator has released the
// first or not.
func TestTotalsAheadOfClockComeAgain(t *testing.T) {
	for _, release := range []bool{false, true} {
		b := mapped(t, testSettings)
		s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
		b.sendRecords(s, totalsTemplate) // the Template
		report := b.encodeRecords(totalsTemplate, []any{epoch.Add(10 * time.Hour), netip.MustParseAddr("192.0.2.1"), 1000, 3000, 30})
		b.add(acct.EntryMessage, s, report)
		if release {
			b.order(Command{What: ReleaseFlows, Flows: Selection{For: reasonAhead}})
		}
		b.checkpoint()
		b.restart()
		b.clock = epoch.Add(20 * time.Hour)
		b.send(s, b.flow("192.0.2.1", outside)) // raises the floor
		b.add(acct.EntryMessage, s, report)
		b.add(acct.EntryMessage, s, report)
		b.order(Command{What: ReleaseFlows, Flows: Selection{All: true}})
		sum := b.checkpoint()
		if sum.Accounted != count(2, 3100, 32) || sum.Duplicate != count(2, 0, 0) || !sum.Suspended.IsZero() {
			t.Errorf("released first %v: accounted %+v, duplicate %+v, suspended %+v", release, sum.Accounted, sum.Duplicate, sum.Suspended)
		}
	}
}

func TestTotalsByTemplate(t *testing.T) {
	ann := netip.MustParseAddr("192.0.2.1")
	end, start, src := field(ipfix.FlowEndMilliseconds, 8), field(ipfix.FlowStartMilliseconds, 8), field(ipfix.SourceIPv4Address, 4)
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
	for _, c := range []struct {
		name   string
		fields []ipfix.FieldSpecifier
		values [][]any
		want   acct.Count // accounted and rejected
	}{
		{"a total that no usage can be is rejected and not remembered", []ipfix.FieldSpecifier{end, src, field(ipfix.OctetTotalCount, 8)},
			[][]any{{at(1), ann, uint64(1<<64 - 10)}, {at(2), ann, uint64(20)}}, count(2, 20, 0)},
		{"16 bits wrap", []ipfix.FieldSpecifier{end, src, field(ipfix.OctetTotalCount, 2)},
			[][]any{{at(1), ann, 65000}, {at(2), ann, 500}}, count(2, 65000+1036, 0)},
		{"another start is another flow", []ipfix.FieldSpecifier{start, end, src, field(ipfix.OctetTotalCount, 8)},
			[][]any{{at(0), at(1), ann, 1000}, {at(1), at(2), ann, 1500}, {at(1), at(3), ann, 1600}}, count(3, 2600, 0)},
		{"a delta of octets beside a total of packets", []ipfix.FieldSpecifier{end, src, field(ipfix.OctetDeltaCount, 8), field(ipfix.PacketTotalCount, 8)},
			[][]any{{at(1), ann, 100, 10}, {at(2), ann, 50, 12}}, count(2, 150, 12)},
		{"both directions", []ipfix.FieldSpecifier{end, src, field(ipfix.OctetTotalCount, 8), reversed(ipfix.OctetTotalCount, 8)},
			[][]any{{at(1), ann, 100, 10}, {at(2), ann, 150, 30}}, count(2, 180, 0)},
		{"delta and total count once, by the delta", []ipfix.FieldSpecifier{end, src, field(ipfix.OctetDeltaCount, 8), field(ipfix.OctetTotalCount, 8)},
			[][]any{{at(1), ann, 100, 1000}, {at(2), ann, 50, 1050}}, count(2, 150, 0)},
		{"after the middlebox", []ipfix.FieldSpecifier{end, src, field(ipfix.PostOctetTotalCount, 8), field(ipfix.PostPacketTotalCount, 8)},
			[][]any{{at(1), ann, 100, 1}, {at(2), ann, 150, 2}}, count(2, 150, 2)},
		{"without any flow time", []ipfix.FieldSpecifier{src, field(ipfix.OctetTotalCount, 8)},
			[][]any{{ann, 100}, {ann, 150}}, count(2, 150, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mapped(t, testSettings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			tmpl := must(ipfix.NewTemplate(311, c.fields...))
			for _, v := range c.values {
				b.sendRecords(s, tmpl, v)
			}
			sum := b.checkpoint()
			if got := sum.Accounted.Plus(sum.Rejected); got != c.want {
				t.Errorf("accounted %+v, rejected %+v, want %+v in all", sum.Accounted, sum.Rejected, c.want)
			}
		})
	}
}

// Every counter that is a total, in either direction, becomes what it adds:
// across its wrap, a restart of the exporter, and ours before each record. So
// does a template of all of them, which counts the first of each kind.
func TestTotalsOfEachCounter(t *testing.T) {
	octets := []uint16{ipfix.OctetTotalCount, ipfix.Layer2OctetTotalCount, ipfix.PostOctetTotalCount, ipfix.PostLayer2OctetTotalCount}
	packets := []uint16{ipfix.PacketTotalCount, ipfix.PostPacketTotalCount, ipfix.Layer2FrameTotalCount}
	type counter struct {
		name    string
		fields  []ipfix.FieldSpecifier
		packets bool
	}
	var all []counter
	for _, id := range slices.Concat(octets, packets) {
		name := ipfix.FieldSpecifier{ID: id}.Element().Name
		all = append(all,
			counter{name, []ipfix.FieldSpecifier{field(id, 4)}, slices.Contains(packets, id)},
			counter{"reverse " + name, []ipfix.FieldSpecifier{reversed(id, 4)}, slices.Contains(packets, id)},
		)
	}
	beside := counter{name: "all octets beside each other"}
	for _, id := range octets {
		beside.fields = append(beside.fields, field(id, 4))
	}
	all = append(all, beside)
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			b := mapped(t, testSettings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			tmpl := must(ipfix.NewTemplate(313, append([]ipfix.FieldSpecifier{field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4)}, c.fields...)...))
			for i, step := range []struct {
				what  string
				total uint32
				adds  uint64
			}{
				{"its first record", 1<<32 - 100, 1<<32 - 100},
				{"before the wrap", 1<<32 - 50, 50},
				{"the wrap", 400, 450},
				{"the exporter began anew", 300, 300},
				{"and went on", 1000, 700},
			} {
				before := b.checkpoint().Accounted
				b.restart()
				values := []any{epoch.Add(time.Duration(i) * time.Second), netip.MustParseAddr("192.0.2.1")}
				for range c.fields {
					values = append(values, step.total)
				}
				b.sendRecords(s, tmpl, values)
				want := count(1, step.adds, 0)
				if c.packets {
					want = count(1, 0, step.adds)
				}
				if got := b.checkpoint().Accounted.Minus(before); got != want {
					t.Errorf("%s: adds %+v, want %+v", step.what, got, want)
				}
			}
		})
	}
}

// A flow whose totals may have been forgotten can't be told from a new one:
// its first record is suspended. One that began after what was forgotten is
// new.
func TestTotalsForgotten(t *testing.T) {
	settings := testSettings
	settings.MaxTotals = 2
	b := mapped(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	tmpl := must(ipfix.NewTemplate(312, field(ipfix.FlowStartMilliseconds, 8), field(ipfix.FlowEndMilliseconds, 8),
		field(ipfix.SourceIPv4Address, 4), field(ipfix.SourceTransportPort, 2), field(ipfix.OctetTotalCount, 8), field(ipfix.FlowEndReason, 1)))
	send := func(port, start, end, octets, reason int) {
		at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
		b.sendRecords(s, tmpl, []any{at(start), at(end), netip.MustParseAddr("192.0.2.1"), port, octets, reason})
	}
	const activeTimeout, ended = 2, 3
	send(1, 0, 10, 100, activeTimeout)
	send(2, 1, 11, 100, ended)
	send(3, 2, 12, 100, activeTimeout) // forgets 1, which may go on
	if got := b.m.Stats(); got.TotalsForgotten != 1 || got.Totals != 2 {
		t.Errorf("%+v", got)
	}
	b.checkpoint()
	b.restart()
	send(4, 3, 13, 100, activeTimeout) // may have been forgotten, for all we know; forgets 2, which is over
	send(1, 0, 20, 150, activeTimeout) // was forgotten; forgets 3
	send(5, 13, 21, 100, activeTimeout)
	sum := b.checkpoint()
	if sum.Accounted != count(4, 400, 0) || sum.Suspended != count(2, 250, 0) {
		t.Errorf("accounted %+v, suspended %+v", sum.Accounted, sum.Suspended)
	}
	if x := b.s.suspended[1]; x.Reason != reasonForgotten {
		t.Errorf("suspended for %q", x.Reason)
	}
	b.restart()
	send(1, 0, 22, 170, activeTimeout) // it is known again
	if sum := b.checkpoint(); sum.Accounted != count(5, 420, 0) {
		t.Errorf("accounted %+v", sum.Accounted)
	}
}

// Whatever is repeated, late or lost on the way, and however often we restart,
// what is accounted is the last total of every flow that arrived, as long as
// the exporter does not restart.
func TestTotalsTruth(t *testing.T) {
	type sent struct {
		port   int
		octets uint64
		msg    []byte
	}
	rapid.Check(t, func(rt *rapid.T) {
		x := newTraffic(rt)
		settings := testSettings
		settings.DedupWindow = 3 * time.Hour
		x.settings(settings)
		x.bound["192.0.2.1"] = true
		x.bind()
		x.connect()
		totals, arrived := map[int]uint64{}, map[int]uint64{}
		var all []sent
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			x.clock = x.clock.Add(time.Second)
			port := rapid.IntRange(1, 4).Draw(rt, "port")
			totals[port] += uint64(rapid.IntRange(0, 1000).Draw(rt, "octets"))
			msg := x.encodeRecords(totalsTemplate, []any{x.clock, netip.MustParseAddr("192.0.2.1"), port, totals[port], 1})
			all = append(all, sent{port, totals[port], msg})
			for range rapid.IntRange(0, 2).Draw(rt, "arrivals") {
				m := all[rapid.IntRange(max(0, len(all)-3), len(all)-1).Draw(rt, "which")]
				x.entry(acct.EntryMessage, x.open[0], m.msg)
				arrived[m.port] = max(arrived[m.port], m.octets)
			}
		}
		store := replay(rt, x.j, func() (checkpoint, crash, fail bool) {
			n := rapid.IntRange(0, 9).Draw(rt, "interrupt")
			return n < 3, n == 3, n == 4
		})
		var want uint64
		for _, n := range arrived {
			want += n
		}
		if sum := audit(rt, store); sum.Accounted.Octets != want {
			rt.Errorf("accounted %d, the flows' last totals are %d: %v", sum.Accounted.Octets, want, arrived)
		}
	})
}
