package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tollbridge/asm/acct"
)

// Verify reads all of the spool, beside a daemon or without one, and returns
// what is wrong with it: whether state.db and the journal are whole, each checksum, and
// whether the books balance. It takes as long as reading all takes.
func (s *Spool) Verify(ctx context.Context) ([]string, error) {
	var problems []string
	wrong := func(err error) { problems = append(problems, err.Error()) }
	state := s.state()
	rows, err := s.r.QueryContext(ctx, "PRAGMA integrity_check")
	if err == nil {
		err = each(rows, func(rows *sql.Rows) error {
			var verdict string
			err := rows.Scan(&verdict)
			if err == nil && verdict != "ok" {
				wrong(fmt.Errorf("%s: %s", state, verdict))
			}
			return err
		})
	}
	if err != nil {
		wrong(explain(state, err))
	}
	if err := s.verifyState(ctx, wrong); err != nil {
		wrong(explain(state, err))
	}
	if err := s.journal.Verify(ctx, wrong); err != nil {
		wrong(err)
	}
	books, err := s.Audit(ctx)
	if err != nil {
		wrong(err)
	}
	return append(problems, books.Problems...), ctx.Err()
}

// verifyState checks each checksum in state.db.
func (s *Spool) verifyState(ctx context.Context, wrong func(error)) error {
	return s.snapshot(ctx, func(tx *sql.Tx) error {
		if _, err := s.readCheckpoint(ctx, tx, new(checkpoint)); err != nil {
			wrong(err)
		}
		rows, err := tx.QueryContext(ctx, "SELECT kind, key, value, sum FROM state ORDER BY kind, key")
		if err != nil {
			return err
		}
		if err := each(rows, func(rows *sql.Rows) error {
			var st acct.State
			var sum sql.NullInt64
			if err := rows.Scan(&st.Kind, &st.Key, &st.Value, &sum); err != nil {
				return err
			}
			if sum.Valid && sum.Int64 != stateSum(&st) {
				wrong(fmt.Errorf("state %s %s: %w", st.Kind, st.Key, ErrDamaged))
			}
			return nil
		}); err != nil {
			return err
		}
		rows, err = tx.QueryContext(ctx, "SELECT bucket, data FROM identity ORDER BY id")
		if err != nil {
			return err
		}
		if err := each(rows, func(rows *sql.Rows) error {
			var i acct.Identities
			if err := rows.Scan(&i.Bucket, &i.Data); err != nil {
				return err
			}
			if _, err := openIdentities(i.Bucket, i.Data); err != nil {
				wrong(err)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := eachSuspended(ctx, tx, 0, func(_ acct.Suspended, damage error) error {
			if damage != nil {
				wrong(damage)
			}
			return nil
		}); err != nil {
			return err
		}
		for id := uint64(1); ; {
			p, err := readPage(ctx, tx, id)
			if isNoRecord(err) {
				return nil
			} else if err != nil {
				return err
			}
			for _, it := range p.items {
				if err := errors.Join(it.damage, it.unknown); err != nil {
					wrong(err)
				}
			}
			if p.lost != nil {
				wrong(p.lost)
			}
			id = p.last + 1
		}
	})
}

// NextRecord returns the ID that the next accounting record will get.
func (s *Spool) NextRecord(ctx context.Context) (uint64, error) {
	state := s.state()
	n, err := metaNumber(ctx, s.r, metaNextRecord)
	return uint64(n), explain(state, err)
}
