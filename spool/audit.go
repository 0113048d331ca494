package spool

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// A bookRow is a Row with what only the check wants.
type bookRow struct {
	amount
	suspended, open, pending, quarantined acct.Count
	unknown                               bool  // the ledger has no such row
	damage                                error // of the ledger's row
}

// Audit draws up the books and checks them. That they do not balance is no
// error. It reads as of one moment and holds up no writer.
func (s *Spool) Audit(ctx context.Context) (Books, error) {
	return s.AuditOf(ctx, Selection{})
}

// AuditOf is Audit of chosen rows. Each row balances by itself.
func (s *Spool) AuditOf(ctx context.Context, sel Selection) (Books, error) {
	state := s.state()
	var books map[acct.LedgerKey]*bookRow
	var problems []string
	if err := s.snapshot(ctx, func(tx *sql.Tx) (err error) {
		books, problems, err = drawUp(ctx, tx)
		return err
	}); err != nil {
		return Books{}, doing(explain(state, err), "audit")
	}

	out := Books{Problems: problems, Rows: []Row{}}
	for k, b := range books {
		if !sel.Has(k) {
			continue
		}
		out.Rows = append(out.Rows, b.row())
		out.Problems = append(out.Problems, b.problems()...)
	}
	slices.SortFunc(out.Rows, func(a, b Row) int { return compareKeys(a.key(), b.key()) })
	slices.Sort(out.Problems)
	for i := range out.Rows {
		switch row := &out.Rows[i]; row.Exporter {
		case acct.CreditBook:
			out.Credits.add(&row.Sums)
		case acct.DebitBook:
			out.Debits.add(&row.Sums)
		default:
			out.Total.add(&row.Sums)
		}
	}
	out.Balanced = len(out.Problems) == 0
	return out, nil
}

