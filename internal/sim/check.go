package sim

import (
	"encoding/binary"
	"maps"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/ipfix"
)

// check compares what the AAA servers have with the truth.
func (w *world) check() {
	w.app.check()
	books, err := w.disk.books()
	if err != nil {
		w.fail("the books do not balance:\n%v", err)
	}
	if !books.pending.IsZero() || !books.open.IsZero() || !books.quarantined.IsZero() {
		w.fail("not all that is accounted is acknowledged: %+v", books)
	}
	// A covered record may have been accounted by one server before another
	// refused it.
	if n := len(w.app.cdrs); n > books.records || n < books.records-books.covered {
		w.fail("the outbox has %d records, %d of them covered by others; the AAA servers have %d", books.records, books.covered, n)
	}
	w.report.Duplicates, w.report.Suspended = books.duplicate.Records, books.suspended.Records
	w.checkBills()
	if w.app.real != nil {
		w.app.real.check()
	}
	w.checkIncreases()
	w.checkEvents()
	w.checkBooks(&books)
	w.checkStraight(&books)
	for _, f := range w.truth.promised {
		if !f.journaled {
			w.fail("flow %d was acknowledged to exporter %s, and is not in the journal", f.id, f.exporter)
		}
	}
}

// checkBills compares users and classes, to the octet.
func (w *world) checkBills() {
	got := map[bill]acct.Usage{}
	for _, id := range w.app.ids {
		records := w.app.order[id]
		last := slices.MaxFunc(records, func(a, b *cdr) int { return int(a.Number) - int(b.Number) })
		if last.Flow != nil {
			continue
		}
		var classes []acct.ClassUsage
		for _, r := range records {
			if r == last || last.Type != acct.Event && r.Number+uint32(last.Parts) > last.Number {
				classes = append(classes, r.Classes...) // one record, in parts
			}
		}
		if len(classes) == 0 {
			classes = []acct.ClassUsage{{Usage: last.Usage}}
		}
		var sum acct.Usage
		for _, c := range classes {
			key := bill{last.User, c.Class, last.Corrects != nil && last.Corrects.Credit}
			got[key] = got[key].Plus(c.Usage)
			sum = sum.Plus(c.Usage)
		}
		if sum != last.Usage {
			w.fail("%s/%d: the classes sum to %+v, the usage is %+v", id, last.Number, sum, last.Usage)
		}
	}
	for _, m := range []map[bill]acct.Usage{got, w.truth.billed} {
		maps.DeleteFunc(m, func(_ bill, u acct.Usage) bool { return u == acct.Usage{} })
	}
	all := maps.Clone(got)
	maps.Copy(all, w.truth.billed)
	for _, key := range slices.SortedFunc(maps.Keys(all), bill.compare) {
		if want := w.truth.billed[key]; got[key] != want {
			w.fail("%q is billed %+v of class %q (credit: %v), in truth %+v", key.user, got[key], key.class, key.credit, want)
		}
	}
}

// checkIncreases compares, for who is sent the volumes of intervals, what those
// of a session sum up to with what it came to.
func (w *world) checkIncreases() {
	type session struct{ increases, usage acct.Usage }
	sums := map[string]session{}
	contents := w.disk.contents()
	for _, key := range slices.SortedFunc(maps.Keys(contents), cdrKey.compare) {
		var r acct.Record
		if err := r.UnmarshalBinary(contents[key]); err != nil {
			w.fail("%s/%d: %v", key.session, key.number, err)
		}
		s := sums[key.session]
		s.increases, s.usage = s.increases.Plus(r.Increase), r.Usage
		sums[key.session] = s
		var of acct.Usage
		for _, c := range r.Classes {
			of = of.Plus(c.Increase)
		}
		if len(r.Classes) > 0 && of != r.Increase {
			w.fail("%s/%d: the increases of its classes are %+v, its own %+v", key.session, key.number, of, r.Increase)
		}
	}
	for id, s := range sums {
		if s.increases != s.usage {
			w.fail("%s: its increases are %+v, its usage %+v", id, s.increases, s.usage)
		}
	}
}

// checkEvents compares the flows that went to the AAA servers as they are.
func (w *world) checkEvents() {
	got := map[uint64]int{}
	for _, id := range w.app.ids {
		r := w.app.order[id][0]
		if r.Flow == nil {
			continue
		}
		t, octets, err := dict.For(0).ParseFlow(r.Flow)
		if err != nil {
			w.fail("%s: its flow does not read: %v", id, err)
		}
		a, ok := t.Accessor(0, ipfix.ConnectionTransactionId)
		if !ok {
			w.fail("%s: its flow has lost an element", id)
		}
		record, err := t.Record(octets)
		if err != nil {
			w.fail("%s: its flow does not read: %v", id, err)
		}
		flow := binary.BigEndian.Uint64(a.Bytes(record))
		if got[flow]++; got[flow] > w.truth.events[flow] {
			w.fail("%s: flow %d is billed %d times, in truth %d", id, flow, got[flow], w.truth.events[flow])
		}
	}
	if !maps.Equal(got, w.truth.events) {
		w.fail("%d flows were sent as they are, in truth %d", len(got), len(w.truth.events))
	}
}

// checkBooks compares the books with the truth's, row by row.
func (w *world) checkBooks(books *sums) {
	all := maps.Clone(books.rows)
	for key := range w.truth.rows {
		all[key] = amounts{}
	}
	for _, key := range slices.SortedFunc(maps.Keys(all), compareKeys) {
		got, want := books.rows[key], *w.truth.row(key)
		if w.mood.correct && (key.Exporter == acct.CreditBook || key.Exporter == acct.DebitBook) {
			// How many records a correction takes is the bridge's affair.
			for _, n := range []*acct.Count{&got.received, &got.accounted, &want.received, &want.accounted} {
				n.Records = 0
			}
		}
		if got.received != want.received || got.mirrored != want.mirrored || got.accounted != want.accounted || got.rejected != want.rejected {
			w.fail("%+v: the books have received %+v, mirrored %+v, accounted %+v, rejected %+v; in truth %+v, %+v, %+v, %+v",
				key, got.received, got.mirrored, got.accounted, got.rejected, want.received, want.mirrored, want.accounted, want.rejected)
		}
		// What is outside of the window may be known as a duplicate by its
		// Message, or be suspended.
		if got.duplicate.Octets < want.duplicate.Octets || got.suspended.Octets < want.suspended.Octets {
			w.fail("%+v: the books have duplicates of %+v and suspended %+v, in truth at least %+v and %+v",
				key, got.duplicate, got.suspended, want.duplicate, want.suspended)
		}
	}
}
