package spool

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"tollbridge/asm/acct"
)

// A CDRFilter chooses CDRs. The zero CDRFilter chooses all.
type CDRFilter struct {
	User    string // "" for any
	Session string // Session-Id; "" for any
	After   uint64 // only IDs above it
	Limit   int    // 0 for none
}

// A StoredCDR is a CDR with its number in the order of arrival.
type StoredCDR struct {
	ID uint64
	acct.CDR
}

// A CDRConflict is a CDR with the Session-Id and number of one that was
// stored before, but other content.
type CDRConflict struct {
	StoredCDR
	First uint64 // ID of the CDR stored before
	Times uint64 // how often it came
}

// A UserTotal sums up what a user's CDRs claim: the latest cumulative record
// of each session, and every EVENT record. Usage less Credited is what the user
// is to be charged for.
type UserTotal struct {
	User     string     `json:"user"`
	Sessions int        `json:"sessions"` // Session-Ids with a START, INTERIM or STOP
	Records  int        `json:"records"`
	Usage    acct.Usage `json:"usage"`
	Credited acct.Usage `json:"credited"` // by EVENT records that take usage away
}

// List returns the CDRs that f chooses, in order of arrival.
func (c *CDRs) List(ctx context.Context, f CDRFilter) ([]StoredCDR, error) {
	where, args := []string{"id > ?"}, []any{integer(f.After)}
	if f.User != "" {
		where, args = append(where, "user_name = ?"), append(args, f.User)
	}
	if f.Session != "" {
		where, args = append(where, "session_id = ?"), append(args, f.Session)
	}
	limit := int64(-1)
	if f.Limit > 0 {
		limit = int64(f.Limit)
	}
	rows, err := c.r.QueryContext(ctx, "SELECT id, sum, "+cdrColumns+" FROM cdr WHERE "+strings.Join(where, " AND ")+" ORDER BY id LIMIT ?",
		append(args, limit)...)
	if err != nil {
		return nil, explain(c.file, err)
	}
	var out []StoredCDR
	err = each(rows, func(rows *sql.Rows) error {
		var s StoredCDR
		var sum sql.NullInt64
		if err := scanCDR(rows, &s.CDR, &s.ID, &sum); err != nil {
			return err
		}
		if err := checkCDR(s.ID, &s.CDR, sum); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, explain(c.file, err)
}

// Conflicts returns the CDRs that contradict another, in order of arrival.
func (c *CDRs) Conflicts(ctx context.Context) ([]CDRConflict, error) {
	rows, err := c.r.QueryContext(ctx, "SELECT id, first, times, "+cdrColumns+" FROM conflict ORDER BY id")
	if err != nil {
		return nil, explain(c.file, err)
	}
	var out []CDRConflict
	err = each(rows, func(rows *sql.Rows) error {
		var s CDRConflict
		if err := scanCDR(rows, &s.CDR, &s.ID, &s.First, &s.Times); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, explain(c.file, err)
}

// Counts returns how many CDRs are stored, how often one came again, and how
// many contradict another.
func (c *CDRs) Counts(ctx context.Context) (stored, duplicates, conflicts uint64, err error) {
	err = c.r.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM cdr),
		coalesce((SELECT value FROM meta WHERE name = ?), 0), (SELECT coalesce(sum(times), 0) FROM conflict)`,
		metaDuplicates).Scan(&stored, &duplicates, &conflicts)
	return stored, duplicates, conflicts, explain(c.file, err)
}

// checkCDR refuses a CDR that is not as it was stored: no bill may be made of it
// unseen.
func checkCDR(id uint64, c *acct.CDR, sum sql.NullInt64) error {
	if sum.Valid && sum.Int64 != cdrSum(c) {
		return fmt.Errorf("CDR %d, Session-Id %q number %d: %w", id, c.SessionID, c.Number, ErrDamaged)
	}
	return nil
}

// Totals returns what each user's CDRs come to, in order of user. Records of a
// session are cumulative, so the one with the highest number counts. A
// conflicting CDR does not count.
func (c *CDRs) Totals(ctx context.Context) ([]UserTotal, error) {
	users := make(map[string]*UserTotal)
	type latest struct {
		number uint32
		user   string
		usage  acct.Usage
	}
	sessions := make(map[string]latest)
	user := func(name string) *UserTotal {
		u := users[name]
		if u == nil {
			u = &UserTotal{User: name}
			users[name] = u
		}
		return u
	}
	rows, err := c.r.QueryContext(ctx, "SELECT id, sum, session_id, number, type, user_name, input_octets, output_octets, input_packets, output_packets, credit FROM cdr")
	if err != nil {
		return nil, explain(c.file, err)
	}
	err = each(rows, func(rows *sql.Rows) error {
		var id uint64
		var sum sql.NullInt64
		var r acct.CDR
		var credit bool
		err := rows.Scan(&id, &sum, &r.SessionID, &r.Number, &r.Type, &r.User, &r.Usage.InputOctets, &r.Usage.OutputOctets,
			&r.Usage.InputPackets, &r.Usage.OutputPackets, &credit)
		if err != nil {
			return err
		}
		if credit {
			r.Corrects = &acct.Correction{Credit: true}
		}
		if err := checkCDR(id, &r, sum); err != nil {
			return err
		}
		u := user(r.User)
		u.Records++
		if credit {
			u.Credited = u.Credited.Plus(r.Usage)
		} else if r.Type == acct.Event {
			u.Usage = u.Usage.Plus(r.Usage)
		} else if have, ok := sessions[r.SessionID]; !ok || r.Number >= have.number {
			sessions[r.SessionID] = latest{r.Number, r.User, r.Usage}
		}
		return nil
	})
	if err != nil {
		return nil, doing(explain(c.file, err), "totals")
	}
	for _, l := range sessions {
		u := user(l.user)
		u.Sessions++
		u.Usage = u.Usage.Plus(l.usage)
	}
	out := make([]UserTotal, 0, len(users))
	for _, u := range users {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b UserTotal) int { return strings.Compare(a.User, b.User) })
	return out, nil
}
