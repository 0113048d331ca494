package asm

import (
	"cmp"
	"slices"

	"tollbridge/asm/acct"
)

// A ledger holds what the books gained since the last checkpoint.
type ledger struct {
	rows       map[acct.LedgerKey]*acct.LedgerRow
	generation uint64 // rises when rows are taken; a row is good for one generation
}

func newLedger() ledger {
	return ledger{rows: make(map[acct.LedgerKey]*acct.LedgerRow)}
}

// row returns the row of key, to be added to until the generation ends.
func (l *ledger) row(key acct.LedgerKey) *acct.LedgerRow {
	r := l.rows[key]
	if r == nil {
		r = &acct.LedgerRow{LedgerKey: key}
		l.rows[key] = r
	}
	return r
}

// book adds to row what became of f.
func (f *flow) book(row *acct.LedgerRow, accounted, mirrored acct.Count) {
	row.Accounted = row.Accounted.Plus(accounted)
	row.Mirrored = row.Mirrored.Plus(mirrored)
	if f.estimated {
		row.Estimated = row.Estimated.Plus(accounted)
	}
}

// take returns the increments in the order of their keys and starts anew.
func (l *ledger) take() []acct.LedgerRow {
	rows := make([]acct.LedgerRow, 0, len(l.rows))
	for _, r := range l.rows {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b acct.LedgerRow) int {
		return cmp.Or(cmp.Compare(a.Interval, b.Interval),
			cmp.Compare(a.Exporter, b.Exporter), cmp.Compare(a.Domain, b.Domain))
	})
	clear(l.rows)
	l.generation++
	return rows
}
