package dedup

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A list is the plainest window: all identities in the order they came.
type list struct {
	width, length, ahead int64 // milliseconds
	max                  int

	clock, newest, floor int64 // Unix milliseconds; newest is the start of a bucket
	from                 Origin
	seen                 []seen
}

type seen struct {
	id   Identity
	end  int64
	from Origin
}

func (l *list) add(id Identity, end int64) Verdict {
	switch {
	case end > l.clock+l.ahead:
		return AheadOfClock
	case end < l.floor:
		return BelowFloor
	}
	l.newest = max(l.newest, end-end%l.width)
	l.raise(l.newest - l.length)
	if slices.ContainsFunc(l.seen, func(s seen) bool { return s.id == id && s.end/l.width == end/l.width }) {
		return Duplicate
	}
	l.seen = append(l.seen, seen{id, end, l.from})
	for len(l.seen) > l.max {
		l.raise(l.floor + l.width)
	}
	if end < l.floor {
		return BelowFloor
	}
	return New
}

func (l *list) raise(floor int64) {
	l.floor = max(l.floor, floor)
	l.seen = slices.DeleteFunc(l.seen, func(s seen) bool { return s.end < l.floor })
}

// A disk is what a spool keeps of a Window.
type disk struct {
	state   []byte
	buckets map[int64][]byte
	clock   int64  // which the caller keeps
	from    Origin // likewise
}

func (d *disk) checkpoint(tb rapid.TB, w *Window) {
	state, err := w.AppendBinary(nil)
	if err != nil {
		tb.Fatal(err)
	}
	d.state, d.clock = state, w.group.clock
	last := int64(-1)
	w.Delta(func(bucket int64, data []byte) {
		if bucket <= last {
			tb.Fatalf("bucket %d after %d", bucket, last)
		}
		last = bucket
		d.buckets[bucket] = append(d.buckets[bucket], data...)
	})
	for bucket := range d.buckets {
		if bucket < w.Floor() {
			delete(d.buckets, bucket)
		}
	}
}

func (d *disk) restore(tb rapid.TB, cfg Config) *Window {
	w := NewWindow(cfg)
	w.Advance(d.clock)
	if d.state == nil {
		return w
	}
	if err := w.UnmarshalBinary(d.state); err != nil {
		tb.Fatal(err)
	}
	for _, bucket := range slices.Sorted(maps.Keys(d.buckets)) {
		if err := w.Restore(bucket, d.buckets[bucket]); err != nil {
			tb.Fatal(err)
		}
	}
	return w
}

