package users

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"tollbridge/internal/memory"
)

// A Table says who holds an address at a moment. Its bindings come from
// sources: lists, such as files, each of which replaces its own, and Events of
// user sessions.
//
// The zero Table is empty and ready to use. Lookups may run at once, but not
// beside a change.
type Table struct {
	space                      // the global one
	vrfs     map[string]*space // by name
	sources  []*source         // by name
	options  map[Options]*Options
	dirty    []*Claim // user sessions that changed since the last Delta
	overlaps uint64
	doubts   doubts

	maxSessions     int // 0 means MaxSessions; tests have fewer
	sessionsRefused uint64

	tolerance int64 // milliseconds

	shared     int // Holders and Mappings that have some ports of an address
	mappings   int // of these
	refused    uint64
	dirtyPorts map[pageKey]bool
}

// Tolerate sets by how many milliseconds the clocks of sources and exporters
// may differ. Whoever asks for a moment at which nobody holds an address gets
// the Holder whose time is the nearest to it, if it is no further away: of the
// one that ended before and the one that begins after, the one that ended
// where both are as near. Whoever holds the address at that very moment, by
// whatever prefix, comes first.
func (t *Table) Tolerate(milliseconds int64) { t.tolerance = milliseconds }

// A source is where bindings come from.
type source struct {
	name    string
	round   uint32    // counts calls of Replace
	holders []*Holder // listed in the latest, in its order
	removed []*Holder // listed in an earlier one, in the order they went

	origins []*origin
	claims  claimIndex // of user sessions, the latest of each ID
	past    []*Claim   // of user sessions whose ID has gone to another
}

func (s *source) empty() bool {
	return len(s.holders)+len(s.removed)+s.claims.n+len(s.past) == 0
}

// origin returns what all Claims of s from a NAS and in a VRF share.
func (s *source) origin(nas, vrf string) *origin {
	for _, o := range s.origins {
		if o.nas == nas && o.vrf == vrf {
			return o
		}
	}
	o := &origin{s, strings.Clone(nas), strings.Clone(vrf)}
	s.origins = append(s.origins, o)
	return o
}

// In returns the space of a VRF, which may be unknown; "" is the global one.
func (t *Table) in(vrf string) *space {
	if vrf == "" {
		return &t.space
	}
	return t.vrfs[vrf]
}

// open returns the space of a VRF, a new one if it is unknown.
func (t *Table) open(vrf string) *space {
	if vrf != "" && t.vrfs[vrf] == nil {
		if t.vrfs == nil {
			t.vrfs = map[string]*space{}
		}
		t.vrfs[vrf] = &space{}
	}
	return t.in(vrf)
}

// A Change says what a Replace came to.
type Change struct {
	Added   []*Holder
	Changed []Changed
	Removed []*Holder // listed no more: they end at the moment of the Replace
}

// A Changed is a Holder of which something changed.
type Changed struct {
	*Holder
	Before Binding
}

// Lookup returns who holds a at a moment in Unix milliseconds, nil if nobody
// does. The longest prefix that anybody holds at the moment decides, and among
// its Holders the one that holds it since the latest moment. An IPv4-mapped
// address is the IPv4 address. It does not allocate.
func (t *Table) Lookup(a netip.Addr, at int64) *Holder {
	return t.space.lookup(a, at, t.tolerance)
}

// LookupBatch stores in holders what Lookup would return for each of addrs and
// ats, which have the same length, in the global address space. It is faster
// than Lookup when the Table does not fit the processor's caches.
func (t *Table) LookupBatch(addrs []netip.Addr, ats []int64, holders []*Holder) {
	for len(addrs) > 0 {
		n := min(batch, len(addrs))
		t.lookupBatch(addrs[:n], ats[:n], holders[:n], t.tolerance)
		addrs, ats, holders = addrs[n:], ats[n:], holders[n:]
	}
}

// LookupVRF is Lookup in the address space of a VRF; "" is the global one.
func (t *Table) LookupVRF(vrf string, a netip.Addr, at int64) *Holder {
	if s := t.in(vrf); s != nil {
		return s.lookup(a, at, t.tolerance)
	}
	return nil
}

