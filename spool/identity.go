package spool

import (
	"context"
	"database/sql"
	"fmt"

	"tollbridge/asm/acct"
)

// identityFanIn rows of one bucket and level are merged into one of the next
// level. So a bucket of n checkpoints has about 16 log16(n) rows, and each
// identity is written log16(n) times. Where a checkpoint brings many, their row
// is of the last level at once: nothing would be gained by merging it.
const (
	identityFanIn    = 16
	identityMaxLevel = 3       // 4096 checkpoints in one row
	identityLarge    = 1 << 20 // octets of a row that is not merged
)

// An identityBucket names the rows of identities that belong together.
type identityBucket struct {
	exporter string
	bucket   int64
}

// An identityRows counts the rows of a bucket by level.
type identityRows [identityMaxLevel + 1]int32

func loadIdentities(ctx context.Context, q *sql.DB, file string) (map[identityBucket]identityRows, error) {
	rows, err := q.QueryContext(ctx, "SELECT exporter, bucket, level, count(*) FROM identity GROUP BY exporter, bucket, level")
	if err != nil {
		return nil, explain(file, err)
	}
	m := make(map[identityBucket]identityRows)
	err = each(rows, func(rows *sql.Rows) error {
		var key identityBucket
		var level int
		var n int32
		if err := rows.Scan(&key.exporter, &key.bucket, &level, &n); err != nil {
			return err
		}
		if level < 0 || level > identityMaxLevel {
			return fmt.Errorf("identities of level %d: %w", level, ErrDamaged)
		}
		have := m[key]
		have[level] = n
		m[key] = have
		return nil
	})
	if err != nil {
		return nil, explain(file, err)
	}
	return m, nil
}

// addIdentities appends rows, forgets buckets before their floors and merges
// where rows are many. It returns the numbers of rows as they are then and
// leaves have alone.
func (w *writer) addIdentities(have map[identityBucket]identityRows, add []acct.Identities, floors []acct.Floor) (map[identityBucket]identityRows, error) {
	floor := make(map[string]int64, len(floors))
	for _, f := range floors {
		floor[f.Exporter] = f.Bucket
	}
	below := func(key identityBucket) bool {
		f, ok := floor[key.exporter]
		return ok && key.bucket < f
	}
	m := make(map[identityBucket]identityRows, len(have)+len(add))
	gone := make(map[string]bool)
	for key, n := range have {
		if below(key) {
			gone[key.exporter] = true
			continue
		}
		m[key] = n
	}
	for exporter := range gone {
		if err := w.exec("DELETE FROM identity WHERE exporter = ? AND bucket < ?", exporter, floor[exporter]); err != nil {
			return nil, err
		}
	}
	for _, i := range add {
		key := identityBucket{i.Exporter, i.Bucket}
		if below(key) || len(i.Data) == 0 {
			continue
		}
		first := 0
		if len(i.Data) >= identityLarge {
			first = identityMaxLevel
		}
		if err := w.insertIdentities(key, first, i.Data); err != nil {
			return nil, err
		}
		n := m[key]
		n[first]++
		for level := 0; level < identityMaxLevel && n[level] >= identityFanIn; level++ {
			if err := w.mergeIdentities(key, level); err != nil {
				return nil, err
			}
			n[level] = 0
			n[level+1]++
		}
		m[key] = n
	}
	return m, nil
}

func (w *writer) mergeIdentities(key identityBucket, level int) error {
	const where = " WHERE exporter = ? AND bucket = ? AND level = ?"
	var all []byte
	err := w.query("SELECT data FROM identity"+where+" ORDER BY id", func(rows *sql.Rows) error {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		data, err := openIdentities(key.bucket, raw)
		if err != nil {
			w.lost("identities", err)
			return nil
		}
		all = append(all, data...)
		return nil
	}, key.exporter, key.bucket, level)
	if err != nil {
		return err
	}
	if err := w.exec("DELETE FROM identity"+where, key.exporter, key.bucket, level); err != nil {
		return err
	}
	return w.insertIdentities(key, level+1, all)
}

func (w *writer) insertIdentities(key identityBucket, level int, data []byte) error {
	return w.exec("INSERT INTO identity (exporter, bucket, level, data) VALUES (?, ?, ?, ?)", key.exporter, key.bucket, level, sealIdentities(key.bucket, data))
}
