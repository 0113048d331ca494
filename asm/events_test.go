package asm

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// event is of session id of the source "radius".
func (b *bridge) event(kind users.EventKind, id, user string, at time.Time, prefixes ...string) users.Event {
	e := users.Event{Source: "radius", Kind: kind, ID: id, NAS: "nas1", At: at, User: user}
	for _, p := range prefixes {
		e.Prefixes = append(e.Prefixes, bind(p, user).Prefix)
	}
	return e
}

func (b *bridge) put(events ...users.Event) {
	b.t.Helper()
	for _, e := range events {
		e, err := e.Normalize()
		if err != nil {
			b.t.Fatal(err)
		}
		b.add(acct.EntryBinding, 0, e.AppendBinary(nil))
	}
}

// An address pair of one user session is one accounting session, over a
// restart too.
func TestDualStackIsOneSession(t *testing.T) {
	b := newBridge(t, testSettings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	begin := b.event(users.Begin, "nas1/1", "ann", b.clock.Add(-time.Minute), "192.0.2.1", "2001:db8:1::/56")
	begin.Attributes = users.NewAttributes(users.Attribute{Code: 25, Data: "gold"})
	b.put(begin)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.checkpoint()
	b.restart()
	six := b.flow("192.0.2.200", "203.0.113.9")
	b.put(b.event(users.Update, "nas1/1", "", b.clock, "192.0.2.200", "2001:db8:1::/56"))
	b.send(s, six)
	b.after(time.Minute)
	b.put(b.event(users.End, "nas1/1", "", b.clock))
	b.after(time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
		"12:01:00 ann asm.example;7;1/1 INTERIM in 200 out 0",
		"12:01:30 ann asm.example;7;1/2 STOP in 200 out 0",
	)
	last := b.s.records[2]
	if last.Framed != netip.MustParsePrefix("192.0.2.200/32") {
		t.Errorf("framed %v", last.Framed)
	}
	want := []acct.Attribute{
		{Code: 25, Data: []byte("gold")},
		{Code: 123, Data: []byte{0, 56, 0x20, 1, 0x0d, 0xb8, 0, 1, 0}},
	}
	if !slices.EqualFunc(last.Attributes, want, func(a, b acct.Attribute) bool {
		return a.Code == b.Code && string(a.Data) == string(b.Data)
	}) {
		t.Errorf("attributes %v, want %v", last.Attributes, want)
	}
}
