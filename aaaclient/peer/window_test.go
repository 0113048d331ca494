package peer

import (
	"testing"

	"pgregory.net/rapid"
)

// TestWindow compares a Window with a map.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 9).Draw(t, "size")
		w := NewWindow[int](size)
		type entry struct {
			end   uint32
			value int
		}
		model, gone := map[uint32]entry{}, []uint32{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				if w.Free() == 0 {
					t.Skip("full")
				}
				e := entry{rapid.Uint32().Draw(t, "end"), len(gone)}
				hop := w.Add(e.end, e.value)
				if _, used := model[hop]; used {
					t.Fatalf("Hop-by-Hop %#x is used twice", hop)
				}
				model[hop] = e
			},
			"remove": func(t *rapid.T) {
				for hop := range model {
					if !w.Remove(hop) {
						t.Fatalf("%#x is not there", hop)
					}
					delete(model, hop)
					gone = append(gone, hop)
					return
				}
			},
			"": func(t *rapid.T) {
				if w.Len() != len(model) || w.Free() != size-len(model) {
					t.Fatalf("Len %d, Free %d with %d of %d used", w.Len(), w.Free(), len(model), size)
				}
				for hop, e := range model {
					if v, ok := w.Get(hop, e.end); !ok || v != e.value {
						t.Fatalf("Get(%#x): %d, %v", hop, v, ok)
					}
					if _, ok := w.Get(hop, e.end+1); ok {
						t.Fatal("another End-to-End Identifier matches")
					}
				}
				n := 0
				for hop, v := range w.All() {
					if model[hop].value != v {
						t.Fatal("All disagrees")
					}
					n++
				}
				if n != len(model) {
					t.Fatalf("All has %d of %d", n, len(model))
				}
				for _, hop := range gone {
					if _, back := model[hop]; !back && w.Remove(hop) {
						t.Fatalf("%#x was removed and is there", hop)
					}
				}
			},
		})
	})
}
