package users

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// MaxMappings bounds the Mappings that a Table remembers. Beyond it new ones
// are refused and counted: an exporter that never tells of their end must not
// fill the memory.
const MaxMappings = 4 << 20

// A Mapping says that a NAT lets ports of a public address stand for a private
// address: what NAT event records tell (RFC 8158).
type Mapping struct {
	Public      netip.Addr // IPv4
	First, Last uint16     // ports
	Protocol    uint8      // 0 is any
	Private     netip.Addr
	Remote      netip.AddrPort // only towards this host and port; the zero AddrPort is any
	PublicVRF   string         // the address space of Public; "" is the global one
	PrivateVRF  string         // likewise of Private
}

// A share is some ports of an IPv4 address that several users have: those of a
// Holder, or those of a Mapping from one moment until another. One that ends as
// it begins notes that the Mapping ended then, should its beginning come later.
type share struct {
	holder      *Holder // nil for a Mapping
	from, until int64   // of a Mapping, Unix milliseconds; until 0 is for ever
	Mapping             // of a Holder's only the ports are set
}

// begins returns since when s holds its ports.
func (s *share) begins() int64 {
	if s.holder != nil {
		return s.holder.From
	}
	return s.from
}

// covers reports whether s holds a port, towards a remote one, at a moment.
func (s *share) covers(port uint16, protocol uint8, remote netip.AddrPort, at int64) bool {
	if port < s.First || port > s.Last || s.Protocol != 0 && s.Protocol != protocol ||
		s.Remote.Addr().IsValid() && s.Remote != remote {
		return false
	}
	if s.holder != nil {
		return s.holder.Holds(at)
	}
	return at >= s.from && (s.until == 0 || at < s.until)
}

// compare orders shares by precedence: of two that hold a port it is of the
// narrower, then of the one that holds it from later on. The rest makes the
// order total.
func (s *share) compare(o *share) int {
	c := cmp.Or(
		cmp.Compare(int(s.Last)-int(s.First), int(o.Last)-int(o.First)),
		cmp.Compare(o.begins(), s.begins()),
		cmp.Compare(o.Protocol, s.Protocol),
		o.Remote.Compare(s.Remote),
		cmp.Compare(s.First, o.First),
	)
	switch {
	case c != 0:
		return c
	case s.holder != nil && o.holder != nil:
		if s.holder == o.holder {
			return 0
		} else if s.holder.precedes(o.holder) {
			return -1
		}
		return 1
	case s.holder != nil:
		return -1
	case o.holder != nil:
		return 1
	}
	return cmp.Or(s.Private.Compare(o.Private), cmp.Compare(s.PrivateVRF, o.PrivateVRF))
}

// pages is how many parts the ports of an address come in: a search looks at
// the shares of one alone.
const pages = 64

func pageOf(port uint16) int { return int(port) / (1 << 16 / pages) }

// A pool is a shared address: of each page of ports those who have some, in
// order of precedence.
type pool [pages][]*share

func (p *pool) add(s *share) {
	for i := pageOf(s.First); i <= pageOf(s.Last); i++ {
		at, _ := slices.BinarySearchFunc(p[i], s, (*share).compare)
		p[i] = slices.Insert(p[i], at, s)
	}
}

func (p *pool) remove(gone func(*share) bool) {
	for i := range p {
		p[i] = slices.DeleteFunc(p[i], gone)
	}
}

func (p *pool) empty() bool {
	return !slices.ContainsFunc(p[:], func(page []*share) bool { return len(page) > 0 })
}

// pool returns that of an address, a new one if there is none.
func (t *space) pool(a netip.Addr) *pool {
	p := t.pools[a]
	if p == nil {
		if t.pools == nil {
			t.pools = map[netip.Addr]*pool{}
		}
		p = new(pool)
		t.pools[a] = p
	}
	return p
}

// linkPorts puts the ports of h into the pool of its address.
func (t *space) linkPorts(h *Holder) {
	p := t.pool(h.Prefix().Addr())
	for _, r := range h.ports().Ranges() {
		p.add(&share{holder: h, Mapping: Mapping{First: r.First, Last: r.Last}})
	}
}

