package totals_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/totals"
	"tollbridge/dedup"
)

func TestTotalOf64BitsWraps(t *testing.T) {
	table, layout := totals.NewTable(), totals.Layout{Widths: [totals.Counters]uint{64, 64, 64, 64}}
	layout.Add(totals.ForwardOctets)
	before := totals.Sighting{Values: totals.Values{1<<64 - 10}, End: 1}
	after := totals.Sighting{Values: totals.Values{20}, End: 2}
	table.Put(&layout, &before, 10)
	if delta, known := table.Delta(&layout, &after); !known || delta[totals.ForwardOctets] != 30 {
		t.Errorf("adds %v, %v", delta, known)
	}
}

// encode returns a Table as one piece.
func encode(t *rapid.T, table *totals.Table) []byte {
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is restored from the pieces that are stored is what was there, however
// often it was stored on the way; and the pieces are never many more than what
// they hold.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var layout totals.Layout
		layout.Add(totals.ForwardOctets)
		layout.Widths[totals.ForwardOctets] = 64
		all, stored := make(totals.Exporters), make(map[string][]byte)
		names := []string{"router", "a/b"}
		most := rapid.IntRange(1, 20).Draw(t, "most")
		seed := rapid.Uint64().Draw(t, "seed") // of what need not shrink
		for i := range rapid.IntRange(1, 2000).Draw(t, "records") {
			seed = seed*6364136223846793005 + 1442695040888963407
			flow, which, store := seed>>40%30, seed>>50%3, seed>>55%4 == 0
			s := totals.Sighting{
				Key:    dedup.ParseIdentity(binary.LittleEndian.AppendUint64(make([]byte, 8), flow)),
				Values: totals.Values{uint64(i) * 100}, Start: 1, End: int64(i), Over: seed>>60 == 0,
			}
			all.Of(names[which/2]).Put(&layout, &s, most)
			if !store {
				continue
			}
			all.Delta(func(key string, value []byte) {
				if value == nil {
					delete(stored, key)
				} else {
					stored[key] = value
				}
			})
		}
		all.Bound(most / 2)
		all.Delta(func(key string, value []byte) {
			if value == nil {
				delete(stored, key)
			} else {
				stored[key] = value
			}
		})
		var state []acct.State
		size := 0
		for key, value := range stored {
			state = append(state, acct.State{Key: key, Value: value})
			size += len(value)
		}
		if size > 2*(2*48*most+1<<14+1<<13) {
			t.Errorf("%d octets for %d flows", size, all.Len())
		}
		again := make(totals.Exporters)
		if err := again.Restore(state); err != nil {
			t.Fatal(err)
		}
		for name, table := range all {
			if b, a := encode(t, table), encode(t, again.Of(name)); !bytes.Equal(b, a) {
				t.Errorf("%s: restored %q, was %q", name, a, b)
			}
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		state acct.State
	}{
		{"a key without a number", acct.State{Key: "router"}},
		{"a number that is none", acct.State{Key: "router/x", Value: []byte{1, 0, 0, 0}}},
		{"another version", acct.State{Key: "router/1", Value: []byte{2, 0, 0, 0}}},
		{"half a total", acct.State{Key: "router/1", Value: []byte{1, 0, 0, 0, 1, 2, 3}}},
	} {
		if err := make(totals.Exporters).Restore([]acct.State{c.state}); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}
