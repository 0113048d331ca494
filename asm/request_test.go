package asm

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// requestOf is the Accounting-Request of a client's record as an entry.
func requestOf(task acct.RequestTask, r *acct.Record) []byte {
	avps := dict.For(0).AppendRecord(nil, r, dict.Options{OriginHost: "client.example", OriginRealm: "example", DestinationRealm: "example"})
	return must(acct.Request{Task: task, Peer: "client.example", AVPs: avps}.AppendBinary(nil))
}

// clientRecords are what an AAA client makes of what fill lets come in.
func clientRecords(t *testing.T, settings Settings, fill func(*bridge)) []acct.Record {
	t.Helper()
	settings.Mode, settings.OriginHost = ModeAAAClient, "client.example"
	b := newBridge(t, settings)
	fill(b)
	b.checkpoint()
	return b.s.records
}

// An AAA server that gets the requests of an AAA client accounts what an ASM
// in the client's place would, user by user, and its books say the same of the
// same exporters: sampled packets, totals, records without a time, and
// records in parts included.
func TestRequestsEqualMessages(t *testing.T) {
	long := must(ipfix.NewTemplate(350, field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4),
		field(ipfix.OctetDeltaCount, 8), field(ipfix.UserName, ipfix.VariableLength), field(ipfix.InterfaceDescription, ipfix.VariableLength)))
	untimed := must(ipfix.NewTemplate(351, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	ann := netip.MustParseAddr("192.0.2.1")
	fill := func(b *bridge) {
		s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
		b.send(s, b.flow("192.0.2.1", outside), b.flow(outside, "192.0.2.1"), b.flow("192.0.2.1", "192.0.2.2"))
		for _, octets := range []int{1000, 5000, 2000} { // the last begins anew
			b.add(acct.EntryMessage, s, b.encodeRecords(totalsTemplate, []any{b.clock, ann, 3, octets, 10}))
			b.clock = b.clock.Add(time.Second)
		}
		b.add(acct.EntryMessage, s, b.encodeRecords(rateTemplate, []any{1, 1, 100}))
		b.add(acct.EntryMessage, s, b.encodeRecords(sampledTemplate, []any{b.clock, ann, 1, 70, 3, 7, 8, 0, 1}))
		b.add(acct.EntryMessage, s, b.encodeRecords(untimed, []any{ann, 11}, []any{ann, 11}))
		b.add(acct.EntryMessage, s, b.encodeRecords(long, []any{b.clock, ann, 5, "x", strings.Repeat("port ", 900)}))
	}
	settings := testSettings
	settings.MaxRecord = 2048
	direct := mapped(t, settings)
	direct.users("other", bind("192.0.2.2", "bob"))
	fill(direct)
	direct.after(time.Minute)
	want := direct.checkpoint()

	server := mapped(t, settings)
	server.users("other", bind("192.0.2.2", "bob"))
	records := clientRecords(t, settings, fill)
	if last := records[len(records)-1]; last.Parts < 3 {
		t.Fatalf("the long record came in %d parts", last.Parts)
	}
	for i := range records {
		server.add(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &records[i]))
		if i%3 == 2 { // in the middle of parts too
			server.checkpoint()
			server.restart()
		}
	}
	if got := server.m.Stats(); got.Broken != 0 || got.RequestDuplicates+got.RequestConflicts != 0 {
		t.Errorf("stats %+v", got)
	}
	server.after(time.Minute)
	got := server.checkpoint()
	if got.Received != want.Received || got.Accounted != want.Accounted || got.Mirrored != want.Mirrored || got.UndecodedMessages != 0 || got.UndecodedOctets != 0 {
		t.Errorf("books %+v, want %+v", got, want)
	}
	for key, row := range server.s.ledger {
		if key.Exporter != "router" {
			t.Errorf("row of %+v: %+v", key, row)
		}
	}
	total := func(records []acct.Record) map[string]acct.Usage {
		usage := map[string]acct.Usage{}
		for _, r := range records {
			usage[r.User] = r.Usage // cumulative, of one session
		}
		return usage
	}
	if g, w := fmt.Sprint(total(server.s.records)), fmt.Sprint(total(direct.s.records)); g != w {
		t.Errorf("accounted %s, want %s", g, w)
	}

	// The client restarts and sends all of it again: copies add nothing.
	server.restart()
	for i := range records {
		server.add(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &records[i]))
	}
	server.after(time.Minute)
	again := server.checkpoint()
	if again.Accounted != got.Accounted || again.Suspended != got.Suspended || again.UndecodedMessages != 0 {
		t.Errorf("books %+v after copies, before %+v", again, got)
	}
}

