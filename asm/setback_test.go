package asm

import (
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// A host clock that was ahead is put right: billing goes on at once, nothing is
// lost, and no record ends before it starts.
func TestSetBack(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, 24 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			settings := testSettings
			settings.Fallback, settings.Wait = "nobody", 2*time.Minute
			b := mapped(t, settings)
			s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
			b.send(s, b.flow("192.0.2.1", outside))
			mine, nobodys := b.flow("192.0.2.1", outside), b.flow("192.0.2.99", outside)
			mine.fromPort++
			b.clock = b.clock.Add(by) // the exporter's is right
			b.send(s, mine)
			b.send(s, nobodys)
			b.checkpoint()

			b.clock = b.clock.Add(-by).Add(10 * time.Second)
			right := b.clock
			b.order(Command{What: SetClock})
			b.checkpoint()
			b.restart()
			if got := b.m.Stats().Clock; got != right.UnixNano() {
				t.Fatalf("clock is %v, want %v", time.Unix(0, got), right)
			}
			b.send(s, b.flow("192.0.2.1", outside))
			b.after(5 * time.Minute) // an interval ends, and the wait for a user
			b.after(5 * time.Minute)
			sum := b.checkpoint()
			if sum.Accounted != count(4, 400, 8) || !sum.open.IsZero() || !sum.Suspended.IsZero() {
				t.Errorf("accounted %+v, open %+v, suspended %+v", sum.Accounted, sum.open, sum.Suspended)
			}
			var latest time.Time
			for i, r := range b.s.records {
				if r.End.Before(r.Start) || r.SessionTime < 0 {
					t.Errorf("record %d: from %v to %v, session time %v", i, r.Start, r.End, r.SessionTime)
				}
				latest = r.Event
			}
			if latest.After(b.clock) {
				t.Errorf("the latest record is of %v, the clock is %v", latest, b.clock)
			}
		})
	}
}

// What was suspended before the clock was set back twice waits no longer than
// since the first time, so that it holds up nothing that came after.
func TestSetBackTwice(t *testing.T) {
	settings := testSettings
	settings.Fallback, settings.Wait = "nobody", 2*time.Minute
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	at := func(d time.Duration) { b.clock = epoch.Add(d) }
	for i, now := range []time.Duration{10 * time.Second, 90 * time.Second} {
		f := b.flow("192.0.2.99", outside)
		f.fromPort = i
		at(10 * time.Minute)
		b.send(s, f)
		at(now)
		b.order(Command{What: SetClock})
		b.checkpoint()
		b.restart()
		b.clock = b.clock.Add(10 * time.Second)
		f.fromPort += 10
		b.send(s, f)
	}
	at(3 * time.Minute)
	b.add(acct.EntryTick, 0, nil)
	// All of the first era waited for two minutes at least, of the second one flow.
	if sum := b.checkpoint(); sum.Suspended.Records != 2 || sum.Accounted.Records != 2 {
		t.Errorf("suspended %+v, accounted %+v", sum.Suspended, sum.Accounted)
	}
}

// What a list listed no more was forgotten while the clock was ahead, and stays
// forgotten after a restart, though the clock was set back and the store had it.
func TestSetBackKeepsForgotten(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBridge(t, testSettings)
		s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
		ann := bind("192.0.2.1", "ann")
		ann.From = epoch.Add(-time.Minute)
		b.users("file", ann)
		late := b.flow("192.0.2.1", outside)
		b.after(5 * time.Minute)
		b.users("file")
		b.checkpoint()
		b.after(11 * time.Minute)
		b.users("other", bind("192.0.2.2", "bob"))
		b.checkpoint()
		b.clock = epoch.Add(2 * time.Minute)
		b.order(Command{What: SetClock})
		b.users("other")
		b.checkpoint()
		if restart {
			b.restart()
		}
		b.send(s, late)
		if sum := b.checkpoint(); sum.Suspended.Records != 1 || sum.Accounted.Records != 0 {
			t.Errorf("restarted %v: suspended %+v, accounted %+v", restart, sum.Suspended, sum.Accounted)
		}
	}
}

// A clock that is not ahead stays.
func TestSetBackForward(t *testing.T) {
	b := mapped(t, testSettings)
	b.order(Command{What: SetClock})
	b.clock = b.clock.Add(time.Hour)
	b.order(Command{What: SetClock})
	if s := b.m.Stats(); s.Clock != b.clock.UnixNano() || s.SetBack != 0 {
		t.Errorf("clock %v, set back %d times", time.Unix(0, s.Clock), s.SetBack)
	}
	b.checkpoint()
}

// setBack puts the clock of a drawn journal back.
func (x *traffic) setBack() {
	x.clock = x.clock.Add(-time.Duration(len(x.j.entries)%90) * time.Minute)
	x.entry(acct.EntryCommand, 0, must((&Command{What: SetClock, By: "tollbridge", Reason: "a step"}).AppendBinary(nil)))
}
