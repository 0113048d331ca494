package asm

import (
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// The spool as Store comes to the same books as the plain model.
func TestSpool(t *testing.T) {
	journals := rapid.Custom(anything)
	for seed := range 8 {
		x := journals.Example(seed)
		model := replay(t, x.j, never)
		want := audit(t, model)

		s, err := spool.Open(t.TempDir(), spool.Config{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := New(t.Context(), Config{Store: s, Journal: x.j})
		for i, e := range x.j.entries {
			if err == nil {
				err = m.Apply(t.Context(), e)
			}
			if err == nil && i%7 == 3 {
				err = m.Checkpoint(t.Context())
			}
			if err == nil && i%7 == 5 { // what came after the checkpoint is lost
				m, err = New(t.Context(), Config{Store: s, Journal: x.j})
				for _, again := range x.j.entries[m.position : i+1] {
					if err == nil {
						err = m.Apply(t.Context(), again)
					}
				}
			}
			if err != nil {
				t.Fatalf("seed %d, entry %d: %v", seed, e.Position, err)
			}
		}
		if err := m.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := s.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !got.Balanced {
			t.Errorf("seed %d: %v", seed, got.Problems)
		}
		type sums struct{ received, mirrored, accounted, duplicate, suspended, open, pending acct.Count }
		g := sums{got.Total.Received, got.Total.Mirrored, got.Total.Accounted, got.Total.Duplicate, got.Total.Suspended, got.Total.Open, got.Total.Pending}
		w := sums{want.Received, want.Mirrored, want.Accounted, want.Duplicate, want.Suspended, want.open, want.cut}
		if g != w {
			t.Errorf("seed %d: the spool's books %+v, the model's %+v", seed, g, w)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