func (t *space) unlinkPorts(h *Holder) {
	a := h.Prefix().Addr()
	p := t.pools[a]
	p.remove(func(s *share) bool { return s.holder == h })
	if p.empty() {
		delete(t.pools, a)
	}
}

// Shared reports whether any address of the Table is shared by ports.
func (t *Table) Shared() bool { return t.shared > 0 }

// LookupPort returns who holds a port of a at a moment: who has this share of
// a shared address, or held the private address that a NAT let it stand for, or
// else who holds all of the address; nil if nobody is known. Where a NAT tells
// whose a port is, nobody else has it, even if nobody is known to have held the
// private address.
func (t *Table) LookupPort(vrf string, a netip.Addr, port uint16, protocol uint8, remote netip.AddrPort, at int64) *Holder {
	switch x := t.share(vrf, a, port, protocol, remote, at); {
	case x == nil:
		return t.LookupVRF(vrf, a, at)
	case x.holder != nil:
		return x.holder
	default:
		return t.LookupVRF(x.PrivateVRF, x.Private, at)
	}
}

// Mapping returns the Mapping that says who holds a port of a at a moment, and
// until when it lasts, Unix milliseconds, 0 for ever; ok is false where none
// does.
func (t *Table) Mapping(vrf string, a netip.Addr, port uint16, protocol uint8, remote netip.AddrPort, at int64) (m Mapping, until int64, ok bool) {
	x := t.share(vrf, a, port, protocol, remote, at)
	if x == nil || x.holder != nil {
		return Mapping{}, 0, false
	}
	return x.Mapping, x.until, true
}

// share returns the share that a port of a is of at a moment, nil if it is of
// none.
func (t *Table) share(vrf string, a netip.Addr, port uint16, protocol uint8, remote netip.AddrPort, at int64) *share {
	s := t.in(vrf)
	if s == nil || len(s.pools) == 0 {
		return nil
	}
	p := s.pools[a.Unmap()]
	if p == nil {
		return nil
	}
	for _, x := range p[pageOf(port)] {
		if x.covers(port, protocol, remote, at) {
			return x
		}
	}
	return nil
}

// Map applies that m began at a moment, Unix milliseconds. It ends what other
// private addresses had of exactly these ports. What was applied before changes
// nothing, nor does what comes before a later event.
func (t *Table) Map(m Mapping, at int64) (changed bool) {
	m.Public, m.Private = m.Public.Unmap(), m.Private.Unmap()
	at = min(max(at, 0), maxTime)
	if !m.Public.Is4() || !m.Private.IsValid() || m.First > m.Last {
		return false
	}
	p := t.open(m.PublicVRF).pool(m.Public)
	fresh, goesOn := &share{from: at, Mapping: m}, false
	var cut *share // that ended of itself later on
	var end int64
	for _, s := range p[pageOf(m.First)] {
		switch {
		case !s.sameShare(&m):
		case s.from == at && s.Mapping == m:
			return false
		case s.from > at && (s.Mapping == m || s.from != s.until):
			if fresh.until == 0 || s.from < fresh.until {
				fresh.until = s.from
			}
		case s.from < at && (s.until == 0 || s.until > at):
			if goesOn = s.Mapping == m; goesOn {
				fresh.until = s.until
			} else {
				t.doubt(m.PublicVRF, hostPrefix(m.Public), at, s.until)
				cut, end = s, s.until
			}
			s.until = at
		}
	}
	if !t.addMapping(p, fresh) {
		return false
	}
	if end != 0 {
		t.addMapping(p, &share{from: end, until: end, Mapping: cut.Mapping})
	}
	if !goesOn {
		t.doubt(m.PublicVRF, hostPrefix(m.Public), at, fresh.until)
	}
	return !goesOn
}

