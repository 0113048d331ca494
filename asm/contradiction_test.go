package asm

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// correctingSettings are testSettings that remember what was charged.
var correctingSettings = func() Settings {
	s := testSettings
	s.Correct = 10 * time.Minute
	return s
}()

// corrections describes the correcting records in a few words each.
func corrections(records []acct.Record) (out []string) {
	for i, line := range lines(records) {
		if c := records[i].Corrects; c != nil {
			what := "debit"
			if c.Credit {
				what = "credit"
			}
			out = append(out, fmt.Sprintf("%s of %s/%d: %s", what, c.SessionID, c.Number, line))
		}
	}
	return out
}

// Each case is a story of bindings that are told late, and what it corrects.
func TestContradictions(t *testing.T) {
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	for _, c := range []struct {
		name     string
		settings func(*Settings)
		story    func(b *bridge, s uint64)
		want     []string
		totals   map[string]uint64 // input octets
	}{{
		name: "a Start that comes late takes what its address had since from the user before, whose Stop was lost",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(20 * time.Second)
			b.send(s, b.flow("192.0.2.1", outside), b.flow(outside, "192.0.2.1"))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(10*time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;2/0 EVENT in 100 out 100",
			"debit of asm.example;7;1/1: 12:02:00 bob asm.example;7;4/0 EVENT in 100 out 100",
		},
		totals: map[string]uint64{"ann": 100, "bob": 100},
	}, {
		name: "what was accounted is corrected in the interval in which it was cut, too",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Second)
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:01:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:01:00 bob asm.example;7;4/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"bob": 100},
	}, {
		name: "a late Stop takes back what nobody is known to have had; the next Start is charged for it",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Minute)
			b.put(b.event(users.End, "1", "", at(-10*time.Second)))
			b.after(time.Minute)
			b.restart()
			b.put(b.event(users.Begin, "2", "bob", at(-5*time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;2/0: 12:03:00 bob asm.example;7;4/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"bob": 100},
	}, {
		name:     "what nobody had goes to the fallback user",
		settings: func(s *Settings) { s.Fallback = "nobody" },
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Minute)
			b.put(b.event(users.End, "1", "", at(-10*time.Second)))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:02:00 nobody asm.example;7;4/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"nobody": 100},
	}, {
		name: "what was corrected wrongly is corrected again, by the record that was wrong",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(-30*time.Second), "192.0.2.1"))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "3", "eve", at(-20*time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:02:00 bob asm.example;7;4/0 EVENT in 100 out 0",
			"credit of asm.example;7;4/0: 12:03:00 bob asm.example;7;5/0 EVENT in 100 out 0",
			"debit of asm.example;7;4/0: 12:03:00 eve asm.example;7;7/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"eve": 100},
	}, {
		name: "what moved to a session that is over since moves again, though all else is forgotten by then",
		settings: func(s *Settings) {
			s.Interval, s.Late, s.Correct, s.ClockTolerance = 90*time.Second, time.Minute, time.Minute, 5*time.Minute
		},
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			ahead := b.flow("192.0.2.1", outside)
			ahead.end = at(150 * time.Second)
			b.send(s, ahead)
			b.put(b.event(users.Begin, "2", "fay", at(20*time.Second), "192.0.2.1"))
			b.after(95 * time.Second)
			b.put(b.event(users.Begin, "3", "eve", at(30*time.Second), "192.0.2.1"))
			b.after(3 * time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:01:30 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:01:30 fay asm.example;7;4/0 EVENT in 100 out 0",
			"credit of asm.example;7;4/0: 12:03:00 fay asm.example;7;5/0 EVENT in 100 out 0",
			"debit of asm.example;7;4/0: 12:03:00 eve asm.example;7;7/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"eve": 100},
	}, {
		name: "only what one had of several addresses moves, and the late usage of an ended session too",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1", "192.0.2.2"))
			b.put(b.event(users.End, "1", "", at(time.Second)))
			late := b.flow("192.0.2.1", outside)
			b.send(s, b.flow("192.0.2.2", outside))
			b.after(time.Minute)
			b.after(time.Minute)
			b.send(s, late)
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;2/0: 12:04:00 ann asm.example;7;3/0 EVENT in 100 out 0",
			"debit of asm.example;7;2/0: 12:04:00 bob asm.example;7;5/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"ann": 100, "bob": 100},
	}, {
		name: "a class of the binding becomes that of the other's",
		settings: func(s *Settings) {
			s.Classes, s.ClassDefault = []classes.Rule{{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}}}, "rest"
		},
		story: func(b *bridge, s uint64) {
			begin := b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1")
			begin.Class = "gold"
			b.put(begin)
			dns := b.flow("192.0.2.1", outside)
			dns.toPort = 53
			b.send(s, b.flow("192.0.2.1", outside), dns)
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;2/0 EVENT in 200 out 0 gold 100/0 dns 100/0",
			"debit of asm.example;7;1/1: 12:02:00 bob asm.example;7;4/0 EVENT in 200 out 0 rest 100/0 dns 100/0",
		},
		totals: map[string]uint64{"bob": 200},
	}, {
		name: "a line of a list that is told late, of a longer prefix",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.0/24", "office"))
			b.send(s, b.flow("192.0.2.1", outside), b.flow("192.0.2.2", outside))
			b.after(time.Minute)
			late := bind("192.0.2.1", "bob")
			late.From = at(-time.Hour)
			b.users("late", late)
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 office asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:02:00 bob asm.example;7;4/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"office": 100, "bob": 100},
	}, {
		name: "a session that is told again under another ID has the same user: nothing is corrected",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "ann", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		totals: map[string]uint64{"ann": 100},
	}, {
		name:     "what is no longer remembered is not corrected",
		settings: func(s *Settings) { s.Correct = 2 * time.Minute },
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			for range 4 {
				b.after(time.Minute)
				b.send(s, b.flow("192.0.2.1", outside))
			}
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/4: 12:05:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/4: 12:05:00 bob asm.example;7;4/0 EVENT in 100 out 0",
			"credit of asm.example;7;1/5: 12:05:00 ann asm.example;7;5/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/5: 12:05:00 bob asm.example;7;6/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"ann": 300, "bob": 200},
	}, {
		name:     "parts of a divided flow move each",
		settings: func(s *Settings) { s.Split = SplitProportional },
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Hour), "192.0.2.1"))
			b.put(b.event(users.Begin, "2", "bob", at(-500*time.Millisecond), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside)) // of a second
			b.after(time.Minute)
			b.put(b.event(users.Begin, "3", "eve", at(-100*time.Millisecond), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: []string{
			"credit of asm.example;7;3/1: 12:02:00 bob asm.example;7;4/0 EVENT in 50 out 0",
			"debit of asm.example;7;3/1: 12:02:00 eve asm.example;7;6/0 EVENT in 50 out 0",
		},
		totals: map[string]uint64{"ann": 50, "eve": 50},
	}, {
		name: "a correction has only what it moved: what waits for a record of its own is corrected by that",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"), b.event(users.Begin, "2", "bob", at(-time.Minute), "192.0.2.2"))
			b.send(s, b.flow("192.0.2.1", outside), b.flow("192.0.2.2", outside))
			b.after(time.Minute)
			b.interim("asm.example;7;3", 300) // bob's
			b.send(s, b.flow("192.0.2.2", outside))
			b.put(b.event(users.Update, "2", "bob", at(-30*time.Second), "192.0.2.1", "192.0.2.2"))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "4", "eve", at(30*time.Second), "192.0.2.2"))
			b.after(time.Minute)
			b.restart()
			b.after(10 * time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/1: 12:02:00 ann asm.example;7;4/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/1: 12:02:00 bob asm.example;7;5/0 EVENT in 100 out 0",
			"credit of asm.example;7;3/2: 12:06:00 bob asm.example;7;6/0 EVENT in 100 out 0",
			"debit of asm.example;7;3/2: 12:06:00 eve asm.example;7;8/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"bob": 200, "eve": 100},
	}, {
		name: "what nobody used moves nothing",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			idle := b.flow("192.0.2.1", outside)
			idle.octets, idle.packets = 0, 0
			b.send(s, idle)
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
			if b.m.charges.InDoubt() {
				b.t.Errorf("doubts stay")
			}
		},
		totals: map[string]uint64{},
	}, {
		name: "who held an address may be forgotten when the clock is set back: nothing is taken from him",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1", "192.0.2.2"))
			late := b.flow("192.0.2.1", outside)
			b.put(b.event(users.Update, "1", "ann", at(10*time.Second), "192.0.2.2"))
			b.after(5 * time.Minute)
			b.send(s, late)
			b.after(7 * time.Minute)
			b.put(b.event(users.Begin, "2", "dan", at(12*time.Minute), "192.0.2.9"))
			b.clock = at(6 * time.Minute)
			b.order(Command{What: SetClock})
			b.users("file") // of nobody
			b.put(b.event(users.Begin, "3", "bob", at(-2*time.Minute), "192.0.2.1"), b.event(users.End, "3", "", at(-90*time.Second)))
			b.after(time.Minute)
		},
		totals: map[string]uint64{"ann": 100},
	}, {
		name: "what is charged after the clock was set back by a day is corrected, what was before is not",
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1", "192.0.2.2"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.put(b.event(users.Update, "1", "ann", at(10*time.Second), "192.0.2.2"))
			b.after(24 * time.Hour)
			b.put(b.event(users.Begin, "2", "dan", at(24*time.Hour), "192.0.2.9"))
			b.checkpoint()
			b.clock = at(time.Minute)
			b.order(Command{What: SetClock})
			b.checkpoint()
			b.restart()
			b.send(s, b.flow("192.0.2.2", outside))
			b.put(b.event(users.Begin, "3", "bob", at(-time.Minute), "192.0.2.1", "192.0.2.2"), b.event(users.End, "3", "", at(-30*time.Second)))
			b.put(b.event(users.Begin, "4", "bob", at(30*time.Second), "192.0.2.2"))
			b.after(2 * time.Minute)
		},
		want: []string{
			"credit of asm.example;7;1/2: 12:02:00 ann asm.example;7;2/0 EVENT in 100 out 0",
			"debit of asm.example;7;1/2: 12:02:00 bob asm.example;7;4/0 EVENT in 100 out 0",
		},
		totals: map[string]uint64{"ann": 100, "bob": 100},
	}, {
		name: "nothing is remembered unless it is wanted",
		settings: func(s *Settings) {
			s.Correct = 0
		},
		story: func(b *bridge, s uint64) {
			b.put(b.event(users.Begin, "1", "ann", at(-time.Minute), "192.0.2.1"))
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		totals: map[string]uint64{"ann": 100},
	}} {
		t.Run(c.name, func(t *testing.T) {
			settings := correctingSettings
			if c.settings != nil {
				c.settings(&settings)
			}
			b := newBridge(t, settings)
			c.story(b, b.open(ipfix.TCP, "edge", "198.51.100.1:1000"))
			b.checkpoint()
			if got := corrections(b.s.records); !slices.Equal(got, c.want) {
				t.Errorf("corrected:\n%s\nwant:\n%s", join(got), join(c.want))
			}
			got := map[string]uint64{}
			for user, u := range b.totals() {
				got[user] = u.InputOctets
			}
			if !maps.Equal(got, c.totals) {
				t.Errorf("charged %v, want %v\n%s", got, c.totals, join(lines(b.s.records)))
			}
			again := replay(t, b.j, func() (checkpoint, crash, fail bool) { return true, true, false })
			same(t, b.s, again)
		})
	}
}

