package asm

import (
	"maps"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// Bindings are intervals: each octet is its user's who held the address at that
// moment, by whatever was told of it, when it was, and over a restart.
func TestMoments(t *testing.T) {
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	heard := func(b *bridge, kind users.EventKind, user string, when time.Time) users.Event {
		e := b.event(kind, "1", user, when, "192.0.2.1")
		e.Since = at(0)
		return e
	}
	for _, c := range []struct {
		name      string
		settings  func(*Settings)
		story     func(b *bridge, send func(when time.Duration))
		want      map[string]uint64 // input octets
		overlaps  uint64
		suspended uint64 // flows
	}{{
		name: "an address is another's from one moment on",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"), b.event(users.End, "1", "", at(9*time.Second)))
			b.put(b.event(users.Begin, "2", "bob", at(10*time.Second), "192.0.2.1"))
			send(8 * time.Second)
			send(10 * time.Second)
		},
		want: map[string]uint64{"ann": 100, "bob": 100},
	}, {
		name: "the newest of two that overlap wins, and it is reported; the other's Stop is lost",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"), b.event(users.Begin, "2", "bob", at(10*time.Second), "192.0.2.1"))
			send(9 * time.Second)
			send(10 * time.Second)
		},
		want: map[string]uint64{"ann": 100, "bob": 100}, overlaps: 1,
	}, {
		name: "a Stop that comes late ends what it says, not what came since",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			b.put(b.event(users.Begin, "2", "bob", at(10*time.Second), "192.0.2.1"))
			b.put(b.event(users.End, "1", "", at(12*time.Second)))
			send(9 * time.Second)
			send(13 * time.Second)
		},
		want: map[string]uint64{"ann": 100, "bob": 100}, overlaps: 1,
	}, {
		name: "where the Stop is lost, the session ends when nothing is heard of it for its timeout",
		story: func(b *bridge, send func(time.Duration)) {
			begin := b.event(users.Begin, "1", "ann", at(0), "192.0.2.1")
			begin.Timeout = 10 * time.Second
			b.put(begin)
			send(9 * time.Second)
			send(10 * time.Second)
		},
		want: map[string]uint64{"ann": 100}, suspended: 1,
	}, {
		name: "where the Stop is lost, Accounting-On of the NAS ends its sessions",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			b.put(users.Event{Source: "radius", Kind: users.EndAll, NAS: "nas2", At: at(5 * time.Second)})
			send(9 * time.Second)
			b.put(users.Event{Source: "radius", Kind: users.EndAll, NAS: "nas1", At: at(10 * time.Second)})
			send(10 * time.Second)
		},
		want: map[string]uint64{"ann": 100}, suspended: 1,
	}, {
		name: "a session that outlives the restart of its NAS held its address all along; its Stop ends it",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			b.put(users.Event{Source: "radius", Kind: users.EndAll, NAS: "nas1", At: at(5 * time.Second)})
			send(7 * time.Second)
			b.put(heard(b, users.Update, "ann", at(8*time.Second)), heard(b, users.End, "ann", at(12*time.Second)))
			send(10 * time.Second)
			send(12 * time.Second)
		},
		want: map[string]uint64{"ann": 200}, suspended: 1,
	}, {
		name: "so it did where its Stop comes first",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			b.put(users.Event{Source: "radius", Kind: users.EndAll, NAS: "nas1", At: at(5 * time.Second)})
			b.put(heard(b, users.End, "ann", at(12*time.Second)), heard(b, users.Update, "ann", at(8*time.Second)))
			send(10 * time.Second)
			send(12 * time.Second)
		},
		want: map[string]uint64{"ann": 100}, suspended: 1,
	}, {
		name: "one whose address the NAS gave to another after its restart has not outlived that, whatever is still heard of it",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			b.put(users.Event{Source: "radius", Kind: users.EndAll, NAS: "nas1", At: at(5 * time.Second)})
			b.put(b.event(users.Begin, "2", "bob", at(6*time.Second), "192.0.2.1"), heard(b, users.Update, "ann", at(8*time.Second)))
			send(7 * time.Second)
			send(9 * time.Second)
		},
		want: map[string]uint64{"bob": 200},
	}, {
		name: "a flow that spans the change is the last holder's",
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"), b.event(users.Begin, "2", "bob", at(9700*time.Millisecond), "192.0.2.1"))
			send(10 * time.Second) // of a second
		},
		want: map[string]uint64{"bob": 100}, overlaps: 1,
	}, {
		name:     "a flow that spans the change is divided by time, to the octet",
		settings: func(s *Settings) { s.Split = SplitProportional },
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"), b.event(users.Begin, "2", "bob", at(9666*time.Millisecond), "192.0.2.1"))
			send(10 * time.Second)
		},
		want: map[string]uint64{"ann": 66, "bob": 34}, overlaps: 1,
	}, {
		name: "a flow that comes before its Start waits for it",
		story: func(b *bridge, send func(time.Duration)) {
			send(10 * time.Second)
			b.after(5 * time.Second)
			b.put(b.event(users.Begin, "1", "ann", at(9*time.Second), "192.0.2.1"))
			b.after(5 * time.Second)
		},
		want: map[string]uint64{"ann": 100},
	}, {
		name:     "a binding that contradicts a record already cut corrects it",
		settings: func(s *Settings) { s.Correct = 10 * time.Minute },
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(0), "192.0.2.1"))
			send(10 * time.Second)
			b.after(time.Minute)
			b.put(b.event(users.Begin, "2", "bob", at(9*time.Second), "192.0.2.1"))
			b.after(time.Minute)
		},
		want: map[string]uint64{"bob": 100}, overlaps: 1,
	}, {
		name:     "clocks that differ by no more than is tolerated",
		settings: func(s *Settings) { s.UserTolerance = 2 * time.Second },
		story: func(b *bridge, send func(time.Duration)) {
			b.put(b.event(users.Begin, "1", "ann", at(5*time.Second), "192.0.2.1"), b.event(users.End, "1", "", at(8*time.Second)))
			send(3 * time.Second)
			send(10 * time.Second)
			send(10*time.Second + time.Millisecond)
		},
		want: map[string]uint64{"ann": 200}, suspended: 1,
	}} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			if c.settings != nil {
				c.settings(&settings)
			}
			b := newBridge(t, settings)
			s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
			b.clock = at(15 * time.Second)
			overlaps := uint64(0)
			c.story(b, func(when time.Duration) {
				f := b.flow("192.0.2.1", outside)
				f.end = at(when)
				b.send(s, f)
				b.checkpoint()
				overlaps += b.m.Stats().Overlaps
				b.restart()
			})
			overlaps += b.m.Stats().Overlaps
			b.after(time.Minute)
			sum := b.checkpoint()
			got := map[string]uint64{}
			for user, u := range b.totals() {
				got[user] = u.InputOctets
			}
			if !maps.Equal(got, c.want) || sum.Suspended.Records != c.suspended || overlaps != c.overlaps {
				t.Errorf("%v, suspended %d, overlaps %d; want %v, %d, %d", got, sum.Suspended.Records, overlaps, c.want, c.suspended, c.overlaps)
			}
			same(t, replay(t, b.j, never), b.s)
		})
	}
}