// addMapping puts s, of a Mapping, into p, unless there are too many.
func (t *Table) addMapping(p *pool, s *share) bool {
	if t.mappings >= MaxMappings {
		t.refused++
		return false
	}
	p.add(s)
	t.mappings++
	t.shared++
	t.touchPorts(s.Mapping)
	return true
}

// sameShare reports whether s is a Mapping of the same ports as m.
func (s *share) sameShare(m *Mapping) bool {
	return s.holder == nil && s.First == m.First && s.Last == m.Last && s.Protocol == m.Protocol && s.Remote == m.Remote
}

// Unmap applies that m ended at a moment, Unix milliseconds. A NAT need not say
// which private address had the ports. If it does, that it began may come later:
// Messages overtake each other, or wait for their Template.
func (t *Table) Unmap(m Mapping, at int64) (changed bool) {
	m.Public, m.Private = m.Public.Unmap(), m.Private.Unmap()
	at = min(max(at, 0), maxTime)
	if !m.Public.Is4() || m.First > m.Last {
		return false
	}
	p, known := t.open(m.PublicVRF).pool(m.Public), !m.Private.IsValid()
	var ends []share // that are known no more
	for _, s := range p[pageOf(m.First)] {
		switch {
		case !s.sameShare(&m) || m.Private.IsValid() && s.Mapping != m:
		case s.until == at:
			known = true
		case s.from <= at && (s.until == 0 || s.until > at):
			t.doubt(m.PublicVRF, hostPrefix(m.Public), at, s.until)
			if s.until != 0 && !p.begins(&m, s.until) {
				ends = append(ends, share{from: s.until, until: s.until, Mapping: s.Mapping})
			}
			s.until, changed = at, true
		}
	}
	if changed {
		t.touchPorts(m)
	} else if !known {
		ends = append(ends, share{from: at, until: at, Mapping: m})
	}
	for i := range ends {
		t.addMapping(p, &ends[i])
	}
	if p.empty() {
		delete(t.open(m.PublicVRF).pools, m.Public)
	}
	return changed
}

// begins reports whether somebody got the ports of m at a moment: that another's
// Mapping ended then needs no note.
func (p *pool) begins(m *Mapping, at int64) bool {
	return slices.ContainsFunc(p[pageOf(m.First)], func(s *share) bool { return s.sameShare(m) && s.from == at && s.from != s.until })
}

// Mappings returns how many Mappings the Table remembers, and how many it has
// refused.
func (t *Table) Mappings() (n int, refused uint64) { return t.mappings, t.refused }

// MappingsUntil reports whether there are Mappings that ended at or before a
// moment, which TrimSessions would drop, and since when the first of them lasted.
// All in Unix milliseconds.
func (t *Table) MappingsUntil(before int64) (since int64, any bool) {
	look := func(s *space) {
		for _, p := range s.pools {
			for _, page := range p {
				for _, x := range page {
					if x.over(before) && (!any || x.from < since) {
						since, any = x.from, true
					}
				}
			}
		}
	}
	look(&t.space)
	for _, s := range t.vrfs {
		look(s)
	}
	return since, any
}

// over reports whether s is of a Mapping that ended at or before a moment.
func (s *share) over(before int64) bool {
	return s.holder == nil && s.until != 0 && s.until <= before
}

// trimMappings drops the Mappings that ended at or before a moment.
func (t *Table) trimMappings(before int64) {
	trim := func(s *space) {
		for a, p := range s.pools {
			p.remove(func(x *share) bool {
				if !x.over(before) {
					return false
				}
				if x.from >= 0 { // once, though it may be in several pages
					x.from = -1
					t.mappings--
					t.shared--
					t.touchPorts(x.Mapping)
				}
				return true
			})
			if p.empty() {
				delete(s.pools, a)
			}
		}
	}
	trim(&t.space)
	for _, s := range t.vrfs {
		trim(s)
	}
}

// A pageKey names the Mappings of an address that begin in one page of ports:
// they are one state.
type pageKey struct {
	vrf  string
	addr netip.Addr
	page int
}

func (k pageKey) String() string { return fmt.Sprintf("%q %s %d", k.vrf, k.addr, k.page) }

