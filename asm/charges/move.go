package charges

import "slices"

// A Move is what a record charged to one session and is another's.
type Move struct {
	From    uint64 // session; 0 for nobody
	Record  Mark   // of that session
	To      uint64 // session; 0 for nobody
	Charges []Charge
}

// Contradicted returns what is to be moved, in order, and takes it out of what
// is remembered: of the charges that are in doubt and end after the horizon,
// Unix milliseconds, those that whose says are another session's, once it is
// marked which record they are in. A session whose interim interval is longer
// may not have been cut yet; its doubts stay.
func (x *Memory) Contradicted(horizon int64, whose func(*Charge) (session uint64, another bool)) ([]*Move, error) {
	doubts := newDoubtIndex(x.doubts)
	type moveKey struct {
		sessionID string
		number    uint32
		to        uint64
	}
	type unmarked struct { // it is not known yet which record it is in
		Charge
		to      uint64
		segment int
		ordinal int
	}
	var moves []*Move
	byKey := make(map[moveKey]*Move)
	waiting := make(map[uint64][]unmarked) // by session
	gone := make([][]int, len(x.segments)) // ordinals, by segment
	begun := false
	for i, g := range x.segments {
		if begun = begun || doubts.of(g.latest); !begun {
			continue
		}
		ordinal := -1
		err := g.each(func(c *Charge) {
			ordinal++
			if c.End <= horizon || !doubts.has(c) {
				return
			}
			if to, another := whose(c); another {
				waiting[c.Session] = append(waiting[c.Session], unmarked{*c, to, i, ordinal})
			}
		}, func(k *Mark) {
			of := waiting[k.Session]
			left := of[:0]
			for _, c := range of {
				if c.Moved != k.Moved || k.Classes != nil && !slices.Contains(k.Classes, c.Class) {
					left = append(left, c)
					continue
				}
				key := moveKey{k.SessionID, k.Number, c.to}
				v := byKey[key]
				if v == nil {
					v = &Move{From: k.Session, Record: *k, To: c.to}
					byKey[key] = v
					moves = append(moves, v)
				}
				v.Charges = append(v.Charges, c.Charge)
				gone[c.segment] = append(gone[c.segment], c.ordinal)
			}
			if waiting[k.Session] = left; len(left) == 0 {
				delete(waiting, k.Session)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for i, ordinals := range gone {
		if len(ordinals) == 0 {
			continue
		}
		slices.Sort(ordinals)
		rest, err := x.segments[i].without(ordinals)
		if err != nil {
			return nil, err
		}
		x.replace(i, rest)
	}
	if len(waiting) == 0 && len(x.doubts) > 0 {
		x.doubts, x.changed = x.doubts[:0], true
	}
	return moves, nil
}

// replace puts g in the place of segment number i of those remembered.
func (x *Memory) replace(i int, g *segment) {
	before := x.segments[i]
	x.stale = append(x.stale, before.keys()...)
	x.size += len(g.data) - len(before.data)
	x.segments[i] = g
}
