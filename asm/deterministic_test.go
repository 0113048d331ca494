package asm

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/totals"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A traffic is a random journal and what it should come to.
type traffic struct {
	*bridge // its Module is not used
	rt      *rapid.T
	open    []uint64        // Transport Sessions
	udp     map[uint64]bool // those over UDP
	sent    [][]byte        // Messages
	flows   []testFlow      // all different flows that can be decoded
	bound   map[string]bool // addresses that users hold, once for ever
	sided   bool            // flows have one side that may be a user's
}

var pool = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "203.0.113.1", "203.0.113.2"}

func newTraffic(rt *rapid.T) *traffic {
	return &traffic{
		bridge: &bridge{t: rt, j: &modelJournal{}, clock: epoch, enc: map[uint32]*ipfix.Encoder{}},
		rt:     rt, udp: map[uint64]bool{}, bound: map[string]bool{},
	}
}

func (x *traffic) entry(kind acct.EntryKind, session uint64, data []byte) uint64 {
	return x.j.add(kind, x.clock, session, data).Position
}

func (x *traffic) settings(s Settings) {
	x.entry(acct.EntryConfig, 0, must(s.AppendBinary(nil)))
}

func (x *traffic) connect() {
	transport := rapid.SampledFrom([]ipfix.Transport{ipfix.UDP, ipfix.TCP}).Draw(x.rt, "transport")
	exporter := rapid.SampledFrom([]string{"east", "west"}).Draw(x.rt, "exporter")
	info := SessionInfo{Transport: transport, Exporter: exporter}
	n := x.entry(acct.EntryOpen, 0, must(info.AppendBinary(nil)))
	x.open = append(x.open, n)
	x.udp[n] = transport == ipfix.UDP
}

// message sends new flows, at times without their Template.
func (x *traffic) message(template bool) {
	var flows []testFlow
	for range rapid.IntRange(1, 4).Draw(x.rt, "flows") {
		addr := rapid.SampledFrom(pool)
		from, to := addr.Draw(x.rt, "from"), addr.Draw(x.rt, "to")
		if inside := slices.Contains(pool[:4], from); x.sided && inside == slices.Contains(pool[:4], to) {
			to = pool[4]
			if !inside {
				to = pool[0]
			}
		}
		flows = append(flows, testFlow{
			from: from, to: to,
			fromPort: len(x.flows) + len(flows) + 1, // makes it different from all others
			toPort:   rapid.SampledFrom([]int{53, 443}).Draw(x.rt, "port"), protocol: 17,
			end:    x.clock.Add(-time.Duration(rapid.IntRange(0, 90).Draw(x.rt, "age")) * time.Second),
			octets: rapid.IntRange(0, 1<<30).Draw(x.rt, "octets"), packets: rapid.IntRange(1, 1000).Draw(x.rt, "packets"),
		})
	}
	msg := x.bridge.message(template, flows...)
	x.flows = append(x.flows, flows...)
	x.sent = append(x.sent, msg)
	x.entry(acct.EntryMessage, rapid.SampledFrom(x.open).Draw(x.rt, "session"), msg)
}

// special sends what only some exporters do: totals, options that tell of
// sampling or of up time, sampled records, and such that name their user. At
// times it is lost on the way.
func (x *traffic) special() {
	small := func(name string, most int) int { return rapid.IntRange(0, most).Draw(x.rt, name) }
	who, end := netip.MustParseAddr(rapid.SampledFrom(pool).Draw(x.rt, "who")), x.clock.Add(-time.Duration(small("age", 90))*time.Second)
	var msg []byte
	switch small("special", 6) {
	case 0:
		msg = x.encodeRecords(totalsTemplate, []any{end, who, small("port", 3), small("total", 1<<20) << 12 & (1<<32 - 1), small("packets", 100)})
	case 1:
		msg = x.encodeRecords(startedTemplate, []any{epoch.Add(time.Duration(small("start", 3)) * time.Second), end, who, small("total", 1000), small("reason", 4)})
	case 2:
		msg = x.encodeRecords(rateTemplate, []any{1, small("sampler", 3), small("rate", 4)})
	case 3:
		msg = x.encodeRecords(initTemplate, []any{1, epoch.Add(-time.Duration(small("init", 2)) * time.Hour)})
	case 4:
		msg = x.encodeRecords(sampledTemplate, []any{end, who, len(x.j.entries), small("octets", 1000), 3, 7, 8, 0, small("sampler", 3)})
	case 5:
		msg = x.encodeRecords(upTimeTemplate, []any{small("up", 2) * 3600_000, who, small("octets", 1000)})
	case 6:
		msg = x.encodeRecords(namedTemplate, []any{end, who, netip.MustParseAddr(outside), len(x.j.entries), 100,
			rapid.SampledFrom([]string{"ann", "bob", "eve", ""}).Draw(x.rt, "name"), small("direction", 1)})
	}
	if small("lost", 4) > 0 {
		x.sent = append(x.sent, msg)
		x.entry(acct.EntryMessage, rapid.SampledFrom(x.open).Draw(x.rt, "session"), msg)
	} else if small("late", 1) > 0 {
		x.sent = append(x.sent, msg)
	}
}

