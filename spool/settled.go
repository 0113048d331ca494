package spool

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"

	"tollbridge/asm/acct"
)

// A settledRange is a row of table settled.
type settledRange struct {
	idRange
	answer
}

// An answer is what ranges of table settled have in common.
type answer struct {
	state  acct.DeliveryState
	result uint32
	peer   string
	reason string
	at     int64 // Unix seconds
}

func (a answer) compare(b answer) int {
	return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.result, b.result),
		cmp.Compare(a.peer, b.peer), cmp.Compare(a.reason, b.reason), cmp.Compare(a.at, b.at))
}

// addSettled stores rows, within a transaction.
func (w *writer) addSettled(ranges []settledRange) error {
	put := w.inserter("INSERT INTO settled (last, first, state, result, peer, reason, at, sum)", 8, "")
	for i := range ranges {
		r := &ranges[i]
		err := put.add(int64(r.last), int64(r.first), int64(r.state), int64(r.result), r.peer, r.reason, r.at, settledSum(r))
		if err != nil {
			return err
		}
	}
	return put.flush()
}

// eachSettled visits the rows of table settled in order, with what is wrong
// with each.
func eachSettled(ctx context.Context, q rowsQuerier, f func(r settledRange, damage error) error) error {
	rows, err := q.QueryContext(ctx, "SELECT last, first, state, result, peer, reason, at, sum FROM settled ORDER BY last")
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var r settledRange
		var sum sql.NullInt64
		if err := rows.Scan(&r.last, &r.first, &r.state, &r.result, &r.peer, &r.reason, &r.at, &sum); err != nil {
			return err
		}
		var damage error
		if sum.Valid && sum.Int64 != settledSum(&r) {
			damage = fmt.Errorf("what became of records %d to %d, as it stands %v by %q with %d: %w", r.first, r.last, r.state, r.peer, r.result, ErrDamaged)
		}
		return f(r, damage)
	})
}

// settledRanges returns the rows of table settled that touch r, in order.
func settledRanges(ctx context.Context, q rowsQuerier, r idRange) ([]settledRange, error) {
	rows, err := q.QueryContext(ctx, `SELECT last, first, state, result, peer, reason, at FROM settled
		WHERE last >= ? AND last <= coalesce((SELECT last FROM settled WHERE last >= ? ORDER BY last LIMIT 1), ?) AND first <= ? ORDER BY last`,
		integer(r.first), integer(r.last), integer(r.last), integer(r.last))
	if err != nil {
		return nil, err
	}
	var out []settledRange
	err = each(rows, func(rows *sql.Rows) error {
		var s settledRange
		if err := rows.Scan(&s.last, &s.first, &s.state, &s.result, &s.peer, &s.reason, &s.at); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, err
}
