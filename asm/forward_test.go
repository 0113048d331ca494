package asm

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// What another collector passes on is what its exporters sent it: their
// sessions, Templates, duplicates and losses, each Message once however often
// it is passed on, and whatever is restarted in between.
func TestForwarded(t *testing.T) {
	settings := testSettings
	settings.Exporters = []ExporterSettings{{Name: "collector-2", Forwards: true}}
	settings.CompareOctets = 1 << 20
	b := mapped(t, settings)
	position := uint64(0)
	wrap := func(f ack.Forwarded) []byte {
		position++
		e := ipfix.NewEncoder(1, 0)
		f.Time = b.clock.UnixNano()
		id := ack.Identity{Instance: ack.Instance{7}, Position: position, Version: 1, Wants: ack.Acknowledgements}
		for _, x := range []struct {
			t *ipfix.Template
			r []byte
		}{{ack.IdentityTemplate(ack.Enterprise), id.Append(nil)}, {ack.ForwardedTemplate(ack.Enterprise), f.Append(nil)}} {
			if err := e.AppendRecord(x.t, x.r); err != nil {
				t.Fatal(err)
			}
		}
		return bytes.Clone(e.Flush(1))
	}
	open := func(exporter string) uint64 {
		s := b.open(ipfix.TCP, exporter, "198.51.100.77:1")
		e := ipfix.NewEncoder(1, 0)
		for _, tmpl := range []*ipfix.Template{ack.IdentityTemplate(ack.Enterprise), ack.ForwardedTemplate(ack.Enterprise)} {
			if err := e.AddTemplate(tmpl); err != nil {
				t.Fatal(err)
			}
		}
		b.add(acct.EntryMessage, s, bytes.Clone(e.Flush(1)))
		return s
	}
	info, err := SessionInfo{Transport: ipfix.TCP, Exporter: "router", Remote: netip.MustParseAddrPort("192.0.2.99:5"), Local: netip.MustParseAddrPort("192.0.2.98:4739")}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	data := b.message(false, b.flow("192.0.2.1", outside)) // its Template comes later
	withTemplate := b.message(true, b.flow("192.0.2.1", "203.0.113.8"))
	other := b.message(false, b.flow("192.0.2.1", "203.0.113.7"))
	long := b.message(false, b.flow("192.0.2.1", "203.0.113.10"))
	inner := [][]byte{
		wrap(ack.Forwarded{Kind: ack.Began}),
		wrap(ack.Forwarded{Kind: ack.Opened, Session: 3, Octets: info}),
		wrap(ack.Forwarded{Kind: ack.Received, Session: 3, Octets: data}),
		wrap(ack.Forwarded{Kind: ack.Received, Session: 3, Octets: withTemplate}),
		wrap(ack.Forwarded{Kind: ack.Received, Session: 3, Octets: other}),
	}
	one := open("collector-2")
	for i, m := range inner {
		b.add(acct.EntryMessage, one, m)
		b.checkpoint()
		b.restart()
		b.add(acct.EntryClose, 0, nil) // the owner began anew; the other collector's sessions go on
		one = open("collector-2")
		for _, again := range inner[:i+1] {
			b.add(acct.EntryMessage, one, again)
		}
	}
	// A Message that is too long to be passed on whole comes in two parts,
	// across a restart, and may come again.
	for _, f := range []ack.Forwarded{
		{Kind: ack.Head, Session: 3, Octets: long[:20]},
		{Kind: ack.Rest, Session: 3, Octets: long[20:]},
		{Kind: ack.Rest, Session: 3, Octets: long[20:]}, // without its head
		{Kind: ack.Head, Session: 3, Octets: long[:20]}, // without its rest
		{Kind: ack.Received, Session: 3, Octets: other},
	} {
		inner = append(inner, wrap(f))
		b.add(acct.EntryMessage, one, inner[len(inner)-1])
		b.checkpoint()
		b.restart()
		b.add(acct.EntryClose, 0, nil)
		one = open("collector-2")
		for _, again := range inner {
			b.add(acct.EntryMessage, one, again)
		}
	}
	if s := b.m.Stats(); s.Broken != 0 {
		t.Errorf("%d entries are broken: what came again was not known", s.Broken)
	}
	// The same exporter duplicated its records to us.
	direct := b.open(ipfix.TCP, "router", "192.0.2.99:6")
	b.add(acct.EntryMessage, direct, withTemplate)
	// Whoever is not configured to pass on is not believed.
	b.add(acct.EntryMessage, open("impostor"), inner[3])
	sum := b.checkpoint()
	if sum.Received != count(6, 600, 12) || sum.Accounted != count(4, 400, 8) || sum.Duplicate != count(2, 200, 4) {
		t.Errorf("received %+v, accounted %+v, duplicate %+v", sum.Received, sum.Accounted, sum.Duplicate)
	}
	if sum.Lost != 0 {
		t.Errorf("%d lost", sum.Lost)
	}
	for key := range b.s.ledger {
		if key.Exporter != "router" && !b.s.ledger[key].Received.IsZero() {
			t.Errorf("%+v has received records", key)
		}
	}
	if s := b.m.Stats(); s.ForwardsRefused != 1 {
		t.Errorf("stats %+v", s)
	}
	b.add(acct.EntryMessage, one, wrap(ack.Forwarded{Kind: ack.Began}))
	if n := len(b.m.transports.far); n != 0 {
		t.Errorf("%d sessions of a collector that began anew are open", n)
	}
	// Who reads the journal again is shown them, each with the Templates that it
	// is read with.
	told := &messageTracer{t: t}
	checkpoint := acct.Checkpoint{Epoch: b.s.epoch, NextSuspended: 1}
	replay, err := NewReplay(t.Context(), Opening{Checkpoint: checkpoint}, b.j, told, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range b.j.entries {
		if err := replay.Apply(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if told.passedOn == 0 || told.records == 0 || told.passedOn == told.records {
		t.Errorf("%d messages within others are told of, with %d records", told.passedOn, told.records)
	}
}

// A messageTracer counts the Messages of router that come within others, and
// the records of them that can be read.
type messageTracer struct {
	t                 *testing.T
	outer             acct.Entry // the latest that came by itself
	passedOn, records int
}

func (m *messageTracer) Flow(uint64, TracedFlow)     {}
func (m *messageTracer) Record(uint64, *acct.Record) {}

func (m *messageTracer) Message(e acct.Entry, session SessionInfo, decoder *ipfix.Session) {
	if session.Exporter != "router" {
		m.outer = e
		return
	}
	if e.Position != m.outer.Position {
		return // it came to us itself
	}
	m.passedOn++
	if len(e.Data) >= len(m.outer.Data) {
		m.t.Errorf("a message of %d octets is within one of %d", len(e.Data), len(m.outer.Data))
	}
	state, err := decoder.AppendBinary(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	own := ipfix.NewSession(session.Transport)
	if err := own.UnmarshalBinary(state); err != nil {
		m.t.Fatal(err)
	}
	if _, err := own.Decode(e.Data, func(s ipfix.DataSet) { m.records += s.Records }); err != nil {
		m.t.Error(err)
	}
}
