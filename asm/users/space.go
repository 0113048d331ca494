package users

import (
	"cmp"
	"net/netip"
	"slices"
)

// A space is one address space: prefixes mean the same in all of it.
type space struct {
	lengths []prefixes // that are not empty, the longest first
	nets    netFilter  // where they are, or were

	// Of addresses that are shared by ports.
	pools    map[netip.Addr]*pool
	partners map[netip.Addr]*Holder // chains of the Holders that pools have
}

// lookup returns who holds a at a moment, or who held it nearly then: see
// Table.Lookup and Table.Tolerate.
func (t *space) lookup(a netip.Addr, at, tolerance int64) *Holder {
	k := addressOf(a)
	for i := range t.lengths {
		if h := t.lengths[i].get(k).find(at); h != nil {
			return h
		}
	}
	return t.near(k, at, tolerance)
}

// near returns who held an address nearly at a moment at which nobody held it.
func (t *space) near(k address, at, tolerance int64) *Holder {
	if tolerance == 0 {
		return nil
	}
	for i := range t.lengths {
		if h := t.lengths[i].get(k).near(at, tolerance); h != nil {
			return h
		}
	}
	return nil
}

// chains returns the chains of all prefixes that have a in them, the longest
// first.
func (t *space) chains(a netip.Addr) (chains []*Holder) {
	k := addressOf(a)
	for i := range t.lengths {
		if h := t.lengths[i].get(k); h != nil {
			chains = append(chains, h)
		}
	}
	return chains
}

// batch is how many lookups wait for memory together.
const batch = 32

// lookupBatch is lookup for each of up to batch addresses.
func (t *space) lookupBatch(addrs []netip.Addr, ats []int64, holders []*Holder, tolerance int64) {
	// Those that nobody was found for yet: which they are, and whether anybody
	// held them at another moment.
	var keys [batch]address
	var which [batch]uint8
	var known [batch]bool
	n := 0
	for i, a := range addrs {
		if k := addressOf(a); t.nets.has(&k) {
			keys[n], which[n] = k, uint8(i)
			n++
		}
	}
	clear(holders)
	var chains [batch]*Holder
	for i := range t.lengths {
		t.lengths[i].getBatch(keys[:n], chains[:n])
		left := 0
		for j, chain := range chains[:n] {
			k := which[j]
			if h := chain.find(ats[k]); h != nil {
				holders[k] = h
				continue
			}
			keys[left], which[left], known[left] = keys[j], k, known[j] || chain != nil
			left++
		}
		if n = left; n == 0 {
			return
		}
	}
	for j, k := range which[:n] {
		if known[j] {
			holders[k] = t.near(keys[j], ats[k], tolerance)
		}
	}
}

// length returns the place of the prefixes of a length in t.lengths.
func (t *space) length(bits uint8) (int, bool) {
	return slices.BinarySearchFunc(t.lengths, bits, func(p prefixes, bits uint8) int { return cmp.Compare(bits, p.bits) })
}

// lengthOf returns the length of a prefix, of 128.
func lengthOf(p netip.Prefix) uint8 {
	if p.Addr().Is4() {
		return uint8(p.Bits()) + 96
	}
	return uint8(p.Bits())
}

// chain returns the Holders of exactly p, or of ports of it.
func (t *space) chain(p netip.Prefix, ports Ports) *Holder {
	if ports != "" {
		return t.partners[p.Addr()]
	}
	i, ok := t.length(lengthOf(p))
	if !ok {
		return nil
	}
	return t.lengths[i].get(addressOf(p.Addr()))
}

func (t *space) setChain(p netip.Prefix, ports Ports, head *Holder) {
	switch {
	case ports != "" && head == nil:
		delete(t.partners, p.Addr())
		return
	case ports != "":
		if t.partners == nil {
			t.partners = map[netip.Addr]*Holder{}
		}
		t.partners[p.Addr()] = head
		return
	}
	bits := lengthOf(p)
	i, ok := t.length(bits)
	switch {
	case !ok && head == nil:
		return
	case !ok:
		t.lengths = slices.Insert(t.lengths, i, prefixes{bits: bits})
	}
	a := addressOf(p.Addr())
	t.lengths[i].set(a, head)
	t.nets.add(&a, bits)
	if t.lengths[i].n == 0 {
		t.lengths = slices.Delete(t.lengths, i, i+1)
	}
}

// A netFilter has a bit for each IPv4 /16 and, by a hash, for each IPv6 /32. The
// far end of a user's flow is mostly in none where users are: 8 KiB that are
// always at hand tell that, and no slot far away has to.
type netFilter [1 << 16 / 64]uint64

// bit returns which bit stands for the net of a.
func (a *address) bit() uint16 {
	if a.key&hashed != 0 {
		return uint16(a.hi >> 32 * 0x9e3779b97f4a7c15 >> 48)
	}
	return uint16(a.key >> 16)
}

// add takes in a prefix of a length, of 128, with address a.
func (f *netFilter) add(a *address, length uint8) {
	if a.key&hashed != 0 && length >= 32 || a.key&hashed == 0 && length >= 96+16 {
		f[a.bit()/64] |= 1 << (a.bit() % 64)
		return
	}
	for i := range f { // it holds several nets
		f[i] = ^uint64(0)
	}
}

// has reports whether a prefix that was added may hold a.
func (f *netFilter) has(a *address) bool { return f[a.bit()/64]>>(a.bit()%64)&1 != 0 }