var (
	startedTemplate = must(ipfix.NewTemplate(340, field(ipfix.FlowStartMilliseconds, 8), field(ipfix.FlowEndMilliseconds, 8),
		field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetTotalCount, 8), field(ipfix.FlowEndReason, 1)))
	rateTemplate   = must(ipfix.NewOptionsTemplate(341, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplerId, 1), field(ipfix.SamplerRandomInterval, 4)))
	initTemplate   = must(ipfix.NewOptionsTemplate(342, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SystemInitTimeMilliseconds, 8)))
	upTimeTemplate = must(ipfix.NewTemplate(343, field(ipfix.FlowEndSysUpTime, 4), field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 8)))
)

// outside sends a flow whose end is outside of the window.
func (x *traffic) outside() {
	f := x.flow(rapid.SampledFrom(pool).Draw(x.rt, "from"), outside)
	f.end = x.clock.Add(time.Duration(rapid.SampledFrom([]int{-3, -2, 1}).Draw(x.rt, "hours")) * time.Hour)
	msg := x.bridge.message(true, f)
	x.sent = append(x.sent, msg)
	x.entry(acct.EntryMessage, rapid.SampledFrom(x.open).Draw(x.rt, "session"), msg)
}

// decide orders something about what is in suspense.
func (x *traffic) decide() {
	c := Command{What: rapid.SampledFrom([]string{ReleaseFlows, ReleaseFlows, RejectFlows}).Draw(x.rt, "order"), By: "ann", Reason: "why"}
	c.Flows.For = rapid.SampledFrom(append(Reasons(), "")).Draw(x.rt, "for")
	c.Flows.Exporter = rapid.SampledFrom([]string{"", "", "west"}).Draw(x.rt, "whose")
	c.Flows.IDs = rapid.SliceOfN(rapid.Uint64Range(1, 9), 0, 3).Draw(x.rt, "ids")
	if rapid.IntRange(0, 4).Draw(x.rt, "clock") == 0 {
		x.setBack()
		return
	}
	c.Flows.All = true
	if rapid.IntRange(0, 3).Draw(x.rt, "adjust") == 0 {
		c.What = AdjustUsage
		c.Adjust = []Adjustment{{SessionID: "a;1;2", Credit: true, User: "ann", Usage: acct.Usage{InputOctets: uint64(len(x.j.entries) + 1)}}}
	}
	x.entry(acct.EntryCommand, 0, must(c.AppendBinary(nil)))
}

func (x *traffic) resend() {
	if len(x.sent) > 0 {
		x.entry(acct.EntryMessage, rapid.SampledFrom(x.open).Draw(x.rt, "session"), rapid.SampledFrom(x.sent).Draw(x.rt, "again"))
	}
}

func (x *traffic) wait() {
	x.clock = x.clock.Add(time.Duration(rapid.IntRange(1, 100).Draw(x.rt, "seconds")) * time.Second)
	if rapid.Bool().Draw(x.rt, "tick") {
		x.entry(acct.EntryTick, 0, nil)
	}
}

// bind adds bindings for good.
func (x *traffic) bind() {
	x.bound[rapid.SampledFrom(pool[:4]).Draw(x.rt, "bind")] = true
	var list []users.Binding
	for _, a := range slices.Sorted(maps.Keys(x.bound)) {
		list = append(list, bind(a, "user "+a))
	}
	x.entry(acct.EntryUsers, 0, users.AppendList(nil, "file", list))
}

// rebind replaces the bindings of another source, as they come.
func (x *traffic) rebind() {
	var list []users.Binding
	for _, a := range pool {
		if rapid.Bool().Draw(x.rt, a) {
			u := bind(a, rapid.SampledFrom([]string{"ann", "bob"}).Draw(x.rt, "user"))
			if rapid.Bool().Draw(x.rt, "timed") {
				u.Until = x.clock.Add(time.Minute)
			}
			list = append(list, u)
		}
	}
	x.entry(acct.EntryUsers, 0, users.AppendList(nil, "other", list))
}

