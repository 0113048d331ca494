package asm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

const outside = "203.0.113.9" // nobody's address

func mapped(t *testing.T, settings Settings) *bridge {
	t.Helper()
	b := newBridge(t, settings)
	b.users("file", bind("192.0.2.1", "ann"))
	return b
}

func count(records, octets, packets uint64) acct.Count {
	return acct.Count{Records: records, Octets: octets, Packets: packets}
}

func TestDuplicates(t *testing.T) {
	b := mapped(t, testSettings)
	one := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	two := b.open(ipfix.TCP, "router", "198.51.100.1:1000")
	other := b.open(ipfix.TCP, "other", "198.51.100.2:999")
	msg := b.message(true, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, one, msg)
	b.add(acct.EntryMessage, one, msg)
	b.add(acct.EntryMessage, two, msg)                       // through another Transport Session
	b.send(two, b.flow("192.0.2.1", outside))                // in another Message
	b.add(acct.EntryMessage, other, msg)                     // another exporter saw a flow of its own
	again := b.encode(2, true, b.flow("192.0.2.1", outside)) // so did another Observation Domain
	b.add(acct.EntryMessage, one, again)
	sum := b.checkpoint()
	if sum.Received != count(6, 600, 12) || sum.Duplicate != count(3, 300, 6) || sum.Accounted != count(3, 300, 6) {
		t.Errorf("received %+v, duplicate %+v, accounted %+v", sum.Received, sum.Duplicate, sum.Accounted)
	}
}

