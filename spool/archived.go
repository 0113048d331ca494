package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tollbridge/asm/acct"
)

// A Range is the numbers from First to Last, both included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// metaArchive is the row of table meta with the head of the archive's chain.
const metaArchive = "archive"

// KeepForArchive makes TrimSettled leave what is not in the archive yet.
func (o *Outbox) KeepForArchive() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.archiving = true
}

// ToArchive returns settled records that are not in the archive, in order of
// ID, at most limit of them, and the ranges of their IDs.
func (s *Spool) ToArchive(ctx context.Context, limit int) ([]Listed, []Range, error) {
	var done, kept idSet
	state := s.state()
	load := func(query string, set *idSet) error {
		rows, err := s.r.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		return each(rows, func(rows *sql.Rows) error {
			var r idRange
			err := rows.Scan(&r.first, &r.last)
			set.add(r.first, r.last)
			return err
		})
	}
	if err := errors.Join(load("SELECT first, last FROM settled WHERE state <> 2 ORDER BY last", &done),
		load("SELECT first, last FROM archived ORDER BY last", &kept)); err != nil {
		return nil, nil, doing(explain(state, err), "list what is to be archived")
	}
	var list []Listed
	var ids idSet
	for _, r := range done.ranges {
		for id := kept.next(r.first); id <= r.last && len(list) < limit; id = kept.next(id) {
			err := s.eachListed(ctx, id, func(l *Listed) (bool, error) {
				if l.ID > r.last || kept.has(l.ID) || len(list) == limit {
					id = max(id, l.ID)
					return false, nil
				}
				list = append(list, *l)
				ids.add(l.ID, l.ID)
				id = l.ID + 1
				return true, nil
			})
			if err != nil {
				return nil, nil, err
			}
			if id <= r.last && !kept.has(id) { // there are no more records
				break
			}
		}
	}
	var ranges []Range
	for _, r := range ids.ranges {
		ranges = append(ranges, Range{r.first, r.last})
	}
	return list, ranges, nil
}

// Archived notes, durably, what is in the archive, and the head of its chain.
// It may be told again of the same.
func (s *Spool) Archived(ranges []Range, head string) error {
	if s.w == nil {
		return ErrReadOnly
	}
	err := s.w.transact(func() error {
		var all idSet
		err := s.w.query("SELECT first, last FROM archived ORDER BY last", func(rows *sql.Rows) error {
			var r idRange
			err := rows.Scan(&r.first, &r.last)
			all.add(r.first, r.last)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range ranges {
			all.add(r.First, r.Last)
		}
		if err := s.w.exec("DELETE FROM archived"); err != nil {
			return err
		}
		// Below the first record nothing is asked for any more.
		var first sql.NullInt64
		if err := s.w.query("SELECT min(first) FROM record_page", func(rows *sql.Rows) error { return rows.Scan(&first) }); err != nil {
			return err
		}
		if first.Valid {
			all.cutBelow(uint64(first.Int64))
		}
		put := s.w.inserter("INSERT INTO archived (last, first)", 2, "")
		for _, r := range all.ranges {
			if err := put.add(int64(r.last), int64(r.first)); err != nil {
				return err
			}
		}
		if err := put.flush(); err != nil {
			return err
		}
		return s.w.setMeta(metaArchive, head)
	})
	if err != nil {
		return doing(err, "note what is archived")
	}
	return nil
}

// ArchiveHead returns the head of the archive's chain that Archived noted last,
// "" for none.
func (s *Spool) ArchiveHead(ctx context.Context) (string, error) {
	state := s.state()
	var head string
	err := s.r.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", metaArchive).Scan(&head)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return head, explain(state, err)
}

// OpeningData returns the opening at a position as KeepOpening stored it:
// lines of JSON, compressed with zstd. The error is ErrNotFound where there is
// none.
func (s *Spool) OpeningData(ctx context.Context, position uint64) ([]byte, error) {
	var data []byte
	err := s.r.QueryRowContext(ctx, "SELECT data FROM opening WHERE position = ?", integer(position)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("spool: an opening at journal position %d: %w", position, ErrNotFound)
	}
	return data, explain(s.state(), err)
}

// Begin makes o the checkpoint of an empty spool, whose journal goes on behind
// it after the next Open. The books begin with what o has open and in
// suspense.
func (s *Spool) Begin(ctx context.Context, o Opening) error {
	rows := make(map[acct.LedgerKey]*acct.LedgerRow)
	row := func(k acct.LedgerKey) *acct.LedgerRow {
		if rows[k] == nil {
			rows[k] = &acct.LedgerRow{LedgerKey: k}
		}
		return rows[k]
	}
	for _, st := range o.Sessions {
		for _, sh := range st.Open {
			r := row(sh.LedgerKey)
			r.Received, r.Accounted = r.Received.Plus(sh.Count), r.Accounted.Plus(sh.Count)
		}
	}
	for _, x := range o.Suspended {
		r := row(x.Key)
		r.Received, r.Suspended = r.Received.Plus(x.Count), r.Suspended.Plus(x.Count)
	}
	b := acct.Batch{Position: o.Position, Needed: o.Position + 1, Time: o.Time, Sessions: o.Sessions, State: o.State, Suspended: o.Suspended}
	for _, r := range rows {
		b.Ledger = append(b.Ledger, *r)
	}
	return s.Commit(ctx, b)
}
