package dedup

import (
	"encoding/binary"
	"slices"

	"tollbridge/internal/memory"
)

// A page is what a table's identities are kept in, 2 KiB of them: little enough
// for the many buckets of many exporters that send little. Pages of
// forgotten identities are used again, and so are indexes, so a window that
// has reached its size allocates no more.
type page struct {
	ids      [pageSlots]Identity
	ordinals [pageSlots]uint16 // where in its Origin each is
}

const (
	pageBits  = 7
	pageSlots = 1 << pageBits
	pageSize  = pageSlots * savedSize
)

// A pool hands out pages and indexes. What they held before is still in
// pages, while indexes are clear.
type pool struct {
	pages   []*page
	inUse   int                       // pages
	indexes [maxIndexBits + 1][]index // by the binary logarithm of their length
	spare   int                       // slots of these
	slots   int                       // of indexes in use
	sink    uint32                    // keeps touches from being optimized away
}

// octets returns what is in use.
func (p *pool) octets() int { return p.inUse*pageSize + p.slots*slotSize }

func (p *pool) page() *page {
	p.inUse++
	if n := len(p.pages); n > 0 {
		pg := p.pages[n-1]
		p.pages[n-1] = nil
		p.pages = p.pages[:n-1]
		return pg
	}
	more := new([8]page)
	for i := 1; i < len(more); i++ {
		p.pages = append(p.pages, &more[i])
	}
	return &more[0]
}

func (p *pool) index(bits uint8) index {
	p.slots += 1 << bits
	kept := &p.indexes[bits]
	n := len(*kept)
	if n == 0 {
		x := make(index, 1<<bits)
		memory.Advise(x)
		return x
	}
	x := (*kept)[n-1]
	(*kept)[n-1] = nil
	*kept = (*kept)[:n-1]
	p.spare -= len(x)
	clear(x)
	return x
}

// The pool keeps about as much as is in use, lest the memory of a peak be held
// for ever.
const (
	sparePages = 256
	spareSlots = 1 << 16
)

func (p *pool) putPages(back []*page) {
	p.inUse -= len(back)
	room := max(p.inUse+sparePages-len(p.pages), 0)
	p.pages = append(p.pages, back[:min(room, len(back))]...)
}

func (p *pool) putIndex(x index, bits uint8) {
	p.slots -= len(x)
	if p.spare+len(x) <= p.slots+spareSlots {
		p.spare += len(x)
		p.indexes[bits] = append(p.indexes[bits], x)
	}
}

// A table is a set of identities.
//
// It keeps them one after another as they came, which is also how a checkpoint
// wants them, and finds them through an index of four octets a slot: only the
// index is read and written at random. It takes 16 octets for the identity and
// 5.3 to 10.7 of the index, 24 on average over all sizes.
type table struct {
	index index
	bits  uint8 // the binary logarithm of the slots
	n     int   // identities
	limit int   // double the index before there are more
	saved int   // identities, the first ones, that a checkpoint has
	pages []*page

	origin  Origin   // of the latest identity
	origins []Origin // each of the identities from the number in starts on
	starts  []uint32 // ascending; those before the first have no Origin
}

// An index is an open-addressing hash table with linear probing. The leading
// bits of an identity's upper half, as many as give a slot's number, say where
// the search for it begins. A slot holds what follows these bits, and in its
// low bits the identity's number in the table, counted from 1: so many as give
// a slot's number suffice. 0 is a free slot. So of those that a search passes
// by hardly one has to be looked at, even in the largest table.
type index []uint32

const (
	slotSize     = 4
	minIndexBits = 6
	maxIndexBits = 31
)

// maxTable is how many identities a table may hold.
const maxTable = 1 << maxIndexBits / 4 * 3

