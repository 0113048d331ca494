package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// A Reader follows the journal. It gets durable entries only, in order, from
// memory where it keeps up and from the disk where it does not; it never holds
// up the writer. A Reader is for one goroutine.
type Reader struct {
	j       *Journal
	after   uint64
	entries []acct.Entry
	held    *group // in memory, that entries are of; nil for none
	room    []byte // for a group from the disk
}

// Reader returns a Reader of the entries behind position after.
func (j *Journal) Reader(after uint64) *Reader { return &Reader{j: j, after: after} }

// Next returns the next entries, at least one, and blocks until there are
// some. Both the slice and its Data are valid until the next call. Positions
// are consecutive but where a damaged group was set aside. Errors are ctx's,
// ErrTrimmed, and those of the disk; ErrClosed comes after the last entry of a
// journal whose Run has ended.
func (r *Reader) Next(ctx context.Context) ([]acct.Entry, error) {
	for {
		if err := r.j.Wait(ctx, r.after+1); err != nil {
			return nil, err
		}
		r.letGo()
		g, err := r.find(ctx, r.after+1)
		var damaged *damagedError
		switch {
		case errors.As(err, &damaged):
			if err := r.j.setAside(damaged); err != nil {
				return nil, err
			}
			r.after = damaged.last
			continue
		case errors.Is(err, acct.ErrNoEntry) && !errors.Is(err, ErrTrimmed):
			r.after = r.j.Durable() // set aside, up to the end
			continue
		case err != nil:
			return nil, err
		}
		r.entries, err = entries(r.entries[:0], g.first, g.octets, r.after+1)
		if err != nil {
			return nil, fmt.Errorf("spool: journal positions %d to %d: %w", g.first, g.last(), err)
		}
		r.after = g.last()
		return r.entries, nil
	}
}

// find returns the durable group that holds position, as Journal.find, good
// until letGo.
func (r *Reader) find(ctx context.Context, position uint64) (*group, error) {
	if g := r.j.inMemory(position); g != nil {
		r.held = g
		return g, nil
	}
	g, err := r.j.onDisk(ctx, position, r.room)
	if g != nil {
		r.room = g.octets
	}
	return g, err
}

// letGo lets the memory of what Next returned be used again.
func (r *Reader) letGo() {
	g := r.held
	if r.held = nil; g == nil {
		return
	}
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	if g.readers--; g.dropped {
		r.j.dropLocked(g)
	}
}

// Read returns the entry at a durable position. Its Data stays valid. The
// error matches acct.ErrNoEntry where the position was trimmed, is damaged or
// was never stored.
func (j *Journal) Read(ctx context.Context, position uint64) (acct.Entry, error) {
	j.mu.Lock()
	g := j.cached
	j.mu.Unlock()
	if g == nil || position < g.first || position > g.last() {
		var err error
		if g, err = j.find(ctx, position); err != nil {
			var damaged *damagedError
			if errors.As(err, &damaged) {
				err = errors.Join(err, j.setAside(damaged))
			}
			return acct.Entry{}, err
		}
		if position < g.first {
			return acct.Entry{}, fmt.Errorf("spool: position %d: %w", position, acct.ErrNoEntry)
		}
		j.mu.Lock()
		j.cached = g
		j.mu.Unlock()
	}
	es, err := entries(nil, g.first, g.octets, position)
	if err != nil {
		return acct.Entry{}, fmt.Errorf("spool: journal positions %d to %d: %w", g.first, g.last(), err)
	}
	return es[0], nil
}

// find returns the durable group that holds position or, where position was
// set aside, the next one behind it.
func (j *Journal) find(ctx context.Context, position uint64) (*group, error) {
	if g := j.inMemory(position); g != nil {
		return g, nil // for good: it never counts as read
	}
	return j.onDisk(ctx, position, nil)
}

// inMemory returns the group that holds position if it is a recent one, and
// counts the caller among its readers.
func (j *Journal) inMemory(position uint64) *group {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, _ := slices.BinarySearchFunc(j.recent, position, func(g *group, p uint64) int {
		switch {
		case g.last() < p:
			return -1
		case g.first > p:
			return 1
		}
		return 0
	})
	if i == len(j.recent) || j.recent[i].first > position {
		return nil
	}
	j.recent[i].readers++
	return j.recent[i]
}

// onDisk returns the group that holds position or, where that was set aside,
// the next one behind it, from the disk. Its octets are put into room if that
// is large enough.
func (j *Journal) onDisk(ctx context.Context, position uint64, room []byte) (*group, error) {
	j.mu.Lock()
	trimmed := j.trimmed
	j.mu.Unlock()
	if position <= trimmed {
		return nil, fmt.Errorf("spool: position %d: %w", position, ErrTrimmed)
	}

	var first, last int64
	octets := room[:0]
	found := false
	rows, err := j.r.QueryContext(ctx, "SELECT last, first, data FROM journal_group WHERE last >= ? ORDER BY last LIMIT 1", int64(position))
	if err == nil {
		err = each(rows, func(rows *sql.Rows) error {
			var raw sql.RawBytes
			found = true
			err := rows.Scan(&last, &first, &raw)
			octets = append(octets, raw...)
			return err
		})
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, explain(j.file, err)
	case !found:
		return nil, fmt.Errorf("spool: position %d: %w", position, acct.ErrNoEntry)
	}
	g := &group{first: uint64(first), count: uint32(last - first + 1), octets: octets}
	if err := check(g); err != nil {
		return nil, &damagedError{g.first, g.last(), octets, err}
	}
	j.mu.Lock()
	j.stats.FromDisk++
	j.mu.Unlock()
	return g, nil
}

// check verifies a group from the disk, also that it holds as many entries as
// its positions say.
func check(g *group) error {
	if err := verify(g.first, g.octets); err != nil {
		return err
	}
	es, err := entries(nil, g.first, g.octets, g.last())
	if err != nil {
		return err
	}
	if len(es) != 1 {
		return fmt.Errorf("%w: other number of entries than %d", errGroup, g.count)
	}
	return nil
}

// A damagedError is a group that failed its check. It matches acct.ErrNoEntry
// too: its entries can't be had.
type damagedError struct {
	first, last uint64
	octets      []byte
	err         error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("spool: journal positions %d to %d: %v", e.first, e.last, e.err)
}

func (e *damagedError) Unwrap() []error { return []error{ErrDamaged, acct.ErrNoEntry, e.err} }

// setAside moves a damaged group to table damaged and says so. A reader
// beside the daemon only passes over it.
func (j *Journal) setAside(d *damagedError) error {
	j.log.Error("journal group is damaged and set aside", "first", d.first, "last", d.last, "error", d.err)
	if j.w == nil {
		return nil
	}
	j.mu.Lock()
	j.stats.DamagedGroups++
	j.mu.Unlock()
	return j.w.transact(func() error {
		err := j.w.exec("INSERT OR REPLACE INTO damaged (last, first, found, reason, data) VALUES (?, ?, ?, ?, ?)",
			int64(d.last), int64(d.first), time.Now().Unix(), d.err.Error(), notNil(d.octets))
		if err != nil {
			return err
		}
		j.w.grown -= int64(len(d.octets))
		return j.w.exec("DELETE FROM journal_group WHERE last = ?", int64(d.last))
	})
}

// notNil returns b, or an empty slice for nil, which SQLite would take for
// NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
