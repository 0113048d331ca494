package users

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// hosts maps single addresses to chains of Holders by open addressing with
// linear probing. It is the fast path: most bindings are of one address, and
// most lookups find one. An IPv4-mapped address is the IPv4 address.
//
// The zero hosts is empty and ready to use.
type hosts struct {
	slots []slot
	n     int
}

// A slot is free if head is nil. Four of them fill a line of the processor's
// cache.
type slot struct {
	key  hostKey
	head *Holder
}

// A hostKey stands for an address: alone for an IPv4 address, which it is, and
// for few an IPv6 address, of which it is a hash.
type hostKey uint64

// hashed marks the keys of IPv6 addresses.
const hashed hostKey = 1 << 63

// A host is an address to be searched for.
type host struct {
	key    hostKey
	hi, lo uint64 // of the address, if key is hashed; words, as a struct with an array is copied by way of memory
}

func hostOf(a netip.Addr) host {
	if a.Is4() {
		b := a.As4()
		return host{key: hostKey(binary.BigEndian.Uint32(b[:]))}
	}
	if a.Is4In6() {
		return hostOf(a.Unmap())
	}
	b := a.As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	return host{hostKey(hi*0xff51afd7ed558ccd^lo) | hashed, hi, lo}
}

// is reports whether s, which is not free, is the slot of h.
func (s *slot) is(h *host) bool {
	return s.key == h.key && (h.key&hashed == 0 || s.head.hi == h.hi && s.head.lo == h.lo)
}

// home returns the slot where the search for k begins. Neighbouring addresses
// are spread evenly over the table, which may have any size.
func (t *hosts) home(k hostKey) int {
	i, _ := bits.Mul64(uint64(k)*0x9e3779b97f4a7c15, uint64(len(t.slots)))
	return int(i)
}

// get returns the chain of k, nil for none.
func (t *hosts) get(k host) *Holder {
	if t.n == 0 {
		return nil
	}
	return t.search(&k, t.home(k.key))
}

// getBatch stores the chains of up to batch addresses in chains. Each of its
// loops reads places that do not depend on each other, so that the processor
// waits for memory once a loop and not once an address: the slots where the
// searches begin, then, where keys stand for several addresses, the Holders.
func (t *hosts) getBatch(addrs []netip.Addr, chains []*Holder) {
	clear(chains[:len(addrs)])
	if t.n == 0 {
		return
	}
	// Nothing is read beside this: octets of an address become words by way of
	// memory, which would wait for what was read before.
	var keys [batch]host
	var at [batch]int
	for i := range addrs {
		if at[i] = -1; addrs[i].IsValid() {
			keys[i] = hostOf(addrs[i])
			at[i] = t.home(keys[i].key)
		}
	}
	var heads [batch]*Holder
	for i, j := range at[:len(addrs)] {
		if j >= 0 {
			heads[i] = t.slots[j].head
		}
	}
	for i, h := range heads[:len(addrs)] {
		for j := at[i]; h != nil; h = t.slots[j].head {
			if t.slots[j].key == keys[i].key {
				chains[i] = h
				break
			}
			if j++; j == len(t.slots) {
				j = 0
			}
		}
	}
	for i, h := range chains[:len(addrs)] {
		if k := &keys[i]; k.key&hashed != 0 && h != nil && (h.hi != k.hi || h.lo != k.lo) {
			chains[i] = t.search(k, at[i]) // another address has the same key
		}
	}
}

// search returns the chain of k, whose home is slot i.
func (t *hosts) search(k *host, i int) *Holder {
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

// set sets the chain of k; nil deletes it.
func (t *hosts) set(k host, head *Holder) {
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
		t.n--
	case head != nil:
		t.slots[i] = slot{k.key, head}
		if !had {
			t.n++
			t.reserve(0)
		}
	}
}

// free empties slot i and moves those behind it up, so that no search misses
// them.
func (t *hosts) free(i int) {
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
func (t *hosts) distance(i, j int) int {
	if i <= j {
		return j - i
	}
	return j - i + len(t.slots)
}

// reserve makes room for n more.
func (t *hosts) reserve(n int) {
	if want := t.n + n; want > len(t.slots)*17/20 {
		t.resize(want*3/2 + 16)
	}
}

func (t *hosts) resize(n int) {
	old := t.slots
	t.slots = make([]slot, n)
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
