package asm

import (
	"testing"
	"time"

	"tollbridge/ipfix"
)

func TestSession(t *testing.T) {
	b := newBridge(t, testSettings)
	b.users("file", bind("192.0.2.1", "ann"), bind("192.0.2.0/24", "bob"))
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")

	b.clock = b.clock.Add(10 * time.Second)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"), b.flow("203.0.113.9", "192.0.2.1"))
	b.after(time.Second)
	b.send(s, b.flow("192.0.2.7", "203.0.113.9"))
	sum := b.checkpoint()
	if sum.open.Octets != 300 || sum.cut.Octets != 0 {
		t.Errorf("open %+v, cut %+v", sum.open, sum.cut)
	}
	b.after(time.Minute)
	b.after(time.Minute)                        // nothing changed: nothing is cut
	b.send(s, b.flow("192.0.2.1", "192.0.2.7")) // both are users
	b.after(2 * time.Minute)
	b.users("file", bind("192.0.2.0/24", "bob")) // ann's binding is gone
	b.after(30 * time.Second)
	b.checkpoint()
	b.restart()
	b.after(time.Hour)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:00:10 ann asm.example;7;1/0 START in 0 out 0",
		"12:00:11 bob asm.example;7;3/0 START in 0 out 0",
		"12:01:00 ann asm.example;7;1/1 INTERIM in 100 out 100",
		"12:01:00 bob asm.example;7;3/1 INTERIM in 100 out 0",
		"12:03:00 ann asm.example;7;1/2 INTERIM in 200 out 100",
		"12:03:00 bob asm.example;7;3/2 INTERIM in 100 out 100",
		"12:04:41 ann asm.example;7;1/3 STOP in 200 out 100",
	)
	for _, r := range b.s.records {
		if want := map[string]string{"ann": "asm.example;7;0", "bob": "asm.example;7;2"}[r.User]; r.MultiSessionID != want {
			t.Errorf("%s/%d: Acct-Multi-Session-Id %s, want %s", r.SessionID, r.Number, r.MultiSessionID, want)
		}
	}
}