// TestWindowAgainstList runs a Window and a list side by side, through
// checkpoints and crashes that lose what came after the last checkpoint.
func TestWindowAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Length:        time.Duration(rapid.IntRange(1, 20).Draw(t, "length")) * time.Second,
			Bucket:        time.Duration(rapid.IntRange(1, 5).Draw(t, "bucket")) * time.Second,
			Ahead:         time.Duration(rapid.IntRange(1, 9).Draw(t, "ahead")) * time.Second,
			MaxIdentities: rapid.IntRange(1, 40).Draw(t, "max"),
		}
		width := cfg.Bucket.Milliseconds()
		model := &list{
			width:  width,
			length: (cfg.Length.Milliseconds() + width - 1) / width * width,
			ahead:  cfg.Ahead.Milliseconds(),
			max:    cfg.MaxIdentities,
		}
		w := NewWindow(cfg)
		d := &disk{buckets: map[int64][]byte{}}
		var redo []func(*Window) // what happened since the checkpoint

		id := rapid.Custom(func(t *rapid.T) Identity {
			return Identity{uint64(rapid.IntRange(0, 5).Draw(t, "lo")), uint64(rapid.IntRange(0, 3).Draw(t, "hi"))}
		})
		end := rapid.Custom(func(t *rapid.T) int64 {
			return model.clock + rapid.Int64Range(-30_000, 12_000).Draw(t, "end after clock")
		})
		t.Repeat(map[string]func(*rapid.T){
			"Add": func(t *rapid.T) {
				id, end := id.Draw(t, "id"), end.Draw(t, "end")
				want := model.add(id, end)
				if got := w.Add(id, end); got != want {
					t.Fatalf("got %v, want %v", got, want)
				}
				redo = append(redo, func(w *Window) {
					if got := w.Add(id, end); got != want {
						t.Fatalf("after a crash: got %v, want %v", got, want)
					}
				})
			},
			"AddBatch": func(t *rapid.T) {
				ids := rapid.SliceOfN(id, 1, 40).Draw(t, "ids")
				ends := rapid.SliceOfN(end, len(ids), len(ids)).Draw(t, "ends")
				want, got := make([]Verdict, len(ids)), make([]Verdict, len(ids))
				for i := range ids {
					want[i] = model.add(ids[i], ends[i])
				}
				w.AddBatch(ids, ends, make([]uint16, len(ids)), got)
				if !slices.Equal(got, want) {
					t.Fatalf("got %v, want %v", got, want)
				}
				redo = append(redo, func(w *Window) {
					w.AddBatch(ids, ends, make([]uint16, len(ids)), got)
					if !slices.Equal(got, want) {
						t.Fatalf("after a crash: got %v, want %v", got, want)
					}
				})
			},
			"From": func(t *rapid.T) {
				o := OriginAt(rapid.Uint64Range(0, 3).Draw(t, "position"), rapid.Uint16Range(0, 1).Draw(t, "offset"))
				model.from = o
				w.From(o)
				redo = append(redo, func(w *Window) { w.From(o) })
			},
			"Advance": func(t *rapid.T) {
				now := model.clock + rapid.Int64Range(-3000, 20_000).Draw(t, "by")
				model.clock = max(model.clock, now)
				w.Advance(now)
				redo = append(redo, func(w *Window) { w.Advance(now) })
			},
			"Checkpoint": func(t *rapid.T) {
				d.checkpoint(t, w)
				d.from = model.from
				redo = nil
			},
			"Crash": func(t *rapid.T) {
				w = d.restore(t, cfg)
				w.From(d.from)
				for _, again := range redo {
					again(w)
				}
			},
			"": func(t *rapid.T) {
				if got, want := w.Floor()*1000, model.floor; got != want {
					t.Fatalf("floor is %d, want %d", got, want)
				}
				for _, s := range model.seen {
					if from, _, ok := w.Origin(s.id, s.end); !ok || from != s.from {
						t.Fatalf("%v that ends at %d is from %d (%v), want %d", s.id, s.end, from, ok, s.from)
					}
				}
				if got, want := w.Stats().Identities, len(model.seen); got != want || got > cfg.MaxIdentities {
					t.Fatalf("%d identities, want %d, at most %d", got, want, cfg.MaxIdentities)
				}
			},
		})
	})
}

// now is the time of the tests that need one.
const now = 1_763_800_000_000

