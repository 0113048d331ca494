package spool

import (
	"context"
	"database/sql"
	"fmt"

	"tollbridge/asm/acct"
)

func (w *writer) addDecisions(list []acct.Decision) error {
	for i := range list {
		d := &list[i]
		err := w.exec("INSERT INTO decision (position, at, by, what, reason, subject, records, octets, packets) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			int64(d.Position), d.At, d.By, d.What, d.Reason, d.On, integer(d.Count.Records), integer(d.Count.Octets), integer(d.Count.Packets))
		if err != nil {
			return fmt.Errorf("decision: %w", err)
		}
	}
	return nil
}

// Decisions returns what operators ordered, in that order. They are kept for
// ever.
func (s *Spool) Decisions(ctx context.Context) ([]acct.Decision, error) {
	state := s.state()
	rows, err := s.r.QueryContext(ctx, "SELECT position, at, by, what, reason, subject, records, octets, packets FROM decision ORDER BY position")
	if err != nil {
		return nil, explain(state, err)
	}
	var list []acct.Decision
	err = each(rows, func(rows *sql.Rows) error {
		var d acct.Decision
		if err := rows.Scan(&d.Position, &d.At, &d.By, &d.What, &d.Reason, &d.On, &d.Count.Records, &d.Count.Octets, &d.Count.Packets); err != nil {
			return explain(state, err)
		}
		list = append(list, d)
		return nil
	})
	return list, err
}

// Decision returns that of the command at a position of the journal; ok is
// false if the pipeline has carried out none there.
func (s *Spool) Decision(ctx context.Context, position uint64) (d acct.Decision, ok bool, err error) {
	list, err := s.Decisions(ctx)
	if err != nil {
		return acct.Decision{}, false, err
	}
	for _, d := range list {
		if d.Position == position {
			return d, true, nil
		}
	}
	return acct.Decision{}, false, nil
}
