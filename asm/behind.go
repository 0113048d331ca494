package asm

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
)

// A behind says what stands behind the ends of a flow in suspense, source and
// destination, whose addresses are shared: the private address that a NAT let
// an end's port stand for when the flow ended. It is kept where the users forget
// what the NAT told, so that the flow still waits for who held the private
// address, and never goes to whom a list gives the shared one.
type behind [2]privateAddress

// A privateAddress is one in the address space of a VRF. The zero privateAddress
// is none.
type privateAddress struct {
	addr netip.Addr
	vrf  string
}

// end returns that of the source, or of the destination; none for a nil behind.
func (b *behind) end(to bool) privateAddress {
	switch {
	case b == nil:
		return privateAddress{}
	case to:
		return b[1]
	}
	return b[0]
}

// behindVersion is the first octet of an encoded behind.
const behindVersion = 1

func (b *behind) appendBinary(data []byte) []byte {
	data = append(data, behindVersion)
	for _, p := range b {
		data = octets.AppendString(octets.AppendAddr(data, p.addr), p.vrf)
	}
	return data
}

func parseBehind(data []byte) (*behind, error) {
	r := octets.NewReader(data)
	if r.Octet() != behindVersion {
		r.Fail()
	}
	var b behind
	for i := range b {
		b[i] = privateAddress{r.Addr(), r.Text()}
	}
	return &b, r.Close()
}

// A backstage has the behinds of flows in suspense, by ID.
type backstage struct {
	of      map[uint64]*behind
	changed map[uint64]bool // since the last checkpoint
}

// set keeps b for a flow; nil for one that has none, or is gone.
func (s *backstage) set(id uint64, b *behind) {
	if b == nil && s.of[id] == nil {
		return
	}
	if s.of == nil {
		s.of, s.changed = make(map[uint64]*behind), make(map[uint64]bool)
	}
	if s.changed[id] = true; b == nil {
		delete(s.of, id)
		return
	}
	s.of[id] = b
}

// put hands out what changed since the last call.
func (s *backstage) put(put func(kind, key string, value []byte)) {
	for _, id := range slices.Sorted(maps.Keys(s.changed)) {
		var value []byte
		if b := s.of[id]; b != nil {
			value = b.appendBinary(nil)
		}
		put(stateBehind, strconv.FormatUint(id, 10), value)
	}
	clear(s.changed)
}

// restore takes in one state that put handed out.
func (s *backstage) restore(key string, value []byte) error {
	id, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return err
	}
	b, err := parseBehind(value)
	if err == nil {
		s.set(id, b)
		delete(s.changed, id)
	}
	return err
}

// keepBehind notes of the flows in suspense what stands behind their ends,
// where the users are about to forget it: Mappings that ended by a moment, Unix
// milliseconds.
func (m *Module) keepBehind(ctx context.Context, before int64) error {
	since, any := m.users.MappingsUntil(before)
	if !any {
		return nil
	}
	keep := func(x *acct.Suspended) error {
		if x.FlowEnd < since || x.FlowEnd >= before {
			return nil
		}
		h, err := m.suspense.held(x)
		if err != nil {
			return err
		}
		if b := m.behind(&h.flow, before); b != nil {
			m.suspense.backstage.set(x.ID, b)
		}
		return nil
	}
	if err := m.eachStored(ctx, 0, keep); err != nil {
		return err
	}
	for i := range m.suspense.added {
		if err := keep(&m.suspense.added[i]); err != nil {
			return err
		}
	}
	return nil
}

// behind returns what stands behind the ends of f by Mappings that ended by a
// moment, with what was known already; nil if there is nothing new.
func (m *Module) behind(f *flow, before int64) *behind {
	known := behind{f.behind.end(false), f.behind.end(true)}
	now := known
	for i, to := range []bool{false, true} {
		a, port, vrf, remote := f.side(to)
		if now[i].addr.IsValid() {
			continue
		}
		if p, until, ok := m.users.Mapping(vrf, a, port, f.protocol, remote, f.end); ok && until != 0 && until <= before {
			now[i] = privateAddress{p.Private, p.PrivateVRF}
		}
	}
	if now == known {
		return nil
	}
	return &now
}