func TestWindowVerdicts(t *testing.T) {
	cfg := Config{Length: 10 * time.Minute, Bucket: time.Minute, Ahead: time.Minute}
	const minute = 60_000
	a, b := Identity{1, 1}, Identity{2, 2}
	for _, c := range []struct {
		name string
		add  []seen
		want Verdict // of the last
	}{
		{"first", []seen{{id: a, end: now}}, New},
		{"same again", []seen{{id: a, end: now}, {id: a, end: now}}, Duplicate},
		{"same again after others", []seen{{id: a, end: now}, {id: b, end: now - minute}, {id: a, end: now}}, Duplicate},
		{"other record of the same time", []seen{{id: a, end: now}, {id: b, end: now}}, New},
		{"old, before anything newer", []seen{{id: a, end: now - 365*24*60*minute}}, New},
		{"within the length of the newest flow end", []seen{{id: b, end: now}, {id: a, end: now - 10*minute}}, New},
		{"below the floor", []seen{{id: b, end: now}, {id: a, end: now - 12*minute}}, BelowFloor},
		{"seen, but below the floor since", []seen{{id: a, end: now - 12*minute}, {id: b, end: now}, {id: a, end: now - 12*minute}}, BelowFloor},
		{"a moment ahead of the clock", []seen{{id: a, end: now + minute}}, New},
		{"ahead of the clock", []seen{{id: a, end: now + minute + 1}}, AheadOfClock},
		{"ahead of the clock, again", []seen{{id: a, end: now + minute + 1}, {id: a, end: now + minute + 1}}, AheadOfClock},
		{"before 1970", []seen{{id: a, end: -1}}, BelowFloor},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWindow(cfg)
			w.Advance(now)
			var got Verdict
			for _, s := range c.add {
				got = w.Add(s.id, s.end)
			}
			if got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestWindowClockOfExporterAhead shows that an exporter whose clock is in the
// future neither evicts honest identities nor makes buckets.
func TestWindowClockOfExporterAhead(t *testing.T) {
	w := NewWindow(Config{Length: 10 * time.Minute, Bucket: time.Minute, Ahead: time.Minute})
	w.Advance(now)
	honest := Identity{1, 1}
	w.Add(honest, now-8*60_000)
	before := w.Stats().Octets
	for i := range uint64(100_000) {
		if v := w.Add(Identity{i, i}, now+60_001+int64(i)*60_000); v != AheadOfClock {
			t.Fatalf("got %v", v)
		}
	}
	if after := w.Stats(); after.Octets != before || after.AheadOfClock != 100_000 {
		t.Errorf("%+v, octets before %d", after, before)
	}
	if v := w.Add(honest, now-8*60_000); v != Duplicate {
		t.Errorf("the honest identity is %v", v)
	}
}

// TestWindowRoomRunsOut shows that the floor rises when there are too many.
func TestWindowRoomRunsOut(t *testing.T) {
	w := NewWindow(Config{Length: 10 * time.Minute, Bucket: time.Minute, MaxIdentities: 1000})
	const start = now - now%60_000
	w.Advance(start)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		if v := w.Add(Identity{rng.Uint64(), rng.Uint64()}, start-120_000+int64(i)); v != New {
			t.Fatalf("%d is %v", i, v)
		}
	}
	first := Identity{7, 7}
	w.Add(first, start)
	for i := range 399 {
		w.Add(Identity{rng.Uint64(), rng.Uint64()}, start+int64(i))
	}
	if s := w.Stats(); s.Identities != 1000 || s.Evicted != 0 {
		t.Fatalf("%+v", s)
	}
	if v := w.Add(Identity{8, 8}, start); v != New {
		t.Errorf("the one too many is %v", v)
	}
	if s := w.Stats(); s.Identities != 401 || s.Evicted != 600 {
		t.Errorf("%+v", s)
	}
	if v := w.Add(Identity{9, 9}, start-120_000); v != BelowFloor {
		t.Errorf("an identity of the bucket forgotten is %v", v)
	}
	if v := w.Add(first, start); v != Duplicate {
		t.Errorf("an identity of the bucket kept is %v", v)
	}
	// One bucket that holds more than all may is forgotten itself.
	for range 600 {
		w.Add(Identity{rng.Uint64(), rng.Uint64()}, start)
	}
	if v := w.Add(first, start); v != BelowFloor {
		t.Errorf("an identity of the last bucket is %v", v)
	}
	if v := w.Add(first, start+60_000); v != New {
		t.Errorf("an identity after the last bucket is %v", v)
	}
}

// TestWindowMemory shows that tables take what they should at every size, and
// that a window that moves allocates no more.
func TestWindowMemory(t *testing.T) {
	w := NewWindow(Config{Length: time.Hour, MaxIdentities: 1 << 20})
	w.Advance(now)
	rng := rand.New(rand.NewPCG(3, 4))
	const many = 1 << 20
	worst, sum, sizes := 0.0, 0.0, 0.0
	for i := 1; i <= many; i++ {
		w.Add(Identity{rng.Uint64(), rng.Uint64()}, now)
		if i >= 1<<16 && i%4096 == 0 {
			each := float64(w.Stats().Octets) / float64(i)
			worst, sum, sizes = max(worst, each), sum+each, sizes+1
		}
	}
	t.Logf("%.1f octets per identity on average over sizes, %.1f at worst", sum/sizes, worst)
	if worst > 30 || sum/sizes > 27 {
		t.Errorf("%.1f octets per identity on average over sizes, %.1f at worst; want 27 and 30", sum/sizes, worst)
	}

	// Four times as many again, with the window moving on.
	peak := w.Stats().Octets
	for i := range 4 * many {
		at := int64(now + i/1000*1000)
		w.Advance(at)
		w.Add(Identity{rng.Uint64(), rng.Uint64()}, at)
		if i%(1<<14) == 0 {
			w.Delta(func(int64, []byte) {})
		}
	}
	// Every one of the 61 buckets may hold some first pages of its own.
	if s := w.Stats(); s.Octets > peak+61*(pageSize+slotSize<<minIndexBits) || s.Identities > many {
		t.Errorf("%+v; octets at first %d", s, peak)
	}
}

// TestWindowMemoryAfterBurst shows that room made for as many identities as
// came before stays within what the maximum may take.
// TestWindowGrowsAhead where Flows go on ending as fast as they do, and by twice
// alone where they do not.
func TestWindowGrowsAhead(t *testing.T) {
	const minute, many = 60_000, 3 << 12 // as many as fill an index of 14 bits
	for _, tt := range []struct {
		name string
		ends int64 // of the identities, spread over so much of a minute
		want uint8
	}{
		{"all within an eighth of the bucket", minute / 8, 16},
		{"over all of the bucket", minute - 1, 15},
		{"at one moment", 0, 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWindow(Config{})
			w.Advance(minute)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range int64(many + 1) {
				end := tt.ends * i / many
				if i == many && w.last.table.bits != 14 {
					t.Fatalf("an index of %d bits for %d identities, want 14", w.last.table.bits, many)
				}
				if v := w.Add(Identity{rng.Uint64(), rng.Uint64()}, minute+end); v != New {
					t.Fatalf("identity %d: %v", i, v)
				}
			}
			if got := w.last.table.bits; got != tt.want {
				t.Errorf("an index of %d bits after one more, want %d", got, tt.want)
			}
		})
	}
}