// drawUp reads the ledger with all that must balance against it, and says what
// of that can't be read.
func drawUp(ctx context.Context, q rowsQuerier) (books map[acct.LedgerKey]*bookRow, problems []string, err error) {
	books = make(map[acct.LedgerKey]*bookRow)
	row := func(k acct.LedgerKey) *bookRow {
		b := books[k]
		if b == nil {
			b = &bookRow{unknown: true}
			b.LedgerKey = k
			books[k] = b
		}
		return b
	}
	if err := eachAmount(ctx, q, func(a amount, damage error) {
		books[a.LedgerKey] = &bookRow{amount: a, damage: damage}
	}); err != nil {
		return nil, nil, err
	}
	if err := eachSuspendedSum(ctx, q, func(k acct.LedgerKey, c acct.Count) {
		b := row(k)
		b.suspended = b.suspended.Plus(c)
	}); err != nil {
		return nil, nil, err
	}
	if err := eachSession(ctx, q, 0, func(st acct.SessionState, damage error) error {
		if damage != nil {
			problems = append(problems, damage.Error()+", so its open usage is not known")
			return nil
		}
		for _, sh := range st.Open {
			b := row(sh.LedgerKey)
			b.open = b.open.Plus(sh.Count)
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	if err := eachSettled(ctx, q, func(_ settledRange, damage error) error {
		if damage != nil {
			problems = append(problems, damage.Error())
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	err = eachUnacknowledged(ctx, q, func(id uint64, state acct.DeliveryState, it item) error {
		list, err := acct.ParseShares(it.shares)
		if err = cmp.Or(it.unknown, err); err != nil {
			problems = append(problems, fmt.Sprintf("record %d: its amounts can't be read: %v", id, err))
			return nil
		}
		for _, sh := range list {
			b := row(sh.LedgerKey)
			if state == acct.Quarantined {
				b.quarantined = b.quarantined.Plus(sh.Count)
			} else {
				b.pending = b.pending.Plus(sh.Count)
			}
		}
		return nil
	})
	return books, problems, err
}

func (b *bookRow) row() Row {
	return Row{b.Exporter, b.Domain, time.Unix(b.Interval, 0).UTC(), Sums{
		Received: b.Received, Mirrored: b.Mirrored, Accounted: b.Accounted, Duplicate: b.Duplicate,
		Suspended: b.suspended, Rejected: b.Rejected, Skipped: b.Skipped,
		Open: b.open, Pending: b.pending, Acknowledged: b.Acknowledged, Quarantined: b.quarantined,
		Undecoded: Undecoded{b.UndecodedMessages - min(b.UndecodedMessages, b.DecodedMessages),
			b.UndecodedOctets - min(b.UndecodedOctets, b.DecodedOctets)},
		Estimated: b.Estimated, Unscaled: Unscaled{b.Unscaled}, Lost: b.lost(),
	}}
}

// problems says in words what of a row does not balance.
func (b *bookRow) problems() []string {
	var out []string
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("exporter %q domain %d interval %s: ", b.Exporter, b.Domain,
			time.Unix(b.Interval, 0).UTC().Format(time.RFC3339))+fmt.Sprintf(format, args...))
	}
	differ := func(left string, l acct.Count, right string, r acct.Count) {
		for _, u := range []struct {
			name string
			l, r uint64
		}{{"records", l.Records, r.Records}, {"octets", l.Octets, r.Octets}, {"packets", l.Packets, r.Packets}} {
			if u.l != u.r {
				say("%s: %s are %d, %s are %d", u.name, left, u.l, right, u.r)
			}
		}
	}
	if b.damage != nil {
		say("%v", b.damage)
	}
	if b.unknown {
		say("the ledger has no such row, but sessions, suspense or records name it")
	}
	differ("received + mirrored", b.Received.Plus(b.Mirrored), "accounted + duplicate + suspended + rejected + skipped",
		b.Accounted.Plus(b.Duplicate).Plus(b.suspended).Plus(b.Rejected).Plus(b.Skipped))
	differ("accounted", b.Accounted, "open + pending + acknowledged + quarantined",
		b.open.Plus(b.pending).Plus(b.Acknowledged).Plus(b.quarantined))
	differ("suspended less resumed in the ledger", b.Suspended.Minus(b.Resumed), "those in suspense", b.suspended)
	for _, u := range []struct {
		what       string
		less, more uint64
	}{
		{"octets resumed from suspense exceed those suspended", b.Suspended.Octets, b.Resumed.Octets},
		{"records resumed from suspense exceed those suspended", b.Suspended.Records, b.Resumed.Records},
		{"messages decoded late exceed those undecoded", b.UndecodedMessages, b.DecodedMessages},
		{"octets decoded late exceed those undecoded", b.UndecodedOctets, b.DecodedOctets},
		{"records found late exceed those lost", b.Lost, b.LostFound},
		{"octets estimated exceed those accounted", b.Accounted.Octets, b.Estimated.Octets},
	} {
		if u.more > u.less {
			say("%s: %d of %d", u.what, u.more, u.less)
		}
	}
	return out
}

// eachAmount visits the rows of the ledger, with what is wrong with each.
func eachAmount(ctx context.Context, q rowsQuerier, f func(a amount, damage error)) error {
	rows, err := q.QueryContext(ctx, ledgerSelect)
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var a amount
		to := []any{&a.Exporter, &a.Domain, &a.Interval}
		for _, c := range ledgerColumns {
			to = append(to, c.of(&a))
		}
		var sum sql.NullInt64
		if err := rows.Scan(append(to, &sum)...); err != nil {
			return err
		}
		f(a, a.damage(sum))
		return nil
	})
}

func eachSuspendedSum(ctx context.Context, q rowsQuerier, f func(acct.LedgerKey, acct.Count)) error {
	// Row by row, since SQLite's sum() fails where it overflows.
	rows, err := q.QueryContext(ctx, "SELECT exporter, domain, interval, records, octets, packets FROM suspended")
	if err != nil {
		return err
	}
	return each(rows, func(rows *sql.Rows) error {
		var k acct.LedgerKey
		var c acct.Count
		if err := rows.Scan(&k.Exporter, &k.Domain, &k.Interval, &c.Records, &c.Octets, &c.Packets); err != nil {
			return err
		}
		f(k, c)
		return nil
	})
}

// eachUnacknowledged visits the records that are pending or quarantined.
// Pages that are settled whole are not read.
func eachUnacknowledged(ctx context.Context, q rowsQuerier, f func(id uint64, state acct.DeliveryState, it item) error) error {
	var away idSet // acknowledged or covered
	quarantined := make(map[uint64]bool)
	if err := eachSettled(ctx, q, func(r settledRange, damage error) error {
		if damage != nil {
			return nil // pending, as Open takes them
		}
		if r.state != acct.Quarantined {
			away.add(r.first, r.last)
			return nil
		}
		for id := r.first; id <= r.last; id++ {
			quarantined[id] = true
		}
		return nil
	}); err != nil {
		return err
	}
	for id := away.next(1); ; {
		p, err := readPage(ctx, q, id)
		if isNoRecord(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, it := range p.all() {
			if away.has(it.id) {
				continue
			}
			state := acct.Pending
			if quarantined[it.id] {
				state = acct.Quarantined
			}
			if err := f(it.id, state, it); err != nil {
				return err
			}
		}
		id = away.next(p.last + 1)
	}
}
