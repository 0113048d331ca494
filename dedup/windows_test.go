package dedup

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindowsFloorIsOfTheExporter shows that an exporter which was away for
// two hours goes on where it was, whatever others have sent meanwhile.
func TestWindowsFloorIsOfTheExporter(t *testing.T) {
	g := NewWindows(Config{Length: 10 * time.Minute, Bucket: time.Minute, MaxIdentities: 1000})
	g.Advance(now)
	first := Identity{1, 1}
	g.Of("away").Add(first, now)
	for i := range uint64(120) {
		g.Advance(now + int64(i)*60_000)
		g.Of("busy").Add(Identity{i, 2}, now+int64(i)*60_000)
	}
	for _, c := range []struct {
		name string
		id   Identity
		end  int64
		want Verdict
	}{
		{"what it sent before", first, now, Duplicate},
		{"what it kept while it was away", Identity{2, 1}, now + 60_000, New},
		{"the same again", Identity{2, 1}, now + 60_000, Duplicate},
	} {
		if got := g.Of("away").Add(c.id, c.end); got != c.want {
			t.Errorf("%s is %v, want %v", c.name, got, c.want)
		}
	}
	if got := g.Of("busy").Add(Identity{2, 1}, now+60_000); got != BelowFloor {
		t.Errorf("what the busy one sends late is %v", got)
	}
}

// TestWindowsOldest shows from which Origin on a caller has to keep what its
// identities are of.
func TestWindowsOldest(t *testing.T) {
	g := NewWindows(Config{Length: 10 * time.Minute, Bucket: time.Minute, MaxIdentities: 1000})
	add := func(exporter string, minute, position int64) {
		at := now + minute*60_000
		g.Advance(at)
		w := g.Of(exporter)
		w.From(OriginAt(uint64(position), 7))
		if v := w.Add(Identity{uint64(position), 1}, at); v != New {
			t.Fatalf("%s, minute %d: %v", exporter, minute, v)
		}
	}
	want := func(when string, o Origin) {
		t.Helper()
		if got := g.Oldest(); got != o {
			t.Errorf("%s: position %d, want %d", when, got.Position(), o.Position())
		}
	}
	want("of nothing", 0)
	g.Advance(now)
	g.Of("old").Add(Identity{1, 2}, now)
	want("of one without an origin", 0)
	add("a", 0, 100)
	add("a", 1, 101)
	add("b", 2, 102)
	want("of all", OriginAt(100, 7))
	for minute := int64(3); minute <= 30; minute++ {
		add("a", minute, 100+minute)
	}
	want("of one that is away", OriginAt(102, 7))
	var (
		bucket int64
		saved  []byte
	)
	g.Of("b").Delta(func(b int64, data []byte) { bucket, saved = b, slices.Clone(data) })
	state, err := g.Of("b").AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	again := NewWindows(Config{Length: 10 * time.Minute, Bucket: time.Minute, MaxIdentities: 1000})
	again.Advance(now + 31*60_000)
	if err := again.Of("b").UnmarshalBinary(state); err != nil {
		t.Fatal(err)
	}
	if err := again.Of("b").Restore(bucket, saved); err != nil {
		t.Fatal(err)
	}
	if got := again.Oldest(); got != OriginAt(102, 7) {
		t.Errorf("after a restart: position %d", got.Position())
	}
	add("a", 24*60+2, 2000)
	want("when that is silent for a day", OriginAt(2000, 7))
	g.Advance(now + 3*silent.Milliseconds())
	want("after a leap of the clock", OriginAt(2000, 7))
}

// TestWindowsFloodHurtsItself shows whose identities go when room runs out.
func TestWindowsFloodHurtsItself(t *testing.T) {
	g := NewWindows(Config{Length: time.Hour, Bucket: time.Minute, MaxIdentities: 1000})
	g.Advance(now)
	quiet := Identity{1, 1}
	g.Of("quiet").Add(quiet, now)
	flood := func(name string) {
		for i := range uint64(5000) {
			g.Of(name).Add(Identity{i, 2}, now-3_000_000+int64(i)*600)
		}
	}
	flood("flood")
	if got := g.Of("quiet").Add(quiet, now); got != Duplicate {
		t.Errorf("an identity of another exporter is %v after a flood", got)
	}
	if s := g.Stats(); s.Identities > 1000 || s.Evicted == 0 || s.Exporters != 2 {
		t.Errorf("%+v", s)
	}
	// One that has been silent for a day forgets before those that send.
	g.Advance(now + silent.Milliseconds()/2)
	g.Advance(now + silent.Milliseconds() + 1)
	busy := Identity{3, 3}
	g.Of("flood").Add(busy, now)
	for i := range uint64(1000) {
		g.Of("flood").Add(Identity{i, 4}, now)
	}
	if got := g.Of("quiet").Add(quiet, now); got != BelowFloor {
		t.Errorf("an identity of an exporter silent for a day is %v, with no room left", got)
	}
}

