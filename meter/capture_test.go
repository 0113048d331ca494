package meter_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/ipfix"
	"tollbridge/meter"
)

// A collector keeps the records that a meter exports.
type collector struct {
	flows []record
}

// A record is a Flow Record as a Collecting Process would read it.
type record struct {
	source, destination netip.Addr
	values              map[uint16]uint64
}

func (c *collector) Export(_ context.Context, t *ipfix.Template, octets []byte) error {
	r, err := t.Record(octets)
	if err != nil {
		return err
	}
	flow := record{values: map[uint16]uint64{}}
	for i, f := range t.Fields {
		switch f.ID {
		case ipfix.SourceIPv4Address, ipfix.SourceIPv6Address:
			flow.source, _ = netip.AddrFromSlice(r.Field(i))
		case ipfix.DestinationIPv4Address, ipfix.DestinationIPv6Address:
			flow.destination, _ = netip.AddrFromSlice(r.Field(i))
		default:
			flow.values[f.ID] = t.AccessorAt(i).Uint64(r)
		}
	}
	c.flows = append(c.flows, flow)
	return nil
}

// total returns the octets and packets of all flows.
func (c *collector) total() (octets, packets uint64) {
	for _, f := range c.flows {
		octets += f.values[ipfix.OctetDeltaCount]
		packets += f.values[ipfix.PacketDeltaCount]
	}
	return octets, packets
}

// meterFile meters a capture file and flushes.
func meterFile(tb testing.TB, cfg meter.Config, file []byte) (*collector, meter.Stats) {
	tb.Helper()
	var c collector
	cfg.Exporter = &c
	m, err := meter.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.ReadFile(tb.Context(), bytes.NewReader(file), nil); err != nil {
		tb.Fatal(err)
	}
	if err := m.Flush(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	s := m.Stats()
	if sum := s.Metered + s.NotIP + s.UnknownLink + s.Malformed.Sum() + s.Dropped; sum != s.Packets {
		tb.Errorf("%d packets were given, %d are accounted for: %+v", s.Packets, sum, s)
	}
	octets, packets := c.total()
	if octets != s.Octets || packets != s.Metered {
		tb.Errorf("exported %d octets, %d packets; Stats has %+v", octets, packets, s)
	}
	if s.Flows != 0 || s.Exported.Sum() != uint64(len(c.flows)) {
		tb.Errorf("%d records; Stats has %+v", len(c.flows), s)
	}
	return &c, s
}

type usage struct{ inOctets, inPackets, outOctets, outPackets uint64 }

// TestTruth compares what the meter says of each user of the bundled capture with
// what tshark said.
func TestTruth(t *testing.T) {
	type binding struct {
		prefix netip.Prefix
		user   string
	}
	var bindings []binding
	for _, row := range rows(t, demodata.Users) {
		bindings = append(bindings, binding{netip.MustParsePrefix(row[0]), row[1]})
	}
	user := func(a netip.Addr) string {
		for _, b := range bindings {
			if b.prefix.Contains(a) {
				return b.user
			}
		}
		return "-"
	}
	want := map[string]usage{}
	for _, row := range rows(t, demodata.Truth) {
		var n [4]uint64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseUint(row[1+i], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		want[row[0]] = usage{n[0], n[1], n[2], n[3]}
	}
	if len(want) != 4 {
		t.Fatalf("truth of %d users, want 4", len(want))
	}

	for _, cfg := range []meter.Config{
		{},
		{IdleTimeout: 100 * time.Millisecond, ActiveTimeout: time.Second},
		{ActiveTimeout: time.Nanosecond},
		{MaxFlows: 1},
		{MaxFlows: 20},
	} {
		t.Run(fmt.Sprintf("idle %v active %v flows %d", cfg.IdleTimeout, cfg.ActiveTimeout, cfg.MaxFlows), func(t *testing.T) {
			c, s := meterFile(t, cfg, demodata.Capture)
			got := map[string]usage{}
			for _, f := range c.flows {
				octets, packets := f.values[ipfix.OctetDeltaCount], f.values[ipfix.PacketDeltaCount]
				from, to := user(f.source), user(f.destination)
				if from != "-" || to == "-" {
					u := got[from]
					u.inOctets += octets
					u.inPackets += packets
					got[from] = u
				}
				if to != "-" {
					u := got[to]
					u.outOctets += octets
					u.outPackets += packets
					got[to] = u
				}
			}
			for name, u := range want {
				if got[name] != u {
					t.Errorf("user %s: metered %+v, tshark says %+v", name, got[name], u)
				}
			}
			if s.Malformed.Sum() != 0 || s.NotIP != 8 {
				t.Errorf("malformed or not IP: %+v", s)
			}
			t.Logf("%d records of %d packets: %+v", len(c.flows), s.Packets, s.Exported)
		})
	}
}

// rows returns the rows of a CSV file below its header.
func rows(t *testing.T, file []byte) [][]string {
	t.Helper()
	r := csv.NewReader(bytes.NewReader(file))
	r.Comment = '#'
	all, err := r.ReadAll()
	if err != nil || len(all) < 2 {
		t.Fatalf("%d rows: %v", len(all), err)
	}
	return all[1:]
}