// Equal requests are one, whatever their T flag, and for a record without a
// time too; a request with the same Session-Id and number and other content is
// kept in suspense (RFC 6733, Section 9.4).
func TestRequestIdentity(t *testing.T) {
	untimed := must(ipfix.NewTemplate(351, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	records := clientRecords(t, testSettings, func(b *bridge) {
		s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
		b.add(acct.EntryMessage, s, b.encodeRecords(untimed, []any{netip.MustParseAddr("192.0.2.1"), 11}))
		b.send(s, b.flow("192.0.2.1", outside))
	})
	b := mapped(t, testSettings)
	for range 3 {
		for i := range records {
			b.add(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &records[i]))
		}
		b.checkpoint()
		b.restart()
	}
	other := records[0]
	other.SessionID = records[1].SessionID
	b.add(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &other))
	if got := b.m.Stats(); got.RequestConflicts != 1 {
		t.Errorf("stats %+v", got)
	}
	sum := b.checkpoint()
	if sum.Received != count(7, 344, 6) || sum.Duplicate != count(4, 222, 4) || sum.Accounted != count(2, 111, 2) || sum.Suspended != count(1, 11, 0) {
		t.Errorf("received %+v, duplicate %+v, accounted %+v, suspended %+v", sum.Received, sum.Duplicate, sum.Accounted, sum.Suspended)
	}
	for _, s := range b.s.suspended {
		if s.Reason != reasonConflict {
			t.Errorf("suspended %+v", s)
		}
	}
	// Later than such copies are remembered, one can't be proven new.
	b.after(messageMemory + time.Hour)
	late := records[0]
	late.SessionID = "client.example;1;99"
	b.add(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &late))
	if sum := b.checkpoint(); sum.Suspended != count(2, 22, 0) {
		t.Errorf("suspended %+v", sum.Suspended)
	}
}

// A request for another realm becomes a record with its AVPs as they came,
// once.
func TestForward(t *testing.T) {
	r := acct.Record{
		SessionID: "nas.visited.example;1;2", Number: 4, Type: acct.Interim, User: "ann@home.example", Realm: "home.example",
		Event: epoch, Usage: acct.Usage{InputOctets: 7, OutputOctets: 8},
	}
	avps := dict.For(0).AppendRecord(nil, &r, dict.Options{OriginHost: "nas.visited.example", OriginRealm: "visited.example"})
	avps = avp.AppendString(avps, 9999, 10415, 0, "whatever this is")
	entry := must(acct.Request{Task: acct.RequestForward, Peer: "nas.visited.example", AVPs: avps}.AppendBinary(nil))
	b := newBridge(t, testSettings)
	for range 2 {
		b.add(acct.EntryRequest, 0, entry)
		b.checkpoint()
		b.restart()
	}
	sum := b.checkpoint()
	if len(b.s.records) != 1 {
		t.Fatalf("%d records", len(b.s.records))
	}
	got := b.s.records[0]
	if string(got.Received) != string(avps) || got.SessionID != r.SessionID || got.Number != 4 || got.Realm != "home.example" || got.User != r.User || got.Usage != r.Usage {
		t.Errorf("record %+v", got)
	}
	if !sum.Received.IsZero() || !got.Increment().IsZero() {
		t.Errorf("books %+v", sum)
	}
}

// Entries that can't be read are counted and change nothing else.
func TestBrokenRequests(t *testing.T) {
	flow := acct.Record{SessionID: "c;1;1", Type: acct.Event, Flow: dict.For(0).AppendExporter(nil, "router")}
	part := flow
	part.Part, part.Parts = 3, 2
	for name, data := range map[string][]byte{
		"nothing":         nil,
		"no AVPs":         must(acct.Request{Task: acct.RequestFlows}.AppendBinary(nil)),
		"no Flow":         requestOf(acct.RequestFlows, &flow),
		"part 3 of 2":     requestOf(acct.RequestFlows, &part),
		"an unknown task": {1, 9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := mapped(t, testSettings)
			b.add(acct.EntryRequest, 0, data)
			if got := b.m.Stats(); got.Broken != 1 {
				t.Errorf("stats %+v", got)
			}
			if sum := b.checkpoint(); !sum.Received.IsZero() {
				t.Errorf("books %+v", sum)
			}
		})
	}
}

// request sends requests of a client: flows, at times in parts, for another
// realm, again, or with the identity of another.
func (x *traffic) request() {
	f := x.bridge.flow(rapid.SampledFrom(pool).Draw(x.rt, "from"), outside)
	f.fromPort = len(x.j.entries)
	octets := must(testTemplate.AppendRecord(nil, f.values()...))
	d := dict.For(0)
	flow := must(d.AppendFlow(nil, testTemplate, octets))
	r := acct.Record{
		SessionID: fmt.Sprintf("client;1;%d", rapid.IntRange(0, 30).Draw(x.rt, "request")), Type: acct.Event, Event: x.clock, End: f.end,
		Usage: acct.Usage{InputOctets: uint64(f.octets), InputPackets: uint64(f.packets)}, Realm: "example",
	}
	switch rapid.IntRange(0, 3).Draw(x.rt, "shape") {
	case 0:
		x.entry(acct.EntryRequest, 0, requestOf(acct.RequestForward, &r))
	case 1, 2:
		r.Flow = d.AppendExporter(flow, "east")
		for range rapid.IntRange(1, 2).Draw(x.rt, "times") {
			x.entry(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &r))
		}
	case 3:
		parts := must(d.Split(flow, 120))
		r.MultiSessionID = r.SessionID + ";all"
		for i, p := range parts {
			q := r
			q.SessionID, q.Flow = fmt.Sprint(r.SessionID, ";", i), d.AppendExporter(p, "west")
			q.Part, q.Parts = uint16(i+1), uint16(len(parts))
			if i > 0 {
				q.Usage = acct.Usage{}
			}
			if i < len(parts)-1 || rapid.Bool().Draw(x.rt, "whole") {
				x.entry(acct.EntryRequest, 0, requestOf(acct.RequestFlows, &q))
			}
		}
	}
}
