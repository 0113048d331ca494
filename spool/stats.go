package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	Damaged    int            `json:"journal_damaged_groups"` // set aside
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
	state := s.state()
	st := Stats{Created: s.meta.Created, Records: map[string]int{}}
	st.Octets = Octets{onDisk(state), filesOf(s.journalDir()), onDisk(cdrFile(s.dir))}
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
	j := s.journal.Stats()
	st.First, st.Last, st.Damaged = j.First, j.Last, s.journal.Aside()
	return st, nil
}

// filesOf returns the octets of the files in dir; one that is not there has none.
func filesOf(dir string) (n int64) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, f := range list {
		n += onDisk(filepath.Join(dir, f.Name()))
	}
	return n
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
