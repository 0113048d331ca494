package meter_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/ipfix"
	"tollbridge/meter"
	"tollbridge/meter/pcap"
)

const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

// segment returns a raw IPv4 packet with a TCP segment from 192.0.2.host.
func segment(at int64, host byte, flags byte, octets int) meter.Packet {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, host, 198, 51, 100, 10,
		4, 0, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(octets))
	return meter.Packet{Time: at, Link: pcap.LinkRaw, Length: octets, Data: b}
}

const (
	second = int64(time.Second)
	epoch  = 1_800_000_000 * second
)

// TestEndReason has a row for what RFC 5102, Section 5.11.3 says of each
// flowEndReason, and what follows from it.
func TestEndReason(t *testing.T) {
	type event struct {
		at      float64 // seconds
		flags   byte    // of a segment; 0 only tells the time
		want    []meter.EndReason
		packets uint64 // of the last flow exported
	}
	for _, row := range []struct {
		name   string
		events []event
		flush  []meter.EndReason
	}{
		{"1 idle timeout: considered to be idle", []event{{at: 0, flags: ack}, {at: 1, flags: ack}, {at: 15.9}, {at: 31, want: []meter.EndReason{1}, packets: 2}}, nil},
		{"1 idle timeout, noticed by the next packet", []event{{at: 0, flags: ack}, {at: 15, flags: ack, want: []meter.EndReason{1}, packets: 1}}, []meter.EndReason{4}},
		{"not idle just before the timeout", []event{{at: 0, flags: ack}, {at: 14.999, flags: ack}}, []meter.EndReason{4}},
		{"2 active timeout: reported while still active", []event{{at: 0, flags: ack}, {at: 10, flags: ack}, {at: 20, flags: ack}, {at: 30, flags: ack, want: []meter.EndReason{2}, packets: 3}}, []meter.EndReason{4}},
		{"2 active timeout without a further packet", []event{{at: 0, flags: ack}, {at: 14, flags: ack}, {at: 28, flags: ack}, {at: 42, want: []meter.EndReason{2}, packets: 3}}, nil},
		{"what came first counts: active", []event{{at: 0, flags: ack}, {at: 14, flags: ack}, {at: 28, flags: ack}, {at: 1000, want: []meter.EndReason{2}, packets: 3}}, nil},
		{"what came first counts: idle", []event{{at: 0, flags: ack}, {at: 14, flags: ack}, {at: 1000, want: []meter.EndReason{1}, packets: 2}}, nil},
		{"3 end of Flow: the TCP FIN flag", []event{{at: 0, flags: syn}, {at: 1, flags: fin | ack}, {at: 3, want: []meter.EndReason{3}, packets: 2}}, nil},
		{"3 end of Flow: RST", []event{{at: 0, flags: rst}, {at: 2, want: []meter.EndReason{3}, packets: 1}}, nil},
		{"the last acknowledgement belongs to the flow", []event{{at: 0, flags: fin | ack}, {at: 0.5, flags: ack}, {at: 3, want: []meter.EndReason{3}, packets: 2}}, nil},
		{"a new connection is a new flow", []event{{at: 0, flags: fin | ack}, {at: 0.5, flags: syn, want: []meter.EndReason{3}, packets: 1}}, []meter.EndReason{4}},
		{"a repeated SYN is not", []event{{at: 0, flags: syn}, {at: 0.5, flags: syn}}, []meter.EndReason{4}},
		{"4 forced end", []event{{at: 0, flags: ack}, {at: 1, flags: ack}}, []meter.EndReason{4}},
		{"a flush tells an ended flow from a forced one", []event{{at: 0, flags: fin | ack}}, []meter.EndReason{3}},
		{"a clock that is set back ends nothing", []event{{at: 1000, flags: ack}, {at: 0}, {at: 1}}, []meter.EndReason{4}},
		{"and time goes on from there", []event{{at: 1000, flags: ack}, {at: 0}, {at: 0.5, flags: ack}, {at: 31, want: []meter.EndReason{2}, packets: 2}}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			var c collector
			m, err := meter.New(meter.Config{Exporter: &c, ActiveTimeout: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			check := func(want []meter.EndReason) {
				t.Helper()
				var got []meter.EndReason
				for _, f := range c.flows {
					got = append(got, meter.EndReason(f.values[ipfix.FlowEndReason]))
				}
				if !slices.Equal(got, want) {
					t.Fatalf("flowEndReason %d, want %d", got, want)
				}
			}
			for _, e := range row.events {
				at := epoch + int64(e.at*float64(second))
				c.flows = nil
				if e.flags != 0 {
					err = m.Packets(t.Context(), []meter.Packet{segment(at, 1, e.flags, 40)})
				} else {
					err = m.Advance(t.Context(), at)
				}
				if err != nil {
					t.Fatal(err)
				}
				check(e.want)
				if len(e.want) > 0 && c.flows[len(c.flows)-1].values[ipfix.PacketDeltaCount] != e.packets {
					t.Errorf("after %v s: %+v, want %d packets", e.at, c.flows, e.packets)
				}
			}
			c.flows = nil
			if err := m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(row.flush)
		})
	}
}

// TestLackOfResources fills the cache: reason 5, for the flow that has been idle
// for longest.
func TestLackOfResources(t *testing.T) {
	var c collector
	m, err := meter.New(meter.Config{Exporter: &c, MaxFlows: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i, host := range []byte{1, 2, 3, 1, 4} {
		if err := m.Packets(t.Context(), []meter.Packet{segment(epoch+int64(i), host, ack, 40)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.flows) != 1 || c.flows[0].source.As4()[3] != 2 || c.flows[0].values[ipfix.FlowEndReason] != 5 {
		t.Errorf("exported %+v, want host 2 with reason 5", c.flows)
	}
	if s := m.Stats(); s.Flows != 3 || s.Exported.LackOfResources != 1 {
		t.Errorf("%+v", s)
	}
}

// A modelFlow is a flow as the model below keeps it.
type modelFlow struct {
	host            byte
	start, end      int64 // Unix milliseconds
	octets, packets uint64
	flags           byte
	reason          meter.EndReason
}

// A modelMeter is the plainest meter: open flows in a map, nothing ever swept.
type modelMeter struct {
	idle, active, final int64
	open                map[byte]modelFlow
	closed              []modelFlow
}

func (m *modelMeter) reason(f modelFlow, now int64) meter.EndReason {
	idle, reason := f.end+m.idle, meter.IdleTimeout
	if f.flags&(fin|rst) != 0 {
		idle, reason = f.end+m.final, meter.EndOfFlow
	}
	if min(idle, f.start+m.active) > now {
		return 0
	}
	if f.start+m.active < idle {
		reason = meter.ActiveTimeout
	}
	return reason
}

func (m *modelMeter) packet(at int64, host, flags byte, octets int) {
	f, is := m.open[host]
	if is {
		f.reason = m.reason(f, at)
		if f.reason == 0 && f.flags&(fin|rst) != 0 && flags&syn != 0 {
			f.reason = meter.EndOfFlow
		}
		if f.reason != 0 {
			m.closed = append(m.closed, f)
			is = false
		}
	}
	if !is {
		f = modelFlow{host: host, start: at}
	}
	f.end, f.octets, f.packets, f.flags = at, f.octets+uint64(octets), f.packets+1, f.flags|flags
	m.open[host] = f
}

func (m *modelMeter) flush(now int64) {
	for _, f := range m.open {
		f.reason = m.reason(f, now)
		if f.reason == 0 {
			f.reason = meter.ForcedEnd
			if f.flags&(fin|rst) != 0 {
				f.reason = meter.EndOfFlow
			}
		}
		m.closed = append(m.closed, f)
	}
}

// flowOf is a record as the model would have it.
func flowOf(r record) modelFlow {
	return modelFlow{
		host:    r.source.As4()[3],
		start:   int64(r.values[ipfix.FlowStartMilliseconds]),
		end:     int64(r.values[ipfix.FlowEndMilliseconds]),
		octets:  r.values[ipfix.OctetDeltaCount],
		packets: r.values[ipfix.PacketDeltaCount],
		flags:   byte(r.values[ipfix.TcpControlBits]),
		reason:  meter.EndReason(r.values[ipfix.FlowEndReason]),
	}
}

func compareFlows(a, b modelFlow) int {
	return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end), cmp.Compare(a.reason, b.reason), cmp.Compare(a.packets, b.packets))
}

// TestModel compares the meter to the model, flow by flow, whatever the sweep
// does and when.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := modelMeter{idle: 3000, active: 10_000, final: 500, open: map[byte]modelFlow{}}
		var c collector
		m, err := meter.New(meter.Config{Exporter: &c, IdleTimeout: 3 * time.Second, ActiveTimeout: 10 * time.Second, EndTimeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		hosts := rapid.IntRange(1, 200).Draw(t, "hosts")
		now := epoch / 1e6
		var pending []meter.Packet
		give := func() {
			if err := m.Packets(context.Background(), pending); err != nil {
				t.Fatal(err)
			}
			pending = pending[:0]
		}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 0, 1, 10, 100, 499, 500, 1000, 2999, 3000, 20_000}).Draw(t, "passed")
			if rapid.IntRange(0, 9).Draw(t, "advance") == 0 {
				give()
				if err := m.Advance(context.Background(), now*1e6); err != nil {
					t.Fatal(err)
				}
				continue
			}
			host := byte(rapid.IntRange(1, hosts).Draw(t, "host"))
			flags := rapid.SampledFrom([]byte{ack, ack, ack, syn, fin | ack, rst}).Draw(t, "flags")
			octets := rapid.IntRange(40, 1500).Draw(t, "octets")
			model.packet(now, host, flags, octets)
			pending = append(pending, segment(now*1e6, host, flags, octets))
			if rapid.Bool().Draw(t, "give") {
				give()
			}
		}
		give()
		if err := m.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		model.flush(now)
		var got []modelFlow
		for _, r := range c.flows {
			got = append(got, flowOf(r))
		}
		slices.SortFunc(got, compareFlows)
		slices.SortFunc(model.closed, compareFlows)
		if !slices.Equal(got, model.closed) {
			t.Errorf("metered %+v\nmodel   %+v", got, model.closed)
		}
	})
}

