package asm

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

// interim puts what an answer asked for into the journal.
func (b *bridge) interim(id string, seconds uint32) {
	b.t.Helper()
	b.add(acct.EntryInterim, 0, acct.AppendInterimIntervals(nil, []acct.InterimInterval{{SessionID: id, Seconds: seconds}}))
}

// RFC 6733, Section 9.8.2, in stories of one user with a common interval of a
// minute.
func TestInterimInterval(t *testing.T) {
	const out = "203.0.113.9"
	begin := func(b *bridge) (session uint64) {
		session = b.open(1, "edge", "198.51.100.1:1000")
		b.users("file", bind("192.0.2.1", "ann"))
		b.send(session, b.flow("192.0.2.1", out))
		return session
	}
	for _, c := range []struct {
		name     string
		settings func(*Settings)
		story    func(b *bridge)
		want     []string
	}{{
		name: "the first INTERIM comes when the interval has elapsed from the START, the next when it has once more",
		story: func(b *bridge) {
			s := begin(b)
			b.interim("asm.example;7;1", 150)
			for range 6 {
				b.after(time.Minute)
				b.send(s, b.flow("192.0.2.1", out))
			}
		},
		want: []string{"12:02:30 1/1 INTERIM 300", "12:05:00 1/2 INTERIM 500"},
	}, {
		name:     "a shorter interval than the common one",
		settings: func(s *Settings) { s.MinInterim = 10 * time.Second },
		story: func(b *bridge) {
			begin(b)
			b.interim("asm.example;7;1", 20)
			b.after(time.Minute)
		},
		want: []string{"12:00:20 1/1 INTERIM 100"},
	}, {
		name: "one below the least that is allowed counts as that",
		story: func(b *bridge) {
			s := begin(b)
			b.after(30 * time.Second)
			b.interim("asm.example;7;1", 1)
			b.after(20 * time.Second)
			b.send(s, b.flow("192.0.2.1", out))
			b.after(5 * time.Minute)
		},
		want: []string{"12:01:00 1/1 INTERIM 200"},
	}, {
		name:     "0 asks for none: as seldom as is allowed",
		settings: func(s *Settings) { s.MaxInterim = 4 * time.Minute },
		story: func(b *bridge) {
			begin(b)
			b.interim("asm.example;7;1", acct.NoInterim)
			b.after(10 * time.Minute)
		},
		want: []string{"12:04:00 1/1 INTERIM 100"},
	}, {
		name: "the value received last holds, over a restart too",
		story: func(b *bridge) {
			s := begin(b)
			b.interim("asm.example;7;1", 600)
			b.checkpoint()
			b.restart()
			b.after(3 * time.Minute)
			b.interim("asm.example;7;1", 240)
			b.after(2 * time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.checkpoint()
			b.restart()
			b.after(10 * time.Minute)
		},
		want: []string{"12:04:00 1/1 INTERIM 100", "12:08:00 1/2 INTERIM 200"},
	}, {
		name:     "a session that began anew hears for itself",
		settings: func(s *Settings) { s.MaxSessionAge = 3 * time.Minute },
		story: func(b *bridge) {
			s := begin(b)
			b.interim("asm.example;7;1", 120)
			b.after(4 * time.Minute)
			b.send(s, b.flow("192.0.2.1", out))
			b.interim("asm.example;7;1", 3600) // the answer to its STOP was late
			b.after(time.Minute)
		},
		want: []string{"12:02:00 1/1 INTERIM 100", "12:03:00 1/2 STOP 100", "12:04:00 2/0 START 0", "12:05:00 2/1 INTERIM 100"},
	}, {
		name: "changed settings cut every session",
		story: func(b *bridge) {
			begin(b)
			b.interim("asm.example;7;1", 3600)
			b.after(2 * time.Minute)
			s := b.m.settings
			s.MaxInterim = 5 * time.Minute
			b.configure(s)
		},
		want: []string{"12:02:00 1/1 INTERIM 100"},
	}} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			if c.settings != nil {
				c.settings(&settings)
			}
			b := newBridge(t, settings)
			c.story(b)
			b.checkpoint()
			var got []string
			for _, r := range b.s.records[1:] {
				got = append(got, fmt.Sprintf("%s %s/%d %v %d", r.Event.Format("15:04:05"), r.SessionID[len("asm.example;7;"):], r.Number, r.Type, r.Usage.InputOctets))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("records behind the START:\n%s\nwant:\n%s", join(got), join(c.want))
			}
		})
	}
}

