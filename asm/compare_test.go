package asm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// weak is a hash of 16 bits.
func weak(id dedup.Identity) dedup.Identity { return id.Weak(16) }

// With a hash of 16 bits hundreds of ten thousand records look like others. All
// are told apart by comparing them with the journal, and the true duplicates
// are still found: through another Transport Session with other Template IDs,
// and after restarts.
func TestCollisions(t *testing.T) {
	settings := testSettings
	settings.CompareOctets = 64 << 20
	b := newBridge(t, settings)
	b.j.weaken = weak
	b.restart()
	b.users("file", bind("192.0.2.1", "ann"))
	one := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	two := b.open(ipfix.TCP, "router", "198.51.100.1:1000")
	const messages, each = 400, 25
	var sent [][]byte
	flows := make([]testFlow, each)
	for i := range messages {
		for j := range flows {
			flows[j] = b.flow("192.0.2.1", outside)
			flows[j].fromPort, flows[j].toPort = i, j
		}
		msg := b.message(i == 0, flows...)
		sent = append(sent, msg)
		b.add(acct.EntryMessage, one, msg)
	}
	first := b.m.Stats()
	if first.Collisions < 100 {
		t.Fatalf("%d collisions: the hash is not weak", first.Collisions)
	}
	sum := b.checkpoint()
	const n = messages * each
	if sum.Received != count(n, 100*n, 2*n) || sum.Accounted != sum.Received {
		t.Fatalf("received %+v, accounted %+v: want all of them", sum.Received, sum.Accounted)
	}
	b.restart()
	for _, msg := range sent {
		b.add(acct.EntryMessage, two, msg)
	}
	sum = b.checkpoint()
	if sum.Accounted != count(n, 100*n, 2*n) || sum.Duplicate != sum.Accounted {
		t.Errorf("accounted %+v, duplicate %+v: want each once", sum.Accounted, sum.Duplicate)
	}
	if s := b.m.Stats(); s.Uncompared != 0 || s.Compared != n {
		t.Errorf("%d compared, %d not; want %d", s.Compared, s.Uncompared, n)
	}
}

// What the journal no longer has can't be compared: the identity counts.
func TestUncompared(t *testing.T) {
	settings := testSettings
	settings.CompareOctets = 6400
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	old := b.message(true, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, s, old)
	kept := b.s.needed
	b.checkpoint()
	if b.s.needed > 4 {
		t.Errorf("needed from %d on, though there is room", b.s.needed)
	}
	for i := range 200 {
		f := b.flow("192.0.2.1", outside)
		f.fromPort = i
		b.send(s, f)
	}
	b.checkpoint()
	if b.s.needed <= kept || b.s.position-b.s.needed < 20 || b.s.position-b.s.needed > 120 {
		t.Errorf("at %d needed from %d on", b.s.position, b.s.needed)
	}
	b.restart()
	b.add(acct.EntryMessage, s, old)
	sum := b.checkpoint()
	if sum.Duplicate.Records < 1 || b.m.Stats().Uncompared != 1 {
		t.Errorf("duplicates %+v, %d not compared", sum.Duplicate, b.m.Stats().Uncompared)
	}
}

// The journal is kept as long as the window remembers what it brought, and no
// longer: each duplicate in the window is compared, whenever it comes.
func TestTheJournalIsKeptForTheWindow(t *testing.T) {
	settings := testSettings
	settings.CompareOctets, settings.DedupWindow = 64<<20, 10*time.Minute
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	var sent [][]byte
	for i := range 60 {
		f := b.flow("192.0.2.1", outside)
		f.fromPort = i
		sent = append(sent, b.message(i == 0, f))
		b.add(acct.EntryMessage, s, sent[i])
		if i%10 == 9 {
			b.checkpoint()
			b.restart()
		}
		b.after(time.Minute)
	}
	b.checkpoint()
	// Each minute brings a Message and a tick.
	if kept := b.s.position - b.s.needed; kept < 20 || kept > 26 {
		t.Errorf("%d entries are kept; want those of ten minutes and little more", kept)
	}
	for _, msg := range sent[51:] {
		b.add(acct.EntryMessage, s, msg)
	}
	sum := b.checkpoint()
	if st := b.m.Stats(); sum.Duplicate.Records != 9 || st.Compared != 9 || st.Uncompared != 0 {
		t.Errorf("%d duplicates, %d compared and %d not; want 9 compared", sum.Duplicate.Records, st.Compared, st.Uncompared)
	}
}

// A clock that is put forward by a day makes no exporter one that was silent
// for a day: what the window remembers is still compared.
func TestTheJournalIsKeptWhenTheClockLeaps(t *testing.T) {
	settings := testSettings
	settings.CompareOctets = 64 << 20
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	msg := b.message(true, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, s, msg)
	b.after(24 * time.Hour)
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, msg)
	sum := b.checkpoint()
	if st := b.m.Stats(); sum.Duplicate.Records != 1 || st.Compared != 1 || st.Uncompared != 0 {
		t.Errorf("duplicates %+v, %d compared and %d not; want 1 compared", sum.Duplicate, st.Compared, st.Uncompared)
	}
}

// Whatever happens to the pipeline, the same journal gives the same records,
// though identities collide.
func TestCrashesWithCollisions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := anything(rt)
		x.j.weaken = func(id dedup.Identity) dedup.Identity { return id.Weak(4) }
		straight := replay(rt, x.j, never)
		broken := replay(rt, x.j, func() (checkpoint, crash, fail bool) {
			n := rapid.IntRange(0, 9).Draw(rt, "interrupt")
			return n < 3, n == 3, n == 4
		})
		same(rt, straight, broken)
	})
}
