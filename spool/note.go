package spool

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
)

// A note is what the daemon itself wants to find again at its next start, small
// and seldom changed. It is a row of table meta: its content, and a checksum of
// that and the name.

// noteName is a note's row in table meta of state.db.
func noteName(name string) string { return "note " + name }

// noteSum is the checksum of a note.
func noteSum(name string, content []byte) uint32 {
	return new(summer).text(name).octets(content).crc
}

// PutNote stores a note, durably before it returns, in place of the one of that
// name. Like all that is written it fails with ErrFenced once another process
// has taken the spool over.
func (s *Spool) PutNote(name string, content []byte) error {
	if s.w == nil {
		return ErrReadOnly
	}
	sealed := binary.BigEndian.AppendUint32(append([]byte{}, content...), noteSum(name, content))
	if err := s.w.transact(func() error { return s.w.setMeta(noteName(name), sealed) }); err != nil {
		return doing(err, "note %s", name)
	}
	return nil
}

// Note returns the note of a name, nil where there is none. The error is
// ErrDamaged where it is not what was stored.
func (s *Spool) Note(ctx context.Context, name string) ([]byte, error) {
	state := s.state()
	var sealed []byte
	err := s.r.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", noteName(name)).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, doing(explain(state, err), "note %s", name)
	}
	if n := len(sealed) - 4; n >= 0 && noteSum(name, sealed[:n]) == binary.BigEndian.Uint32(sealed[n:]) {
		return sealed[:n:n], nil
	}
	return nil, fmt.Errorf("spool: note %s, %d octets: %w", name, len(sealed), ErrDamaged)
}
