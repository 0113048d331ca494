package dedup

import "math/bits"

// A page is what a table grows by: 8 KiB of slots. Pages of forgotten
// identities are used again, so a window that has reached its size allocates
// no more.
type page [pageSlots]Identity

const (
	pageBits  = 9
	pageSlots = 1 << pageBits
)

// pages hands out empty pages.
type pages struct {
	free  []*page
	inUse int
}

func (p *pages) get() *page {
	p.inUse++
	if n := len(p.free); n > 0 {
		pg := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return pg
	}
	return new(page)
}

// put takes pages back. It keeps about as many as are in use, lest the memory
// of a peak be held for ever.
func (p *pages) put(back []*page) {
	p.inUse -= len(back)
	for _, pg := range back {
		if len(p.free) > p.inUse+8*regions {
			return
		}
		clear(pg[:])
		p.free = append(p.free, pg)
	}
}

// A table is a set of identities.
//
// It is made of regions that double each on its own. The share of identities
// that fall to region i is proportional to 2^(i/8), so that at any size the
// regions are at all stages between just doubled and about to double, and the
// table takes 16/0.9/ln(2) = 26 octets per identity at any size. One that
// doubled as a whole would take between 18 and 36.
type table struct {
	regions [regions]region
	n       int // identities
}

const regions = 8

// A region is an open-addressing hash table with linear probing. An identity's
// place is given by the leading bits of its upper half, so doubling keeps the
// order and walks memory in sequence. The zero Identity marks a free slot.
type region struct {
	pages []*page
	shift uint8  // 64 less the binary logarithm of the slots
	mask  uint64 // slots less one
	n     uint64 // identities
	limit uint64 // double before there are more
}

// regionOf gives the region of an identity by the least octet of its lower
// half.
var regionOf = func() (of [256]uint8) {
	// 256 · 2^(i/8) / (2^(0/8) + ... + 2^(7/8)), rounded to a sum of 256.
	i := 0
	for r, share := range [regions]int{23, 25, 28, 30, 33, 36, 39, 42} {
		for range share {
			of[i] = uint8(r)
			i++
		}
	}
	return of
}()

// add adds id, which must not be zero, and reports whether it was missing.
func (t *table) add(id Identity, pool *pages) bool {
	r := &t.regions[regionOf[uint8(id.lo)]]
	if r.n >= r.limit {
		r.resize(max(1, 2*len(r.pages)), pool)
	}
	at := id.hi >> r.shift
	for {
		switch s := &r.pages[at>>pageBits][at%pageSlots]; *s {
		case id:
			return false
		case Identity{}:
			*s = id
			r.n++
			t.n++
			return true
		}
		at = (at + 1) & r.mask
	}
}

// touch reads the slot where the search for id would begin. Many touches in a
// row wait for memory together, which add would wait for one by one.
func (t *table) touch(id Identity) uint64 {
	r := &t.regions[regionOf[uint8(id.lo)]]
	if r.limit == 0 {
		return 0
	}
	at := id.hi >> r.shift
	return r.pages[at>>pageBits][at%pageSlots].hi
}

// has reports whether id, which must not be zero, is in t.
func (t *table) has(id Identity) bool {
	r := &t.regions[regionOf[uint8(id.lo)]]
	if r.limit == 0 {
		return false
	}
	at := id.hi >> r.shift
	for {
		switch r.pages[at>>pageBits][at%pageSlots] {
		case id:
			return true
		case Identity{}:
			return false
		}
		at = (at + 1) & r.mask
	}
}

// presize gives t, which is empty, the room that four fifths of like's
// identities take: enough to save it most of its doublings, little enough not
// to be too much when there are somewhat fewer.
func (t *table) presize(like *table, pool *pages) {
	for i := range t.regions {
		pages := 1
		for limit(pages) < like.regions[i].n*4/5 {
			pages *= 2
		}
		t.regions[i].resize(pages, pool)
	}
}

// limit returns how many identities so many pages of a region may hold. It
// leaves a slot free, so that every search ends.
func limit(pages int) uint64 { return uint64(pages) * pageSlots * 9 / 10 }

// resize gives r so many pages, a power of two and enough for what it holds.
func (r *region) resize(n int, pool *pages) {
	old := r.pages
	slots := uint64(n) * pageSlots
	r.pages = make([]*page, n)
	for i := range r.pages {
		r.pages[i] = pool.get()
	}
	r.shift = uint8(64 - bits.TrailingZeros64(slots))
	r.mask = slots - 1
	r.limit = limit(n)
	for _, pg := range old {
		for _, id := range pg {
			if id == (Identity{}) {
				continue
			}
			at := id.hi >> r.shift
			for r.pages[at>>pageBits][at%pageSlots] != (Identity{}) {
				at = (at + 1) & r.mask
			}
			r.pages[at>>pageBits][at%pageSlots] = id
		}
	}
	pool.put(old)
}

// release forgets all identities and gives their pages back.
func (t *table) release(pool *pages) {
	for i := range t.regions {
		pool.put(t.regions[i].pages)
	}
	*t = table{}
}
