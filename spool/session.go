package spool

import (
	"encoding/binary"
	"fmt"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
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
	b = octets.AppendString(b, s.SessionID)
	b = octets.AppendString(b, s.User)
	b = octets.AppendBytes(b, s.State)
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
	c := octets.NewReader(b[1:])
	s.SessionID = c.Text()
	s.User = c.Text()
	s.State = c.Bytes()
	s.Usage = acct.Usage{
		InputOctets: c.Uvarint(), OutputOctets: c.Uvarint(),
		InputPackets: c.Uvarint(), OutputPackets: c.Uvarint(),
	}
	s.Number = uint32(c.Uvarint())
	s.Started = c.Varint()
	s.Stopped = c.Varint()
	if c.Err() != nil {
		return s, fmt.Errorf("session %d: %w", id, ErrDamaged)
	}
	var err error
	if s.Open, err = acct.ParseShares(c.Rest()); err != nil {
		return s, fmt.Errorf("session %d: %w: %w", id, ErrDamaged, err)
	}
	if len(s.Open) == 0 {
		s.Open = nil
	}
	return s, nil
}
