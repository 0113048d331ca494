package asm

import (
	"math/big"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// What the holders of an address get of a flow is its part of the time, and
// sums to the flow, to the octet and packet.
func TestDivideSumsToTheFlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := testSettings
		settings.Split = SplitProportional
		b := newBridge(t, settings)
		s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
		end := b.clock
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			return end.Add(-time.Duration(rapid.IntRange(0, 1400).Draw(t, "before the end")) * time.Millisecond)
		})
		// Each user takes the address over at some moment.
		var begins []time.Time
		for i := range rapid.IntRange(1, 4).Draw(t, "users") {
			at := moment.Draw(t, "begin")
			begins = append(begins, at)
			b.put(b.event(users.Begin, string(rune('1'+i)), string(rune('a'+i)), at, "192.0.2.1"))
		}
		f := b.flow("192.0.2.1", "203.0.113.9") // it begins a second before its end
		f.octets, f.packets = rapid.IntRange(0, 1<<47).Draw(t, "octets"), rapid.IntRange(0, 1<<31).Draw(t, "packets")
		b.send(s, f)
		b.after(time.Minute)
		if got := b.checkpoint(); got.Accounted.Records != 1 || got.Accounted.Octets != uint64(f.octets) || got.Accounted.Packets != uint64(f.packets) {
			t.Fatalf("accounted %+v of %+v", got.Accounted, f)
		}
		usage := map[string]acct.Usage{}
		for _, r := range b.s.records {
			usage[r.User] = r.Usage
		}
		// Millisecond by millisecond: whose is it, or if it is nobody's, whose
		// is the next that is somebody's?
		start := end.Add(-time.Second)
		parts := map[string]int64{}
		waiting := int64(0)
		for ms := range int64(1000) {
			at := start.Add(time.Duration(ms) * time.Millisecond)
			waiting++
			best := -1
			for i, begin := range begins {
				if !begin.After(at) && (best < 0 || begin.After(begins[best])) {
					best = i
				}
			}
			if best >= 0 {
				parts[string(rune('a'+best))] += waiting
				waiting = 0
			}
		}
		for user, ms := range parts {
			exact := new(big.Int).Mul(big.NewInt(int64(f.octets)), big.NewInt(ms))
			want := exact.Div(exact, big.NewInt(1000)).Uint64()
			if got := usage[user].InputOctets; got+1 < want || got > want+1 {
				t.Errorf("%s held the address for %d ms and got %d of %d octets, want about %d", user, ms, got, f.octets, want)
			}
		}
	})
}

func TestUserTolerance(t *testing.T) {
	settings := testSettings
	settings.UserTolerance = 2 * time.Second
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	b.put(b.event(users.Begin, "1", "ann", b.clock, "192.0.2.1"))
	early, tooEarly := b.flow("192.0.2.1", "203.0.113.9"), b.flow("192.0.2.1", "203.0.113.9")
	early.end, early.octets = b.clock.Add(-2*time.Second), 1
	tooEarly.end, tooEarly.octets = b.clock.Add(-2001*time.Millisecond), 10
	b.send(s, early, tooEarly)
	b.after(10 * time.Second)
	b.put(b.event(users.End, "1", "", b.clock), b.event(users.Begin, "2", "bob", b.clock.Add(3*time.Second), "192.0.2.1"))
	late, between := b.flow("192.0.2.1", "203.0.113.9"), b.flow("192.0.2.1", "203.0.113.9")
	late.end, late.octets = b.clock.Add(1500*time.Millisecond), 100        // as near to ann as to bob
	between.end, between.octets = b.clock.Add(1501*time.Millisecond), 1000 // nearer to bob
	b.after(4 * time.Second)
	b.send(s, late, between)
	b.after(time.Minute)
	got := b.checkpoint()
	if got.Suspended.Octets != 10 {
		t.Errorf("suspended %+v", got.Suspended)
	}
	usage := map[string]uint64{}
	for _, r := range b.s.records {
		usage[r.User] = r.Usage.InputOctets
	}
	if usage["ann"] != 101 || usage["bob"] != 1000 {
		t.Errorf("usage %v", usage)
	}
}

// A part of a flow that was divided is of who held the address, whatever a NAT
// tells of its port at that time, sooner or later.
func TestDividedBesideNAT(t *testing.T) {
	settings := testSettings
	settings.Split, settings.Correct = SplitProportional, settings.Late
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "cgn", "198.51.100.1:1000")
	nat := &natEvents{b, ipfix.NewEncoder(7, 0)}
	private, public := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.1")
	event := func(at time.Time, kind, first int) {
		nat.send(s, natTemplate, at, kind, private, public, first, first+511)
	}
	end := b.clock
	b.put(b.event(users.Begin, "1", "cid", end.Add(-time.Minute), "192.0.2.1"))
	b.put(b.event(users.Begin, "2", "ann", end.Add(-500*time.Millisecond), "192.0.2.1"))
	event(end.Add(-time.Minute), 16, 4096) // of other ports
	f := b.flow("192.0.2.1", "203.0.113.9")
	f.fromPort = 1200
	b.send(s, f)
	b.after(2 * time.Minute)
	event(end.Add(-10*time.Second), 16, 1024) // comes late
	event(end.Add(-400*time.Millisecond), 17, 1024)
	b.after(2 * time.Minute)
	b.checkpoint()
	if got := b.totals(); got["cid"].InputOctets != 50 || got["ann"].InputOctets != 50 {
		t.Errorf("accounted %v", got)
	}
}
