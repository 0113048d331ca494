package asm

import (
	"fmt"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// Each case is a story of one or two users behind one exporter, and the
// records that it comes to.
func TestSessions(t *testing.T) {
	const out = "203.0.113.9" // nobody's address
	until := func(b users.Binding, at time.Duration) users.Binding {
		b.Until = epoch.Add(at)
		return b
	}
	for _, c := range []struct {
		name     string
		settings func(*Settings)
		story    func(b *bridge, s uint64)
		want     []string
	}{{
		name: "from the user is input, to the user is output (RFC 7155, 4.5)",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.clock = b.clock.Add(10 * time.Second)
			b.send(s, b.flow("192.0.2.1", out), b.flow(out, "192.0.2.1"), b.flow("192.0.2.1", out))
			b.after(time.Minute)
		},
		want: []string{
			"12:00:10 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 100", // the third record equals the first
		},
	}, {
		name: "an interval without usage cuts nothing",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(5 * time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(5 * time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:06:00 ann asm.example;7;1/2 INTERIM in 200 out 0",
		},
	}, {
		name: "a flow between two users is accounted to both",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"), bind("192.0.2.0/24", "bob"))
			b.send(s, b.flow("192.0.2.1", "192.0.2.7"))
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:00 bob asm.example;7;3/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:01:00 bob asm.example;7;3/1 INTERIM in 0 out 100",
		},
	}, {
		name: "STOP waits for linger after the binding's end",
		story: func(b *bridge, s uint64) {
			b.users("file", until(bind("192.0.2.1", "ann"), 90*time.Second))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(80 * time.Second)
			f := b.flow("192.0.2.1", out)
			b.after(20 * time.Second) // 100 s: after the end
			b.send(s, f)
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:02:00 ann asm.example;7;1/2 INTERIM in 200 out 0",
			"12:02:10 ann asm.example;7;1/3 STOP in 200 out 0", // 30 s after the last flow came
		},
	}, {
		name: "flows of an old capture make one session, though its binding is long over",
		story: func(b *bridge, s uint64) {
			b.users("file", until(bind("192.0.2.1", "ann"), -time.Hour))
			f := b.flow("192.0.2.1", out)
			for i := range 3 {
				f.end, f.fromPort = epoch.Add(-2*time.Hour), i
				b.send(s, f)
				b.after(time.Second)
			}
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:32 ann asm.example;7;1/1 STOP in 300 out 0",
		},
	}, {
		name: "what comes after the STOP is an EVENT for each interval, with a Session-Id of its own",
		story: func(b *bridge, s uint64) {
			b.users("file", until(bind("192.0.2.1", "ann"), 10*time.Second))
			f := b.flow("192.0.2.1", out)
			b.send(s, f)
			b.after(50 * time.Second)
			for i := range 3 {
				f.fromPort = i
				b.send(s, f)
				b.after(6 * time.Second)
			}
			b.after(10 * time.Minute)
			b.after(time.Hour)
			if n := len(b.m.sessions.byKey); n != 0 {
				b.t.Errorf("%d sessions are kept for ever", n)
			}
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:40 ann asm.example;7;1/1 STOP in 100 out 0",
			"12:01:00 ann asm.example;7;2/0 EVENT in 200 out 0",
			"12:02:00 ann asm.example;7;3/0 EVENT in 100 out 0",
		},
	}, {
		name: "a binding that is gone from its source ends",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(10 * time.Second)
			b.users("file")
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:40 ann asm.example;7;1/1 STOP in 100 out 0",
		},
	}, {
		name: "a binding that comes back within linger goes on",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.users("file")
			b.after(10 * time.Second)
			b.users("file", bind("192.0.2.1", "ann"))
			b.after(time.Hour)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		},
	}, {
		name: "a binding that comes back after the STOP starts anew under the same Acct-Multi-Session-Id",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.users("file")
			b.after(time.Minute)
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:30 ann asm.example;7;1/1 STOP in 100 out 0",
			"12:01:00 ann asm.example;7;2/0 START in 0 out 0",
			"12:02:00 ann asm.example;7;2/1 INTERIM in 100 out 0",
		},
	}, {
		name:     "a session of the maximum age stops, and the next flow starts another",
		settings: func(s *Settings) { s.MaxSessionAge = 2 * time.Minute },
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.clock = b.clock.Add(30 * time.Second)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(100 * time.Second)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(10 * time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(time.Minute)
		},
		want: []string{
			"12:00:30 ann asm.example;7;1/0 START in 0 out 0",
			"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:02:30 ann asm.example;7;1/2 STOP in 200 out 0",
			"12:12:10 ann asm.example;7;2/0 START in 0 out 0",
			"12:13:00 ann asm.example;7;2/1 INTERIM in 100 out 0",
		},
	}, {
		name:     "what nobody held goes to the fallback user at the end of the interval in which its wait ends",
		settings: func(s *Settings) { s.Fallback, s.Wait = "nobody", 90*time.Second },
		story: func(b *bridge, s uint64) {
			b.send(s, b.flow("192.0.2.1", out))
			b.after(time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.checkpoint()
			b.after(time.Minute)
			b.after(time.Minute)
		},
		want: []string{
			"12:02:00 nobody asm.example;7;1/0 START in 0 out 0",
			"12:02:00 nobody asm.example;7;1/1 INTERIM in 100 out 0",
			"12:03:00 nobody asm.example;7;1/2 INTERIM in 200 out 0",
		},
	}, {
		name: "what waits for a user is accounted when the users change",
		story: func(b *bridge, s uint64) {
			b.send(s, b.flow("192.0.2.1", out))
			b.checkpoint()
			b.after(30 * time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.users("file", until(bind("192.0.2.1", "ann"), time.Minute))
			b.after(time.Minute)
		},
		want: []string{
			"12:30:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:30:30 ann asm.example;7;1/1 STOP in 100 out 0", // the second was not hers any more
		},
	}, {
		name: "new settings take effect at a cut",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(10 * time.Second)
			settings := testSettings
			settings.Interval = 30 * time.Second
			settings.Classes = []classes.Rule{{Name: "web", Ports: []classes.PortRange{{First: 443, Last: 443}}}}
			b.configure(settings)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(30 * time.Second)
			b.configure(settings) // the same: nothing is cut
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:10 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:00:30 ann asm.example;7;1/2 INTERIM in 200 out 0  100/0 web 100/0",
		},
	}, {
		name: "another mode stops all sessions",
		story: func(b *bridge, s uint64) {
			b.users("file", bind("192.0.2.1", "ann"))
			b.send(s, b.flow("192.0.2.1", out))
			b.after(time.Second)
			settings := testSettings
			settings.Mode = ModeAAAClient
			b.configure(settings)
			b.send(s, b.flow("192.0.2.1", out))
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:01 ann asm.example;7;1/1 INTERIM in 100 out 0",
			"12:00:01 ann asm.example;7;1/2 STOP in 100 out 0",
			"12:00:01  asm.example;7;2/0 EVENT in 100 out 0",
		},
	}, {
		name:     "a record of too many classes goes in parts, of which the last is the STOP",
		settings: func(s *Settings) { s.MaxRecord, s.Classes = minRecord, ports(20) },
		story: func(b *bridge, s uint64) {
			b.users("file", until(bind("192.0.2.1", "ann"), 10*time.Second))
			f := b.flow("192.0.2.1", out)
			for i := range 10 {
				f.toPort = i
				b.send(s, f)
			}
			b.after(59 * time.Second)
			for i := range 10 {
				f.fromPort, f.toPort = 1, i
				b.send(s, f)
			}
			b.after(time.Minute)
		},
		want: []string{
			"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
			"12:00:40 ann asm.example;7;1/1 INTERIM in 1000 out 0 0 100/0 1 100/0 2 100/0 3 100/0 4 100/0 5 100/0 6 100/0 7 100/0 part 1 of 2",
			"12:00:40 ann asm.example;7;1/2 STOP in 1000 out 0 8 100/0 9 100/0 part 2 of 2",
			"12:01:00 ann asm.example;7;2/0 EVENT in 800 out 0 0 100/0 1 100/0 2 100/0 3 100/0 4 100/0 5 100/0 6 100/0 7 100/0 part 1 of 2",
			"12:01:00 ann asm.example;7;3/0 EVENT in 200 out 0 8 100/0 9 100/0 part 2 of 2",
		},
	}} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			if c.settings != nil {
				c.settings(&settings)
			}
			b := newBridge(t, settings)
			c.story(b, b.open(ipfix.TCP, "router", "198.51.100.1:999"))
			b.checkpoint()
			wantLines(t, b.s.records, c.want...)
			multi := map[string]string{}
			for _, r := range b.s.records {
				if r.User == "" {
					continue
				}
				if was, ok := multi[r.User]; r.MultiSessionID == "" || ok && was != r.MultiSessionID {
					t.Errorf("%s/%d: Acct-Multi-Session-Id %q, before %q", r.SessionID, r.Number, r.MultiSessionID, was)
				}
				multi[r.User] = r.MultiSessionID
			}
		})
	}
}