// Equal records of a Template without any flow time can be honest, but equal
// Messages can't.
func TestDuplicatesWithoutTime(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	tmpl := must(ipfix.NewTemplate(256, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	e := ipfix.NewEncoder(1, 0)
	for range 2 {
		if err := e.AddTemplate(tmpl); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := e.AddRecord(tmpl, netip.MustParseAddr("192.0.2.1"), 10); err != nil {
				t.Fatal(err)
			}
		}
		msg := bytes.Clone(e.Flush(uint32(b.clock.Unix())))
		b.add(acct.EntryMessage, s, msg)
		b.checkpoint()
		b.restart()
		b.add(acct.EntryMessage, s, msg)
	}
	sum := b.checkpoint()
	if sum.Received != count(8, 80, 0) || sum.Duplicate != count(4, 40, 0) || sum.Accounted != count(4, 40, 0) {
		t.Errorf("received %+v, duplicate %+v, accounted %+v", sum.Received, sum.Duplicate, sum.Accounted)
	}
}

func TestTimesOutOfBounds(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	now, old, ahead := b.flow("192.0.2.1", outside), b.flow("192.0.2.1", outside), b.flow("192.0.2.1", outside)
	old.end = b.clock.Add(-2 * time.Hour)
	ahead.end = b.clock.Add(time.Hour)
	b.send(s, now, old, ahead)
	sum := b.checkpoint()
	if sum.Accounted != count(1, 100, 2) || sum.Suspended != count(2, 200, 4) {
		t.Errorf("accounted %+v, suspended %+v", sum.Accounted, sum.Suspended)
	}
	for id, reason := range map[uint64]string{1: "below floor", 2: "ahead of clock"} {
		if x := b.s.suspended[id]; x.Reason != reason || x.Source != "192.0.2.1:40000 > 203.0.113.9:443" {
			t.Errorf("suspended %d: %q %q, want %q", id, x.Reason, x.Source, reason)
		}
	}
}

// A Data Set before its Template is decoded when the Template comes, across
// restarts of the pipeline and, over UDP, of the Collecting Process.
func TestEarlyDataSets(t *testing.T) {
	b := mapped(t, testSettings)
	udp := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	tcp := b.open(ipfix.TCP, "other", "198.51.100.2:999")
	b.add(acct.EntryMessage, udp, b.message(false, b.flow("192.0.2.1", outside)))
	first := b.j.entries[len(b.j.entries)-1].Position
	b.after(10 * time.Second)
	late := b.message(false, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, udp, late)
	b.add(acct.EntryMessage, udp, late) // a duplicate
	b.add(acct.EntryMessage, tcp, late)
	sum := b.checkpoint()
	if sum.UndecodedMessages != 4 || sum.UndecodedOctets != 4*uint64(testTemplate.MinLength()) || !sum.Received.IsZero() {
		t.Errorf("undecoded: %d messages, %d octets; received %+v", sum.UndecodedMessages, sum.UndecodedOctets, sum.Received)
	}
	if b.s.needed != first {
		t.Errorf("needed from %d, want %d", b.s.needed, first)
	}

	b.restart()
	b.add(acct.EntryClose, 0, nil) // the Collecting Process began anew
	udp = b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.after(2 * time.Minute)
	b.send(udp, b.flow("192.0.2.1", outside))
	sum = b.checkpoint()
	if sum.UndecodedMessages != 1 || sum.Received != count(4, 400, 8) || sum.Duplicate != count(1, 100, 2) || sum.Accounted != count(3, 300, 6) {
		t.Errorf("%+v", sum)
	}
	key := acct.LedgerKey{Exporter: "router", Domain: 1, Interval: epoch.Unix()}
	if got := b.s.ledger[key].Received; got != count(3, 300, 6) {
		t.Errorf("received in the interval of arrival: %+v", got)
	}
	if b.s.needed != b.s.position+1 {
		t.Errorf("needed from %d at %d", b.s.needed, b.s.position)
	}
}

// Of an early Message that came twice, the copy is a duplicate, even if its
// records have no identity.
func TestEarlyDuplicateWithoutTime(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	tmpl := must(ipfix.NewTemplate(256, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddRecord(tmpl, netip.MustParseAddr("192.0.2.1"), 10); err != nil {
		t.Fatal(err)
	}
	msg := bytes.Clone(e.Flush(uint32(b.clock.Unix())))
	b.add(acct.EntryMessage, s, msg)
	b.add(acct.EntryMessage, s, msg)
	b.checkpoint()
	b.restart()
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
	if sum := b.checkpoint(); sum.Received != count(2, 20, 0) || sum.Duplicate != count(1, 10, 0) || sum.UndecodedMessages != 0 {
		t.Errorf("%+v", sum)
	}
}

// A Data Set that stays undecoded makes no duplicate of its copy: of the Sets of
// a Message each is one only if it was decoded itself.
func TestUndecodedIsNoFirstCopy(t *testing.T) {
	known := must(ipfix.NewTemplate(300, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	unknown := must(ipfix.NewTemplate(301, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 8)))
	for _, c := range []struct {
		name  string
		early int // Data Sets that may wait
		sets  []*ipfix.Template
	}{
		{"the only Set, given up", 10, []*ipfix.Template{unknown}},
		{"the only Set, beyond the bound", 1, []*ipfix.Template{unknown}},
		{"one of two Sets, given up", 10, []*ipfix.Template{known, unknown}},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			settings.EarlySets, settings.EarlyWait = c.early, 2*time.Minute
			b := mapped(t, settings)
			tell := func(templates ...*ipfix.Template) uint64 {
				s := b.open(ipfix.UDP, "router", fmt.Sprint("198.51.100.1:", b.j.entries[len(b.j.entries)-1].Position))
				for _, tmpl := range templates {
					b.sendRecords(s, tmpl)
				}
				return s
			}
			first, second := tell(known), tell(known, unknown)
			if c.early == 1 {
				b.add(acct.EntryMessage, first, b.message(false, b.flow("192.0.2.1", outside)))
			}
			e := ipfix.NewEncoder(1, 0)
			for _, tmpl := range c.sets {
				if err := e.AddRecord(tmpl, netip.MustParseAddr("192.0.2.1"), 10); err != nil {
					t.Fatal(err)
				}
			}
			msg := bytes.Clone(e.Flush(uint32(b.clock.Unix())))
			b.add(acct.EntryMessage, first, msg)
			b.checkpoint()
			b.restart()
			b.after(5 * time.Minute)
			b.add(acct.EntryMessage, second, msg)
			b.add(acct.EntryMessage, second, msg)
			b.checkpoint()
			n := uint64(len(c.sets))
			if sum := b.checkpoint(); sum.Accounted != count(n, 10*n, 0) || sum.Duplicate != sum.Received.Minus(sum.Accounted) {
				t.Errorf("received %+v, accounted %+v, duplicate %+v", sum.Received, sum.Accounted, sum.Duplicate)
			}
		})
	}
}

// Sessions over UDP outlive a Collecting Process for as long as they may go on.
// Those of exporters that come from another port each time are then forgotten.
func TestUDPSessionsOutliveTheCollector(t *testing.T) {
	b := mapped(t, testSettings)
	goesOn := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	for port := range 5 {
		b.send(b.open(ipfix.UDP, "meter", fmt.Sprint("198.51.100.2:", 1000+port)), b.flow("192.0.2.1", outside))
	}
	b.send(goesOn, b.flow("192.0.2.1", outside))
	stored := func() (n int) {
		b.checkpoint()
		for k := range b.s.state {
			if k[0] == stateTransport {
				n++
			}
		}
		return n
	}
	if n := stored(); n != 6 {
		t.Errorf("%d sessions", n)
	}
	b.add(acct.EntryClose, 0, nil) // the Collecting Process began anew
	b.checkpoint()
	b.restart()
	b.after(30 * time.Minute)
	goesOn = b.open(ipfix.UDP, "router", "198.51.100.1:999")
	if n := stored(); n != 6 {
		t.Errorf("%d sessions after half an hour", n)
	}
	b.after(31 * time.Minute)
	if n := stored(); n != 1 {
		t.Errorf("%d sessions after an hour", n)
	}
	again := b.flow("192.0.2.1", outside)
	again.fromPort++
	before := b.checkpoint().Accounted.Records
	b.add(acct.EntryMessage, goesOn, b.message(false, again))
	if n := b.checkpoint().Accounted.Records - before; n != 1 {
		t.Errorf("the session that went on accounts %d records", n)
	}
}

// A binding that was dropped for its age stays dropped after a restart.
func TestTrimmedBindings(t *testing.T) {
	settings := testSettings
	settings.Late, settings.DedupWindow = time.Minute, 3*time.Hour
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	old := b.flow("192.0.2.1", outside)
	b.after(time.Second)
	b.users("file")
	b.after(time.Hour)
	b.checkpoint()
	b.users("another", bind("192.0.2.9", "bob")) // and now it is dropped
	b.checkpoint()
	b.restart()
	b.send(s, old)
	if sum := b.checkpoint(); sum.Suspended.Records != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestEarlyBounds(t *testing.T) {
	settings := testSettings
	settings.EarlySets, settings.EarlyWait = 3, time.Hour
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	for i := range 5 {
		b.clock = b.clock.Add(time.Second)
		f := b.flow("192.0.2.1", outside)
		f.fromPort = i
		b.add(acct.EntryMessage, s, b.message(false, f))
	}
	// The bound is that of an exporter: another has its own.
	other := b.open(ipfix.UDP, "other", "198.51.100.2:999")
	early := b.flow("192.0.2.1", outside)
	early.fromPort = 99
	b.add(acct.EntryMessage, other, b.message(false, early))
	b.send(other, b.flow("192.0.2.1", outside))

	b.send(s, b.flow("192.0.2.1", outside))
	if sum := b.checkpoint(); sum.UndecodedMessages != 2 || sum.Accounted.Records != 6 || b.m.Stats().EarlyDropped != 2 {
		t.Errorf("%+v, %+v", sum, b.m.Stats())
	}

	// The bound is free again. What waits too long is given up.
	s = b.open(ipfix.UDP, "router", "198.51.100.1:1000")
	b.add(acct.EntryMessage, s, b.message(false, b.flow("192.0.2.1", outside)))
	b.after(2 * time.Hour)
	if sum := b.checkpoint(); sum.UndecodedMessages != 3 || b.s.needed != b.s.position+1 {
		t.Errorf("undecoded %d, needed from %d at %d", sum.UndecodedMessages, b.s.needed, b.s.position)
	}
}

// Templates of a UDP session hold when the Collecting Process begins anew, as
// the exporter knows nothing of that (RFC 7011, Section 8.4); those of a TCP
// session end with it.
func TestTemplatesSurvive(t *testing.T) {
	for _, c := range []struct {
		transport ipfix.Transport
		accounted uint64
	}{{ipfix.UDP, 2}, {ipfix.TCP, 1}} {
		t.Run(c.transport.String(), func(t *testing.T) {
			b := mapped(t, testSettings)
			s := b.open(c.transport, "router", "198.51.100.1:999")
			b.send(s, b.flow("192.0.2.1", outside))
			b.checkpoint()
			b.restart()
			s = b.open(c.transport, "router", "198.51.100.1:999")
			b.clock = b.clock.Add(time.Second)
			b.add(acct.EntryMessage, s, b.message(false, b.flow("192.0.2.1", outside)))
			if sum := b.checkpoint(); sum.Accounted.Records != c.accounted {
				t.Errorf("accounted %d records, want %d", sum.Accounted.Records, c.accounted)
			}
			if n := len(b.m.transports.open); n != 1 {
				t.Errorf("%d transport sessions are open", n)
			}
		})
	}
}

// Template management that is none of the standard's is told, in the log and in
// numbers, and hurts nothing.
func TestTemplatesMismanaged(t *testing.T) {
	withdrawal := func(b *bridge, all ...*ipfix.Template) []byte {
		for _, tmpl := range all {
			if err := b.enc[1].Withdraw(tmpl); err != nil {
				t.Fatal(err)
			}
		}
		return bytes.Clone(b.enc[1].Flush(uint32(b.clock.Unix())))
	}
	for _, c := range []struct {
		name              string
		transport         ipfix.Transport
		again             bool // the Template is sent again
		withdrawn         *ipfix.Template
		repeated, ignored uint64
		log               string
	}{
		{"the same Template again over TCP: SHOULD log (8.1)", ipfix.TCP, true, nil, 1, 0, "sent again over a reliable transport"},
		{"over SCTP too (8.1)", ipfix.SCTP, true, nil, 1, 0, "sent again over a reliable transport"},
		{"over TLS too (8.1)", ipfix.TLS, true, nil, 1, 0, "sent again over a reliable transport"},
		{"over UDP: SHOULD NOT log (8.4)", ipfix.UDP, true, nil, 0, 0, ""},
		{"the withdrawal of what is not held: MUST ignore, SHOULD log (8.1)", ipfix.TLS, false, plainTemplate, 0, 1, "withdrawal of a template that is not held"},
		{"a withdrawal over UDP: MUST be ignored (8.4)", ipfix.UDP, false, testTemplate, 0, 1, "withdrawal of a template that is not held, or over udp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			b := mapped(t, testSettings)
			b.m.log = slog.New(slog.NewTextHandler(&log, nil))
			s := b.open(c.transport, "router", "198.51.100.1:999")
			b.send(s, b.flow("192.0.2.1", outside))
			if c.withdrawn != nil {
				b.add(acct.EntryMessage, s, withdrawal(b, c.withdrawn))
			}
			b.clock = b.clock.Add(time.Second)
			b.add(acct.EntryMessage, s, b.message(c.again, b.flow("192.0.2.1", outside)))
			if got := b.m.Stats(); got.TemplatesRepeated != c.repeated || got.WithdrawalsIgnored != c.ignored {
				t.Errorf("%d repeated, %d withdrawals ignored", got.TemplatesRepeated, got.WithdrawalsIgnored)
			}
			if text := log.String(); c.log == "" && text != "" || !strings.Contains(text, c.log) || c.log != "" && !strings.Contains(text, "exporter=router domain=1") {
				t.Errorf("log: %q", text)
			}
			if sum := b.checkpoint(); sum.Accounted.Records != 2 || sum.UndecodedMessages != 0 {
				t.Errorf("accounted %+v, %d undecoded", sum.Accounted, sum.UndecodedMessages)
			}
		})
	}
}

// No exporter fills the log, whatever it does in however many Observation
// Domains, nor has others' lines come anew by it.
func TestLinesOfAnExporterAreBounded(t *testing.T) {
	var log bytes.Buffer
	b := mapped(t, testSettings)
	b.m.log = slog.New(slog.NewTextHandler(&log, nil))
	other := b.open(ipfix.TCP, "other", "198.51.100.9:999")
	sessions := []uint64{b.open(ipfix.TCP, "router", "198.51.100.1:999"), b.open(ipfix.TCP, "router", "198.51.100.1:998")}
	noCounter := must(ipfix.NewTemplate(302, field(ipfix.SourceIPv4Address, 4)))
	send := func(session uint64, domain, at uint32) {
		e := ipfix.NewEncoder(domain, 0)
		if err := errors.Join(e.AddTemplate(noCounter), e.AddRecord(noCounter, netip.MustParseAddr("192.0.2.1"))); err != nil {
			t.Fatal(err)
		}
		b.add(acct.EntryMessage, session, bytes.Clone(e.Flush(uint32(b.clock.Unix())+at)))
	}
	send(other, 1, 0)
	for round := range uint32(3) {
		for domain := range uint32(1100) {
			send(sessions[domain%2], domain+1, round)
		}
	}
	send(other, 1, 1)
	if n := bytes.Count(log.Bytes(), []byte("exporter=router")); n > 2*maxLines {
		t.Errorf("%d lines of 3300 messages", n)
	}
	if n := bytes.Count(log.Bytes(), []byte(`msg="records without a counter are rejected" exporter=other`)); n != 1 {
		t.Errorf("%d lines of the other exporter", n)
	}
}

// With a lifetime a Template that is not sent again holds for so long over UDP.
// What comes after waits for the refresh, across our restart too; over TCP
// Templates hold on (RFC 7011, Section 8.4).
func TestTemplateLifetime(t *testing.T) {
	for _, c := range []struct {
		transport ipfix.Transport
		late      uint64 // records accounted at once after the lifetime
	}{{ipfix.UDP, 0}, {ipfix.DTLS, 0}, {ipfix.TCP, 1}} {
		t.Run(c.transport.String(), func(t *testing.T) {
			settings := testSettings
			settings.TemplateLifetime = time.Minute
			b := mapped(t, settings)
			s := b.open(c.transport, "router", "198.51.100.1:999")
			b.send(s, b.flow("192.0.2.1", outside))
			for i, step := range []struct {
				after     time.Duration
				template  bool
				accounted uint64
			}{{time.Minute, false, 2}, {time.Second, false, 2 + c.late}, {time.Second, true, 4}, {time.Minute, false, 5}} {
				b.checkpoint()
				b.restart()
				b.clock = b.clock.Add(step.after)
				b.add(acct.EntryMessage, s, b.message(step.template, b.flow("192.0.2.1", outside)))
				if sum := b.checkpoint(); sum.Accounted.Records != step.accounted {
					t.Errorf("message %d: accounted %d records, want %d", i, sum.Accounted.Records, step.accounted)
				}
			}
		})
	}
}

// What an exporter told of its own elements (RFC 5610) is known after a
// restart of the pipeline.
func TestTypeInformationSurvives(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.sendRecords(s, must(ipfix.NewOptionsTemplate(400, 2,
		field(ipfix.PrivateEnterpriseNumber, 4), field(ipfix.InformationElementId, 2),
		field(ipfix.InformationElementDataType, 1), field(ipfix.InformationElementName, ipfix.VariableLength),
	)), []any{32473, 7, int(ipfix.TypeUnsigned64), "billedOctets"})
	b.checkpoint()
	b.restart()
	if e, ok := b.m.transports.open[s].decoder.Lookup(32473, 7); !ok || e.Name != "billedOctets" || e.Type != ipfix.TypeUnsigned64 {
		t.Errorf("after a restart: %+v", e)
	}
}

// Entries that can't be applied are counted, and the pipeline goes on.
func TestBrokenEntries(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	good := b.message(true, b.flow("192.0.2.1", outside))
	for _, e := range []struct {
		kind    acct.EntryKind
		session uint64
		data    []byte
	}{
		{acct.EntryMessage, 99, good},
		{acct.EntryMessage, s, nil},
		{acct.EntryMessage, s, good[:len(good)-1]},
		{acct.EntryMessage, s, append([]byte{0, 9}, good[2:]...)},
		{acct.EntryOpen, 0, []byte("nonsense")},
		{acct.EntryUsers, 0, []byte("nonsense")},
		{acct.EntryConfig, 0, []byte(`{"interval":-1}`)},
		{acct.EntryKind(77), 0, nil},
	} {
		b.add(e.kind, e.session, e.data)
	}
	b.add(acct.EntryClose, 99, nil) // as of an entry that was not there: nothing to do
	if n := b.m.Stats().Broken; n != 8 {
		t.Errorf("%d broken entries, want 8", n)
	}
	b.add(acct.EntryMessage, s, good)
	if sum := b.checkpoint(); sum.Accounted != count(1, 100, 2) || sum.UndecodedMessages != 4 {
		t.Errorf("accounted %+v, undecoded %d", sum.Accounted, sum.UndecodedMessages)
	}
}

func TestLost(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.send(s, b.flow("192.0.2.1", outside))
	lost := b.message(true, b.flow("192.0.2.1", outside), b.flow("192.0.2.1", outside))
	b.send(s, b.flow("192.0.2.1", outside))
	if sum := b.checkpoint(); sum.Lost != 2 {
		t.Errorf("lost %d, want 2", sum.Lost)
	}
	b.add(acct.EntryMessage, s, lost)
	b.checkpoint()
	for _, l := range b.s.ledger {
		if l.LostFound != 2 {
			t.Errorf("found %d, want 2", l.LostFound)
		}
	}
}

// What the journal lost is counted, and the pipeline goes on.
func TestGap(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.add(acct.EntryMessage, s, b.message(false, b.flow("192.0.2.1", outside)))
	lost := b.j.entries[len(b.j.entries)-1].Position
	b.j.add(acct.EntryTick, b.clock, 0, nil) // never applied
	b.j.lost = lost
	b.send(s, b.flow("192.0.2.1", outside))
	if sum := b.checkpoint(); b.m.Stats().Missing != 1 || sum.UndecodedMessages != 1 || sum.Accounted.Records != 1 {
		t.Errorf("%+v, %+v", b.m.Stats(), sum)
	}
	if err := b.m.Apply(t.Context(), acct.Entry{Position: lost, Kind: acct.EntryTick}); !errors.Is(err, ErrFailed) {
		t.Errorf("going back in the journal: %v", err)
	}
}