func TestWindowMemoryAfterBurst(t *testing.T) {
	const many = 1 << 18
	w := NewWindow(Config{Length: time.Hour, MaxIdentities: many})
	w.Advance(now + 3600_000)
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range int64(60) {
		n := 1
		if i%10 == 0 {
			n = many / 8
		}
		for range n {
			w.Add(Identity{rng.Uint64(), rng.Uint64()}, now+i*60_000)
		}
		if s := w.Stats(); s.Octets > many*30+60*(pageSize+slotSize<<minIndexBits) {
			t.Fatalf("bucket %d: %+v", i, s)
		}
	}
}

func TestWindowAddDoesNotAllocate(t *testing.T) {
	w := NewWindow(Config{MaxIdentities: 1 << 12})
	rng := rand.New(rand.NewPCG(5, 6))
	at := int64(now)
	step := func() {
		at += 100
		w.Advance(at)
		w.Add(Identity{rng.Uint64(), rng.Uint64()}, at)
	}
	for range 100_000 {
		step()
	}
	w.Delta(func(int64, []byte) {})
	if n := testing.AllocsPerRun(100_000, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWindowBucketsChangeWidth restores a window into one that is set up
// otherwise.
func TestWindowBucketsChangeWidth(t *testing.T) {
	old := Config{Length: time.Minute, Bucket: 2 * time.Second}
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"narrower", Config{Length: time.Minute, Bucket: time.Second}},
		{"wider, a whole number of times", Config{Length: time.Minute, Bucket: 10 * time.Second}},
		{"wider by a fraction", Config{Length: time.Minute, Bucket: 5 * time.Second}},
		{"longer than that many buckets", Config{Length: 24 * time.Hour, Bucket: time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWindow(old)
			w.Advance(now)
			for i := range uint64(60) {
				w.Add(Identity{i, 1}, now-int64(i)*1000)
			}
			d := &disk{buckets: map[int64][]byte{}}
			for round := range uint64(2) { // the second time with the buckets of both widths
				d.checkpoint(t, w)
				w = d.restore(t, c.cfg)
				for i := range uint64(60) {
					end := now - int64(i)*1000
					got := w.Add(Identity{i, 1}, end)
					if below := end < w.Floor()*1000; below && got != BelowFloor || !below && got != Duplicate {
						t.Errorf("identity %d is %v, floor %d", i, got, w.Floor())
					}
				}
				if w.Add(Identity{round, 2}, now) != New {
					t.Error("a new one is not")
				}
				if round == 1 && w.Add(Identity{0, 2}, now) != Duplicate {
					t.Error("what came between the restarts is forgotten")
				}
				if w.Floor() > now/1000-50 {
					t.Errorf("floor is %d s before the newest flow end", now/1000-w.Floor())
				}
				if len(w.ring) > MaxBuckets+1 {
					t.Errorf("%d buckets", len(w.ring))
				}
			}
		})
	}
}

