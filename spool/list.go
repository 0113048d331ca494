package spool

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tollbridge/asm/acct"
)

// ErrNotFound says that the spool holds no such thing, or none any more.
var ErrNotFound = errors.New("not found")

// A Filter chooses records of the outbox. The zero Filter chooses all.
type Filter struct {
	State   *acct.DeliveryState // nil for any
	User    string              // "" for any
	Session string              // Session-Id or Acct-Multi-Session-Id; "" for any
	After   uint64              // only IDs above it
	Limit   int                 // 0 for none
}

// A Listed record is one of the outbox with what has become of it.
type Listed struct {
	ID       uint64
	Record   acct.Record // with Shares
	State    acct.DeliveryState
	EndToEnd uint32    // of its latest or next sending
	MaySent  bool      // a copy was or may have been sent
	Attempts uint32    // error answers
	Result   uint32    // Result-Code of the latest answer, 0 for none
	Peer     string    // who gave it
	Reason   string    // Error-Message and Failed-AVP of a refusal
	At       time.Time // of that answer; zero for none
	Damage   string    // what of the record can't be read; "" for nothing
}

// List returns the records that f chooses, in order of ID, as of one moment.
func (s *Spool) List(ctx context.Context, f Filter) ([]Listed, error) {
	var out []Listed
	err := s.eachListed(ctx, f.After+1, func(l *Listed) (bool, error) {
		switch {
		case f.State != nil && l.State != *f.State,
			f.User != "" && l.Record.User != f.User,
			f.Session != "" && l.Record.SessionID != f.Session && l.Record.MultiSessionID != f.Session:
			return true, nil
		}
		out = append(out, *l)
		return f.Limit == 0 || len(out) < f.Limit, nil
	})
	return out, err
}

// Show returns the record with an ID. The error is ErrNotFound where there is
// none.
func (s *Spool) Show(ctx context.Context, id uint64) (Listed, error) {
	var found *Listed
	err := s.eachListed(ctx, id, func(l *Listed) (bool, error) {
		if l.ID == id {
			found = l
		}
		return false, nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("spool: record %d: %w", id, ErrNotFound)
	}
	if err != nil {
		return Listed{}, err
	}
	return *found, nil
}

// ShowNumber returns the records with a Session-Id and
// Accounting-Record-Number: more than one where a record was split. The error
// is ErrNotFound where there is none. It reads the whole outbox.
func (s *Spool) ShowNumber(ctx context.Context, sessionID string, number uint32) ([]Listed, error) {
	var out []Listed
	err := s.eachListed(ctx, 1, func(l *Listed) (bool, error) {
		if l.Record.Number == number && l.Record.SessionID == sessionID {
			out = append(out, *l)
		}
		return true, nil
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("spool: record %s/%d: %w", sessionID, number, ErrNotFound)
	}
	return out, err
}

// eachListed visits the records from an ID on, in one read transaction, until
// f returns false.
func (s *Spool) eachListed(ctx context.Context, from uint64, f func(*Listed) (bool, error)) error {
	state := s.state()
	base := s.meta.Epoch * epochSpread
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		for id := from; ; {
			p, err := readPage(ctx, tx, id)
			if isNoRecord(err) {
				return nil
			}
			if err != nil {
				return err
			}
			about, err := readAbout(ctx, tx, idRange{p.first, p.last})
			if err != nil {
				return err
			}
			for _, it := range p.all() {
				if it.id < id {
					continue
				}
				l := &Listed{ID: it.id, EndToEnd: firstEndToEnd(base, it.id)}
				if it.damage == nil {
					it.damage = l.Record.UnmarshalBinary(it.content)
				}
				if it.unknown == nil {
					l.Record.Shares, it.unknown = acct.ParseShares(it.shares)
				}
				if damage := cmp.Or(it.damage, it.unknown); damage != nil {
					l.Damage = damage.Error()
				}
				about.tell(l)
				if more, err := f(l); !more || err != nil {
					return err
				}
			}
			id = p.last + 1
		}
	})
	if err != nil {
		return doing(explain(state, err), "list")
	}
	return nil
}

// about is what is known of the records of a page beside their content.
type about struct {
	settled []settledRange
	sent    idSet
	retry   map[uint64]retried
}

type retried struct {
	retry
	answer
}

func readAbout(ctx context.Context, tx *sql.Tx, r idRange) (*about, error) {
	a := &about{retry: make(map[uint64]retried)}
	var err error
	if a.settled, err = settledRanges(ctx, tx, r); err != nil {
		return nil, err
	}
	// Ranges of table sent may be out of order, so their first says nothing.
	rows, err := tx.QueryContext(ctx, "SELECT first, last FROM sent WHERE last >= ? AND first <= ?", integer(r.first), integer(r.last))
	if err != nil {
		return nil, err
	}
	if err := each(rows, func(rows *sql.Rows) error {
		var s idRange
		if err := rows.Scan(&s.first, &s.last); err != nil {
			return err
		}
		a.sent.add(s.first, s.last)
		return nil
	}); err != nil {
		return nil, err
	}
	rows, err = tx.QueryContext(ctx, "SELECT id, attempts, end_to_end, sent, result, peer, reason, at FROM retry WHERE id BETWEEN ? AND ?",
		integer(r.first), integer(r.last))
	if err != nil {
		return nil, err
	}
	return a, each(rows, func(rows *sql.Rows) error {
		var id uint64
		var t retried
		if err := rows.Scan(&id, &t.attempts, &t.endToEnd, &t.sent, &t.result, &t.peer, &t.reason, &t.at); err != nil {
			return err
		}
		a.retry[id] = t
		return nil
	})
}

func (a *about) tell(l *Listed) {
	l.MaySent = a.sent.has(l.ID)
	if t, ok := a.retry[l.ID]; ok {
		l.EndToEnd, l.MaySent, l.Attempts = t.endToEnd, t.sent, t.attempts
		l.answered(t.answer)
	}
	for _, s := range a.settled {
		if s.first <= l.ID && l.ID <= s.last {
			l.State, l.MaySent = s.state, true
			l.answered(s.answer)
		}
	}
}

func (l *Listed) answered(a answer) {
	l.Result, l.Peer, l.Reason, l.At = a.result, a.peer, a.reason, time.Unix(a.at, 0).UTC()
}

// Sessions returns the sessions of the checkpoint whose ID is above after, in
// order of ID, at most limit of them; 0 is no limit.
func (s *Spool) Sessions(ctx context.Context, after uint64, limit int) ([]acct.SessionState, error) {
	state := s.state()
	var out []acct.SessionState
	err := s.snapshot(ctx, func(tx *sql.Tx) error {
		return eachSession(ctx, tx, after+1, func(st acct.SessionState, damage error) error {
			if damage != nil {
				return nil
			}
			out = append(out, st)
			if limit > 0 && len(out) >= limit {
				return errEnough
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, doing(explain(state, err), "sessions")
	}
	return out, nil
}

// errEnough ends a visit early.
var errEnough = errors.New("enough")

// Suspended returns the Data Records in suspense whose ID is above after, in
// order of ID, at most limit of them; 0 is no limit.
func (s *Spool) Suspended(ctx context.Context, after uint64, limit int) ([]acct.Suspended, error) {
	var out []acct.Suspended
	err := s.EachSuspended(ctx, after, func(r acct.Suspended) error {
		out = append(out, r)
		if limit > 0 && len(out) >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return out, nil
}