func (t *Table) touchPorts(m Mapping) {
	if t.dirtyPorts == nil {
		t.dirtyPorts = map[pageKey]bool{}
	}
	t.dirtyPorts[pageKey{m.PublicVRF, m.Public, pageOf(m.First)}] = true
}

// mappingsVersion is the first octet of encoded Mappings.
const mappingsVersion = 1

// DeltaPorts calls put for each part of the Mappings that changed since the
// last call, in no order: with a key of its own and an encoding that
// RestorePorts reads, nil if nothing is left of it.
func (t *Table) DeltaPorts(put func(key string, value []byte)) {
	for k := range t.dirtyPorts {
		put(k.String(), t.appendPage(k))
	}
	clear(t.dirtyPorts)
}

func (t *Table) appendPage(k pageKey) []byte {
	var p *pool
	if s := t.in(k.vrf); s != nil {
		p = s.pools[k.addr]
	}
	if p == nil {
		return nil
	}
	b := appendString([]byte{mappingsVersion}, k.vrf)
	b = appendPrefix(b, hostPrefix(k.addr))
	empty := true
	for _, s := range p[k.page] {
		if s.holder != nil || pageOf(s.First) != k.page {
			continue
		}
		empty = false
		for _, v := range [...]uint64{uint64(s.First), uint64(s.Last), uint64(s.Protocol), uint64(s.from), uint64(s.until)} {
			b = binary.AppendUvarint(b, v)
		}
		b = appendPrefix(b, hostPrefix(s.Private))
		b = appendString(b, s.PrivateVRF)
		remote := s.Remote.Addr()
		b = appendString(b, string(remote.AsSlice()))
		b = binary.AppendUvarint(b, uint64(s.Remote.Port()))
	}
	if empty {
		return nil
	}
	return b
}

// RestorePorts brings back what DeltaPorts told of. Errors match ErrCorrupt,
// and change nothing.
func (t *Table) RestorePorts(data []byte) error {
	_, err := t.restorePorts(data, netip.Addr{})
	return err
}

// RestorePortsOf is RestorePorts for what NATs told of one public address, and
// does nothing otherwise. It returns the private addresses that this stands for.
func (t *Table) RestorePortsOf(data []byte, public netip.Addr) ([]netip.Addr, error) {
	return t.restorePorts(data, public)
}

// restorePorts brings back what is of a public address, or of any if that is
// invalid.
func (t *Table) restorePorts(data []byte, of netip.Addr) (private []netip.Addr, err error) {
	d := decoder{rest: string(data)}
	if d.octet() != mappingsVersion {
		d.fail()
	}
	m := Mapping{PublicVRF: d.string()}
	m.Public = d.prefix().Addr()
	var shares []*share
	for d.rest != "" {
		first, last, protocol := d.uvarint(), d.uvarint(), d.uvarint()
		s := &share{Mapping: m, from: d.milli(), until: d.milli()}
		s.First, s.Last, s.Protocol = uint16(first), uint16(last), uint8(protocol)
		s.Private, s.PrivateVRF = d.prefix().Addr(), d.string()
		remote, _ := netip.AddrFromSlice([]byte(d.string()))
		port := d.uvarint()
		if s.Remote = netip.AddrPortFrom(remote, uint16(port)); port > 1<<16-1 || !remote.IsValid() && port != 0 {
			d.fail()
		}
		if first > last || last > 1<<16-1 || protocol > 1<<8-1 || !s.Private.IsValid() {
			d.fail()
		}
		shares = append(shares, s)
	}
	if d.failed || !m.Public.Is4() {
		return nil, fmt.Errorf("users: decode mappings: %w", ErrCorrupt)
	}
	if of.IsValid() && of != m.Public {
		return nil, nil
	}
	p := t.open(m.PublicVRF).pool(m.Public)
	for _, s := range shares {
		p.add(s)
		t.mappings++
		t.shared++
		private = append(private, s.Private)
	}
	return private, nil
}

// hostPrefix returns a alone as a prefix.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