var errRefused = errors.New("refused")

// TestNothingLost meters with a small cache, a clock that goes to and fro and an
// exporter that fails now and then: per host, what was exported is what the
// packets had, but for those that Stats.Dropped counts.
func TestNothingLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c collector
		refuse := false
		m, err := meter.New(meter.Config{
			Exporter: exporterFunc(func(ctx context.Context, tmpl *ipfix.Template, octets []byte) error {
				if refuse {
					return errRefused
				}
				return c.Export(ctx, tmpl, octets)
			}),
			MaxFlows:    rapid.IntRange(1, 50).Draw(t, "max flows"),
			IdleTimeout: 3 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		var octets, packets, dropped uint64
		now := epoch
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			refuse = rapid.IntRange(0, 5).Draw(t, "refuse") == 0
			var ps []meter.Packet
			for range rapid.IntRange(0, 70).Draw(t, "packets") {
				now += rapid.Int64Range(-second, 2*second).Draw(t, "passed")
				host := byte(rapid.IntRange(1, 100).Draw(t, "host"))
				ps = append(ps, segment(now, host, ack, rapid.IntRange(40, 1500).Draw(t, "octets")))
			}
			before := m.Stats()
			err := m.Packets(context.Background(), ps)
			after := m.Stats()
			if err != nil && (!refuse || !errors.Is(err, errRefused)) {
				t.Fatal(err)
			}
			metered := after.Metered - before.Metered
			dropped += uint64(len(ps)) - metered
			for _, p := range ps[:metered] {
				octets += uint64(p.Length)
				packets++
			}
		}
		refuse = false
		if err := m.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		gotOctets, gotPackets := c.total()
		if gotOctets != octets || gotPackets != packets {
			t.Errorf("exported %d octets, %d packets, want %d, %d", gotOctets, gotPackets, octets, packets)
		}
		if s := m.Stats(); s.Dropped != dropped || s.Octets != octets || s.Flows != 0 {
			t.Errorf("%+v, want %d dropped", s, dropped)
		}
	})
}

