package asm

import (
	"reflect"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
)

// TestTallyIsALine holds what makes a tally worth its while.
func TestTallyIsALine(t *testing.T) {
	if n := unsafe.Sizeof(tally{}); n != 64 {
		t.Errorf("a tally takes %d octets", n)
	}
}

// TestTallyAgainstSession counts flows through a tally and adds the same ones
// to a session: what is folded is what was added, in the same order.
func TestTallyAgainstSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := newSessions()
		got, want := newSession(1, bindingKey{}), newSession(1, bindingKey{})
		same := func() {
			if !reflect.DeepEqual(got.usage, want.usage) || !reflect.DeepEqual(got.open, want.open) {
				t.Fatalf("got %+v %+v, want %+v %+v", got.usage, got.open, want.usage, want.open)
			}
		}
		octets := rapid.Uint64Range(0, acct.MaxOctets)
		t.Repeat(map[string]func(*rapid.T){
			"count": func(t *rapid.T) {
				key := acct.LedgerKey{Exporter: "router", Domain: rapid.Uint32Range(0, 1).Draw(t, "domain")}
				class := classes.Index(rapid.IntRange(0, 1).Draw(t, "class"))
				u := acct.Usage{InputOctets: octets.Draw(t, "in"), OutputPackets: octets.Draw(t, "out")}
				n := acct.Count{Records: 1, Octets: u.InputOctets, Packets: u.OutputPackets}
				if rapid.IntRange(0, 9).Draw(t, "another count") == 0 {
					n.Octets++
				}
				for range rapid.SampledFrom([]int{1, 1, 1, maxTally + 1}).Draw(t, "times") {
					all.count(got.tally, class, u, key, n)
					want.add(class, u, key, n)
				}
			},
			"fold": func(t *rapid.T) {
				all.fold(got)
				same()
			},
			"checkpoint": func(t *rapid.T) {
				all.fold(got)
				all.forgetRows()
			},
		})
		all.fold(got)
		same()
	})
}
