package users

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// claimVersion is the first octet of an encoded Claim.
const claimVersion = 1

// claimStored are the flags of a Claim that are encoded.
const claimStored = claimBegun | claimEnded | claimSwept

// Flags of an encoded Claim that are none of its own.
const (
	stateLatest = 1 << 6 // it is the latest of its ID
)

// key returns the name of c's state.
func (c *Claim) key() string {
	return fmt.Sprintf("%q %q %d %q", c.Source(), c.ID(), c.Began(), c.User())
}

// append appends what RestoreClaim reads.
func (c *Claim) append(b []byte) []byte {
	flags := byte(c.flags & claimStored)
	if c.origin.source.claims.get(c.ID()) == c {
		flags |= stateLatest
	}
	b = append(b, claimVersion, flags)
	for _, s := range [...]string{c.Source(), c.ID(), c.NAS(), c.VRF(), c.User()} {
		b = appendString(b, s)
	}
	for _, ms := range [...]int64{c.began.ms(), c.seen.ms(), c.until.ms()} {
		b = binary.AppendUvarint(b, uint64(ms))
	}
	b = appendOptions(b, *c.Options)
	n := 0
	for range c.Holders() {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	for h := range c.Holders() {
		b = append(b, byte(h.flags&holderGiven))
		b = appendPrefix(b, h.Prefix())
		b = binary.AppendUvarint(b, uint64(h.From))
		b = binary.AppendUvarint(b, uint64(h.Until))
	}
	return b
}

// VisitClaim visits the Holders of a user session that Delta told of, until
// visit returns an error, which it returns. Errors of its own match ErrCorrupt.
func VisitClaim(data []byte, visit func(*Holder) error) error {
	t := new(Table)
	if err := t.RestoreClaim(data); err != nil {
		return err
	}
	for h := range t.All {
		if err := visit(h); err != nil {
			return err
		}
	}
	return nil
}

// RestoreClaimOf is RestoreClaim if a prefix of the session has one of some
// addresses, and does nothing otherwise.
func (t *Table) RestoreClaimOf(data []byte, addrs []netip.Addr) error {
	wanted := false
	err := VisitClaim(data, func(h *Holder) error {
		wanted = wanted || contains(h.Prefix(), addrs)
		return nil
	})
	if err != nil || !wanted {
		return err
	}
	return t.RestoreClaim(data)
}

// RestoreClaim brings back a user session that Delta told of. Errors match
// ErrCorrupt, and change nothing.
func (t *Table) RestoreClaim(data []byte) error {
	d := decoder{rest: string(data)}
	if v := d.octet(); v != claimVersion && !d.failed {
		return fmt.Errorf("users: decode session of version %d: %w", v, ErrCorrupt)
	}
	flags := d.octet()
	var source, id, nas, vrf, user string
	for _, s := range [...]*string{&source, &id, &nas, &vrf, &user} {
		*s = d.string()
	}
	var times [3]int64
	for i := range times {
		times[i] = d.milli()
	}
	options := d.options()
	n := d.uvarint()
	if n > uint64(len(d.rest)) || source == "" || id == "" || len(id) > maxName || len(user) > maxName {
		d.fail()
	}
	c := Claim{flags: claimFlags(flags) & claimStored}
	var list []*Holder
	for i := uint64(0); i < n && !d.failed; i++ {
		h := &Holder{flags: holderFlags(d.octet()) & holderGiven}
		p, err := normalizePrefix(d.prefix())
		if err != nil {
			d.fail()
			break
		}
		h.setPrefix(p)
		h.From, h.Until = d.milli(), d.milli()
		list = append(list, h)
	}
	if d.failed || d.rest != "" {
		return fmt.Errorf("users: decode session: %w", ErrCorrupt)
	}
	s := t.source(source)
	made := t.newClaim(s.origin(nas, vrf), user, id, options)
	made.flags, made.began, made.seen, made.until = c.flags, momentOf(times[0]), momentOf(times[1]), momentOf(times[2])
	if flags&stateLatest == 0 {
		s.past = append(s.past, made)
	} else {
		s.claims.put(made)
	}
	for i := len(list) - 1; i >= 0; i-- { // the first is linked last
		h := list[i]
		h.Claim, h.sibling, made.first = made, made.first, h
		t.link(h)
	}
	return nil
}
