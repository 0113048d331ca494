package asm

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// order puts a command into the journal.
func (b *bridge) order(c Command) {
	b.t.Helper()
	c.By, c.Reason = "operator", "a test"
	if err := c.Validate(); err != nil {
		b.t.Fatal(err)
	}
	b.add(acct.EntryCommand, 0, must(c.AppendBinary(nil)))
}

// What was released while it was ahead of the clock counted: its copy, which is
// not any more, is a duplicate.
func TestReleasedAheadComesAgain(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	ahead := b.flow("192.0.2.1", outside)
	ahead.end = b.clock.Add(time.Hour)
	b.send(s, ahead)
	b.order(Command{What: ReleaseFlows, Flows: Selection{For: reasonAhead}})
	b.checkpoint()
	b.restart()
	b.after(time.Hour)
	b.send(s, ahead)
	if sum := b.checkpoint(); sum.Accounted != count(1, 100, 2) || sum.Duplicate != count(1, 100, 2) {
		t.Errorf("accounted %+v, duplicate %+v", sum.Accounted, sum.Duplicate)
	}
}

// A flow that was suspended under another mode can't be sent to an AAA server
// as it is: it stays in suspense, and counts when the mode is its own again.
func TestReleaseUnderAnotherMode(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.send(s, b.flow("192.0.2.1", outside))
	old := b.flow("192.0.2.1", outside)
	old.end = b.clock.Add(-2 * time.Hour)
	b.send(s, old)
	b.checkpoint()
	b.restart()
	other := testSettings
	other.Mode = ModeAAAClient
	for _, c := range []struct {
		settings  Settings
		suspended uint64
	}{{other, 1}, {testSettings, 0}} {
		b.configure(c.settings)
		b.order(Command{What: ReleaseFlows, Flows: Selection{All: true}})
		if sum := b.checkpoint(); sum.Suspended.Records != c.suspended || sum.Accounted.Records != 2-c.suspended {
			t.Errorf("mode %q: suspended %+v, accounted %+v", c.settings.Mode, sum.Suspended, sum.Accounted)
		}
	}
}

// An operator declares flows new that could not be proven to be: each counts
// once, however often it waits in suspense or comes again.
func TestRelease(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	now, old, foreign := b.flow("192.0.2.1", outside), b.flow("192.0.2.1", outside), b.flow("192.0.2.77", outside)
	ahead := b.flow(outside, "192.0.2.1")
	old.end, foreign.end = b.clock.Add(-2*time.Hour), b.clock.Add(-2*time.Hour)
	ahead.end = b.clock.Add(time.Hour)
	b.send(s, now, old, ahead)
	b.send(s, old, now, foreign)
	b.send(s, ahead, foreign)
	sum := b.checkpoint()
	if sum.Accounted != count(1, 100, 2) || sum.Duplicate != count(1, 100, 2) || sum.Suspended != count(6, 600, 12) {
		t.Fatalf("before: accounted %+v, duplicate %+v, suspended %+v", sum.Accounted, sum.Duplicate, sum.Suspended)
	}

	b.order(Command{What: ReleaseFlows, Flows: Selection{For: "below floor", Exporter: "elsewhere"}})
	if sum = b.checkpoint(); sum.Suspended != count(6, 600, 12) {
		t.Errorf("flows of another exporter were released: %+v", sum.Suspended)
	}
	b.order(Command{What: ReleaseFlows, Flows: Selection{For: "below floor", Exporter: "router"}})
	sum = b.checkpoint()
	// Of two copies of each, one was new; that of nobody's address waits for a user.
	if sum.Accounted != count(2, 200, 4) || sum.Duplicate != count(3, 300, 6) || sum.Suspended != count(3, 300, 6) {
		t.Errorf("released: accounted %+v, duplicate %+v, suspended %+v", sum.Accounted, sum.Duplicate, sum.Suspended)
	}
	b.restart()
	b.send(s, old) // once more
	if sum = b.checkpoint(); sum.Duplicate != count(4, 400, 8) {
		t.Errorf("what was released is not known when it comes again: duplicate %+v", sum.Duplicate)
	}

	// What was ahead of the clock comes again when it no longer is, and counts
	// then; the copies in suspense are duplicates.
	b.after(time.Hour)
	b.send(s, ahead)
	b.order(Command{What: ReleaseFlows, Flows: Selection{For: "ahead of clock"}})
	sum = b.checkpoint()
	if sum.Accounted != count(3, 300, 6) || sum.Duplicate != count(6, 600, 12) || sum.Suspended != count(1, 100, 2) {
		t.Errorf("ahead: accounted %+v, duplicate %+v, suspended %+v", sum.Accounted, sum.Duplicate, sum.Suspended)
	}

	b.order(Command{What: RejectFlows, Flows: Selection{All: true}})
	sum = b.checkpoint()
	if sum.Rejected != count(1, 100, 2) || !sum.Suspended.IsZero() || len(b.s.suspended) != 0 {
		t.Errorf("rejected %+v, suspended %+v", sum.Rejected, sum.Suspended)
	}
	if n := len(b.s.decisions); n != 4 {
		t.Fatalf("%d decisions", n)
	}
	want := acct.Decision{
		Position: b.s.position, At: b.clock.UnixNano(), By: "operator", What: "reject", Reason: "a test", On: "all", Count: count(1, 100, 2),
	}
	if got := b.s.decisions[3]; got != want {
		t.Errorf("decision %+v, want %+v", got, want)
	}
}