// A piece that the store lost, or damaged, costs the corrections of its
// segment: accounting goes on, with them or without.
func TestContradictionOfDamagedCharges(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(state map[[2]string][]byte, key [2]string)
	}{
		{"missing", func(state map[[2]string][]byte, key [2]string) { delete(state, key) }},
		{"cut", func(state map[[2]string][]byte, key [2]string) { state[key] = state[key][:1] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, correctingSettings)
			s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
			b.put(b.event(users.Begin, "1", "ann", epoch.Add(-time.Minute), "192.0.2.1"))
			for range 3 { // intervals, each a segment of three pieces
				for range 3 {
					b.after(10 * time.Second)
					b.send(s, b.flow("192.0.2.1", outside))
					b.checkpoint()
				}
				b.after(time.Minute - 30*time.Second)
			}
			b.checkpoint()
			damaged := segmentKeys(b.s, 1)
			if len(damaged) < 3 {
				t.Fatalf("pieces %q", damaged)
			}
			c.damage(b.s.state, [2]string{stateCharge, damaged[1]})
			b.s.state[[2]string{stateCharge, "x/y"}] = []byte("?")
			b.restart()
			if at := b.clock.UnixMilli(); b.m.charges.Covers(at-1) || !b.m.charges.Covers(at) {
				t.Errorf("what was lost did not end by the checkpoint's time, %v", at)
			}
			b.put(b.event(users.Begin, "2", "bob", epoch.Add(-time.Second), "192.0.2.1"))
			b.after(time.Minute)
			b.checkpoint()
			for _, key := range append(damaged, "x/y") {
				if _, ok := b.s.state[[2]string{stateCharge, key}]; ok {
					t.Errorf("the store keeps %s", key)
				}
			}
			b.restart()
			want := map[string]acct.Usage{"ann": {InputOctets: 300, InputPackets: 6}, "bob": {InputOctets: 600, InputPackets: 12}}
			if got := b.totals(); !maps.Equal(got, want) {
				t.Errorf("charged %v, want %v\n%s", got, want, join(lines(b.s.records)))
			}
		})
	}
}

