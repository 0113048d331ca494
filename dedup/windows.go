package dedup

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

// Windows are the Windows of many exporters: each has a floor of its own, while
// the clock and the room for identities are one.
//
// Where room runs out, an exporter that has sent nothing for a day forgets
// first, the one longest silent, and otherwise the one that is remembered most
// of, its oldest bucket: so who floods pushes out its own. At most MaxExporters
// Windows are kept; for one more, that whose flows ended longest ago goes, and
// a Window that is new then begins above what it had.
type Windows struct {
	width, length int64 // of new Windows: milliseconds, and milliseconds
	ahead         int64 // milliseconds
	max           int

	clock int64 // Unix milliseconds
	base  int64 // floor of new Windows, Unix milliseconds
	n     int   // identities

	origins int // of all
	by      map[string]*Window
	last    *Window // the latest asked for

	pool  pool
	saved []byte // what Delta handed out last
	stats Stats
	sink  uint32 // keeps touches from being optimized away
}

// MaxExporters is how many Windows a Windows keeps.
const MaxExporters = 4096

// silent is how long an exporter has sent nothing before it forgets first.
const silent = 24 * time.Hour

// NewWindows returns Windows that have seen nothing.
func NewWindows(cfg Config) *Windows {
	g := &Windows{
		ahead: orDefault(cfg.Ahead, 5*time.Minute).Milliseconds(),
		max:   cfg.MaxIdentities,
		by:    make(map[string]*Window),
	}
	if g.max <= 0 {
		g.max = 32 << 20
	}
	g.max = min(g.max, maxTable)
	g.length = ceil(int64(orDefault(cfg.Length, time.Hour)), int64(time.Millisecond))
	g.width = max(ceil(int64(orDefault(cfg.Bucket, time.Minute)), int64(time.Second)), ceil(g.length, 1000*MaxBuckets))
	return g
}

// Of returns the Window of an exporter, a new one if it has none.
func (g *Windows) Of(exporter string) *Window {
	if g.last != nil && g.last.name == exporter {
		return g.last
	}
	w := g.by[exporter]
	if w == nil {
		if len(g.by) >= MaxExporters {
			g.drop()
		}
		w = &Window{group: g, name: exporter, used: g.clock}
		w.shape(g.width, g.length)
		w.newest = g.base / w.width
		w.raise(w.newest)
		g.by[exporter] = w
	}
	g.last = w
	return w
}

// drop forgets the Window whose newest flow end is the oldest.
func (g *Windows) drop() {
	var w *Window
	for _, v := range g.by {
		if w == nil || cmp.Or(cmp.Compare(v.top(), w.top()), cmp.Compare(v.name, w.name)) < 0 {
			w = v
		}
	}
	g.base = max(g.base, w.top())
	w.raise(w.newest + 1)
	delete(g.by, w.name)
	if g.last == w {
		g.last = nil
	}
}

// top returns where the newest bucket of w ends, Unix milliseconds.
func (w *Window) top() int64 { return (w.newest + 1) * w.width }

// Exporters returns those that have a Window, in the order of their names.
func (g *Windows) Exporters() iter.Seq2[string, *Window] {
	return func(yield func(string, *Window) bool) {
		for _, name := range slices.Sorted(maps.Keys(g.by)) {
			if !yield(name, g.by[name]) {
				return
			}
		}
	}
}

// Oldest returns the Origin that came first of those that are remembered, but
// for those of exporters that have sent nothing for a day, and the zero Origin
// where there is none. It looks at each bucket.
func (g *Windows) Oldest() Origin {
	var oldest Origin
	for _, w := range g.by {
		if g.clock-w.used >= silent.Milliseconds() {
			continue
		}
		for i := range w.ring {
			if of := w.ring[i].table.origins; len(of) > 0 && (oldest == 0 || of[0] < oldest) {
				oldest = of[0]
			}
		}
	}
	return oldest
}

// Advance sets the clock, in Unix milliseconds, if it is later than before. A
// day or more at once is no silence of the exporters: the clock was set, or
// nobody could be heard.
func (g *Windows) Advance(now int64) {
	leap := min(now, maxTime) - g.clock
	if leap <= 0 {
		return
	}
	g.clock += leap
	if leap >= silent.Milliseconds() {
		for _, w := range g.by {
			w.used += leap
		}
	}
}

// SetBack sets the clock, in Unix milliseconds, if it is earlier than before:
// the host's was ahead.
func (g *Windows) SetBack(now int64) {
	g.clock = max(0, min(g.clock, now))
	for _, w := range g.by {
		w.used = min(w.used, g.clock)
	}
}

// Base returns the floor that new Windows begin at, in Unix milliseconds.
func (g *Windows) Base() int64 { return g.base }

// SetBase raises the floor that new Windows begin at.
func (g *Windows) SetBase(floor int64) { g.base = max(g.base, min(floor, maxTime)) }

// Trim makes room where more was restored than may be remembered.
func (g *Windows) Trim() {
	if g.n > g.max {
		g.evict()
	}
}

// evict raises floors until no more than the maximum is left.
func (g *Windows) evict() {
	for g.n > g.max {
		was := g.n
		w := g.victim()
		oldest := w.first
		for w.ring[oldest%int64(len(w.ring))].table.n == 0 {
			oldest++
		}
		w.raise(oldest + 1)
		g.stats.Evicted += uint64(was - g.n)
	}
}

// victim returns the Window that is to forget its oldest bucket.
func (g *Windows) victim() *Window {
	before := g.clock - silent.Milliseconds()
	better := func(v, w *Window) bool {
		if vs, ws := v.used < before, w.used < before; vs != ws {
			return vs
		} else if vs && v.used != w.used {
			return v.used < w.used
		}
		return v.n > w.n || v.n == w.n && v.name < w.name
	}
	var w *Window
	for _, v := range g.by {
		if v.n > 0 && (w == nil || better(v, w)) {
			w = v
		}
	}
	return w
}

// Delta calls visit with what Window.Delta does, for each exporter in the order
// of their names. The octets are valid until the next call.
func (g *Windows) Delta(visit func(exporter string, bucket int64, data []byte)) {
	g.saved = g.saved[:0]
	for name, w := range g.Exporters() {
		// Where saved grows, what was handed out stays where it is.
		w.delta(func(bucket int64, data []byte) { visit(name, bucket, data[:len(data):len(data)]) })
	}
}

// Stats returns a snapshot of what all Windows have counted.
func (g *Windows) Stats() Stats {
	s := g.stats
	s.Exporters, s.Identities = len(g.by), g.n
	s.Octets = g.pool.octets() + g.origins*originSize
	return s
}

// originSize is what an Origin takes in a table, in octets.
const originSize = 12