// replay runs a journal with checkpoints and crashes as interrupt wants them
// and returns the store, after a checkpoint at the end.
func replay(t tb, j *modelJournal, interrupt func() (checkpoint, crash, fail bool)) *modelStore {
	own := &modelJournal{entries: j.entries, weaken: j.weaken}
	b := &bridge{t: t, j: own, s: newModelStore()}
	start := func() {
		m, err := New(t.Context(), Config{Store: b.s, Journal: own, Weaken: own.weaken})
		if err != nil {
			t.Fatal(err)
		}
		b.m = m
	}
	start()
	for crashes := 0; b.m.position < uint64(len(j.entries)); {
		if err := b.m.Apply(t.Context(), j.entries[b.m.position]); err != nil {
			t.Fatal(err)
		}
		checkpoint, crash, fail := interrupt()
		switch {
		case fail && crashes < 50:
			b.s.fail = errDisk
			if err := b.m.Checkpoint(t.Context()); err == nil {
				t.Fatal("a failed commit is no error")
			}
			if err := b.m.Apply(t.Context(), j.entries[0]); err == nil {
				t.Fatal("a failed Module goes on")
			}
			crashes++
			start()
		case checkpoint:
			b.checkpoint()
		case crash && crashes < 50:
			crashes++
			start()
		}
	}
	b.checkpoint()
	return b.s
}

// same fails if two stores differ in anything but the pieces that identities
// are stored in.
func same(t tb, a, b *modelStore) {
	t.Helper()
	if !reflect.DeepEqual(a.records, b.records) {
		t.Errorf("records differ:\n%s\nand\n%s", join(lines(a.records)), join(lines(b.records)))
	}
	if !reflect.DeepEqual(a.ledger, b.ledger) {
		t.Errorf("ledgers differ:\n%+v\nand\n%+v", a.ledger, b.ledger)
	}
	if !reflect.DeepEqual(a.suspended, b.suspended) {
		t.Errorf("suspended differ:\n%+v\nand\n%+v", a.suspended, b.suspended)
	}
	if !reflect.DeepEqual(a.sessions, b.sessions) {
		t.Errorf("sessions differ:\n%+v\nand\n%+v", a.sessions, b.sessions)
	}
	for _, s := range []*modelStore{a, b} {
		joinTotals(t, s)
		joinCharges(t, s)
		maps.DeleteFunc(s.state, func(k [2]string, _ []byte) bool { return k[0] == stateMessages })
	}
	if !reflect.DeepEqual(a.state, b.state) {
		for k := range a.state {
			if string(a.state[k]) != string(b.state[k]) {
				t.Errorf("state %v differs: %q and %q", k, a.state[k], b.state[k])
			}
		}
		t.Errorf("state: %d and %d values", len(a.state), len(b.state))
	}
	if a.position != b.position || a.needed != b.needed || a.time != b.time {
		t.Errorf("positions differ: %d %d %d and %d %d %d", a.position, a.needed, a.time, b.position, b.needed, b.time)
	}
}

// joinTotals puts one piece in the place of all that the totals of an exporter
// are stored in.
func joinTotals(t tb, s *modelStore) {
	t.Helper()
	var state []acct.State
	for k, v := range s.state {
		state = append(state, acct.State{Kind: k[0], Key: k[1], Value: v})
	}
	all := make(totals.Exporters)
	if err := all.Restore(ofKind(state, stateTotals)); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(s.state, func(k [2]string, _ []byte) bool { return k[0] == stateTotals })
	for exporter, table := range all {
		s.state[[2]string{stateTotals, exporter}] = must(table.AppendBinary(nil))
	}
}

// joinCharges puts one piece in the place of all that a segment of charges is
// stored in.
func joinCharges(t tb, s *modelStore) {
	t.Helper()
	pieces := make(map[string][]int) // where they begin, by segment
	for k := range s.state {
		if number, at, ok := strings.Cut(k[1], "/"); ok && k[0] == stateCharge {
			pieces[number] = append(pieces[number], must(strconv.Atoi(at)))
		}
	}
	for number, begins := range pieces {
		slices.Sort(begins)
		var whole []byte
		for _, at := range begins {
			if at != len(whole) {
				t.Fatalf("segment %s has a piece at %d after %d octets", number, at, len(whole))
			}
			key := [2]string{stateCharge, fmt.Sprintf("%s/%d", number, at)}
			whole = append(whole, s.state[key]...)
			delete(s.state, key)
		}
		s.state[[2]string{stateCharge, number}] = whole
	}
}

func never() (checkpoint, crash, fail bool) { return false, false, false }

