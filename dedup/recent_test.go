package dedup

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRecentRemembers compares a Recent with what its documentation promises:
// an identity is remembered for the length at least and twice that at most.
func TestRecentRemembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const length = 1000
		cfg := RecentConfig{Length: length * time.Millisecond, MaxIdentities: 10_000}
		r := NewRecent(cfg)
		last := map[Identity]int64{} // when an identity was added as new
		d := &disk{buckets: map[int64][]byte{}}
		var redo []func()
		at := int64(now)
		add := func(id Identity) Verdict { return r.Add(id, at) }
		t.Repeat(map[string]func(*rapid.T){
			"Add": func(t *rapid.T) {
				at += rapid.Int64Range(0, 900).Draw(t, "later by")
				id := Identity{lo: uint64(rapid.IntRange(0, 9).Draw(t, "id"))}
				got := add(id)
				before, seen := last[id]
				switch age := at - before; {
				case seen && age < length && got != Duplicate:
					t.Fatalf("seen %d ms before, and it is %v", age, got)
				case (!seen || age >= 2*length) && got != New:
					t.Fatalf("seen %v, %d ms before, and it is %v", seen, age, got)
				}
				if got == New {
					last[id] = at
				}
				then := at
				redo = append(redo, func() {
					if again := r.Add(id, then); again != got {
						t.Fatalf("after a crash it is %v, was %v", again, got)
					}
				})
			},
			"Checkpoint": func(t *rapid.T) {
				d.state, _ = r.AppendBinary(nil)
				r.Delta(func(generation int64, data []byte) {
					d.buckets[generation] = append(d.buckets[generation], data...)
				})
				maps.DeleteFunc(d.buckets, func(generation int64, _ []byte) bool { return generation < r.Floor() })
				redo = nil
			},
			"Crash": func(t *rapid.T) {
				r = NewRecent(cfg)
				if d.state != nil {
					if err := r.UnmarshalBinary(d.state); err != nil {
						t.Fatal(err)
					}
				}
				for _, generation := range slices.Sorted(maps.Keys(d.buckets)) {
					if err := r.Restore(generation, d.buckets[generation]); err != nil {
						t.Fatal(err)
					}
				}
				for _, again := range redo {
					again()
				}
			},
		})
	})
}

func TestRecentRoomRunsOut(t *testing.T) {
	r := NewRecent(RecentConfig{MaxIdentities: 100})
	rng := rand.New(rand.NewPCG(1, 2))
	var ids []Identity
	for range 1000 {
		id := Identity{rng.Uint64(), rng.Uint64()}
		ids = append(ids, id)
		if v := r.Add(id, now); v != New {
			t.Fatalf("got %v", v)
		}
		if n := r.Stats().Identities; n > 100 {
			t.Fatalf("%d identities", n)
		}
	}
	for _, id := range ids[len(ids)-50:] {
		if v := r.Add(id, now); v != Duplicate {
			t.Errorf("one of the last fifty is %v", v)
		}
	}
	if s := r.Stats(); s.Evicted != 950 {
		t.Errorf("%+v", s)
	}
}

func TestRecentRestoreRefuses(t *testing.T) {
	r := NewRecent(RecentConfig{})
	r.Add(Identity{1, 1}, now)
	generation := r.Floor() + 1
	for _, c := range []struct {
		name       string
		generation int64
		data       []byte
	}{
		{"half an identity", generation, make([]byte, 24)},
		{"after the newest", generation + 1, make([]byte, 16)},
		{"before the first", 0, make([]byte, 16)},
	} {
		if err := r.Restore(c.generation, c.data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := r.Restore(1, make([]byte, 16)); err != nil || r.Stats().Identities != 1 {
		t.Errorf("a forgotten generation: %v, %+v", err, r.Stats())
	}
}

func FuzzRecentRestore(f *testing.F) {
	r := NewRecent(RecentConfig{})
	r.Add(Identity{1, 2}, now)
	state, _ := r.AppendBinary(nil)
	r.Delta(func(generation int64, data []byte) { f.Add(state, generation, data) })
	f.Add([]byte{recentVersion, 1, 0}, int64(1), make([]byte, 32))
	f.Fuzz(func(t *testing.T, state []byte, generation int64, data []byte) {
		r := NewRecent(RecentConfig{})
		if r.UnmarshalBinary(state) == nil {
			again, err := r.AppendBinary(nil)
			if err != nil || NewRecent(RecentConfig{}).UnmarshalBinary(again) != nil {
				t.Fatalf("what was restored does not restore: %x, %v", again, err)
			}
		}
		if r.Restore(generation, data) == nil && generation >= r.Floor() {
			for ; len(data) > 0; data = data[IdentitySize:] {
				if got := r.Add(ParseIdentity(data), r.until-1); got != Duplicate {
					t.Fatalf("a restored identity is %v", got)
				}
			}
		}
		r.Add(Identity{1, 2}, now)
	})
}
