package spool

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"tollbridge/internal/crashpoint"
)

// trimStep is how many groups one transaction of a trim deletes, so that a
// long trim does not hold up the committer: 8 MiB of full groups.
const trimStep = 32

// A Keep says how much of the journal is kept though it is not needed any
// more, so that it can be looked into: what is younger than Age, as long as the
// journal has no more than Octets.
type Keep struct {
	Age    time.Duration // since arrival
	Octets int64
}

// Trim deletes the groups whose entries are all below position below, in steps
// of bounded size. Entries not yet durable are never deleted. It returns
// ctx's error between two steps.
//
// The file does not shrink: SQLite keeps the pages of deleted groups on its
// free list and the next groups take them. A journal is written as fast as it
// is trimmed, so the file stays at the most that ever waited; auto_vacuum would
// move every page once more, and keep a map of them, to give back space that
// is wanted again a moment later.
func (j *Journal) Trim(ctx context.Context, below uint64) error {
	return j.TrimBut(ctx, below, time.Time{}, Keep{})
}

// TrimBut is Trim of what is not kept either, as of now.
func (j *Journal) TrimBut(ctx context.Context, below uint64, now time.Time, keep Keep) error {
	if j.w == nil {
		return ErrReadOnly
	}
	below = min(below, j.Durable()+1)
	for begun := false; ; begun = true {
		if err := ctx.Err(); err != nil {
			return err
		}
		var last, groups int64
		err := j.w.transact(func() error {
			err := j.w.query("SELECT last, length(data), time FROM journal_group WHERE last < ? ORDER BY last LIMIT ?", func(rows *sql.Rows) error {
				var at, octets, arrived int64
				if err := rows.Scan(&at, &octets, &arrived); err != nil {
					return err
				}
				if keep.Age > 0 && now.Sub(time.Unix(0, arrived)) < keep.Age && j.w.size()+j.w.grown <= keep.Octets {
					return errEnough
				}
				last, groups = at, groups+1
				j.w.grown -= octets
				return nil
			}, int64(below), trimStep)
			if errors.Is(err, errEnough) {
				err = nil
			}
			if err != nil || groups == 0 {
				return err
			}
			if !begun {
				j.log.Debug("trim begin", "below", below)
			}
			if err := j.w.exec("DELETE FROM journal_group WHERE last <= ?", last); err != nil {
				return err
			}
			return j.w.setMeta(metaTrimmed, last)
		})
		if err != nil {
			return doing(err, "trim the journal below %d", below)
		}
		if groups == 0 {
			if begun {
				j.log.Debug("trim done", "below", below)
			}
			return nil
		}
		j.mu.Lock()
		j.trimmed = uint64(last)
		j.mu.Unlock()
		crashpoint.At(crashpoint.Trimming)
	}
}
