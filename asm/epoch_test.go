package asm

import (
	"fmt"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// TestNewEpoch has sessions go on after a backup was restored: none of the
// Session-Ids of before is used again, no octet of what was open is lost, and
// each is told once.
func TestNewEpoch(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(10 * time.Minute) // its INTERIM is cut
	b.send(s, b.flow("192.0.2.1", outside))
	b.checkpoint()
	old := map[string]bool{}
	var multi string
	for _, r := range b.s.records {
		old[r.SessionID] = true
		multi = r.MultiSessionID
	}
	before := len(b.s.records)

	b.order(Command{What: NewEpoch})
	b.checkpoint()
	b.restart()
	b.after(time.Minute)
	b.send(s, b.flow("192.0.2.1", outside))
	b.after(24 * time.Hour)
	b.checkpoint()
	var types string
	var got acct.Usage
	for _, r := range b.s.records[before:] {
		types += fmt.Sprint(r.Type, " ")
		if old[r.SessionID] || r.MultiSessionID != multi {
			t.Errorf("%v of session %s of %s, which began before", r.Type, r.SessionID, r.MultiSessionID)
		}
		got = got.Plus(r.Increase)
	}
	first := b.s.records[before]
	if first.Type != acct.Event || first.Increase != b.s.records[1].Increase {
		t.Errorf("first comes %v with %+v, want an EVENT with what was open", first.Type, first.Increase)
	}
	if one := first.Increase; got != one.Plus(one) {
		t.Errorf("told after it: %+v in %s, want two flows of %+v", got, types, one)
	}
	if d := b.s.decisions[0]; d.What != NewEpoch || d.On == "" {
		t.Errorf("decision %+v", d)
	}
}
