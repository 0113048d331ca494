package spool

import (
	"context"
	"database/sql"
	"fmt"

	"tollbridge/asm/acct"
)

// identityFanIn rows of one bucket and level are merged into one of the next
// level. So a bucket of n checkpoints has about 16 log16(n) rows, and each
// identity is written log16(n) times.
const (
	identityFanIn    = 16
	identityMaxLevel = 3 // 4096 checkpoints in one row
)

func loadIdentities(ctx context.Context, q *sql.DB, file string) (map[int64][]int, error) {
	rows, err := q.QueryContext(ctx, "SELECT bucket, level, count(*) FROM identity GROUP BY bucket, level")
	if err != nil {
		return nil, explain(file, err)
	}
	m := make(map[int64][]int)
	err = each(rows, func(rows *sql.Rows) error {
		var bucket int64
		var level, n int
		if err := rows.Scan(&bucket, &level, &n); err != nil {
			return err
		}
		if level < 0 || level > identityMaxLevel {
			return fmt.Errorf("identities of level %d: %w", level, ErrDamaged)
		}
		if m[bucket] == nil {
			m[bucket] = make([]int, identityMaxLevel+1)
		}
		m[bucket][level] = n
		return nil
	})
	if err != nil {
		return nil, explain(file, err)
	}
	return m, nil
}

// addIdentities appends rows, forgets buckets before floor and merges where
// rows are many. It returns the numbers of rows as they are then and leaves
// have alone.
func (w *writer) addIdentities(have map[int64][]int, add []acct.Identities, floor int64) (map[int64][]int, error) {
	m := make(map[int64][]int, len(have)+len(add))
	var gone bool
	for bucket, n := range have {
		if bucket < floor {
			gone = true
			continue
		}
		m[bucket] = append([]int(nil), n...)
	}
	if gone {
		if err := w.exec("DELETE FROM identity WHERE bucket < ?", floor); err != nil {
			return nil, err
		}
	}
	for _, i := range add {
		if i.Bucket < floor || len(i.Data) == 0 {
			continue
		}
		if err := w.exec("INSERT INTO identity (bucket, level, data) VALUES (?, 0, ?)", i.Bucket, i.Data); err != nil {
			return nil, err
		}
		n := m[i.Bucket]
		if n == nil {
			n = make([]int, identityMaxLevel+1)
			m[i.Bucket] = n
		}
		n[0]++
		for level := 0; level < identityMaxLevel && n[level] >= identityFanIn; level++ {
			if err := w.mergeIdentities(i.Bucket, level); err != nil {
				return nil, err
			}
			n[level] = 0
			n[level+1]++
		}
	}
	return m, nil
}

func (w *writer) mergeIdentities(bucket int64, level int) error {
	var all []byte
	err := w.query("SELECT data FROM identity WHERE bucket = ? AND level = ? ORDER BY id", func(rows *sql.Rows) error {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		all = append(all, raw...)
		return nil
	}, bucket, level)
	if err != nil {
		return err
	}
	if err := w.exec("DELETE FROM identity WHERE bucket = ? AND level = ?", bucket, level); err != nil {
		return err
	}
	return w.exec("INSERT INTO identity (bucket, level, data) VALUES (?, ?, ?)", bucket, level+1, notNil(all))
}
