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

// Books are the ledger with all that must balance against it, as of one
// moment.
type Books struct {
	Balanced bool     `json:"balanced"`
	Problems []string `json:"problems,omitempty"` // what does not balance, naming the row
	Total    Sums     `json:"total"`              // of exporters' data
	Credits  Sums     `json:"credits"`            // corrections that take usage away
	Debits   Sums     `json:"debits"`             // corrections that add usage
	Rows     []Row    `json:"rows"`               // by exporter, domain and interval
}

// A Row is one exporter, Observation Domain and interval of arrival.
type Row struct {
	Exporter string    `json:"exporter"`
	Domain   uint32    `json:"domain"`
	Interval time.Time `json:"interval"` // its start
	Sums
}

// Sums are the amounts of a row, or of all rows:
//
//	received + mirrored = accounted + duplicate + suspended + rejected + skipped
//	accounted           = open + pending + acknowledged + quarantined
//
// Estimated is the part of Accounted that was scaled from sampled packets.
// Suspended is summed from what is in suspense, Open from the sessions, Pending
// and Quarantined from the records in the outbox; all else is the ledger's.
type Sums struct {
	Received     acct.Count `json:"received"`
	Mirrored     acct.Count `json:"mirrored"`
	Accounted    acct.Count `json:"accounted"`
	Duplicate    acct.Count `json:"duplicate"`
	Suspended    acct.Count `json:"suspended"`
	Rejected     acct.Count `json:"rejected"`
	Skipped      acct.Count `json:"skipped"`
	Open         acct.Count `json:"open"`
	Pending      acct.Count `json:"pending"`
	Acknowledged acct.Count `json:"acknowledged"`
	Quarantined  acct.Count `json:"quarantined"`
	Estimated    acct.Count `json:"estimated"`
	Unscaled     Unscaled   `json:"unscaled"`
	Undecoded    Undecoded  `json:"undecoded"`
	Lost         Lost       `json:"lost"`
}

// Unscaled are the Data Records, duplicates included, that name a sampler of
// which nothing was said. They count as they came, and are in Estimated.
type Unscaled struct {
	Records uint64 `json:"records"`
}

// Undecoded are the Data Sets whose Template has not come yet.
type Undecoded struct {
	Messages uint64 `json:"messages"`
	Octets   uint64 `json:"octets"`
}

// Lost are the Data Records that the sequence numbers miss, outside of what
// balances.
type Lost struct {
	Records uint64 `json:"records"`
	// Restarts is how often the numbers began anew: then nothing is known of
	// what was lost before.
	Restarts   uint64     `json:"restarts"`
	Confidence Confidence `json:"confidence"`
}

// A Confidence says what a number of lost Data Records is worth.
type Confidence uint8

const (
	// Exact: the sequence numbers count Data Records.
	Exact Confidence = iota
	// Estimated: some count something else, such as Messages.
	Estimated
	// Suspect: some disagreed with what came, as those of an exporter that
	// counts in a way of its own.
	Suspect
	// Unknown: some began anew, so more may be lost.
	Unknown
)

func (c Confidence) String() string {
	switch c {
	case Exact:
		return "exact"
	case Estimated:
		return "estimated"
	case Suspect:
		return "suspect"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("Confidence(%d)", uint8(c))
}

// MarshalText returns the word of String.
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (c *Confidence) UnmarshalText(b []byte) error {
	for v := Exact; v <= Unknown; v++ {
		if v.String() == string(b) {
			*c = v
			return nil
		}
	}
	return fmt.Errorf("spool: %q is no confidence", b)
}

// lost returns what is known of the loss in a row of the ledger.
func (a *amount) lost() Lost {
	l := Lost{Records: a.Lost - min(a.Lost, a.LostFound), Restarts: a.Restarts}
	switch {
	case a.Restarts > 0:
		l.Confidence = Unknown
	case l.Records > 0 && a.LostSuspect > 0:
		l.Confidence = Suspect
	case l.Records > 0 && a.LostEstimated > 0:
		l.Confidence = Estimated
	}
	return l
}

func (s *Sums) add(d *Sums) {
	for _, p := range [][2]*acct.Count{
		{&s.Received, &d.Received}, {&s.Mirrored, &d.Mirrored}, {&s.Accounted, &d.Accounted},
		{&s.Duplicate, &d.Duplicate}, {&s.Suspended, &d.Suspended}, {&s.Rejected, &d.Rejected},
		{&s.Skipped, &d.Skipped}, {&s.Open, &d.Open}, {&s.Pending, &d.Pending},
		{&s.Acknowledged, &d.Acknowledged}, {&s.Quarantined, &d.Quarantined}, {&s.Estimated, &d.Estimated},
	} {
		*p[0] = p[0].Plus(*p[1])
	}
	s.Unscaled.Records += d.Unscaled.Records
	s.Undecoded.Messages += d.Undecoded.Messages
	s.Undecoded.Octets += d.Undecoded.Octets
	s.Lost.Records += d.Lost.Records
	s.Lost.Restarts += d.Lost.Restarts
	s.Lost.Confidence = max(s.Lost.Confidence, d.Lost.Confidence)
}

// A bookRow is a Row with what only the check wants.
type bookRow struct {
	amount
	suspended, open, pending, quarantined acct.Count
	unknown                               bool  // the ledger has no such row
	damage                                error // of the ledger's row
}

// A Selection chooses rows of the books. The zero Selection chooses all.
type Selection struct {
	Since, Until time.Time // rows whose interval begins at or after Since and before Until; zero for any
	Exporter     string    // "" for any
}

// Has reports whether s chooses the row of k.
func (s Selection) Has(k acct.LedgerKey) bool {
	return (s.Since.IsZero() || k.Interval >= s.Since.Unix()) &&
		(s.Until.IsZero() || k.Interval < s.Until.Unix()) &&
		(s.Exporter == "" || s.Exporter == k.Exporter)
}

// Audit draws up the books and checks them. That they do not balance is no
// error. It reads as of one moment and holds up no writer.
func (s *Spool) Audit(ctx context.Context) (Books, error) {
	return s.AuditOf(ctx, Selection{})
}

// AuditOf is Audit of chosen rows. Each row balances by itself.
func (s *Spool) AuditOf(ctx context.Context, sel Selection) (Books, error) {
	state, _ := s.files()
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

func (r Row) key() acct.LedgerKey {
	return acct.LedgerKey{Exporter: r.Exporter, Domain: r.Domain, Interval: r.Interval.Unix()}
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
