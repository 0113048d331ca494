package asm

import (
	"log/slog"
	"maps"
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/nat"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// natTemplate is of port block events (RFC 8158).
var natTemplate = must(ipfix.NewTemplate(400,
	field(ipfix.ObservationTimeMilliseconds, 8), field(ipfix.NatEvent, 1),
	field(ipfix.SourceIPv4Address, 4), field(ipfix.PostNATSourceIPv4Address, 4),
	field(ipfix.PortRangeStart, 2), field(ipfix.PortRangeEnd, 2),
))

// natSessionTemplate is of NAT44 session events.
var natSessionTemplate = must(ipfix.NewTemplate(401,
	field(ipfix.ObservationTimeMilliseconds, 8), field(ipfix.NatEvent, 1), field(ipfix.ProtocolIdentifier, 1),
	field(ipfix.SourceIPv4Address, 4), field(ipfix.PostNATSourceIPv4Address, 4), field(ipfix.PostNAPTSourceTransportPort, 2),
	field(ipfix.DestinationIPv4Address, 4), field(ipfix.DestinationTransportPort, 2),
))

type natEvents struct {
	b *bridge
	e *ipfix.Encoder
}

func (n *natEvents) send(session uint64, t *ipfix.Template, values ...any) {
	n.b.t.Helper()
	if err := n.e.AddTemplate(t); err != nil {
		n.b.t.Fatal(err)
	}
	if err := n.e.AddRecord(t, values...); err != nil {
		n.b.t.Fatal(err)
	}
	n.b.add(acct.EntryMessage, session, n.e.Flush(uint32(n.b.clock.Unix())))
}

// totals sums what users were accounted in the records so far, less credits.
func (b *bridge) totals() map[string]acct.Usage { return charged(b.s.records) }

func charged(records []acct.Record) map[string]acct.Usage {
	last := map[string]acct.Record{}
	for _, r := range records {
		last[r.SessionID] = r
	}
	sum := map[string]acct.Usage{}
	for _, sign := range []bool{false, true} { // what was charged, then credits
		for _, r := range last {
			switch credit := r.Corrects != nil && r.Corrects.Credit; {
			case credit != sign || r.Usage == (acct.Usage{}):
			case credit:
				sum[r.User] = sum[r.User].Minus(r.Usage)
			default:
				sum[r.User] = sum[r.User].Plus(r.Usage)
			}
		}
	}
	maps.DeleteFunc(sum, func(_ string, u acct.Usage) bool { return u == acct.Usage{} })
	return sum
}

// The user of a flow seen outside is found through what the NAT says, at that
// moment, over restarts, whatever the NAT repeats.
func TestNATEvents(t *testing.T) {
	b := newBridge(t, testSettings)
	inside, outside := b.open(ipfix.TCP, "cgn", "198.51.100.1:1000"), b.open(ipfix.TCP, "border", "198.51.100.2:1000")
	nat := &natEvents{b, ipfix.NewEncoder(7, 0)}
	ann, bob := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	public, far := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")
	b.users("file", bind("100.64.0.1", "ann"), bind("100.64.0.2", "bob"))
	flow := func(port, octets int) {
		f := b.flow("192.0.2.1", "203.0.113.9")
		f.fromPort, f.octets = port, octets
		b.send(outside, f)
	}
	nat.send(inside, natTemplate, b.clock, 16, ann, public, 1024, 1535)
	nat.send(inside, natTemplate, b.clock, 16, ann, public, 1024, 1535) // once more
	nat.send(inside, natTemplate, b.clock, 16, bob, public, 1536, 2047)
	flow(1024, 1)
	flow(1535, 2)
	flow(1536, 4)
	flow(2048, 8) // nobody's
	b.checkpoint()
	b.restart()
	b.clock = b.clock.Add(10 * time.Second)
	nat.send(inside, natTemplate, b.clock, 17, ann, public, 1024, 1535)
	nat.send(inside, natTemplate, b.clock, 16, bob, public, 1024, 1535)
	flow(1024, 16) // bob's now
	late := b.flow("192.0.2.1", "203.0.113.9")
	late.fromPort, late.octets, late.end = 1024, 32, b.clock.Add(-time.Second) // ann's then
	b.send(outside, late)

	// One port towards two hosts is two users'.
	nat.send(inside, natSessionTemplate, b.clock, 4, 6, ann, public, 5000, far, 443)
	nat.send(inside, natSessionTemplate, b.clock, 4, 6, bob, public, 5000, netip.MustParseAddr("203.0.113.10"), 443)
	flow(5000, 64)
	b.clock = b.clock.Add(time.Second)
	nat.send(inside, natSessionTemplate, b.clock, 5, 6, ann, public, 5000, far, 443)
	flow(5000, 128) // over
	nat.send(inside, natTemplate, b.clock, 13, ann, public, 0, 0)
	b.after(2 * time.Minute)
	b.checkpoint()
	b.restart()
	got := b.totals()
	if got["ann"].InputOctets != 1+2+32+64 || got["bob"].InputOctets != 4+16 {
		t.Errorf("accounted %v", got)
	}
	if sum := b.checkpoint(); sum.Suspended.Octets != 8+128 || sum.Received.Records != 8 {
		t.Errorf("NAT events are no usage: %+v", sum)
	}
}

// A share that comes after the flow finds it in suspense.
func TestNATEventAfterTheFlow(t *testing.T) {
	b := newBridge(t, testSettings)
	s := b.open(ipfix.TCP, "cgn", "198.51.100.1:1000")
	nat := &natEvents{b, ipfix.NewEncoder(7, 0)}
	b.users("file", bind("100.64.0.1", "ann"))
	f := b.flow("192.0.2.1", "203.0.113.9")
	f.fromPort = 1200
	b.send(s, f)
	b.clock = b.clock.Add(time.Second)
	nat.send(s, natTemplate, b.clock.Add(-time.Minute), 16, netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.1"), 1024, 1535)
	b.after(2 * time.Second)
	b.after(time.Minute)
	if sum := b.checkpoint(); sum.Suspended.Octets != 0 || b.totals()["ann"].InputOctets != 100 {
		t.Errorf("suspended %+v, accounted %v", sum.Suspended, b.totals())
	}
}

func TestStaticPorts(t *testing.T) {
	b := newBridge(t, testSettings)
	s := b.open(ipfix.TCP, "border", "198.51.100.2:1000")
	ann, bob, rest := bind("192.0.2.1", "ann"), bind("192.0.2.1", "bob"), bind("192.0.2.1", "landlord")
	ann.Ports, bob.Ports = "1024-2047", "2048-3071 5000"
	b.users("file", ann, bob, rest)
	for port, octets := range map[int]int{1024: 1, 2047: 2, 2048: 4, 5000: 8, 5001: 16} {
		f := b.flow("203.0.113.9", "192.0.2.1")
		f.toPort, f.octets = port, octets
		b.send(s, f)
	}
	b.checkpoint()
	b.restart()
	b.after(time.Minute)
	b.checkpoint()
	got := b.totals()
	if got["ann"].OutputOctets != 3 || got["bob"].OutputOctets != 12 || got["landlord"].OutputOctets != 16 {
		t.Errorf("accounted %v", got)
	}
}

// The same address is another's in another VRF, which an element of the
// exporter's records names; towards the user it is that of the egress.
func TestVRF(t *testing.T) {
	settings := testSettings
	settings.Exporters = []ExporterSettings{{Name: "pe", VRF: &VRFSettings{Element: "ingressVRFID", Names: map[string]string{"17": "red"}}}}
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "pe", "198.51.100.2:1000")
	red, blue, plain := bind("10.0.0.1", "ann"), bind("10.0.0.1", "bob"), bind("10.0.0.1", "cid")
	red.VRF, blue.VRF = "red", "18"
	b.users("file", red, blue, plain)
	tmpl := must(ipfix.NewTemplate(300,
		field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
		field(ipfix.IngressVRFID, 4), field(ipfix.EgressVRFID, 4), field(ipfix.OctetDeltaCount, 8),
	))
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	user, far := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.9")
	for _, r := range [][]any{
		{b.clock, user, far, 17, 1, 1}, {b.clock, user, far, 18, 1, 2}, {b.clock, far, user, 1, 17, 4},
		{b.clock, user, far, 19, 1, 8}, // nobody's
	} {
		if err := e.AddRecord(tmpl, r...); err != nil {
			t.Fatal(err)
		}
	}
	b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	b.checkpoint()
	b.restart()
	late := plain
	late.VRF = "19"
	late.User = "dan"
	b.users("file", red, blue, plain, late)
	b.after(time.Minute)
	b.checkpoint()
	got := b.totals()
	want := map[string]acct.Usage{"ann": {InputOctets: 1, OutputOctets: 4}, "bob": {InputOctets: 2}, "dan": {InputOctets: 8}}
	for user, u := range want {
		if got[user] != u {
			t.Errorf("%s: %+v, want %+v", user, got[user], u)
		}
	}
	if len(got) != len(want) {
		t.Errorf("accounted %v", got)
	}
}

func FuzzNATEvents(f *testing.F) {
	seed, err := natTemplate.AppendRecord(nil, time.UnixMilli(1800000000000), 16, netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.1"), 1024, 1535)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != len(seed) {
			return
		}
		m := Module{now: epoch.UnixNano(), log: slog.New(slog.DiscardHandler)}
		e := nat.NewReader(natTemplate).Event(must(natTemplate.Record(data)), 1800000000, time.Hour, "")
		m.natEvent(&e, acct.LedgerKey{})
		// What came of it survives a restart.
		var again users.Table
		m.users.DeltaPorts(func(_ string, value []byte) {
			if err := again.RestorePorts(value); err != nil {
				t.Fatal(err)
			}
		})
		want, _ := m.users.Mappings()
		if got, _ := again.Mappings(); got != want {
			t.Fatalf("%d mappings, restored %d", want, got)
		}
	})
}
