package users

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
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

// A claimState is an encoded Claim, decoded.
type claimState struct {
	flags                      byte
	source, id, nas, vrf, user string
	began, seen, until         int64
	options                    Options
	holders                    []Holder // without their Claim, the latest begun first
}

// parseClaim reads what append appended. Errors match ErrCorrupt.
func parseClaim(data []byte) (c claimState, err error) {
	d := decoder{rest: string(data)}
	if v := d.octet(); v != claimVersion && !d.failed {
		return c, fmt.Errorf("users: decode session of version %d: %w", v, ErrCorrupt)
	}
	c.flags = d.octet()
	for _, s := range [...]*string{&c.source, &c.id, &c.nas, &c.vrf, &c.user} {
		*s = d.string()
	}
	for _, ms := range [...]*int64{&c.began, &c.seen, &c.until} {
		*ms = d.milli()
	}
	c.options = d.options()
	n := d.uvarint()
	if n > uint64(len(d.rest)) || c.source == "" || c.id == "" || len(c.id) > MaxName || len(c.user) > MaxName {
		d.fail()
	}
	for i := uint64(0); i < n && !d.failed; i++ {
		h := Holder{flags: holderFlags(d.octet()) & holderGiven}
		p, err := normalizePrefix(d.prefix())
		if err != nil {
			d.fail()
			break
		}
		h.setPrefix(p)
		h.From, h.Until = d.milli(), d.milli()
		c.holders = append(c.holders, h)
	}
	if d.failed || d.rest != "" {
		return c, fmt.Errorf("users: decode session: %w", ErrCorrupt)
	}
	return c, nil
}

// VisitClaim visits the Holders of a user session that Delta told of, if it is
// of a user or user is "", until visit returns an error, which it returns.
// Errors of its own match ErrCorrupt.
func VisitClaim(data []byte, user string, visit func(*Holder) error) error {
	c, err := parseClaim(data)
	if err != nil || user != "" && c.user != user {
		return err
	}
	made := &Claim{names: c.user + c.id, split: uint8(len(c.user)), Options: &c.options, origin: &origin{source: &source{name: c.source}, nas: c.nas, vrf: c.vrf}}
	c.fill(made, func(*Holder) {})
	for h := range made.Holders() {
		if err := visit(h); err != nil {
			return err
		}
	}
	return nil
}

// RestoreClaimOf is RestoreClaim if a prefix of the session has one of some
// addresses, and does nothing otherwise.
func (t *Table) RestoreClaimOf(data []byte, addrs []netip.Addr) error {
	c, err := parseClaim(data)
	if err == nil && slices.ContainsFunc(c.holders, func(h Holder) bool { return contains(h.Prefix(), addrs) }) {
		t.restoreClaim(&c)
	}
	return err
}

// RestoreClaim brings back a user session that Delta told of. Errors match
// ErrCorrupt, and change nothing.
func (t *Table) RestoreClaim(data []byte) error {
	c, err := parseClaim(data)
	if err == nil {
		t.restoreClaim(&c)
	}
	return err
}

func (t *Table) restoreClaim(c *claimState) {
	s := t.source(c.source)
	made := t.newClaim(s.origin(c.nas, c.vrf), c.user, c.id, c.options)
	if c.flags&stateLatest == 0 {
		s.past = append(s.past, made)
	} else {
		s.claims.put(made)
	}
	c.fill(made, t.link)
}

// fill gives a new Claim its times, flags and Holders, and tells of each, the
// earliest begun first.
func (c *claimState) fill(made *Claim, held func(*Holder)) {
	made.flags, made.began, made.seen, made.until = claimFlags(c.flags)&claimStored, momentOf(c.began), momentOf(c.seen), momentOf(c.until)
	for i := len(c.holders) - 1; i >= 0; i-- {
		h := new(Holder)
		*h = c.holders[i]
		h.Claim, h.sibling, made.first = made, made.first, h
		held(h)
	}
}
