package spool

import (
	"encoding/binary"
	"fmt"

	"tollbridge/asm/acct"
)

// sessionVersion is the first octet of an encoded session. Version 1 had no
// checksum at its end; it is still read.
const sessionVersion = 2

// appendSession appends the encoding of s as table session holds it: one
// value, since a checkpoint rewrites every session that moved and the cost of
// a row is in its columns. ID and Ended are not part of it.
func appendSession(b []byte, s *acct.SessionState) []byte {
	begun := len(b)
	b = append(b, sessionVersion)
	b = appendString(b, s.SessionID)
	b = appendString(b, s.User)
	b = binary.AppendUvarint(b, uint64(len(s.State)))
	b = append(b, s.State...)
	b = binary.AppendUvarint(b, s.Usage.InputOctets)
	b = binary.AppendUvarint(b, s.Usage.OutputOctets)
	b = binary.AppendUvarint(b, s.Usage.InputPackets)
	b = binary.AppendUvarint(b, s.Usage.OutputPackets)
	b = binary.AppendUvarint(b, uint64(s.Number))
	b = binary.AppendVarint(b, s.Started)
	b = binary.AppendVarint(b, s.Stopped)
	b = acct.AppendShares(b, s.Open)
	return binary.BigEndian.AppendUint32(b, sumOf(s.ID, b[begun:]))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// parseSession reads what appendSession wrote. State is part of b.
func parseSession(id uint64, b []byte) (acct.SessionState, error) {
	s := acct.SessionState{ID: id}
	switch n := len(b) - 4; {
	case len(b) > 0 && b[0] == 1:
	case n < 1 || b[0] != sessionVersion || binary.BigEndian.Uint32(b[n:]) != sumOf(id, b[:n]):
		return s, fmt.Errorf("session %d, %d octets: %w", id, len(b), ErrDamaged)
	default:
		b = b[:n]
	}
	c := cursor{b: b[1:]}
	s.SessionID = string(c.octets(c.uvarint()))
	s.User = string(c.octets(c.uvarint()))
	s.State = c.octets(c.uvarint())
	s.Usage = acct.Usage{
		InputOctets: c.uvarint(), OutputOctets: c.uvarint(),
		InputPackets: c.uvarint(), OutputPackets: c.uvarint(),
	}
	s.Number = uint32(c.uvarint())
	s.Started = c.varint()
	s.Stopped = c.varint()
	if !c.ok() {
		return s, fmt.Errorf("session %d: %w", id, ErrDamaged)
	}
	var err error
	if s.Open, err = acct.ParseShares(c.b); err != nil {
		return s, fmt.Errorf("session %d: %w: %w", id, ErrDamaged, err)
	}
	if len(s.Open) == 0 {
		s.Open = nil
	}
	return s, nil
}

// A cursor reads values off the front of b. After the first failure every
// value is zero.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) ok() bool { return !c.failed }

func (c *cursor) fail() { c.b, c.failed = nil, true }

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// octets returns the next n octets, or nil if there are not as many.
func (c *cursor) octets(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}
