package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"tollbridge/asm/acct"
)

// Stats says what a spool holds, as it lies on the disk.
type Stats struct {
	Created    time.Time      `json:"created"`
	Records    map[string]int `json:"records"` // by state of delivery
	Oldest     time.Time      `json:"oldest_pending,omitzero"`
	Sessions   int            `json:"sessions"`
	Suspended  int            `json:"suspended"`
	Checkpoint uint64         `json:"checkpoint_position"`
	Clock      time.Time      `json:"checkpoint_time,omitzero"` // the pipeline's
	First      uint64         `json:"journal_first"`            // above Last when the journal is empty
	Last       uint64         `json:"journal_last"`
	Damaged    int            `json:"journal_damaged_groups"`
	Octets     Octets         `json:"octets"`
}

// Octets on the disk, write-ahead logs included.
type Octets struct {
	State   int64 `json:"state"`
	Journal int64 `json:"journal"`
	CDR     int64 `json:"cdr"`
}

// Stats returns what the spool holds.
func (s *Spool) Stats(ctx context.Context) (Stats, error) {
	state, journal := s.files()
	st := Stats{Created: s.meta.Created, Records: map[string]int{}}
	st.Octets = Octets{onDisk(state), onDisk(journal), onDisk(cdrFile(s.dir))}
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		position, err := metaNumber(ctx, tx, metaPosition)
		if err != nil {
			return err
		}
		clock, err := metaNumber(ctx, tx, metaTime)
		if err != nil {
			return err
		}
		st.Checkpoint = uint64(position)
		if clock != 0 {
			st.Clock = time.Unix(0, clock).UTC()
		}
		var all, settled int
		err = tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM suspended),
			(SELECT coalesce(sum(count), 0) FROM record_page)`).Scan(&st.Sessions, &st.Suspended, &all)
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, "SELECT state, sum(last - first + 1) FROM settled GROUP BY state")
		if err != nil {
			return err
		}
		if err := each(rows, func(rows *sql.Rows) error {
			var state acct.DeliveryState
			var n int
			if err := rows.Scan(&state, &n); err != nil {
				return err
			}
			st.Records[state.String()] = n
			settled += n
			return nil
		}); err != nil {
			return err
		}
		st.Records[acct.Pending.String()] = all - settled
		st.Oldest, err = oldestPending(ctx, tx)
		return err
	})
	if err != nil {
		return Stats{}, doing(explain(state, err), "stats")
	}
	st.First, st.Last, st.Damaged, err = s.journalRange(ctx)
	if err != nil {
		return Stats{}, doing(explain(journal, err), "stats")
	}
	return st, nil
}

func (s *Spool) journalRange(ctx context.Context) (first, last uint64, damaged int, err error) {
	trimmed, err := metaNumber(ctx, s.jr, metaTrimmed)
	if err != nil {
		return 0, 0, 0, err
	}
	var lo, hi sql.NullInt64
	err = s.jr.QueryRowContext(ctx, `SELECT (SELECT first FROM journal_group ORDER BY last LIMIT 1),
		(SELECT max(last) FROM journal_group), (SELECT count(*) FROM damaged)`).Scan(&lo, &hi, &damaged)
	if err != nil {
		return 0, 0, 0, err
	}
	if !lo.Valid {
		return uint64(trimmed) + 1, uint64(trimmed), damaged, nil
	}
	return uint64(lo.Int64), uint64(hi.Int64), damaged, nil
}

// oldestPending returns the Event-Timestamp of the first record not settled,
// the zero time when there is none.
func oldestPending(ctx context.Context, tx *sql.Tx) (time.Time, error) {
	var oldest time.Time
	err := eachUnacknowledged(ctx, tx, func(id uint64, state acct.DeliveryState, it item) error {
		if state != acct.Pending || it.damage != nil {
			return nil
		}
		var r acct.Record
		if err := r.UnmarshalBinary(it.content); err != nil {
			return fmt.Errorf("record %d: %w: %w", id, ErrDamaged, err)
		}
		oldest = r.Event
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return oldest, err
}

// onDisk returns the octets of a database and its write-ahead log; what is
// not there has none.
func onDisk(file string) int64 {
	var n int64
	for _, f := range []string{file, file + "-wal"} {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}