// An interval that can't be read is counted and changes nothing.
func TestInterimIntervalBroken(t *testing.T) {
	b := newBridge(t, testSettings)
	b.add(acct.EntryInterim, 0, []byte{5, 'a'})
	b.interim("nobody's", 60)
	if s := b.m.Stats(); s.Broken != 1 || s.Interims != 0 || s.InterimsIdle != 1 {
		t.Errorf("stats: %d broken, %d intervals obeyed, %d of nobody", s.Broken, s.Interims, s.InterimsIdle)
	}
}

// Whatever answers ask for: no usage of a session waits longer than its
// interval, no two INTERIMs are closer, every octet is in a record, and the
// books balance; and all of it is the same with a restart anywhere.
func TestInterimIntervalsRapid(t *testing.T) {
	addresses := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
	rapid.Check(t, func(t *rapid.T) {
		settings := testSettings
		settings.Interval = time.Duration(rapid.IntRange(20, 90).Draw(t, "interval")) * time.Second
		settings.MinInterim = time.Duration(rapid.IntRange(5, 20).Draw(t, "least")) * time.Second
		settings.MaxInterim = time.Duration(rapid.IntRange(60, 200).Draw(t, "most")) * time.Second
		if rapid.Bool().Draw(t, "aged") {
			settings.MaxSessionAge = 4 * time.Minute
		}
		b, straight := newBridge(t, settings), newBridge(t, settings)
		s := b.open(1, "edge", "198.51.100.1:1000")
		b.users("file", bind(addresses[0], "ann"), bind(addresses[1], "bob"), bind(addresses[2], "cat"))
		sent, asked := 0, map[string]uint32{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				f := b.flow(rapid.SampledFrom(addresses).Draw(t, "from"), "203.0.113.9")
				f.fromPort = 1024 + sent
				sent++
				b.send(s, f)
			case 2:
				for _, x := range b.m.sessions.all() {
					if rapid.Bool().Draw(t, "asks") {
						asked[x.sessionID] = uint32(rapid.SampledFrom([]int{1, 10, 30, 61, 150, acct.NoInterim}).Draw(t, "seconds"))
						b.interim(x.sessionID, asked[x.sessionID])
					}
				}
			case 3:
				b.checkpoint()
			case 4:
				b.restart() // work since the checkpoint is repeated
			default:
				b.after(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
				for _, x := range b.m.sessions.byKey {
					since, most := x.last, settings.Interval
					if n := asked[x.sessionID]; n != 0 {
						since, most = x.cut, min(max(time.Duration(n)*time.Second, settings.MinInterim), settings.MaxInterim)
					}
					if waits := time.Duration(b.m.millis()-since) * time.Millisecond; x.changed && waits >= most {
						t.Fatalf("usage of %s waits for %v, of %v", x.sessionID, waits, most)
					}
				}
			}
		}
		b.after(settings.MaxInterim + settings.Interval)
		b.checkpoint()
		checkSequences(t, b.s.records)
		octets, last := uint64(0), map[string]acct.Record{}
		for _, r := range b.s.records {
			octets += r.Increase.InputOctets
			if before, ok := last[r.SessionID]; ok && r.Type == acct.Interim && r.Interim != 0 {
				least := min(max(time.Duration(r.Interim)*time.Second, settings.MinInterim), settings.MaxInterim)
				if gap := r.Event.Sub(before.Event); gap < least {
					t.Fatalf("%s/%d comes %v after the record before, by an interval of %v", r.SessionID, r.Number, gap, least)
				}
			}
			last[r.SessionID] = r
		}
		if want := uint64(100 * sent); octets != want {
			t.Fatalf("records have %d octets, sent were %d", octets, want)
		}
		for _, e := range b.j.entries[len(straight.j.entries):] {
			straight.clock = time.Unix(0, e.Time)
			straight.add(e.Kind, e.Session, e.Data)
		}
		straight.checkpoint()
		wantLines(t, straight.s.records, lines(b.s.records)...)
	})
}