// TestWindowsTooManyExporters shows that the number of Windows is bounded, and
// that nothing is new that was not proven to be.
func TestWindowsTooManyExporters(t *testing.T) {
	g := NewWindows(Config{Length: time.Hour, Bucket: time.Minute})
	g.Advance(now + MaxExporters*60_000)
	for i := range MaxExporters + 1 {
		if got := g.Of(fmt.Sprint(i)).Add(Identity{1, 1}, now+int64(i)*60_000); got != New {
			t.Fatalf("exporter %d: %v", i, got)
		}
	}
	if s := g.Stats(); s.Exporters != MaxExporters {
		t.Errorf("%+v", s)
	}
	if got := g.Of("0").Add(Identity{1, 1}, now); got != BelowFloor {
		t.Errorf("what a dropped exporter sent is %v", got)
	}
}

// TestWindowsRestart runs Windows through checkpoints and crashes: with the
// same calls the same answers come, whatever was evicted in between.
func TestWindowsRestart(t *testing.T) {
	type call struct {
		exporter string
		id       Identity
		end, now int64
	}
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Length: 20 * time.Second, Bucket: time.Second, MaxIdentities: rapid.IntRange(1, 30).Draw(t, "max")}
		type saved struct {
			state   []byte
			buckets map[int64][]byte
		}
		disk := map[string]*saved{}
		var base, clock int64
		straight, broken := NewWindows(cfg), NewWindows(cfg)
		var redo []call
		do := func(g *Windows, c call) Verdict {
			g.Advance(c.now)
			return g.Of(c.exporter).Add(c.id, c.end)
		}
		at := int64(now)
		t.Repeat(map[string]func(*rapid.T){
			"Add": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
					at += silent.Milliseconds() * 3 / 4
				}
				at += rapid.Int64Range(0, 3000).Draw(t, "later")
				c := call{
					rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "exporter"), Identity{rapid.Uint64Range(0, 9).Draw(t, "id"), 0},
					at - rapid.Int64Range(0, 25_000).Draw(t, "age"), at,
				}
				redo = append(redo, c)
				if got, want := do(broken, c), do(straight, c); got != want {
					t.Fatalf("%+v is %v, without a restart %v", c, got, want)
				}
			},
			"Checkpoint": func(t *rapid.T) {
				for name, w := range broken.Exporters() {
					d := disk[name]
					if d == nil {
						d = &saved{buckets: map[int64][]byte{}}
						disk[name] = d
					}
					d.state, _ = w.AppendBinary(nil)
					w.Delta(func(bucket int64, data []byte) { d.buckets[bucket] = append(d.buckets[bucket], data...) })
					maps.DeleteFunc(d.buckets, func(bucket int64, _ []byte) bool { return bucket < w.Floor() })
				}
				base, clock, redo = broken.Base(), broken.clock, nil
			},
			"Crash": func(t *rapid.T) {
				broken = NewWindows(cfg)
				broken.Advance(clock)
				broken.SetBase(base)
				for name, d := range disk {
					w := broken.Of(name)
					if err := w.UnmarshalBinary(d.state); err != nil {
						t.Fatal(err)
					}
					for _, bucket := range slices.Sorted(maps.Keys(d.buckets)) {
						if err := w.Restore(bucket, d.buckets[bucket]); err != nil {
							t.Fatal(err)
						}
					}
				}
				broken.Trim()
				for _, c := range redo {
					do(broken, c)
				}
			},
		})
	})
}

// TestCollisionProbability reckons what the doc comment of Identity states.
func TestCollisionProbability(t *testing.T) {
	const records = 1e9
	two64 := float64(1 << 32 * (1 << 32))
	p := records * (records - 1) / 2 / two64 / two64 // the birthday bound
	if got := fmt.Sprintf("%.1e", p); got != "1.5e-21" {
		t.Errorf("among a billion records two share an identity with a chance of %s; the documentation says 1.5e-21", got)
	}
}
