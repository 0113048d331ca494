package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/dict"
	"tollbridge/ipfix"
)

// What is no usage is not in the books, what can't be used is rejected.
func TestNotUsage(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	ann := netip.MustParseAddr("192.0.2.1")
	options := must(ipfix.NewOptionsTemplate(300, 1, field(ipfix.ExportingProcessId, 4), field(ipfix.ExportedOctetTotalCount, 8)))
	noAddress := must(ipfix.NewTemplate(301, field(ipfix.OctetDeltaCount, 8)))
	noCounter := must(ipfix.NewTemplate(302, field(ipfix.SourceIPv4Address, 4), field(ipfix.ProtocolIdentifier, 1)))
	plain := must(ipfix.NewTemplate(303, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 8)))
	e := ipfix.NewEncoder(1, 0)
	for _, x := range []struct {
		t      *ipfix.Template
		values []any
	}{
		{options, []any{1, 2}}, {noAddress, []any{5}}, {noCounter, []any{ann, 6}},
		{plain, []any{ann, uint64(1 << 63)}}, {plain, []any{ann, 5}},
	} {
		if err := e.AddTemplate(x.t); err != nil {
			t.Fatal(err)
		}
		if err := e.AddRecord(x.t, x.values...); err != nil {
			t.Fatal(err)
		}
	}
	b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	sum := b.checkpoint()
	if sum.Received != count(3, 5, 0) || sum.Rejected != count(2, 0, 0) || sum.Accounted != count(1, 5, 0) {
		t.Errorf("received %+v, rejected %+v, accounted %+v", sum.Received, sum.Rejected, sum.Accounted)
	}
	if x := b.m.Stats(); x.OptionsRecords != 1 || x.NotUsage != 1 || x.NoCounter != 1 || x.TooLarge != 1 {
		t.Errorf("%+v", x)
	}
}

// A flow too large for one Accounting-Request goes in parts that join to it.
func TestFlowInParts(t *testing.T) {
	settings := testSettings
	settings.Mode, settings.MaxRecord = ModeAAAClient, minRecord
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	fields := []ipfix.FieldSpecifier{field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 8)}
	values := []any{netip.MustParseAddr("192.0.2.1"), 100}
	for range 30 {
		fields = append(fields, field(ipfix.ApplicationDescription, ipfix.VariableLength))
		values = append(values, "a description of a hundred octets or so, which is repeated until no request holds the whole record")
	}
	tmpl := must(ipfix.NewTemplate(256, fields...))
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	if err := e.AddRecord(tmpl, values...); err != nil {
		t.Fatal(err)
	}
	b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	b.checkpoint()
	records := b.s.records
	if len(records) < 2 {
		t.Fatalf("%d records", len(records))
	}
	var parts [][]byte
	var usage acct.Usage
	for i, r := range records {
		if int(r.Part) != i+1 || int(r.Parts) != len(records) || r.MultiSessionID != records[0].MultiSessionID || r.MultiSessionID == "" {
			t.Errorf("part %d of %d of %q", r.Part, r.Parts, r.MultiSessionID)
		}
		if n := len(dict.For(0).AppendRecord(nil, &r, dict.Options{OriginHost: "asm.example", OriginRealm: "example"})); n > minRecord {
			t.Errorf("part %d takes %d octets", r.Part, n)
		}
		parts = append(parts, r.Flow)
		usage = usage.Plus(r.Usage)
	}
	flow, err := dict.For(0).Join(parts...)
	if err != nil {
		t.Fatal(err)
	}
	want := must(tmpl.AppendRecord(nil, values...))
	if _, record, err := dict.For(0).ParseFlow(flow); err != nil || string(record) != string(want) {
		t.Errorf("the parts join to %d octets (%v), want %d", len(record), err, len(want))
	}
	if usage.InputOctets != 100 {
		t.Errorf("usage of all parts: %+v", usage)
	}
}

// The largest record of one class is within what an Accounting-Request may
// take, so that whatever is split fits.
func TestRecordFits(t *testing.T) {
	settings := testSettings
	settings.MaxRecord, settings.Classes = minRecord, ports(200)
	b := mapped(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	for i := range 200 {
		f := b.flow("192.0.2.1", outside)
		f.toPort = i
		b.send(s, f)
	}
	b.after(time.Minute)
	b.checkpoint()
	for _, r := range b.s.records {
		n := len(dict.For(0).AppendRecord(nil, &r, dict.Options{OriginHost: "asm.example", OriginRealm: "example", DestinationRealm: "example"}))
		if n > minRecord {
			t.Errorf("%s/%d, part %d of %d, takes %d octets", r.SessionID, r.Number, r.Part, r.Parts, n)
		}
	}
}

// A binding may name the class of what no rule matches.
func TestClassOfBinding(t *testing.T) {
	settings := testSettings
	settings.Classes = []classes.Rule{{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}}}
	b := newBridge(t, settings)
	ann := bind("192.0.2.1", "ann")
	ann.Class = "business"
	b.users("file", ann, bind("192.0.2.2", "bob"))
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	dns := b.flow("192.0.2.1", outside)
	dns.toPort = 53
	b.send(s, b.flow("192.0.2.1", outside), dns)
	b.checkpoint()
	b.restart()
	b.clock = b.clock.Add(time.Second)
	b.send(s, b.flow("192.0.2.1", outside), b.flow("192.0.2.2", outside))
	b.after(time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
		"12:00:01 bob asm.example;7;3/0 START in 0 out 0",
		"12:01:00 ann asm.example;7;1/1 INTERIM in 300 out 0 business 200/0 dns 100/0",
		"12:01:00 bob asm.example;7;3/1 INTERIM in 100 out 0",
	)
}

// Another fallback user is offered all that waits; the one before ends.
func TestFallbackChanges(t *testing.T) {
	settings := testSettings
	settings.Fallback, settings.Wait = "one", time.Minute
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	if !b.m.Deadline().IsZero() {
		t.Errorf("deadline %v, though nothing waits", b.m.Deadline())
	}
	b.send(s, b.flow("192.0.2.1", outside))
	if got := b.m.Deadline(); !got.Equal(epoch.Add(time.Minute)) {
		t.Errorf("deadline %v", got)
	}
	b.after(time.Minute)
	settings.Fallback = ""
	b.configure(settings)
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(10 * time.Minute)
	settings.Fallback = "two"
	b.configure(settings)
	b.after(time.Minute)
	settings.Fallback = "one"
	b.configure(settings)
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(2 * time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:01:00 one asm.example;7;1/0 START in 0 out 0",
		"12:01:00 one asm.example;7;1/1 INTERIM in 100 out 0",
		"12:01:30 one asm.example;7;1/2 STOP in 100 out 0",
		"12:12:00 two asm.example;7;3/0 START in 0 out 0",
		"12:12:00 two asm.example;7;3/1 INTERIM in 100 out 0",
		"12:12:30 two asm.example;7;3/2 STOP in 100 out 0",
		"12:13:00 one asm.example;7;5/0 START in 0 out 0",
		"12:13:00 one asm.example;7;5/1 INTERIM in 100 out 0",
	)
}