// add adds id and reports whether it was missing.
func (t *table) add(id Identity, ordinal uint16, pool *pool) bool {
	if t.n >= t.limit {
		t.resize(max(t.bits+1, minIndexBits), pool)
	}
	top := uint32(id.hi >> 32)
	tag := top << (t.bits & 31)
	x := t.index
	at := top >> (-t.bits & 31)
	for {
		s := x[at]
		if s == 0 {
			break
		}
		if (s^tag)>>(t.bits&31) == 0 && t.get(s&uint32(len(x)-1)) == id {
			return false
		}
		at = (at + 1) & uint32(len(x)-1)
	}
	if t.n%pageSlots == 0 {
		t.pages = append(t.pages, pool.page())
	}
	pg := t.pages[t.n/pageSlots]
	pg.ids[t.n%pageSlots], pg.ordinals[t.n%pageSlots] = id, ordinal
	t.n++
	x[at] = tag | uint32(t.n)
	return true
}

// get returns identity number n, counted from 1.
func (t *table) get(n uint32) Identity {
	n--
	return t.pages[n/pageSlots].ids[n%pageSlots]
}

// touch reads the slot where the search for id would begin. Many touches in a
// row wait for memory together, which add would wait for one by one.
func (t *table) touch(id Identity) uint32 {
	at := uint32(id.hi>>32) >> (-t.bits & 31)
	if int(at) >= len(t.index) {
		return 0
	}
	return t.index[at]
}

// find returns the number of id in t, counted from 1; 0 if it is missing.
func (t *table) find(id Identity) uint32 {
	if t.n == 0 {
		return 0
	}
	top := uint32(id.hi >> 32)
	tag := top << (t.bits & 31)
	for at := top >> (-t.bits & 31); ; at = (at + 1) & uint32(len(t.index)-1) {
		switch s := t.index[at]; {
		case s == 0:
			return 0
		case (s^tag)>>(t.bits&31) == 0 && t.get(s&uint32(len(t.index)-1)) == id:
			return s & uint32(len(t.index)-1)
		}
	}
}

// has reports whether id is in t.
func (t *table) has(id Identity) bool { return t.find(id) != 0 }

// limit returns how many identities an index of so many slots may hold. It
// leaves slots free, so that every search ends, and soon.
func limit(bits uint8) int { return 1 << bits / 4 * 3 }

// indexBits returns the size of an index for n identities.
func indexBits(n int) uint8 {
	bits := uint8(minIndexBits)
	for limit(bits) < n {
		bits++
	}
	return bits
}

// resize gives t an index of 1<<bits slots, enough for what it holds.
func (t *table) resize(bits uint8, pool *pool) {
	if t.index != nil {
		pool.putIndex(t.index, t.bits)
	}
	// What is in the pages is put in anew: in sequence there, at random here.
	// The slots of a batch are touched first: else each search that can't be
	// foreseen would wait for memory by itself.
	x := pool.index(bits)
	t.index, t.bits, t.limit = x, bits, limit(bits)
	for first := 0; first < t.n; first += batch {
		ids := t.pages[first/pageSlots].ids[first%pageSlots:][:min(batch, t.n-first)]
		var touched uint32
		for i := range ids {
			touched |= t.touch(ids[i])
		}
		pool.sink |= touched
		for i := range ids {
			top := uint32(ids[i].hi >> 32)
			at := top >> (-bits & 31)
			for x[at] != 0 {
				at = (at + 1) & uint32(len(x)-1)
			}
			x[at] = top<<(bits&31) | uint32(first+i+1)
		}
	}
}

// fresh returns how many identities no checkpoint has.
func (t *table) fresh() int { return t.n - t.saved }

// save appends the fresh identities up to number end, counted from 1, to b, in
// the order they came.
func (t *table) save(b []byte, end int) []byte {
	b = slices.Grow(b, (end-t.saved)*IdentitySize)
	for t.saved < end {
		at := t.saved % pageSlots
		part := t.pages[t.saved/pageSlots].ids[at:min(pageSlots, at+end-t.saved)]
		for _, id := range part {
			b = binary.LittleEndian.AppendUint64(b, id.lo)
			b = binary.LittleEndian.AppendUint64(b, id.hi)
		}
		t.saved += len(part)
	}
	return b
}

// release forgets all identities and gives the memory back.
func (t *table) release(pool *pool) {
	pool.putPages(t.pages)
	if t.index != nil {
		pool.putIndex(t.index, t.bits)
	}
	*t = table{}
}
