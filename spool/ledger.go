package spool

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tollbridge/asm/acct"
)

// An amount is a row of the ledger, or what is to be added to one.
type amount struct {
	acct.LedgerRow
	Acknowledged acct.Count // increments of records acknowledged or covered
}

// ledgerColumns are the sums of table ledger with their places in an amount,
// the one list that reading and adding go by.
var ledgerColumns = []struct {
	name string
	of   func(*amount) *uint64
}{
	{"received_records", func(a *amount) *uint64 { return &a.Received.Records }},
	{"received_octets", func(a *amount) *uint64 { return &a.Received.Octets }},
	{"received_packets", func(a *amount) *uint64 { return &a.Received.Packets }},
	{"mirrored_records", func(a *amount) *uint64 { return &a.Mirrored.Records }},
	{"mirrored_octets", func(a *amount) *uint64 { return &a.Mirrored.Octets }},
	{"mirrored_packets", func(a *amount) *uint64 { return &a.Mirrored.Packets }},
	{"accounted_records", func(a *amount) *uint64 { return &a.Accounted.Records }},
	{"accounted_octets", func(a *amount) *uint64 { return &a.Accounted.Octets }},
	{"accounted_packets", func(a *amount) *uint64 { return &a.Accounted.Packets }},
	{"duplicate_records", func(a *amount) *uint64 { return &a.Duplicate.Records }},
	{"duplicate_octets", func(a *amount) *uint64 { return &a.Duplicate.Octets }},
	{"duplicate_packets", func(a *amount) *uint64 { return &a.Duplicate.Packets }},
	{"suspended_records", func(a *amount) *uint64 { return &a.Suspended.Records }},
	{"suspended_octets", func(a *amount) *uint64 { return &a.Suspended.Octets }},
	{"suspended_packets", func(a *amount) *uint64 { return &a.Suspended.Packets }},
	{"resumed_records", func(a *amount) *uint64 { return &a.Resumed.Records }},
	{"resumed_octets", func(a *amount) *uint64 { return &a.Resumed.Octets }},
	{"resumed_packets", func(a *amount) *uint64 { return &a.Resumed.Packets }},
	{"rejected_records", func(a *amount) *uint64 { return &a.Rejected.Records }},
	{"rejected_octets", func(a *amount) *uint64 { return &a.Rejected.Octets }},
	{"rejected_packets", func(a *amount) *uint64 { return &a.Rejected.Packets }},
	{"skipped_records", func(a *amount) *uint64 { return &a.Skipped.Records }},
	{"skipped_octets", func(a *amount) *uint64 { return &a.Skipped.Octets }},
	{"skipped_packets", func(a *amount) *uint64 { return &a.Skipped.Packets }},
	{"acknowledged_records", func(a *amount) *uint64 { return &a.Acknowledged.Records }},
	{"acknowledged_octets", func(a *amount) *uint64 { return &a.Acknowledged.Octets }},
	{"acknowledged_packets", func(a *amount) *uint64 { return &a.Acknowledged.Packets }},
	{"estimated_records", func(a *amount) *uint64 { return &a.Estimated.Records }},
	{"estimated_octets", func(a *amount) *uint64 { return &a.Estimated.Octets }},
	{"estimated_packets", func(a *amount) *uint64 { return &a.Estimated.Packets }},
	{"undecoded_messages", func(a *amount) *uint64 { return &a.UndecodedMessages }},
	{"undecoded_octets", func(a *amount) *uint64 { return &a.UndecodedOctets }},
	{"decoded_messages", func(a *amount) *uint64 { return &a.DecodedMessages }},
	{"decoded_octets", func(a *amount) *uint64 { return &a.DecodedOctets }},
	{"lost", func(a *amount) *uint64 { return &a.Lost }},
	{"lost_found", func(a *amount) *uint64 { return &a.LostFound }},
	{"lost_estimated", func(a *amount) *uint64 { return &a.LostEstimated }},
	{"lost_suspect", func(a *amount) *uint64 { return &a.LostSuspect }},
	{"restarts", func(a *amount) *uint64 { return &a.Restarts }},
	{"unscaled", func(a *amount) *uint64 { return &a.Unscaled }},
}

var ledgerSelect, ledgerAdd, acknowledgedAdd = ledgerQueries()

// ledgerQueries spells out the statements over ledgerColumns. In SQLite an
// integer sum that overflows becomes a float, so additions stop at 2^63-1.
func ledgerQueries() (read, addAll, addAcknowledged string) {
	spell := func(names []string) string {
		var set []string
		for _, n := range names {
			set = append(set, fmt.Sprintf("%[1]s = CASE WHEN %[1]s > %[2]d - excluded.%[1]s THEN %[2]d ELSE %[1]s + excluded.%[1]s END",
				n, int64(math.MaxInt64)))
		}
		return fmt.Sprintf("INSERT INTO ledger (exporter, domain, interval, %s, sum) VALUES (?, ?, ?%s, ?) ON CONFLICT (exporter, domain, interval) DO UPDATE SET %s, sum = (sum + ?) & %d",
			strings.Join(names, ", "), strings.Repeat(", ?", len(names)), strings.Join(set, ", "), ledgerBits)
	}
	var names []string
	for _, c := range ledgerColumns {
		names = append(names, c.name)
	}
	read = "SELECT exporter, domain, interval, " + strings.Join(names, ", ") + ", sum FROM ledger ORDER BY exporter, domain, interval"
	return read, spell(names), spell([]string{"acknowledged_records", "acknowledged_octets", "acknowledged_packets"})
}

// sums are the checksums of a row that begins as a, and of adding a to it.
func sums(a *amount) []any {
	sum := ledgerSum(a)
	return []any{(sum + ledgerPlace(a.LedgerKey)) & ledgerBits, sum}
}

// integer returns v as SQLite stores it, at most 2^63-1.
func integer(v uint64) int64 { return int64(min(v, math.MaxInt64)) }

// addLedger adds rows to the ledger, within a transaction.
func (w *writer) addLedger(rows []acct.LedgerRow) error {
	args := make([]any, 0, 3+len(ledgerColumns)+2)
	for i := range rows {
		a := amount{LedgerRow: rows[i]}
		args = append(args[:0], a.Exporter, int64(a.Domain), a.Interval)
		for _, c := range ledgerColumns {
			args = append(args, integer(*c.of(&a)))
		}
		args = append(args, sums(&a)...)
		if err := w.exec(ledgerAdd, args...); err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

// addAcknowledged adds the shares of settled records, within a transaction.
func (w *writer) addAcknowledged(shares map[acct.LedgerKey]acct.Count) error {
	for k, c := range shares {
		a := amount{LedgerRow: acct.LedgerRow{LedgerKey: k}, Acknowledged: c}
		err := w.exec(acknowledgedAdd, append([]any{k.Exporter, int64(k.Domain), k.Interval,
			integer(c.Records), integer(c.Octets), integer(c.Packets)}, sums(&a)...)...)
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

// compareKeys orders ledger keys as table ledger does.
func compareKeys(a, b acct.LedgerKey) int {
	if c := strings.Compare(a.Exporter, b.Exporter); c != 0 {
		return c
	}
	return slices.Compare([]int64{int64(a.Domain), a.Interval}, []int64{int64(b.Domain), b.Interval})
}
