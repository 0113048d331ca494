package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Verdict says what a Window knows of an identity.
type Verdict uint8

const (
	New          Verdict = iota // not seen before; remembered from now on
	Duplicate                   // seen before
	BelowFloor                  // too old to be proven new; not remembered
	AheadOfClock                // later than the clock allows; not remembered
)

func (v Verdict) String() string {
	switch v {
	case New:
		return "new"
	case Duplicate:
		return "duplicate"
	case BelowFloor:
		return "below floor"
	case AheadOfClock:
		return "ahead of clock"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// ErrCorrupt says that what should be restored is not what a Window or a
// Recent gave out.
var ErrCorrupt = errors.New("corrupt encoding")

// A Config sets up a Window.
type Config struct {
	// Length is how far before the newest flow end identities are remembered,
	// at least; 0 or less means 1h.
	Length time.Duration

	// Bucket is the span of flow ends that are forgotten and stored together;
	// 0 or less means 1m. It is rounded up to whole seconds, and widened where
	// Length would take more than MaxBuckets of them.
	Bucket time.Duration

	// Ahead is how far after the clock a Flow may end; 0 or less means 5m.
	Ahead time.Duration

	// MaxIdentities bounds memory, at about 28 octets each; 0 or less means
	// 32 Mi. Where more would have to be remembered the floor rises early.
	MaxIdentities int
}

// MaxBuckets is the most buckets that a Window divides its length into.
const MaxBuckets = 256

// A Window remembers identities of Data Records by the time their Flows
// ended, in buckets of time.
//
// Its floor is the flow end below which nothing is remembered, so that a
// record below it can't be proven new. It follows the newest flow end at
// Config.Length, not the clock: Flows of an old capture are as far apart as
// they were when it was taken. It only ever rises, and rises early when
// Config.MaxIdentities is reached: the oldest bucket is then forgotten, and if
// that is the only one, with it the identity just added.
//
// The clock, which Advance sets, bounds the newest flow end: an exporter whose
// clock is in the future moves the floor by no more than Config.Ahead. The
// clock starts at 1970, so before the first Advance everything is ahead of it.
//
// A record without any flow time has no place in a Window: two equal ones can
// be honest, and the caller accounts both.
type Window struct {
	width  int64 // of a bucket, Unix milliseconds
	length int64 // in buckets
	ahead  int64 // milliseconds
	max    int

	clock  int64    // Unix milliseconds
	floor  int64    // Unix milliseconds
	first  int64    // number of the bucket that the floor is in, mostly its start
	newest int64    // number of the newest bucket
	ring   []bucket // bucket number i, for first <= i <= newest, is ring[i%len(ring)]
	n      int      // identities in all of them

	// The bucket used last and the flow ends it holds.
	last       *bucket
	start, end int64

	pool  pool
	saved []byte // what Delta handed out last
	stats Stats
	sink  uint32 // keeps touches from being optimized away
}

// A bucket holds the identities of Flows that ended within a span of time.
type bucket struct{ table table }

// Stats counts what a Window or a Recent has answered since it was made.
type Stats struct {
	New, Duplicate, BelowFloor, AheadOfClock uint64

	Evicted    uint64 // identities forgotten early, for want of room
	Identities int    // remembered now
	Octets     int    // that their tables take
}

// NewWindow returns a Window that has seen nothing.
func NewWindow(cfg Config) *Window {
	w := &Window{
		ahead: orDefault(cfg.Ahead, 5*time.Minute).Milliseconds(),
		max:   cfg.MaxIdentities,
	}
	if w.max <= 0 {
		w.max = 32 << 20
	}
	w.max = min(w.max, maxTable)
	length := ceil(int64(orDefault(cfg.Length, time.Hour)), int64(time.Millisecond))
	bucket := ceil(int64(orDefault(cfg.Bucket, time.Minute)), int64(time.Second))
	w.shape(max(bucket, ceil(length, 1000*MaxBuckets)), length)
	return w
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// ceil returns n/d, rounded up. Both are positive.
func ceil(n, d int64) int64 { return (n-1)/d + 1 }

// shape sets the width of buckets, in seconds, and with it how many there are
// to the length in milliseconds.
func (w *Window) shape(width, length int64) {
	w.width = width * 1000
	w.length = ceil(length, w.width)
	w.ring = make([]bucket, w.length+1)
}

// maxTime bounds the times that a Window reckons with, far from overflow.
const maxTime = 1 << 52

// Advance sets the clock, in Unix milliseconds, if it is later than before.
func (w *Window) Advance(now int64) { w.clock = max(w.clock, min(now, maxTime)) }

// Floor returns the floor, in Unix seconds: identities of buckets that start
// before it are forgotten.
func (w *Window) Floor() int64 { return w.floor / 1000 }

// Add says whether id, of a Data Record whose Flow ended at flowEnd in Unix
// milliseconds, was added before, and remembers it.
func (w *Window) Add(id Identity, flowEnd int64) Verdict {
	v := w.add(id, flowEnd)
	switch v {
	case New:
		w.stats.New++
	case Duplicate:
		w.stats.Duplicate++
	case BelowFloor:
		w.stats.BelowFloor++
	case AheadOfClock:
		w.stats.AheadOfClock++
	}
	return v
}

func (w *Window) add(id Identity, flowEnd int64) Verdict {
	if flowEnd > w.clock+w.ahead {
		return AheadOfClock
	}
	if flowEnd < w.start || flowEnd >= w.end {
		if flowEnd < w.floor {
			return BelowFloor
		}
		w.seek(flowEnd / w.width)
	}
	if !w.last.table.add(id, &w.pool) {
		return Duplicate
	}
	w.n++
	if w.n > w.max {
		w.evict()
		if flowEnd < w.floor {
			return BelowFloor
		}
	}
	return New
}

// batch is how many identities are touched before they are added: enough to
// keep memory busy, few enough for the first-level cache to hold.
const batch = 32

// AddBatch stores in verdicts what Add would return for each of ids and
// flowEnds, which have the same length, in order. It is faster than Add when
// the window does not fit the processor's caches.
func (w *Window) AddBatch(ids []Identity, flowEnds []int64, verdicts []Verdict) {
	for len(ids) > 0 {
		n := min(batch, len(ids))
		for i, id := range ids[:n] {
			if b := w.peek(flowEnds[i]); b != nil {
				w.sink += b.table.touch(id)
			}
		}
		for i, id := range ids[:n] {
			verdicts[i] = w.Add(id, flowEnds[i])
		}
		ids, flowEnds, verdicts = ids[n:], flowEnds[n:], verdicts[n:]
	}
}

// peek returns the bucket of flowEnd if there is one. It changes nothing.
func (w *Window) peek(flowEnd int64) *bucket {
	if flowEnd >= w.start && flowEnd < w.end {
		return w.last
	}
	if i := flowEnd / w.width; i >= w.first && i <= w.newest {
		return &w.ring[i%int64(len(w.ring))]
	}
	return nil
}

// seek makes the bucket of number i, at or above the floor's, the last used.
// It raises the floor where i is new.
func (w *Window) seek(i int64) {
	if i > w.newest {
		w.newest = i
		w.raise(i - w.length)
	}
	w.last = &w.ring[i%int64(len(w.ring))]
	if w.last.table.n == 0 {
		w.presize(i)
	}
	w.start, w.end = max(i*w.width, w.floor), (i+1)*w.width
}

// presize makes room in the index of bucket number i, which is empty, for four
// fifths of what the three before it have, the middle one: flows end at much
// the same rate, but for bursts. It doesn't where as many identities would then
// take more than the maximum of identities may.
func (w *Window) presize(i int64) {
	var n [3]int
	for back := range n {
		if j := i - 1 - int64(back); j >= w.first {
			n[back] = w.ring[j%int64(len(w.ring))].table.n
		}
	}
	slices.Sort(n[:])
	bits := indexBits(n[1] * 4 / 5)
	t := &w.last.table
	if t.index == nil && n[1] > 0 && w.pool.octets()+n[1]*IdentitySize+slotSize<<bits <= w.max*maxOctets {
		t.resize(bits, &w.pool)
	}
}

// maxOctets is what an identity may take.
const maxOctets = 28

// raise forgets the buckets below number first.
func (w *Window) raise(first int64) {
	if first <= w.first {
		return
	}
	// No bucket lies outside the ring, however far the floor rises.
	for i := w.first; i < min(first, w.first+int64(len(w.ring))); i++ {
		w.forget(i)
	}
	w.first, w.floor = first, first*w.width
	if w.start < w.floor {
		w.start, w.end = 0, 0
	}
}

// evict raises the floor over the oldest buckets until no more than the
// maximum is left.
func (w *Window) evict() {
	for w.n > w.max {
		was := w.n
		w.raise(w.first + 1)
		w.stats.Evicted += uint64(was - w.n)
	}
}

// forget drops the identities of bucket number i.
func (w *Window) forget(i int64) {
	b := &w.ring[i%int64(len(w.ring))]
	w.n -= b.table.n
	b.table.release(&w.pool)
}

// Delta calls visit for each bucket that identities were added to since the
// last call, oldest first, with the bucket's start in Unix seconds, or the
// floor if it is in the bucket, and those identities, IdentitySize octets
// each, in the order they came. The octets are valid until the next call of
// Delta. Identities below the floor are left out.
func (w *Window) Delta(visit func(bucket int64, data []byte)) {
	n := 0
	for i := w.first; i <= w.newest; i++ {
		n += w.ring[i%int64(len(w.ring))].table.fresh()
	}
	w.saved = slices.Grow(w.saved[:0], n*IdentitySize)
	for i := w.first; i <= w.newest; i++ {
		t := &w.ring[i%int64(len(w.ring))].table
		if t.fresh() == 0 {
			continue
		}
		from := len(w.saved)
		w.saved = t.save(w.saved)
		visit(max(i*w.width, w.floor)/1000, w.saved[from:])
	}
}

// Stats returns a snapshot of what w has counted.
func (w *Window) Stats() Stats {
	s := w.stats
	s.Identities, s.Octets = w.n, w.pool.octets()
	return s
}

// windowVersion is the first octet of an encoded Window.
const windowVersion = 1

// AppendBinary appends all of w but its identities, which Delta hands out:
// the width of its buckets, floor, newest flow end and clock.
func (w *Window) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, windowVersion)
	for _, v := range [...]int64{w.width / 1000, w.floor / 1000, w.newest, w.clock} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return b, nil
}

// UnmarshalBinary makes w, which must be as NewWindow returned it, continue
// where AppendBinary was called. Restore then brings back the identities.
//
// Identities are stored by bucket alone, so buckets never get narrower than
// they were, and wider only by a whole number of times. Errors match
// ErrCorrupt, and leave w as it was.
func (w *Window) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != windowVersion {
		return fmt.Errorf("dedup: decode window: version: %w", ErrCorrupt)
	}
	b = b[1:]
	var v [4]int64
	for i := range v {
		u, n := binary.Uvarint(b)
		if n <= 0 || u > maxTime {
			return fmt.Errorf("dedup: decode window: number %d: %w", i, ErrCorrupt)
		}
		v[i], b = int64(u), b[n:]
	}
	width, floor, newest, clock := v[0], v[1], v[2], v[3]
	if len(b) != 0 || width == 0 || floor > maxTime/1000 || newest > maxTime/1000/width {
		return fmt.Errorf("dedup: decode window: %w", ErrCorrupt)
	}
	times := ceil(w.width, width*1000)
	w.shape(width*times, w.width*w.length)
	w.newest, w.clock = newest/times, clock
	w.floor = max(floor*1000, (w.newest-w.length)*w.width)
	w.first = w.floor / w.width
	return nil
}

// Restore adds identities that Delta once handed out for bucket, after
// UnmarshalBinary and before the first Add. Those below the floor are skipped.
// Errors match ErrCorrupt, and leave w as it was.
func (w *Window) Restore(bucket int64, data []byte) error {
	i := bucket * 1000 / w.width
	switch {
	case len(data)%IdentitySize != 0:
		return fmt.Errorf("dedup: restore bucket %d: %d octets are not whole identities: %w", bucket, len(data), ErrCorrupt)
	case bucket < 0 || bucket > maxTime/1000 || i > w.newest:
		return fmt.Errorf("dedup: restore bucket %d: later than the newest flow end: %w", bucket, ErrCorrupt)
	case i < w.first:
		return nil
	}
	b := &w.ring[i%int64(len(w.ring))]
	for ; len(data) > 0 && i >= w.first; data = data[IdentitySize:] {
		if !b.table.add(ParseIdentity(data), &w.pool) {
			continue
		}
		b.table.saved++
		if w.n++; w.n > w.max {
			w.evict()
		}
	}
	return nil
}