type exporterFunc func(context.Context, *ipfix.Template, []byte) error

func (f exporterFunc) Export(ctx context.Context, t *ipfix.Template, record []byte) error {
	return f(ctx, t, record)
}

// TestSameFlowsSameOrder meters a capture twice: records come in the same order,
// though the cache's hash is seeded anew.
func TestSameFlowsSameOrder(t *testing.T) {
	file := synthetic(20_000, 3000)
	var runs [2]bytes.Buffer
	for i := range runs {
		m, err := meter.New(meter.Config{MaxFlows: 1000, Exporter: exporterFunc(func(_ context.Context, _ *ipfix.Template, record []byte) error {
			runs[i].Write(record)
			return nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.ReadFile(t.Context(), bytes.NewReader(file), nil); err != nil {
			t.Fatal(err)
		}
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(runs[0].Bytes(), runs[1].Bytes()) {
		t.Error("records differ between two runs")
	}
}

func TestConfig(t *testing.T) {
	var c collector
	for name, cfg := range map[string]meter.Config{
		"no exporter":      {},
		"negative timeout": {Exporter: &c, IdleTimeout: -1},
		"negative flows":   {Exporter: &c, MaxFlows: -1},
		"too many flows":   {Exporter: &c, MaxFlows: 1 << 30},
	} {
		if _, err := meter.New(cfg); !errors.Is(err, meter.ErrConfig) {
			t.Errorf("%s: error %v, want ErrConfig", name, err)
		}
	}
}

// TestNoAllocation meters and exports without the heap, once the cache has grown.
func TestNoAllocation(t *testing.T) {
	m, err := meter.New(meter.Config{Exporter: &discard{}, ActiveTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var ps []meter.Packet
	for host := range 200 {
		ps = append(ps, segment(epoch, byte(host), ack, 40))
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range ps {
			ps[i].Time += second
		}
		if err := m.Packets(t.Context(), ps); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for 200 packets and 200 records", n)
	}
}