// Replace makes bindings all that source lists, and says what that changes. A
// binding is the same as before if its prefix, user and start are.
//
// A binding that the source lists no more ends at a moment in Unix
// milliseconds, unless it ended earlier, and is still found for the time
// before, until Trim drops it: the flows of that time may be late. One that
// would only have begun is gone.
//
// A binding that isn't valid is passed over; ParseFile and ParseList return
// none. Of several that are the same the first counts.
func (t *Table) Replace(source string, bindings []Binding, at int64) Change {
	var c Change
	s := t.source(source)
	s.round++
	before := s.holders
	s.holders = make([]*Holder, 0, len(bindings))
	// The Holders of a first list lie close together, as lookups read them all
	// over. Those that come later do not: the last of many would keep them all.
	var room []Holder
	if s.empty() {
		room = make([]Holder, len(bindings))
		memory.Advise(room)
	}
	revived := false
	for _, b := range bindings {
		b, _, err := b.normalize()
		if err != nil {
			continue
		}
		h := t.holder(s, b)
		switch {
		case h == nil:
			if len(room) > 0 {
				h, room = &room[0], room[1:]
			} else {
				h = new(Holder)
			}
			t.list(h, s, b)
			t.link(h)
			t.doubtHolder(h)
			c.Added = append(c.Added, h)
		case h.round == s.round:
			continue
		case h.Removed() || h.Until != toMilli(b.Until) || *h.Options != b.Options:
			c.Changed = append(c.Changed, Changed{h, h.Binding()})
			revived = revived || h.Removed()
			t.unlink(h)
			t.doubtHolder(h)
			h.Until = toMilli(b.Until)
			h.Options = t.intern(b.Options)
			h.flags &^= holderRemoved
			t.link(h)
			t.doubtHolder(h)
		}
		h.round = s.round
		s.holders = append(s.holders, h)
	}
	if revived {
		s.removed = slices.DeleteFunc(s.removed, func(h *Holder) bool { return !h.Removed() })
	}
	for _, h := range before {
		if h.round == s.round {
			continue
		}
		c.Removed = append(c.Removed, h)
		t.doubtHolder(h)
		t.unlink(h)
		h.flags |= holderRemoved
		if h.Until == 0 || h.Until > at {
			h.Until = at
		}
		if h.Until > h.From {
			t.link(h)
			s.removed = append(s.removed, h)
		}
	}
	t.dropIfEmpty(s)
	return c
}

// list makes h, which is new, that of a binding in a source's list.
func (t *Table) list(h *Holder, s *source, b Binding) {
	claim := t.newClaim(s.origin("", b.VRF), b.User, "", b.Options)
	claim.began = momentOf(toMilli(b.From))
	claim.hold(h, toMilli(b.From))
	h.Until = toMilli(b.Until)
	h.setPrefix(b.Prefix)
}

// Trim drops the bindings that their sources list no more and that ended at or
// before a moment in Unix milliseconds. It returns the sources that had some:
// what AppendSource appended of them holds no more.
func (t *Table) Trim(before int64) (trimmed []string) {
	for _, s := range slices.Clone(t.sources) {
		n := len(s.removed)
		s.removed = slices.DeleteFunc(s.removed, func(h *Holder) bool {
			if h.Until > before {
				return false
			}
			t.unlink(h)
			return true
		})
		if len(s.removed) < n {
			trimmed = append(trimmed, s.name)
		}
		t.dropIfEmpty(s)
	}
	return trimmed
}

// Sources returns the names of the sources that have bindings, in order.
func (t *Table) Sources() []string {
	names := make([]string, len(t.sources))
	for i, s := range t.sources {
		names[i] = s.name
	}
	return names
}

// Holders returns the Holders of a source's lists: those it lists, in its
// order, then those that were removed but not dropped yet, in the order they
// went.
func (t *Table) Holders(source string) []*Holder {
	i, ok := t.search(source)
	if !ok {
		return nil
	}
	return slices.Concat(t.sources[i].holders, t.sources[i].removed)
}

// holder returns the Holder of b in s, nil if there is none.
func (t *Table) holder(s *source, b Binding) *Holder {
	from := toMilli(b.From)
	space := t.in(b.VRF)
	if space == nil {
		return nil
	}
	for h := space.chain(b.Prefix, b.Ports); h != nil; h = h.next {
		if h.origin.source == s && h.From == from && h.ID() == "" && h.User() == b.User && h.ports() == b.Ports {
			return h
		}
	}
	return nil
}

func (t *Table) link(h *Holder) {
	s, p := t.open(h.VRF()), h.Prefix()
	s.setChain(p, h.ports(), insert(s.chain(p, h.ports()), h))
	if h.ports() != "" {
		s.linkPorts(h)
		t.shared++
	}
}

func (t *Table) unlink(h *Holder) {
	s, p := t.open(h.VRF()), h.Prefix()
	s.setChain(p, h.ports(), without(s.chain(p, h.ports()), h))
	if h.ports() != "" {
		s.unlinkPorts(h)
		t.shared--
	}
}

func (t *Table) search(name string) (int, bool) {
	return slices.BinarySearchFunc(t.sources, name, func(s *source, name string) int { return cmp.Compare(s.name, name) })
}

// source returns the source of a name, a new one if there is none.
func (t *Table) source(name string) *source {
	i, ok := t.search(name)
	if !ok {
		t.sources = slices.Insert(t.sources, i, &source{name: name})
	}
	return t.sources[i]
}

func (t *Table) dropIfEmpty(s *source) {
	if !s.empty() {
		return
	}
	if i, ok := t.search(s.name); ok {
		t.sources = slices.Delete(t.sources, i, i+1)
	}
}

// intern returns a copy of o, the same for equal ones of what is few: realms,
// classes and time zones.
func (t *Table) intern(o Options) *Options {
	if o.MultiSession != "" || o.Attributes != "" || o.Ports != "" {
		return &o
	}
	if p := t.options[o]; p != nil {
		return p
	}
	if t.options == nil {
		t.options = map[Options]*Options{}
	}
	p := &o
	t.options[o] = p
	return p
}
