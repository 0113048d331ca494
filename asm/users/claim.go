package users

import (
	"cmp"
	"hash/maphash"
	"iter"
	"slices"
)

// A Claim is what a source says of one user: a line of a list, with one
// Holder, or a user session that Events told of, with a Holder for each
// address that it has or had.
type Claim struct {
	names string // user, then ID: one string, as there are millions
	*Options
	origin *origin
	first  *Holder // of those that siblings chain, the latest begun first

	began moment // as it was when the Claim was made: names it
	seen  moment // when the latest Event happened
	until moment // when the session ended, or will if nothing is heard of it; 0 for never

	split uint8 // where names divide
	flags claimFlags
}

type claimFlags uint8

const (
	claimBegun claimFlags = 1 << iota // its Begin has come
	claimEnded                        // its End, or an EndAll, has come
	claimDirty                        // listed in Table.dirty
	claimGone                         // forgotten
	claimSwept                        // ended by an EndAll, of which its own Events know better
)

// An origin is where Claims come from: a source and NAS, and the address space
// that they are of. All of one share it.
type origin struct {
	source *source
	nas    string
	vrf    string
}

// User returns whose the Claim is.
func (c *Claim) User() string { return c.names[:c.split] }

// ID returns the source's own key of the user session, "" for a line of a list.
func (c *Claim) ID() string { return c.names[c.split:] }

// Source returns the name of the source of c.
func (c *Claim) Source() string { return c.origin.source.name }

// NAS returns who holds the session; "" if the source doesn't say.
func (c *Claim) NAS() string { return c.origin.nas }

// VRF returns the address space of c's prefixes; "" is the global one.
func (c *Claim) VRF() string { return c.origin.vrf }

// Began returns when the session began as far as was known when it was first
// heard of, Unix milliseconds. It never changes: Source, ID, User and Began
// name a user session.
func (c *Claim) Began() int64 { return c.began.ms() }

// Seen returns when the latest Event of the session happened, Unix
// milliseconds.
func (c *Claim) Seen() int64 { return c.seen.ms() }

// Ended reports whether the session's end was told, not only supposed.
func (c *Claim) Ended() bool { return c.flags&claimEnded != 0 }

// Holders returns the Holders of c, the latest begun first.
func (c *Claim) Holders() iter.Seq[*Holder] {
	return func(yield func(*Holder) bool) {
		for h := c.first; h != nil; h = h.sibling {
			if !yield(h) {
				return
			}
		}
	}
}

// Until returns when the last of c's Holders ends, Unix milliseconds; 0 for
// never. A Claim that holds nothing ended when it began.
func (c *Claim) Until() int64 {
	if c.first == nil {
		return max(c.Began(), 1)
	}
	until := int64(0)
	for h := c.first; h != nil; h = h.sibling {
		if h.Until == 0 {
			return 0
		}
		until = max(until, h.Until)
	}
	return until
}

// newClaim returns a Claim without Holders.
func (t *Table) newClaim(o *origin, user, id string, options Options) *Claim {
	return &Claim{names: user + id, split: uint8(len(user)), Options: t.intern(options), origin: o}
}

// holder returns a new Holder of c, which lacks its prefix.
func (c *Claim) holder(from int64) *Holder {
	h := new(Holder)
	c.hold(h, from)
	return h
}

// hold makes h, a zero one, a Holder of c, which lacks its prefix.
func (c *Claim) hold(h *Holder, from int64) {
	*h = Holder{From: from, Claim: c, sibling: c.first}
	c.first = h
}

// compare orders Claims of user sessions.
func (c *Claim) compare(d *Claim) int {
	return cmp.Or(cmp.Compare(c.Source(), d.Source()), cmp.Compare(c.ID(), d.ID()), cmp.Compare(c.Began(), d.Began()), cmp.Compare(c.User(), d.User()))
}

// A claimIndex finds the latest Claim of an ID by open addressing with linear
// probing. Its order is never seen.
//
// The zero claimIndex is empty and ready to use.
type claimIndex struct {
	slots []*Claim
	n     int
}

var claimSeed = maphash.MakeSeed()

func (x *claimIndex) home(id string) int {
	return int(maphash.String(claimSeed, id) % uint64(len(x.slots)))
}

// find returns the slot of id, or the free one where it would be.
func (x *claimIndex) find(id string) int {
	i := x.home(id)
	for x.slots[i] != nil && x.slots[i].ID() != id {
		if i++; i == len(x.slots) {
			i = 0
		}
	}
	return i
}

// get returns the Claim of id, nil for none.
func (x *claimIndex) get(id string) *Claim {
	if x.n == 0 {
		return nil
	}
	return x.slots[x.find(id)]
}

// put makes c the Claim of its ID.
func (x *claimIndex) put(c *Claim) {
	if (x.n+1)*4 > len(x.slots)*3 {
		old := x.slots
		x.slots = make([]*Claim, (x.n+1)*7/4+16)
		for _, c := range old {
			if c != nil {
				x.slots[x.find(c.ID())] = c
			}
		}
	}
	i := x.find(c.ID())
	if x.slots[i] == nil {
		x.n++
	}
	x.slots[i] = c
}

// remove drops c if it is the Claim of its ID.
func (x *claimIndex) remove(c *Claim) {
	if x.get(c.ID()) != c {
		return
	}
	i := x.find(c.ID())
	x.slots[i] = nil
	x.n--
	// Those behind move up, so that no search misses them.
	for {
		if i++; i == len(x.slots) {
			i = 0
		}
		c := x.slots[i]
		if c == nil {
			return
		}
		x.slots[i] = nil
		x.slots[x.find(c.ID())] = c
	}
}

// sorted returns all Claims in order.
func (x *claimIndex) sorted() []*Claim {
	all := slices.DeleteFunc(slices.Clone(x.slots), func(c *Claim) bool { return c == nil })
	slices.SortFunc(all, (*Claim).compare)
	return all
}
