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

	// MaxIdentities bounds memory, at about 30 octets each and 12 for each
	// Origin; 0 or less means 32 Mi. Where more would have to be remembered
	// the floor rises early.
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
//
// Exporters have a Window each, out of one Windows, so that one which was away
// finds the floor where it left it.
type Window struct {
	group *Windows
	name  string

	width  int64 // of a bucket, Unix milliseconds
	length int64 // in buckets

	used   int64    // the clock when something was added, Unix milliseconds
	floor  int64    // Unix milliseconds
	first  int64    // number of the bucket that the floor is in, mostly its start
	newest int64    // number of the newest bucket
	ring   []bucket // bucket number i, for first <= i <= newest, is ring[i%len(ring)]
	n      int      // identities in all of them

	// The bucket used last and the flow ends it holds.
	last       *bucket
	start, end int64

	origin Origin // of what is added
}

// A bucket holds the identities of Flows that ended within a span of time.
type bucket struct {
	table table
	began int64 // end of the Flow that came first, Unix milliseconds; 0 if that is not known any more
}

// Stats counts what a Window or a Recent has answered since it was made.
type Stats struct {
	New, Duplicate, BelowFloor, AheadOfClock uint64

	Evicted    uint64 // identities forgotten early, for want of room
	Exporters  int    // that have a Window
	Identities int    // remembered now
	Octets     int    // that their tables take
}

// NewWindow returns a Window that has seen nothing and shares with no other.
func NewWindow(cfg Config) *Window { return NewWindows(cfg).Of("") }

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

// Advance sets the clock of w, and of those it shares with, as
// Windows.Advance.
func (w *Window) Advance(now int64) { w.group.Advance(now) }

// Floor returns the floor, in Unix seconds: identities of buckets that start
// before it are forgotten.
func (w *Window) Floor() int64 { return w.floor / 1000 }

// Add says whether id, of a Data Record whose Flow ended at flowEnd in Unix
// milliseconds, was added before, and remembers it.
func (w *Window) Add(id Identity, flowEnd int64) Verdict {
	return w.AddAt(id, flowEnd, 0)
}

// AddAt is Add of the identity of record number ordinal of what From says.
func (w *Window) AddAt(id Identity, flowEnd int64, ordinal uint16) Verdict {
	w.used = w.group.clock
	v := w.add(id, flowEnd, ordinal)
	s := &w.group.stats
	switch v {
	case New:
		s.New++
	case Duplicate:
		s.Duplicate++
	case BelowFloor:
		s.BelowFloor++
	case AheadOfClock:
		s.AheadOfClock++
	}
	return v
}

func (w *Window) add(id Identity, flowEnd int64, ordinal uint16) Verdict {
	g := w.group
	if flowEnd > g.clock+g.ahead {
		return AheadOfClock
	}
	if flowEnd < w.start || flowEnd >= w.end {
		if flowEnd < w.floor {
			return BelowFloor
		}
		w.seek(flowEnd)
	}
	t := &w.last.table
	if t.n >= t.limit && t.n > 0 {
		w.grow(flowEnd)
	}
	if !t.add(id, ordinal, &g.pool) {
		return Duplicate
	}
	if t.origin != w.origin {
		t.begin(w.origin)
		g.origins++
	}
	w.n++
	if g.n++; g.n > g.max {
		g.evict()
		if flowEnd < w.floor {
			return BelowFloor
		}
	}
	return New
}

// From says where the identities that are added from now on come from.
func (w *Window) From(o Origin) { w.origin = o }

// Origin returns where id, of a Data Record whose Flow ended at flowEnd in
// Unix milliseconds, came from when it was added, and its ordinal there; ok is
// false if it is not remembered.
func (w *Window) Origin(id Identity, flowEnd int64) (o Origin, ordinal int, ok bool) {
	b := w.peek(flowEnd)
	if b == nil || flowEnd < w.floor {
		return 0, 0, false
	}
	n := b.table.find(id)
	if n == 0 {
		return 0, 0, false
	}
	return b.table.originOf(n), b.table.ordinalOf(n), true
}

// batch is how many identities are touched before they are added: enough to
// keep memory busy, few enough for the first-level cache to hold.
const batch = 32

