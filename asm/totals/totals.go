// Package totals turns counters that are totals into what each record adds to
// those before it of its flow (docs/counters.md). It knows flows by a key and
// four counters, and nothing else of them.
package totals

import "tollbridge/dedup"

// The counters of a flow, as bits and as indexes of Values.
const (
	ForwardOctets = iota
	ForwardPackets
	ReverseOctets
	ReversePackets
	Counters // how many there are
)

// Values are the counters of a flow.
type Values [Counters]uint64

// A Layout says which counters of a Template are totals. The zero Layout is
// of deltas alone.
type Layout struct {
	Widths [Counters]uint // bits of all counters, after which they wrap
	totals uint8          // a bit for each that is one
}

// Add makes counter i a total.
func (l *Layout) Add(i int) { l.totals |= 1 << i }

// Any reports whether some counter is a total.
func (l *Layout) Any() bool { return l.totals != 0 }

// Has reports whether counter i is a total.
func (l *Layout) Has(i int) bool { return l.totals>>i&1 != 0 }

// Adds reports whether any of the counters that are totals adds to what was
// known, by delta.
func (l *Layout) Adds(delta Values) bool {
	for i, n := range delta {
		if n != 0 && l.Has(i) {
			return true
		}
	}
	return false
}

// A Sighting is a record with totals.
type Sighting struct {
	Key        dedup.Identity // of the flow
	Values     Values
	Start, End int64 // of the flow, Unix milliseconds
	Over       bool  // the flow has ended
}

// Deltas returns what s adds without its totals.
func (s *Sighting) Deltas(l *Layout) (delta Values) {
	for i := range delta {
		if !l.Has(i) {
			delta[i] = s.Values[i]
		}
	}
	return delta
}

// A total is what a flow's counters were last.
type total struct {
	key    dedup.Identity
	values Values
	end    int64  // of the flow as it was last reported, Unix milliseconds
	used   uint64 // ascending: when it was last used
	over   bool   // the flow has ended
	dirty  bool   // listed in Table.dirty
	gone   bool

	older, newer *total
}

// A Table has the totals of one exporter, in the order of their use.
type Table struct {
	byKey          map[dedup.Identity]*total
	oldest, newest *total
	next           uint64 // total.used
	horizon        int64  // the latest end of a flow that was forgotten while it may have gone on, Unix milliseconds

	dirty   []*total
	removed []dedup.Identity // since the last Delta
	pieces  []string         // keys of what is stored
	size    int              // octets of that
	piece   uint64           // number of the latest
}

// NewTable returns an empty Table.
func NewTable() *Table { return &Table{byKey: make(map[dedup.Identity]*total)} }

// Delta returns what s adds, by the totals of l, to what its flow was known to
// have: for its first record all of it. A counter that falls has wrapped if it
// is the only one, was in the upper half of its range and moved by less than
// half; or else the exporter began anew, and all counts again. A record that
// ends no later than what is known but has less is an old one, and adds
// nothing. Known is false if s adds what a forgotten flow may have had already.
func (t *Table) Delta(l *Layout, s *Sighting) (delta Values, known bool) {
	delta = s.Values
	e := t.byKey[s.Key]
	if e == nil {
		return delta, t.horizon == 0 || s.Start > t.horizon
	}
	fell, wrapped := 0, false
	for i := range delta {
		if !l.Has(i) || s.Values[i] >= e.values[i] {
			continue
		}
		fell++
		half := uint64(1) << (l.Widths[i] - 1)
		moved := (s.Values[i] - e.values[i]) & (2*half - 1)
		wrapped = e.values[i] >= half && moved < half
	}
	old := fell > 0 && s.End <= e.end
	anew := fell > 1 || fell == 1 && !wrapped
	for i := range delta {
		switch {
		case !l.Has(i) || anew && !old:
		case old:
			delta[i] = 0
		default:
			delta[i] = (s.Values[i] - e.values[i]) & (1<<l.Widths[i] - 1)
		}
	}
	return delta, true
}

// Put makes s what is known of its flow, forgetting the one least recently
// used if there are more than most. Of an old record only its use is noted.
func (t *Table) Put(l *Layout, s *Sighting, most int) (forgotten int) {
	e := t.byKey[s.Key]
	if e == nil {
		e = &total{key: s.Key}
		t.byKey[s.Key] = e
	} else {
		t.unlink(e)
	}
	less := false
	for i := range s.Values {
		less = less || l.Has(i) && s.Values[i] < e.values[i]
	}
	if !less || s.End > e.end {
		e.values, e.end, e.over = s.Values, max(s.End, e.end), s.Over
	}
	e.used = t.next
	t.next++
	t.link(e)
	if !e.dirty {
		e.dirty = true
		t.dirty = append(t.dirty, e)
	}
	return t.bound(most)
}

// bound forgets the totals least recently used beyond most. What is forgotten
// of a flow that may go on raises the horizon.
func (t *Table) bound(most int) (forgotten int) {
	for len(t.byKey) > most {
		e := t.oldest
		if !e.over {
			t.horizon = max(t.horizon, e.end)
			forgotten++
		}
		t.unlink(e)
		delete(t.byKey, e.key)
		e.gone = true
		t.removed = append(t.removed, e.key)
	}
	return forgotten
}

func (t *Table) unlink(e *total) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		t.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		t.newest = e.older
	}
	e.older, e.newer = nil, nil
}

// link makes e the newest.
func (t *Table) link(e *total) {
	if e.older = t.newest; e.older != nil {
		e.older.newer = e
	} else {
		t.oldest = e
	}
	t.newest = e
}
