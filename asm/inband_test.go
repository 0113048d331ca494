package asm

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// namedTemplate is of records that name their user.
var namedTemplate = must(ipfix.NewTemplate(330,
	field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
	field(ipfix.SourceTransportPort, 2), field(ipfix.OctetDeltaCount, 4), field(ipfix.UserName, ipfix.VariableLength), field(ipfix.FlowDirection, 1),
))

var namingSettings = func() Settings {
	s := testSettings
	s.InBand, s.InBandIdle = []string{"637:93", "userName"}, 2*time.Minute
	return s
}()

func TestInBand(t *testing.T) {
	const here, there = "192.0.2.1", "192.0.2.2" // bound in most cases
	type sent struct {
		from, to, name string
		direction      int
	}
	for _, c := range []struct {
		name     string
		bindings []users.Binding
		flows    []sent
		want     []string
	}{
		{"the source is the user's", nil, []sent{{here, outside, "ann", 0}}, []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		}},
		{"the destination of what was metered on its way out is", nil, []sent{{outside, here, "ann", 1}}, []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 0 out 100",
		}},
		{"the side that is bound to the user is, and has the binding's session", []users.Binding{bind(there, "ann")},
			[]sent{{outside, there, "ann", 0}, {there, outside, "", 0}}, []string{
				"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
				"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 100",
			}},
		{"the other side is its holder's", []users.Binding{bind(there, "bob")}, []sent{{here, there, "ann", 0}}, []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:00 bob asm.example;7;3/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:01:00 bob asm.example;7;3/1 INTERIM in 0 out 100",
		}},
		{"the record knows better than a binding", []users.Binding{bind(here, "bob")}, []sent{{here, outside, "ann", 0}}, []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		}},
		{"zeros and spaces fill a name up", nil, []sent{{here, outside, "ann\x00\x00", 0}, {here, outside, "ann  ", 0}}, []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 200 out 0",
		}},
		{"no name leaves it to the bindings", []users.Binding{bind(here, "bob")}, []sent{{here, outside, "\x00\x00", 0}, {here, outside, "\xff\xfe", 0}}, []string{
			"12:00:00 bob asm.example;7;1/0 START in 0 out 0",
			"12:01:00 bob asm.example;7;1/1 INTERIM in 200 out 0",
		}},
		{"nor does what can't be one", []users.Binding{bind(here, "bob")}, []sent{{here, outside, "\xff\xfe", 0}, {here, outside, "a\x1bb", 0}, {here, outside, strings.Repeat("x", users.MaxName+1), 0}}, []string{
			"12:00:00 bob asm.example;7;1/0 START in 0 out 0",
			"12:01:00 bob asm.example;7;1/1 INTERIM in 300 out 0",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, namingSettings)
			b.users("file", c.bindings...)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			for i, f := range c.flows {
				b.sendRecords(s, namedTemplate, []any{b.clock, netip.MustParseAddr(f.from), netip.MustParseAddr(f.to), i, 100, []byte(f.name), f.direction})
				b.checkpoint()
				b.restart()
			}
			b.after(time.Minute)
			b.checkpoint()
			wantLines(t, b.s.records, c.want...)
		})
	}
}

// A named user's session stops when it is idle, starts anew under the same
// Acct-Multi-Session-Id if the user comes back in time, and is forgotten
// otherwise.
func TestInBandIdle(t *testing.T) {
	b := newBridge(t, namingSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	flow := func() {
		b.sendRecords(s, namedTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(outside), 1, 100, "ann", 0})
	}
	flow()
	b.after(5 * time.Minute)
	b.checkpoint()
	b.restart()
	flow()
	b.after(20 * time.Minute)
	b.checkpoint()
	if n := len(b.m.sessions.byKey); n != 0 || b.m.Stats().InBand != 0 {
		t.Errorf("%d sessions are kept, %d of names", n, b.m.Stats().InBand)
	}
	flow()
	b.after(time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
		"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		"12:02:00 ann asm.example;7;1/2 STOP in 100 out 0",
		"12:05:00 ann asm.example;7;2/0 START in 0 out 0",
		"12:06:00 ann asm.example;7;2/1 INTERIM in 100 out 0",
		"12:07:00 ann asm.example;7;2/2 STOP in 100 out 0",
		"12:25:00 ann asm.example;7;4/0 START in 0 out 0",
		"12:26:00 ann asm.example;7;4/1 INTERIM in 100 out 0",
	)
	if a, z := b.s.records[0].MultiSessionID, b.s.records[3].MultiSessionID; a != z {
		t.Errorf("Acct-Multi-Session-Ids %s and %s", a, z)
	}
}