// ports returns n classes, each of the port that it is named after.
func ports(n uint16) (rules []classes.Rule) {
	for i := range n {
		rules = append(rules, classes.Rule{Name: fmt.Sprint(i), Ports: []classes.PortRange{{First: i, Last: i}}})
	}
	return rules
}

func TestRecordTimes(t *testing.T) {
	b := newBridge(t, testSettings)
	ann := bind("192.0.2.0/28", "ann")
	ann.Realm, ann.MultiSession = "home.example", "the-chain"
	b.users("file", ann)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.clock = b.clock.Add(10 * time.Second)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.after(5 * time.Minute)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.after(time.Minute)
	b.checkpoint()
	at := func(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }
	for i, want := range []acct.Record{
		{Type: acct.Start, Start: at(10), End: at(10), Event: at(10)},
		{Type: acct.Interim, Start: at(10), End: at(60), Event: at(60), SessionTime: 50 * time.Second},
		{Type: acct.Interim, Start: at(60), End: at(360), Event: at(360), SessionTime: 350 * time.Second},
	} {
		r := b.s.records[i]
		if r.Type != want.Type || !r.Start.Equal(want.Start) || !r.End.Equal(want.End) || !r.Event.Equal(want.Event) || r.SessionTime != want.SessionTime {
			t.Errorf("record %d: %v from %v to %v at %v for %v, want %+v", i, r.Type, r.Start, r.End, r.Event, r.SessionTime, want)
		}
		if r.Realm != "home.example" || r.MultiSessionID != "the-chain" || r.Framed != ann.Prefix {
			t.Errorf("record %d: realm %s, Acct-Multi-Session-Id %s, framed %v", i, r.Realm, r.MultiSessionID, r.Framed)
		}
	}
}

// A Session-Id is unique beyond 2^32 of them (RFC 6733, Section 8.8).
func TestSessionIDCarry(t *testing.T) {
	b := newBridge(t, testSettings)
	b.m.sessions.counter = 1<<32 - 1
	for _, want := range []string{"asm.example;7;4294967295", "asm.example;7;0;1", "asm.example;7;1;1"} {
		if got := b.m.newSessionID(); got != want {
			t.Errorf("Session-Id %s, want %s", got, want)
		}
	}
}