// segmentKeys returns the keys of the pieces that a store has of segment number
// of the charges, in order.
func segmentKeys(s *modelStore, number int) (keys []string) {
	for k := range s.state {
		if k[0] == stateCharge && strings.HasPrefix(k[1], fmt.Sprint(number, "/")) {
			keys = append(keys, k[1])
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return keys
}

// Damaged doubts doubt everything.
func TestContradictionOfDamagedDoubts(t *testing.T) {
	b := newBridge(t, correctingSettings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	b.put(b.event(users.Begin, "1", "ann", epoch.Add(-time.Minute), "192.0.2.1"))
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(time.Minute)
	b.put(b.event(users.Begin, "2", "bob", epoch.Add(-time.Second), "192.0.2.1"))
	b.checkpoint()
	b.s.state[[2]string{stateCharge, "doubts"}] = []byte{9}
	b.restart()
	b.after(time.Minute)
	b.checkpoint()
	want := map[string]acct.Usage{"bob": {InputOctets: 100, InputPackets: 2}}
	if got := b.totals(); !maps.Equal(got, want) {
		t.Errorf("charged %v, want %v\n%s", got, want, join(lines(b.s.records)))
	}
}

// A port block that the NAT told of too late takes the usage of its ports to
// who held its private address.
func TestContradictionOfSharedAddress(t *testing.T) {
	b := newBridge(t, correctingSettings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	b.users("file", bind("10.0.0.1", "ann"), bind("10.0.0.2", "bob"))
	n := &natEvents{b, ipfix.NewEncoder(9, 0)}
	block := func(event int, at time.Time, private string) {
		n.send(s, natTemplate, at, event, netip.MustParseAddr(private), netip.MustParseAddr("192.0.2.1"), 40000, 40999)
	}
	block(16, epoch.Add(-time.Minute), "10.0.0.1")
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(time.Minute)
	b.checkpoint()
	b.restart()
	block(16, epoch.Add(-time.Second), "10.0.0.2")
	b.after(time.Minute)
	b.checkpoint()
	want := map[string]acct.Usage{"bob": {InputOctets: 100, InputPackets: 2}}
	if got := b.totals(); !maps.Equal(got, want) {
		t.Errorf("charged %v, want %v\n%s", got, want, join(lines(b.s.records)))
	}
}

// However late and in whatever order bindings are told, over crashes, what
// users are charged in the end, less credits, is what the bindings said at
// last; the books balance all along.
func TestContradictionsAgainstLastWord(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := newTraffic(rt)
		settings := correctingSettings
		settings.Late, settings.Correct, settings.DedupWindow = 24*time.Hour, 24*time.Hour, 24*time.Hour
		settings.UserTolerance = time.Duration(rapid.IntRange(0, 2).Draw(rt, "tolerance")) * time.Second
		if rapid.Bool().Draw(rt, "classes") {
			settings.Classes = []classes.Rule{{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}}}
		}
		x.settings(settings)
		x.open = append(x.open, x.entry(acct.EntryOpen, 0, must(SessionInfo{Transport: ipfix.TCP, Exporter: "east"}.AppendBinary(nil))))
		x.sided = true
		small := func(name string, most int) int { return rapid.IntRange(0, most).Draw(rt, name) }
		addresses := pool[:3]
		moment := func() time.Time { return x.clock.Add(-time.Duration(small("late", 600)) * time.Second) }
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch small("what", 8) {
			case 0, 1, 2:
				x.message(true)
			case 3, 4, 5:
				e := users.Event{
					Source: rapid.SampledFrom([]string{"radius", "dhcp"}).Draw(rt, "source"), NAS: "nas", ID: fmt.Sprint(small("id", 4)), At: moment(),
					Kind: rapid.SampledFrom([]users.EventKind{users.Begin, users.Begin, users.Update, users.End}).Draw(rt, "kind"),
				}
				if e.Kind != users.End {
					e.User = rapid.SampledFrom([]string{"ann", "bob", "eve"}).Draw(rt, "user")
					e.Timeout = time.Duration(small("timeout", 2)) * 5 * time.Minute
					for _, a := range addresses {
						if small(a, 1) == 0 {
							e.Prefixes = append(e.Prefixes, netip.PrefixFrom(netip.MustParseAddr(a), 32))
						}
					}
				}
				if e, err := e.Normalize(); err == nil {
					x.entry(acct.EntryBinding, 0, e.AppendBinary(nil))
				}
			case 6:
				var list []users.Binding
				for _, a := range []string{"192.0.2.0/30", "192.0.2.1", "192.0.2.2/31"} {
					if small(a, 1) == 0 {
						b := bind(a, rapid.SampledFrom([]string{"ann", "dan"}).Draw(rt, "user"))
						b.From, b.Until = moment(), x.clock.Add(time.Duration(small("until", 2)-1)*5*time.Minute)
						list = append(list, b)
					}
				}
				x.entry(acct.EntryUsers, 0, users.AppendList(nil, "file", list))
			case 7:
				x.wait()
			case 8: // a session whose records are further apart
				id := fmt.Sprintf("asm.example;7;%d", small("session", 5))
				x.entry(acct.EntryInterim, 0, acct.AppendInterimIntervals(nil, []acct.InterimInterval{{SessionID: id, Seconds: uint32(small("interim", 900))}}))
			}
		}
		for range 3 {
			x.clock = x.clock.Add(20 * time.Minute)
			x.entry(acct.EntryTick, 0, nil)
		}
		store := replay(rt, x.j, func() (checkpoint, crash, fail bool) {
			n := small("interrupt", 9)
			return n < 3, n == 3, n == 4
		})
		same(rt, replay(rt, x.j, never), store)
		audit(rt, store)

		m, err := New(t.Context(), Config{Store: store, Journal: x.j})
		if err != nil {
			rt.Fatal(err)
		}
		want := map[string]acct.Usage{}
		for _, f := range x.flows {
			if h := m.users.Lookup(netip.MustParseAddr(f.from), f.end.UnixMilli()); h != nil {
				want[h.User()] = want[h.User()].Plus(acct.Usage{InputOctets: uint64(f.octets), InputPackets: uint64(f.packets)})
			}
			if h := m.users.Lookup(netip.MustParseAddr(f.to), f.end.UnixMilli()); h != nil {
				want[h.User()] = want[h.User()].Plus(acct.Usage{OutputOctets: uint64(f.octets), OutputPackets: uint64(f.packets)})
			}
		}
		if got := charged(store.records); !maps.Equal(got, want) {
			rt.Errorf("charged %v, the bindings say %v\n%s\n%s", got, want, join(lines(store.records)), strings.Join(corrections(store.records), "\n"))
		}
	})
}
