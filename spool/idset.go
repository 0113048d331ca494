package spool

import "slices"

// An idRange is the IDs from first to last, both included.
type idRange struct{ first, last uint64 }

// An idSet is a set of record IDs, kept as ascending ranges that neither
// overlap nor touch. Records settle nearly in order, so ranges are few.
type idSet struct{ ranges []idRange }

// from returns the index of the first range that ends at or behind id.
func (s *idSet) from(id uint64) int {
	i, _ := slices.BinarySearchFunc(s.ranges, id, func(r idRange, id uint64) int {
		switch {
		case r.last < id:
			return -1
		case r.last > id:
			return 1
		}
		return 0
	})
	return i
}

func (s *idSet) has(id uint64) bool {
	i := s.from(id)
	return i < len(s.ranges) && s.ranges[i].first <= id
}

// next returns the first ID not in the set, from id on.
func (s *idSet) next(id uint64) uint64 {
	if i := s.from(id); i < len(s.ranges) && s.ranges[i].first <= id {
		return s.ranges[i].last + 1
	}
	return id
}

// add puts the IDs from first to last into the set.
func (s *idSet) add(first, last uint64) {
	i := s.from(max(first, 1) - 1) // touching counts as overlapping
	j := i
	for j < len(s.ranges) && s.ranges[j].first <= last+1 {
		first = min(first, s.ranges[j].first)
		last = max(last, s.ranges[j].last)
		j++
	}
	s.ranges = slices.Replace(s.ranges, i, j, idRange{first, last})
}

// cutBelow forgets the IDs of ranges that end below id.
func (s *idSet) cutBelow(id uint64) {
	if i := s.from(id); i > 0 {
		s.ranges = slices.Delete(s.ranges, 0, i)
	}
}

// runs returns ids, which it sorts, as ranges of consecutive ones.
func runs(ids []uint64) []idRange {
	slices.Sort(ids)
	var out []idRange
	for _, id := range ids {
		if n := len(out); n > 0 && id <= out[n-1].last+1 {
			out[n-1].last = id
			continue
		}
		out = append(out, idRange{id, id})
	}
	return out
}