// anything draws a journal of whatever may happen.
func anything(rt *rapid.T) *traffic {
	variants := []Settings{testSettings, testSettings, testSettings, testSettings, testSettings}
	variants[1].Interval = 30 * time.Second
	variants[1].Classes = []classes.Rule{{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}}}
	variants[1].MaxSessionAge = 5 * time.Minute
	variants[2].Fallback, variants[2].Wait = "nobody", 2*time.Minute
	variants[2].DedupWindow = 10 * time.Minute
	variants[3].Mode = ModeAAAClient
	variants[3].EarlySets = 2
	variants[1].InBand, variants[1].InBandIdle, variants[1].MaxInBand = []string{"userName"}, time.Minute, 2
	variants[2].MaxTotals = 2
	variants[0].CompareOctets, variants[1].CompareOctets, variants[4].CompareOctets = 1<<20, 2048, 1<<20
	variants[4] = namingSettings
	variants[0].Correct, variants[2].Correct, variants[2].CorrectOctets = 5*time.Minute, 2*time.Minute, minCorrectOctets
	variants[4].Exporters = []ExporterSettings{{Name: "west", Sampling: 100}}
	x := newTraffic(rt)
	x.settings(testSettings)
	x.connect()
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		switch rapid.IntRange(0, 19).Draw(rt, "what") {
		case 0, 1, 2, 3:
			x.message(rapid.IntRange(0, 2).Draw(rt, "template") > 0)
		case 12, 13, 14, 15:
			x.special()
		case 4:
			x.resend()
		case 16, 17:
			x.request()
		case 5, 6, 7:
			x.wait()
		case 8:
			x.rebind()
		case 9:
			x.connect()
		case 10:
			x.settings(rapid.SampledFrom(variants).Draw(rt, "settings"))
		case 11:
			x.entry(acct.EntryClose, rapid.SampledFrom(append(x.open, 0)).Draw(rt, "close"), nil)
		case 18:
			x.outside()
		case 19:
			x.decide()
		}
	}
	return x
}

// The same journal gives the same records, to Session-Id and number, however
// often the pipeline stopped, and the books balance after every checkpoint.
func TestCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := anything(rt)
		straight := replay(rt, x.j, never)
		broken := replay(rt, x.j, func() (checkpoint, crash, fail bool) {
			n := rapid.IntRange(0, 9).Draw(rt, "interrupt")
			return n < 3, n == 3, n == 4
		})
		same(rt, straight, broken)
	})
}

// What users are accounted is what was sent, once, whatever was repeated,
// came late or before its Template, and however long the users were unknown.
func TestTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := newTraffic(rt)
		x.sided = true // else what one of two users is known for is accounted to that one alone
		settings := testSettings
		settings.Classes = []classes.Rule{{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}}, {Name: "rest"}}
		settings.DedupWindow, settings.EarlyWait = 3*time.Hour, 3*time.Hour
		x.settings(settings)
		x.open = append(x.open, x.entry(acct.EntryOpen, 0, must(SessionInfo{Transport: ipfix.UDP, Exporter: "east"}.AppendBinary(nil))))
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 8).Draw(rt, "what") {
			case 0, 1, 2, 3:
				x.message(rapid.Bool().Draw(rt, "template"))
			case 4, 5:
				x.resend()
			case 6, 7:
				x.wait()
			case 8:
				x.bind()
			}
		}
		x.message(true) // the Template, at last
		x.bind()        // what waits for these users is mapped
		x.clock = x.clock.Add(time.Minute)
		x.entry(acct.EntryTick, 0, nil)

		want := map[string]acct.Usage{}
		for _, f := range x.flows {
			if x.bound[f.from] {
				u := "user " + f.from
				want[u] = want[u].Plus(acct.Usage{InputOctets: uint64(f.octets), InputPackets: uint64(f.packets)})
			}
			if x.bound[f.to] {
				u := "user " + f.to
				want[u] = want[u].Plus(acct.Usage{OutputOctets: uint64(f.octets), OutputPackets: uint64(f.packets)})
			}
		}
		store := replay(rt, x.j, func() (checkpoint, crash, fail bool) {
			n := rapid.IntRange(0, 9).Draw(rt, "interrupt")
			return n < 3, n == 3, n == 4
		})
		got := map[string]acct.Usage{}
		for _, r := range store.records {
			if r.Type != acct.Start {
				got[r.User] = r.Usage // cumulative, of one session
			}
		}
		if !maps.Equal(got, want) {
			rt.Errorf("accounted %v, sent %v", got, want)
		}
		if sum := audit(rt, store); sum.UndecodedMessages != 0 || sum.UndecodedOctets != 0 {
			rt.Errorf("undecoded: %d messages, %d octets", sum.UndecodedMessages, sum.UndecodedOctets)
		}
	})
}
