package journal

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/internal/wiretest"
)

func TestGroupEncoding(t *testing.T) {
	g := newGroup(300, 1_000_000_000, nil)
	g.append(acct.EntryOpen, 1_000_000_000, 0, []byte("udp"))
	g.append(acct.EntryMessage, 1_000_000_500, 300, []byte{0, 10, 0, 16})
	g.append(acct.EntryTick, 999_999_999, 0, nil)
	g.seal()
	want := wiretest.Hex(t)["three-entries"]
	if string(g.octets()) != string(want) {
		t.Errorf("encoded\n%x\nwant\n%x", g.octets(), want)
	}
	if err := verify(300, want); err != nil {
		t.Error(err)
	}
	if err := verify(301, want); !errors.Is(err, errGroup) {
		t.Errorf("verified at another position: %v", err)
	}
}

func TestGroupRefuses(t *testing.T) {
	for name, b := range wiretest.Hex(t) {
		if !strings.HasPrefix(name, "bad-") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if es, err := entries(nil, 1, b, 1); !errors.Is(err, errGroup) {
				t.Errorf("decoded to %v, %v; want an error", es, err)
			}
		})
	}
}

func TestGroupRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, 1<<62).Draw(t, "first")
		var want []acct.Entry
		var g *group
		for i := range rapid.IntRange(1, 20).Draw(t, "entries") {
			e := acct.Entry{
				Position: first + uint64(i),
				Kind:     acct.EntryKind(rapid.Uint8().Draw(t, "kind")),
				Time:     rapid.Int64().Draw(t, "time"),
				Session:  rapid.Uint64().Draw(t, "session"),
				Data:     rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"),
			}
			if g == nil {
				g = newGroup(first, e.Time, nil)
			}
			g.append(e.Kind, e.Time, e.Session, e.Data)
			want = append(want, e)
		}
		g.seal()
		if err := verify(first, g.octets()); err != nil {
			t.Fatal(err)
		}
		skip := rapid.IntRange(0, len(want)-1).Draw(t, "skip")
		got, err := entries(nil, first, g.octets(), first+uint64(skip))
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, got, want[skip:])

		octet := rapid.IntRange(0, len(g.octets())-1).Draw(t, "octet")
		g.octets()[octet] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
		if verify(first, g.octets()) == nil {
			t.Fatal("a flipped bit was not noticed")
		}
	})
}

type fataler interface{ Fatalf(string, ...any) }

func sameEntries(t fataler, got, want []acct.Entry) {
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if g.Position != w.Position || g.Kind != w.Kind || g.Time != w.Time || g.Session != w.Session || string(g.Data) != string(w.Data) {
			t.Fatalf("entry %d: %+v\nwant %+v", i, g, w)
		}
	}
}

// FuzzGroup decodes anything: no panic, no entry beyond the octets, and what
// decodes can be encoded to a group that decodes to the same.
func FuzzGroup(f *testing.F) {
	for _, b := range wiretest.Hex(f) {
		f.Add(uint64(300), b)
	}
	f.Fuzz(func(t *testing.T, first uint64, b []byte) {
		first = first%(1<<62) + 1
		_ = verify(first, b)
		es, err := entries(nil, first, b, first)
		if err != nil || len(es) == 0 {
			return
		}
		g := newGroup(first, es[0].Time, nil)
		octets := 0
		for _, e := range es {
			g.append(e.Kind, e.Time, e.Session, e.Data)
			octets += len(e.Data)
		}
		if octets > len(b) {
			t.Fatalf("%d octets of data from %d", octets, len(b))
		}
		g.seal()
		again, err := entries(nil, first, g.octets(), first)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, again, es)
	})
}
