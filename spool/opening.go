package spool

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"tollbridge/asm/acct"
)

// An Opening is a checkpoint without identities: what the pipeline needs to
// read the journal again from behind its Position, when all before is gone. It
// holds no key.
type Opening struct {
	acct.Checkpoint
	Suspended []acct.Suspended
}

// openingLine is a line of a written Opening: the first has the checkpoint's
// numbers, each other has one of the rest.
type openingLine struct {
	Position      *uint64            `json:"position,omitempty"`
	Time          int64              `json:"time,omitempty"`
	Epoch         uint32             `json:"epoch,omitempty"`
	NextSuspended uint64             `json:"next_suspended,omitempty"`
	State         *acct.State        `json:"state,omitempty"`
	Session       *acct.SessionState `json:"session,omitempty"`
	Suspended     *acct.Suspended    `json:"suspended,omitempty"`
}

// Write writes o as lines of JSON.
func (o *Opening) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	if err := e.Encode(openingLine{Position: &o.Position, Time: o.Time, Epoch: o.Epoch, NextSuspended: o.NextSuspended}); err != nil {
		return err
	}
	for i := range o.State {
		if err := e.Encode(openingLine{State: &o.State[i]}); err != nil {
			return err
		}
	}
	for i := range o.Sessions {
		if err := e.Encode(openingLine{Session: &o.Sessions[i]}); err != nil {
			return err
		}
	}
	for i := range o.Suspended {
		if err := e.Encode(openingLine{Suspended: &o.Suspended[i]}); err != nil {
			return err
		}
	}
	return nil
}

// ReadOpening reads what Write wrote.
func ReadOpening(r io.Reader) (Opening, error) {
	var o Opening
	d := json.NewDecoder(r)
	for n := 1; ; n++ {
		var l openingLine
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) && n > 1 {
			return o, nil
		}
		switch {
		case err != nil:
			return Opening{}, fmt.Errorf("spool: opening, line %d: %w: %w", n, ErrDamaged, err)
		case (l.Position != nil) != (n == 1):
			return Opening{}, fmt.Errorf("spool: opening, line %d: %w", n, ErrDamaged)
		case l.Position != nil:
			o.Position, o.Time, o.Epoch, o.NextSuspended = *l.Position, l.Time, l.Epoch, l.NextSuspended
		case l.State != nil:
			o.State = append(o.State, *l.State)
		case l.Session != nil:
			o.Sessions = append(o.Sessions, *l.Session)
		case l.Suspended != nil:
			o.Suspended = append(o.Suspended, *l.Suspended)
		}
	}
}

// Opening returns the latest checkpoint as an opening.
func (s *Spool) Opening(ctx context.Context) (Opening, error) {
	state := s.state()
	var o Opening
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		var err error
		if o.Checkpoint, err = s.load(ctx, tx); err != nil {
			return err
		}
		o.HashKey = [16]byte{}
		return eachSuspended(ctx, tx, 0, func(x acct.Suspended, damage error) error {
			if damage != nil {
				s.lost("suspended flow", damage)
				return nil
			}
			o.Suspended = append(o.Suspended, x)
			return nil
		})
	})
	if err != nil {
		return Opening{}, doing(explain(state, err), "opening")
	}
	return o, nil
}

// KeepOpening stores the latest checkpoint for as long as the journal, so that what
// follows it can be read again while it is kept. It does nothing when the
// checkpoint has not moved since the last one, and returns its position.
func (s *Spool) KeepOpening(ctx context.Context) (uint64, error) {
	if s.w == nil {
		return 0, ErrReadOnly
	}
	o, err := s.Opening(ctx)
	if err != nil {
		return 0, err
	}
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, fmt.Errorf("spool: keep opening: %w", err)
	}
	if err := errors.Join(o.Write(z), z.Close()); err != nil {
		return 0, fmt.Errorf("spool: keep opening: %w", err)
	}
	err = s.w.transact(func() error {
		err := s.w.exec("INSERT OR IGNORE INTO opening (position, time, data) VALUES (?, ?, ?)", int64(o.Position), o.Time, packed.Bytes())
		if err != nil {
			return err
		}
		return s.w.exec("DELETE FROM opening WHERE position < ?", s.trimmed())
	})
	if err != nil {
		return 0, doing(err, "keep opening at %d", o.Position)
	}
	return o.Position, nil
}

// trimmed returns the last position that is not in the journal any more.
func (s *Spool) trimmed() int64 { return int64(s.journal.Stats().First - 1) }

// OpeningAt returns the latest opening that is not behind a time, for which
// all entries behind it are kept: its pipeline's clock was at or before it. The
// error is ErrNotFound where there is none; the oldest there is comes with it.
func (s *Spool) OpeningAt(ctx context.Context, at time.Time) (Opening, error) {
	state, trimmed := s.state(), s.trimmed()
	get := func(query string, args ...any) (Opening, error) {
		var data []byte
		if err := s.r.QueryRowContext(ctx, query, args...).Scan(&data); err != nil {
			return Opening{}, err
		}
		z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return Opening{}, err
		}
		defer z.Close()
		o, err := ReadOpening(z)
		o.HashKey = s.meta.HashKey
		return o, err
	}
	o, err := get("SELECT data FROM opening WHERE time <= ? AND position >= ? ORDER BY position DESC LIMIT 1", at.UnixNano(), trimmed)
	switch {
	case err == nil:
		return o, nil
	case !errors.Is(err, sql.ErrNoRows):
		return Opening{}, explain(state, err)
	case trimmed == 0: // the journal's own beginning
		return Opening{Checkpoint: acct.Checkpoint{Epoch: s.meta.Epoch, HashKey: s.meta.HashKey, NextSuspended: 1}}, nil
	}
	o, err = get("SELECT data FROM opening WHERE position >= ? ORDER BY position LIMIT 1", trimmed)
	if errors.Is(err, sql.ErrNoRows) {
		return Opening{}, fmt.Errorf("spool: an opening of the journal: %w", ErrNotFound)
	} else if err != nil {
		return Opening{}, explain(state, err)
	}
	return o, fmt.Errorf("spool: an opening of the journal at or before %s: %w", at.UTC().Format(time.RFC3339), ErrNotFound)
}