// AddBatch stores in verdicts what AddAt would return for each of ids, flowEnds
// and ordinals, which have the same length, in order. It is faster than Add
// when the window does not fit the processor's caches.
func (w *Window) AddBatch(ids []Identity, flowEnds []int64, ordinals []uint16, verdicts []Verdict) {
	for len(ids) > 0 {
		n := min(batch, len(ids))
		for i, id := range ids[:n] {
			if b := w.peek(flowEnds[i]); b != nil {
				w.group.sink += b.table.touch(id)
			}
		}
		for i, id := range ids[:n] {
			verdicts[i] = w.AddAt(id, flowEnds[i], ordinals[i])
		}
		ids, flowEnds, ordinals, verdicts = ids[n:], flowEnds[n:], ordinals[n:], verdicts[n:]
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

// seek makes the bucket of flowEnd, at or above the floor, the last used. It
// raises the floor where that is new.
func (w *Window) seek(flowEnd int64) {
	i := flowEnd / w.width
	if i > w.newest {
		w.newest = i
		w.raise(i - w.length)
	}
	w.last = &w.ring[i%int64(len(w.ring))]
	if w.last.table.n == 0 {
		w.last.began = flowEnd
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
	if bits := indexBits(n[1] * 4 / 5); w.last.table.index == nil && n[1] > 0 && w.fits(n[1], bits) {
		w.last.table.resize(bits, &w.group.pool)
	}
}

// fits reports whether n more identities and an index of 1<<bits slots leave
// the maximum of identities within what they may take.
func (w *Window) fits(n int, bits uint8) bool {
	g := w.group
	return g.pool.octets()+n*IdentitySize+slotSize<<bits <= g.max*maxOctets
}

// grow makes the index of the bucket used last larger by twice, or by four
// times where flows that go on ending as fast as those in it will need that:
// each growth costs as much as to add all again. flowEnd is of the latest.
func (w *Window) grow(flowEnd int64) {
	t := &w.last.table
	bits := t.bits + 1
	if passed := flowEnd - w.last.began; w.last.began != 0 && passed > 0 {
		all := int64(t.n) * (w.end - w.last.began) / passed
		if bits < maxIndexBits && all > int64(limit(bits)) && w.fits(t.n, bits+1) {
			bits++
		}
	}
	t.resize(bits, &w.group.pool)
}

// maxOctets is what an identity may take.
const maxOctets = 30

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

// forget drops the identities of bucket number i.
func (w *Window) forget(i int64) {
	b := &w.ring[i%int64(len(w.ring))]
	w.n -= b.table.n
	w.group.n -= b.table.n
	w.group.origins -= len(b.table.origins)
	b.table.release(&w.group.pool)
}

// Delta calls visit for each bucket that identities were added to since the
// last call, oldest first, with the bucket's start in Unix seconds, or the
// floor if it is in the bucket, and those identities in the order they came,
// in pieces of at most 64 Ki of them.
// The octets are valid until the next call of Delta, of any Window of the same
// Windows; those of several calls for a bucket may be put together.
// Identities below the floor are left out.
func (w *Window) Delta(visit func(bucket int64, data []byte)) {
	w.group.saved = w.group.saved[:0]
	w.delta(visit)
}

// pieceSize is how many identities Delta hands out at once: more than a
// mebioctet of them.
const pieceSize = 64 << 10

func (w *Window) delta(visit func(bucket int64, data []byte)) {
	g := w.group
	for i := w.first; i <= w.newest; i++ {
		t := &w.ring[i%int64(len(w.ring))].table
		g.saved = slices.Grow(g.saved, t.fresh()*savedSize*17/16) // their Origins take little
		for t.fresh() > 0 {
			from := len(g.saved)
			g.saved = t.saveWithOrigins(g.saved, min(t.n, t.saved+pieceSize))
			visit(max(i*w.width, w.floor)/1000, g.saved[from:])
		}
	}
}

// Stats returns a snapshot of what w, and those it shares with, have counted.
func (w *Window) Stats() Stats { return w.group.Stats() }

// windowVersion is the first octet of an encoded Window.
const windowVersion = 2

// AppendBinary appends all of w but its identities, which Delta hands out:
// the width of its buckets, floor, newest flow end and when it was used.
func (w *Window) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, windowVersion)
	for _, v := range [...]int64{w.width / 1000, w.floor / 1000, w.newest, w.used} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return b, nil
}

// UnmarshalBinary makes w, to which nothing was added yet, continue where
// AppendBinary was called. Restore then brings back the identities.
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
	width, floor, newest, used := v[0], v[1], v[2], v[3]
	if len(b) != 0 || width == 0 || floor > maxTime/1000 || newest > maxTime/1000/width {
		return fmt.Errorf("dedup: decode window: %w", ErrCorrupt)
	}
	times := ceil(w.width, width*1000)
	w.shape(width*times, w.width*w.length)
	w.newest, w.used = newest/times, used
	w.floor = max(floor*1000, (w.newest-w.length)*w.width)
	w.first = w.floor / w.width
	return nil
}

// Restore adds identities that Delta once handed out for bucket, after
// UnmarshalBinary and before the first Add. Those below the floor are skipped.
// Where they are more than the maximum the next Add, or Windows.Trim, makes
// room. Errors match ErrCorrupt, and leave w as it was.
func (w *Window) Restore(bucket int64, data []byte) error {
	i := bucket * 1000 / w.width
	if err := checkSaved(data); err != nil {
		return fmt.Errorf("dedup: restore bucket %d: %w", bucket, err)
	}
	switch {
	case bucket < 0 || bucket > maxTime/1000 || i > w.newest:
		return fmt.Errorf("dedup: restore bucket %d: later than the newest flow end: %w", bucket, ErrCorrupt)
	case i < w.first:
		return nil
	}
	g := w.group
	t := &w.ring[i%int64(len(w.ring))].table
	for len(data) > 0 {
		n, o, rest := savedHead(data)
		for data = rest; n > 0; n-- {
			id, ordinal := ParseIdentity(data), binary.LittleEndian.Uint16(data[IdentitySize:])
			if data = data[savedSize:]; !t.add(id, ordinal, &g.pool) {
				continue
			}
			if t.origin != o {
				t.begin(o)
				g.origins++
			}
			t.saved++
			w.n++
			g.n++
		}
	}
	return nil
}