// More names than the bound are not accounted, but wait.
func TestInBandBound(t *testing.T) {
	settings := namingSettings
	settings.MaxInBand = 2
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	for i, name := range []string{"ann", "bob", "eve", "ann"} {
		b.sendRecords(s, namedTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(outside), i, 100, name, 0})
		b.checkpoint()
		b.restart()
	}
	sum := b.checkpoint()
	if sum.Accounted != count(3, 300, 0) || sum.Suspended != count(1, 100, 0) || b.m.Stats().InBand != 2 {
		t.Errorf("accounted %+v, suspended %+v", sum.Accounted, sum.Suspended)
	}
	b.after(20 * time.Minute) // both are idle and forgotten
	b.users("file")           // what waits is mapped again
	if sum := b.checkpoint(); sum.Accounted != count(4, 400, 0) {
		t.Errorf("accounted %+v, suspended %+v", sum.Accounted, sum.Suspended)
	}
}

func TestParseElement(t *testing.T) {
	for s, want := range map[string]ipfix.Element{
		"userName": {ID: 371}, "371": {ID: 371}, "0:371": {ID: 371}, "637:93": {Enterprise: 637, ID: 93},
	} {
		if got, err := ParseElement(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "username!", "637:", ":93", "637:40000", "-1", "1:2:3"} {
		if e, err := ParseElement(s); err == nil {
			t.Errorf("%q: %v, want an error", s, e)
		}
	}
	if _, err := ParseElement("637:0"); err == nil || !strings.Contains(err.Error(), "637:93") {
		t.Errorf("error %v shows no example", err)
	}
}

// What a Nokia BRAS sends names its subscriber. It counts nothing, so by
// itself it is no usage; with a counter behind it, it is that subscriber's.
func TestInBandNokia(t *testing.T) {
	const dir = "../../shared/corpus/logstash-codec-netflow/ipfix_test_nokia_bras_"
	tmpl, err := os.ReadFile(dir + "tpl.dat")
	if err != nil {
		t.Skip("no captures of real exporters here")
	}
	data, err := os.ReadFile(dir + "data256.dat")
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(t, namingSettings)
	s := b.open(ipfix.UDP, "bras", "198.51.100.1:999")
	b.add(acct.EntryMessage, s, tmpl)
	b.add(acct.EntryMessage, s, data)
	if sum := b.checkpoint(); sum.Rejected != count(1, 0, 0) || b.m.Stats().NoCounter != 1 {
		t.Errorf("rejected %+v: %+v", sum.Rejected, b.m.Stats())
	}

	session := ipfix.NewSession(ipfix.UDP)
	e := ipfix.NewEncoder(2228226, 0)
	for _, msg := range [][]byte{tmpl, data} {
		if _, err := session.Decode(msg, func(set ipfix.DataSet) {
			counted := must(ipfix.NewTemplate(300, append(append([]ipfix.FieldSpecifier{}, set.Template.Fields...), field(ipfix.OctetDeltaCount, 4))...))
			if err := e.AddTemplate(counted); err != nil {
				t.Fatal(err)
			}
			for r, ok := set.Next(); ok; r, ok = set.Next() {
				if err := e.AppendRecord(counted, append(bytes.Clone(r.Bytes()), 0, 0, 3, 232)); err != nil {
					t.Fatal(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	b.after(time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records[:2],
		"12:00:00 USER1@10.10.0.123 asm.example;7;1/0 START in 0 out 0",
		"12:01:00 USER1@10.10.0.123 asm.example;7;1/1 INTERIM in 1000 out 0",
	)
}
