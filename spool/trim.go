package spool

import (
	"context"
	"database/sql"

	"tollbridge/internal/crashpoint"
)

// trimStep is how many groups one transaction of a trim deletes, so that a
// long trim does not hold up the committer: 8 MiB of full groups.
const trimStep = 32

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
			err := j.w.query("SELECT last, length(data) FROM journal_group WHERE last < ? ORDER BY last LIMIT ?", func(rows *sql.Rows) error {
				groups++
				var octets int64
				err := rows.Scan(&last, &octets)
				j.w.grown -= octets
				return err
			}, int64(below), trimStep)
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
