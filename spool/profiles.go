package spool

import (
	"bytes"
	"context"
	"database/sql"
)

// A Profiles says how the records of the outbox from an ID on are written, in
// words of whoever writes them. It may hold keys, so it is as secret as the
// records are.
type Profiles struct {
	First      uint64 // record ID
	Definition []byte
}

// Profiles returns every definition that records of the outbox may have been
// sent by, ascending.
func (o *Outbox) Profiles(ctx context.Context) ([]Profiles, error) {
	return readProfiles(ctx, o.r, o.file)
}

// Profiles is Outbox.Profiles, also after OpenReadOnly.
func (s *Spool) Profiles(ctx context.Context) ([]Profiles, error) {
	state := s.state()
	return readProfiles(ctx, s.r, state)
}

func readProfiles(ctx context.Context, db *sql.DB, file string) ([]Profiles, error) {
	rows, err := db.QueryContext(ctx, "SELECT first, definition FROM profiles ORDER BY first")
	if err != nil {
		return nil, explain(file, err)
	}
	var all []Profiles
	err = each(rows, func(rows *sql.Rows) error {
		var p Profiles
		if err := rows.Scan(&p.First, &p.Definition); err != nil {
			return err
		}
		all = append(all, p)
		return nil
	})
	if err != nil {
		return nil, explain(file, err)
	}
	return all, nil
}

// SetProfiles stores, durably before it returns, that records that come from
// now on are written by a definition. Those that are in the outbox keep theirs,
// so that whatever was sent is sent again as it was. One that is in force is not
// stored again. The first holds for the records before it too.
func (o *Outbox) SetProfiles(ctx context.Context, definition []byte) error {
	all, err := o.Profiles(ctx)
	if err != nil {
		return err
	}
	if n := len(all); n > 0 && bytes.Equal(all[n-1].Definition, definition) {
		return nil
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.mu.Lock()
	first, low := o.next, o.done.next(0)
	o.mu.Unlock()
	err = o.w.transactLocked(func() error {
		// Of those whose records are all settled one is enough.
		if err := o.w.exec(`DELETE FROM profiles WHERE first < (SELECT max(first) FROM profiles WHERE first <= ?)`, int64(low)); err != nil {
			return err
		}
		return o.w.exec("INSERT OR REPLACE INTO profiles (first, definition) VALUES (?, ?)", int64(first), definition)
	})
	if err != nil {
		return doing(err, "store profiles")
	}
	return nil
}
