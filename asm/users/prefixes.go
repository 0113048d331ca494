package users

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"tollbridge/internal/memory"
)

// prefixes maps the prefixes of one length to chains of Holders by open
// addressing with linear probing, both families in one: single addresses are
// the longest. Sources give prefixes of few lengths, so that asking for one
// after the other costs less than a trie.
type prefixes struct {
	bits uint8 // the length, of 128; an IPv4 prefix has 96 more than it is written with
	n    int
	n6   int // of these, IPv6

	slots []slot
}

// A slot is free if head is nil. Four of them fill a line of the processor's
// cache.
type slot struct {
	key  key
	head *Holder
}

// A key stands for the address of a prefix: alone for an IPv4 address, which it
// is, and for few an IPv6 address, of which it is a hash.
type key uint64

const (
	hashed  key = 1 << 63 // marks the keys of IPv6 addresses
	nowhere key = 1 << 62 // of what is never found
)

// An address is what is searched for. An IPv4-mapped one is the IPv4 address.
type address struct {
	key    key
	hi, lo uint64 // if key is hashed; words, as a struct with an array is copied by way of memory
}

// addressOf returns a, which may be invalid: then nothing is found.
func addressOf(a netip.Addr) address {
	switch {
	case !a.IsValid():
		return address{key: nowhere}
	case a.Is4In6():
		a = a.Unmap()
	}
	if a.Is4() {
		b := a.As4()
		return address{key: key(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return address6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

func address6(hi, lo uint64) address {
	return address{key(hi*0xff51afd7ed558ccd^lo) | hashed, hi, lo}
}

// mask returns the prefix of t's length that has a in it.
func (t *prefixes) mask(a *address) address {
	switch {
	case a.key&hashed != 0 && t.n6 == 0, a.key&hashed == 0 && t.n6 == t.n, a.key == nowhere:
		return address{key: nowhere}
	case t.bits == 128:
		return *a
	case a.key&hashed == 0:
		return address{key: a.key >> (128 - t.bits) << (128 - t.bits)}
	case t.bits > 64:
		return address6(a.hi, a.lo>>(128-t.bits)<<(128-t.bits))
	}
	return address6(a.hi>>(64-t.bits)<<(64-t.bits), 0)
}

// is reports whether s, which is not free, is the slot of a.
func (s *slot) is(a *address) bool {
	return s.key == a.key && (a.key&hashed == 0 || s.head.hi == a.hi && s.head.lo == a.lo)
}

// home returns the slot where the search for k begins. Neighbouring addresses
// are spread evenly over the table, which may have any size.
func (t *prefixes) home(k key) int {
	i, _ := bits.Mul64(uint64(k)*0x9e3779b97f4a7c15, uint64(len(t.slots)))
	return int(i)
}

// get returns the chain of the prefix that has a in it, nil for none.
func (t *prefixes) get(a address) *Holder {
	k := t.mask(&a)
	return t.search(&k, t.home(k.key))
}

// getBatch stores what get would return for each of up to batch addresses in
// chains. Each of its loops reads places that do not depend on each other, so
// that the processor waits for memory once a loop and not once an address: the
// slots where the searches begin, then, where keys stand for several prefixes,
// the Holders.
func (t *prefixes) getBatch(addrs []address, chains []*Holder) {
	keys := addrs
	if t.bits < 128 {
		var masked [batch]address
		for i := range addrs {
			masked[i] = t.mask(&addrs[i])
		}
		keys = masked[:len(addrs)]
	}
	var at [batch]int
	for i := range keys {
		at[i] = t.home(keys[i].key)
	}
	var heads [batch]*Holder
	for i, j := range at[:len(addrs)] {
		heads[i] = t.slots[j].head
	}
	for i, h := range heads[:len(addrs)] {
		for j := at[i]; h != nil && t.slots[j].key != keys[i].key; h = t.slots[j].head {
			if j++; j == len(t.slots) {
				j = 0
			}
		}
		chains[i] = h
	}
	for i, h := range chains {
		if k := &keys[i]; k.key&hashed != 0 && h != nil && (h.hi != k.hi || h.lo != k.lo) {
			chains[i] = t.search(k, at[i]) // another prefix has the same key
		}
	}
}

// search returns the chain of k, whose home is slot i.
func (t *prefixes) search(k *address, i int) *Holder {
	for {
		s := &t.slots[i]
		if s.head == nil || s.is(k) {
			return s.head
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

// set sets the chain of the prefix whose address k is; nil deletes it.
func (t *prefixes) set(k address, head *Holder) {
	if len(t.slots) == 0 {
		t.resize(16)
	}
	i := t.home(k.key)
	for t.slots[i].head != nil && !t.slots[i].is(&k) {
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	had := t.slots[i].head != nil
	switch {
	case head == nil && had:
		t.free(i)
		t.count(k, -1)
	case head != nil:
		t.slots[i] = slot{k.key, head}
		if !had {
			t.count(k, 1)
			if t.n > len(t.slots)*17/20 {
				t.resize(t.n*3/2 + 16)
			}
		}
	}
}

// count takes in that there is one more or less like k.
func (t *prefixes) count(k address, one int) {
	t.n += one
	if k.key&hashed != 0 {
		t.n6 += one
	}
}

// free empties slot i and moves those behind it up, so that no search misses
// them.
func (t *prefixes) free(i int) {
	for j := i; ; {
		t.slots[i].head = nil
		for {
			if j++; j == len(t.slots) {
				j = 0
			}
			if t.slots[j].head == nil {
				t.slots[i] = slot{}
				return
			}
			// It may move to i unless its search begins behind i.
			if t.distance(t.home(t.slots[j].key), j) >= t.distance(i, j) {
				break
			}
		}
		t.slots[i] = t.slots[j]
		i = j
	}
}

// distance returns how many steps a search takes from slot i to slot j.
func (t *prefixes) distance(i, j int) int {
	if i <= j {
		return j - i
	}
	return j - i + len(t.slots)
}

func (t *prefixes) resize(n int) {
	old := t.slots
	t.slots = make([]slot, n)
	memory.Advise(t.slots)
	for _, s := range old {
		if s.head == nil {
			continue
		}
		i := t.home(s.key)
		for t.slots[i].head != nil {
			if i++; i == len(t.slots) {
				i = 0
			}
		}
		t.slots[i] = s
	}
}