func TestWindowRestoreRefuses(t *testing.T) {
	w := NewWindow(Config{})
	w.Advance(now)
	w.Add(Identity{1, 1}, now)
	minute := int64(now/60_000) * 60
	for _, c := range []struct {
		name   string
		bucket int64
		data   []byte
	}{
		{"half an identity", minute, saved(0, 2)[:2+18+8]},
		{"run of none", minute, []byte{0, 0}},
		{"run without its origin", minute, []byte{1}},
		{"run longer than what there is", minute, append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}, make([]byte, 36)...)},
		{"bucket after the newest", minute + 60, saved(0, 1)},
		{"bucket before 1970", -60, saved(0, 1)},
		{"bucket beyond reckoning", 1 << 62, saved(0, 1)},
	} {
		if err := w.Restore(c.bucket, c.data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := w.Restore(minute-24*3600, saved(0, 1)); err != nil {
		t.Errorf("bucket below the floor: %v", err)
	}
	if n := w.Stats().Identities; n != 1 {
		t.Errorf("%d identities", n)
	}
}

// Delta hands out pieces, cut within the records of one Origin too, that make
// up the Window again.
func TestWindowDeltaPieces(t *testing.T) {
	w := NewWindow(Config{})
	w.Advance(now)
	state, _ := w.AppendBinary(nil)
	const perOrigin, n = 1000, 2*pieceSize + 1
	for i := range uint64(n) {
		w.From(OriginAt(1+i/perOrigin, 20))
		w.AddAt(Identity{i, i * 0x9e3779b97f4a7c15}, now, uint16(i%perOrigin))
		if i == 0 {
			state, _ = w.AppendBinary(nil)
		}
	}
	restored := NewWindow(Config{})
	restored.Advance(now)
	if err := restored.UnmarshalBinary(state); err != nil {
		t.Fatal(err)
	}
	pieces := 0
	w.Delta(func(bucket int64, data []byte) {
		pieces++
		if err := restored.Restore(bucket, data); err != nil {
			t.Fatal(err)
		}
	})
	if got := restored.Stats().Identities; pieces != 3 || got != n {
		t.Errorf("%d identities in %d pieces, want %d in 3", got, pieces, n)
	}
	for i := range uint64(n) {
		o, ordinal, ok := restored.Origin(Identity{i, i * 0x9e3779b97f4a7c15}, now)
		if want := OriginAt(1+i/perOrigin, 20); !ok || o != want || ordinal != int(i%perOrigin) {
			t.Fatalf("identity %d: origin %v, ordinal %d, %v", i, o, ordinal, ok)
		}
	}
}

// saved is what Delta hands out for n identities of one Origin, all zeros.
func saved(o Origin, n int) []byte {
	b := binary.AppendUvarint(nil, uint64(n))
	b = binary.AppendUvarint(b, uint64(o))
	return append(b, make([]byte, n*savedSize)...)
}

func FuzzWindowRestore(f *testing.F) {
	w := NewWindow(Config{})
	w.Advance(now)
	w.Add(Identity{1, 2}, now)
	state, _ := w.AppendBinary(nil)
	w.Delta(func(bucket int64, data []byte) { f.Add(state, bucket, data) })
	f.Add([]byte{}, int64(0), []byte{})
	f.Add([]byte{windowVersion, 60, 1, 0, 0}, int64(60), saved(OriginAt(7, 20), 2))
	f.Fuzz(func(t *testing.T, state []byte, bucket int64, data []byte) {
		w := NewWindow(Config{MaxIdentities: 100})
		if w.UnmarshalBinary(state) == nil {
			again, err := w.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			v := NewWindow(Config{MaxIdentities: 100})
			if err := v.UnmarshalBinary(again); err != nil {
				t.Fatalf("what was restored does not restore: %v", err)
			}
		}
		if w.Restore(bucket, data) == nil && bucket >= w.Floor() {
			w.Advance(bucket * 1000)
			for len(data) > 0 && w.Stats().Identities <= 100 {
				n, o, rest := savedHead(data)
				for data = rest; n > 0; data, n = data[savedSize:], n-1 {
					id := ParseIdentity(data)
					if from, _, ok := w.Origin(id, bucket*1000); !ok {
						t.Fatalf("a restored identity has no origin, want %d", o)
					} else if got := w.Add(id, bucket*1000); got != Duplicate {
						t.Fatalf("a restored identity of %d is %v", from, got)
					}
				}
			}
		}
		w.Advance(now)
		w.Add(Identity{1, 2}, now)
		if n := w.Stats().Identities; n > 100 {
			t.Fatalf("%d identities", n)
		}
		w.Delta(func(int64, []byte) {})
	})
}

// processorTime returns what the process has used, of user and system time.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWindow adds five million identities over an hour's flow ends, one
// in eight of them twice, with a checkpoint every 100,000.
func BenchmarkWindow(b *testing.B) {
	const many = 5_000_000
	for _, c := range []struct {
		name  string
		batch int
	}{{"one by one", 1}, {"batches of 24", 24}, {"batches of 256", 256}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var octets int
			before := processorTime(b)
			for b.Loop() {
				w := NewWindow(Config{})
				rng := rand.New(rand.NewPCG(1, 1))
				ids, ends := make([]Identity, c.batch), make([]int64, c.batch)
				verdicts, ordinals := make([]Verdict, c.batch), make([]uint16, c.batch)
				for i := 0; i < many; i += c.batch {
					at := now + int64(i)*3600_000/many
					w.Advance(at)
					for j := range ids {
						if ids[j] = (Identity{rng.Uint64(), rng.Uint64()}); j%8 == 7 {
							ids[j] = ids[j-1]
						}
						ends[j] = at - int64(ids[j].hi%120_000)
					}
					w.AddBatch(ids, ends, ordinals, verdicts)
					if i%100_000 < c.batch {
						w.Delta(func(int64, []byte) {})
					}
				}
				octets = w.Stats().Octets / w.Stats().Identities
			}
			b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N)/many, "CPU-ns/identity")
			b.ReportMetric(float64(octets), "octets/identity")
		})
	}
}

func BenchmarkWindowRestore(b *testing.B) {
	const many = 1_000_000
	data := saved(0, many)[:len(saved(0, many))-many*savedSize]
	rng := rand.New(rand.NewPCG(1, 1))
	for range many {
		data = append(Identity{rng.Uint64(), rng.Uint64()}.Append(data), 0, 0)
	}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		w := NewWindow(Config{})
		w.Advance(now)
		w.Add(Identity{1, 1}, now)
		if err := w.Restore(now/1000, data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N)/many, "CPU-ns/identity")
}
