package spool

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Names of rows in table meta of state.db.
const (
	metaCreated       = "created"         // Unix seconds
	metaEpoch         = "epoch"           // high half of Session-Ids
	metaHashKey       = "hash key"        // of record identities
	metaOriginStateID = "origin-state-id" // RFC 6733, Section 8.16
	metaPosition      = "position"        // of the checkpoint in the journal
	metaNeeded        = "needed"          // the oldest entry that must stay readable
	metaTime          = "time"            // the pipeline's clock, Unix nanoseconds
	metaNextRecord    = "next record"     // in the outbox
	metaNextSuspended = "next suspended"
	metaSum           = "sum"          // of the checkpoint's numbers
	metaSettledLost   = "settled lost" // 1 when a salvage may have lost what became of records
	metaAmountsLost   = "amounts lost" // when a salvage has lost amounts of the books, Unix seconds; 1 is not known
	metaEndToEnd      = "end-to-end"   // counter of requests sent anew after an error answer
)

// Names of rows in table meta of cdr.db, and of the journal.db of earlier versions.
const (
	metaTrimmed    = "trimmed"    // the last position that was ever deleted
	metaDuplicates = "duplicates" // CDRs that came again
)

// Meta says what a spool is, from its creation on.
type Meta struct {
	Created       time.Time
	Epoch         uint32 // high half of Session-Ids
	OriginStateID uint32 // RFC 6733, Section 8.16
	HashKey       [16]byte
}

// setMeta stores one row of table meta.
func (w *writer) setMeta(name string, value any) error {
	return w.exec("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
}

// metaNumber reads a number from table meta; a row that is not there is 0.
func metaNumber(ctx context.Context, q querier, name string) (int64, error) {
	var v int64
	err := q.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", name).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return v, err
}

// initMeta gives a new spool its identity. The epoch comes from the clock: a
// spool made anew at the same place has a later one, so that its Session-Ids
// are unique for ever (RFC 6733, Section 8.8).
func initMeta(w *writer, now time.Time) error {
	created, err := metaNumber(context.Background(), w.conn, metaCreated)
	if err != nil {
		return explain(w.file, err)
	}
	if created != 0 {
		return nil
	}
	key := make([]byte, 16)
	rand.Read(key) // never fails
	return w.transact(func() error {
		for _, row := range []struct {
			name  string
			value any
		}{
			{metaCreated, now.Unix()},
			{metaEpoch, int64(uint32(now.Unix()))},
			{metaOriginStateID, int64(uint32(now.Unix()))},
			{metaHashKey, key},
			{metaNextRecord, 1},
			{metaNextSuspended, 1},
		} {
			if err := w.setMeta(row.name, row.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func loadMeta(ctx context.Context, q querier, file string) (Meta, error) {
	var m Meta
	var key []byte
	created, err := metaNumber(ctx, q, metaCreated)
	if err != nil {
		return m, explain(file, err)
	}
	epoch, err := metaNumber(ctx, q, metaEpoch)
	if err != nil {
		return m, explain(file, err)
	}
	state, err := metaNumber(ctx, q, metaOriginStateID)
	if err != nil {
		return m, explain(file, err)
	}
	if err := q.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", metaHashKey).Scan(&key); err != nil {
		return m, explain(file, err)
	}
	m = Meta{Created: time.Unix(created, 0).UTC(), Epoch: uint32(epoch), OriginStateID: uint32(state)}
	if copy(m.HashKey[:], key) != len(m.HashKey) {
		return m, explain(file, fmt.Errorf("hash key of %d octets: %w", len(key), ErrDamaged))
	}
	return m, nil
}

// RaiseStateID gives the spool a higher Origin-State-Id, since session state
// was lost that peers know of (RFC 6733, Section 8.16). It holds from the next
// Open on.
func (s *Spool) RaiseStateID(now time.Time) error {
	if s.w == nil {
		return ErrReadOnly
	}
	return s.w.transact(func() error {
		return s.w.setMeta(metaOriginStateID, int64(max(s.meta.OriginStateID+1, uint32(now.Unix()))))
	})
}