// A flow that an AAA server is to map keeps its whole record in suspense.
func TestReleaseToAAAServer(t *testing.T) {
	settings := testSettings
	settings.Mode = ModeAAAClient
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	now, old := b.flow("192.0.2.1", outside), b.flow("192.0.2.2", outside)
	old.end = b.clock.Add(-2 * time.Hour)
	b.send(s, now, old)
	b.checkpoint()
	b.restart()
	b.order(Command{What: ReleaseFlows, Flows: Selection{IDs: []uint64{1}}})
	sum := b.checkpoint()
	if sum.Accounted != count(2, 200, 4) || !sum.Suspended.IsZero() || len(b.s.records) != 2 {
		t.Fatalf("accounted %+v, suspended %+v, %d records", sum.Accounted, sum.Suspended, len(b.s.records))
	}
	tmpl, octets, err := b.m.dictionary.ParseFlow(b.s.records[1].Flow)
	if err != nil || len(octets) == 0 || len(tmpl.Fields) != len(testTemplate.Fields) {
		t.Errorf("flow of the released record: %v, %d octets (%v)", tmpl, len(octets), err)
	}
}

// What was released is forgotten after a week.
func TestReleasedExpires(t *testing.T) {
	var r released
	id := dedup.ParseIdentity([]byte("0123456789abcdef"))
	r.begin(5, 1000)
	r.add(id)
	state := map[string][]byte{}
	put := func(_, key string, value []byte) {
		if state[key] = value; value == nil {
			delete(state, key)
		}
	}
	r.put(put)
	var again released
	if err := again.restore("5", state["5"]); err != nil || !again.has(id) {
		t.Fatalf("restored %v (%v)", again.all, err)
	}
	again.expire(int64(keepReleased) + 999)
	if !again.has(id) {
		t.Error("forgotten early")
	}
	again.expire(int64(keepReleased) + 1000)
	again.put(put)
	if again.has(id) || len(state) != 0 || len(again.pieces) != 0 {
		t.Errorf("kept: %v, stored %v", again.all, state)
	}
	if err := again.restore("5", make([]byte, 20)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("restored of 20 octets: %v", err)
	}
}

func TestCommandRefuses(t *testing.T) {
	good := Command{What: RejectFlows, By: "ann", Reason: "why", Flows: Selection{All: true}}
	for _, c := range []struct {
		want  string
		spoil func(*Command)
	}{
		{"by:", func(c *Command) { c.By = "" }},
		{"reason:", func(c *Command) { c.Reason = " " }},
		{`want "release"`, func(c *Command) { c.What = "forget" }},
		{"flows: want IDs", func(c *Command) { c.Flows = Selection{} }},
		{`suspended for "fun"`, func(c *Command) { c.Flows.For = "fun" }},
	} {
		x := good
		c.spoil(&x)
		if err := x.Validate(); !errors.Is(err, ErrCommand) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want it to say %s", x, err, c.want)
		}
	}
	if _, err := ParseCommand([]byte("{")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("half a command: %v", err)
	}
	if got, err := ParseCommand(must(good.AppendBinary(nil))); err != nil || got.What != good.What || got.Flows.All != good.Flows.All {
		t.Errorf("parsed %+v (%v)", got, err)
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte(`{"what":"release","by":"ann","reason":"why","flows":{"ids":[1,2],"exporter":"a","for":"below floor"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCommand(data)
		if err != nil {
			return
		}
		if _, err := ParseCommand(must(c.AppendBinary(nil))); err != nil {
			t.Fatalf("%q parses as %+v, which does not encode: %v", data, c, err)
		}
	})
}
