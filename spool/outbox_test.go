package spool

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func pending(tb testing.TB, o *Outbox, after uint64, max int) []acct.Delivery {
	tb.Helper()
	ds, err := o.Pending(tb.Context(), after, max)
	if err != nil {
		tb.Fatal(err)
	}
	return ds
}

func ids(ds []acct.Delivery) []uint64 {
	var out []uint64
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func settle(tb testing.TB, s *Spool, state acct.DeliveryState, ids ...uint64) {
	tb.Helper()
	var list []acct.Settlement
	for _, id := range ids {
		list = append(list, acct.Settlement{ID: id, State: state, Result: 5001, Peer: "aaa.example.net", Reason: "Failed-AVP 99", At: noon})
	}
	if err := s.Outbox().Settle(tb.Context(), list); err != nil {
		tb.Fatal(err)
	}
}

// cut commits records at the next position, booked as accounted.
func cut(tb testing.TB, s *Spool, records ...acct.Record) {
	tb.Helper()
	b := acct.Batch{Position: s.checkpoint.position + 1, Records: records}
	for i := range records {
		for _, sh := range records[i].Shares {
			b.Ledger = append(b.Ledger, acct.LedgerRow{LedgerKey: sh.LedgerKey, Received: sh.Count, Accounted: sh.Count})
		}
	}
	mustCommit(tb, s, b)
}

func show(tb testing.TB, s *Spool, id uint64) Listed {
	tb.Helper()
	l, err := s.Show(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func balanced(tb testing.TB, s *Spool) Books {
	tb.Helper()
	books, err := s.Audit(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	if !books.Balanced {
		tb.Errorf("the books do not balance: %s", strings.Join(books.Problems, "; "))
	}
	return books
}

func TestOutboxDelivers(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	o := s.Outbox()
	want := record(sessionID(1), 1, acct.Interim, count(5))
	want.Realm, want.Classes = "example.org", []acct.ClassUsage{{Class: "gold", Usage: want.Usage}}
	cut(t, s, want)
	select {
	case <-o.Wake():
	default:
		t.Error("no wake after a record was added")
	}
	ds := pending(t, o, 0, 10)
	if len(ds) != 1 || ds[0].ID != 1 || ds[0].MaySent || ds[0].Attempts != 0 {
		t.Fatalf("pending %+v", ds)
	}
	want.Shares = nil
	if !reflect.DeepEqual(ds[0].Record, want) {
		t.Errorf("record %+v\nwant %+v", ds[0].Record, want)
	}
	first := ds[0].EndToEnd
	if first>>31 != 0 {
		t.Errorf("End-to-End Identifier %#x of a first sending has the top bit", first)
	}
	if err := o.MarkSent(t.Context(), []uint64{1}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, Config{})
	o = s.Outbox()
	if d := pending(t, o, 0, 10)[0]; !d.MaySent || d.EndToEnd != first {
		t.Errorf("after a restart %+v; want it marked, with End-to-End Identifier %#x", d, first)
	}
	settle(t, s, acct.Pending, 1)
	again := pending(t, o, 0, 10)[0]
	if again.MaySent || again.EndToEnd>>31 != 1 || again.Attempts != 1 {
		t.Errorf("after an error answer %+v; want a new request", again)
	}
	if err := o.MarkSent(t.Context(), []uint64{1}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, Config{})
	o = s.Outbox()
	again.MaySent = true
	if d := pending(t, o, 0, 10)[0]; !reflect.DeepEqual(d, again) {
		t.Errorf("after a restart %+v\nwant %+v", d, again)
	}
	settle(t, s, acct.Pending, 1)
	if d := pending(t, o, 0, 10)[0]; d.EndToEnd == again.EndToEnd || d.Attempts != 2 {
		t.Errorf("after a second error answer %+v", d)
	}
	if b := balanced(t, s); b.Total.Pending != count(5) {
		t.Errorf("books %+v", b.Total)
	}
	settle(t, s, acct.Acknowledged, 1)
	settle(t, s, acct.Acknowledged, 1) // an answer to an earlier copy
	if st := o.Stats(); st.Late != 1 || st.Acknowledged != 1 || st.Pending != 0 {
		t.Errorf("stats %+v", st)
	}
	if b := balanced(t, s); b.Total.Acknowledged != count(5) || !b.Total.Pending.IsZero() {
		t.Errorf("books %+v", b.Total)
	}
	l := show(t, s, 1)
	if l.State != acct.Acknowledged || l.Attempts != 2 || l.Result != 5001 || l.Peer != "aaa.example.net" || !l.At.Equal(noon) || !l.MaySent {
		t.Errorf("listed %+v", l)
	}
	if ds := pending(t, o, 0, 10); len(ds) != 0 {
		t.Errorf("pending %v", ds)
	}
}

func TestOutboxRefuses(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	cut(t, s, record(sessionID(1), 0, acct.Event, count(1)))
	for _, st := range []acct.Settlement{{ID: 2}, {ID: 0}, {ID: 1, State: acct.Covered}, {ID: 1, State: 9}} {
		if err := s.Outbox().Settle(t.Context(), []acct.Settlement{st}); err == nil {
			t.Errorf("settled %+v", st)
		}
	}
	if _, err := s.Outbox().Requeue(t.Context(), []uint64{1}); err == nil {
		t.Error("requeued a pending record")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Outbox().Settle(ctx, []acct.Settlement{{ID: 1, State: acct.Acknowledged}}); err == nil {
		t.Error("settled for a context that has ended")
	}
	if ds := pending(t, s.Outbox(), 0, 9); len(ds) != 1 {
		t.Errorf("pending %v", ds)
	}
}

func TestOutboxSettleFails(t *testing.T) {
	for _, table := range []string{"settled", "ledger", "held"} {
		t.Run(table, func(t *testing.T) {
			s := open(t, t.TempDir(), Config{})
			cut(t, s, record(sessionID(1), 1, acct.Interim, count(1)), record(sessionID(2), 1, acct.Interim, count(2)))
			fail(t, s, "INSERT", table)
			list := []acct.Settlement{{ID: 1, State: acct.Acknowledged}, {ID: 2, State: acct.Quarantined}}
			if err := s.Outbox().Settle(t.Context(), list); err == nil || !strings.Contains(err.Error(), "planted") {
				t.Fatalf("Settle: %v", err)
			}
			if ds := pending(t, s.Outbox(), 0, 9); len(ds) != 2 {
				t.Errorf("pending %v, want both", ds)
			}
			balanced(t, s)
			unfail(t, s, table)
			if err := s.Outbox().Settle(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			if b := balanced(t, s); b.Total.Acknowledged != count(1) || b.Total.Quarantined != count(2) {
				t.Errorf("books %+v", b.Total)
			}
		})
	}
}

func TestOutboxCovers(t *testing.T) {
	session := func(s *Spool) (state func(...uint64) string) {
		return func(ids ...uint64) string {
			var out []string
			for _, id := range ids {
				out = append(out, show(t, s, id).State.String())
			}
			return strings.Join(out, " ")
		}
	}
	four := func(s *Spool) {
		cut(t, s, record(sessionID(1), 0, acct.Start, count(0)), record(sessionID(1), 1, acct.Interim, count(1)),
			record(sessionID(1), 2, acct.Interim, count(2)), record(sessionID(1), 3, acct.Stop, count(4)),
			record(sessionID(2), 1, acct.Interim, count(8)))
	}
	t.Run("an acknowledged record covers earlier INTERIMs of its session", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		settle(t, s, acct.Quarantined, 1, 2, 3, 5)
		s = reopen(t, s, Config{})
		if b := balanced(t, s); b.Total.Quarantined != count(11) {
			t.Errorf("books %+v", b.Total)
		}
		settle(t, s, acct.Acknowledged, 4)
		if got, want := session(s)(1, 2, 3, 4, 5), "quarantined covered covered acknowledged quarantined"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if b := balanced(t, s); b.Total.Acknowledged != count(7) || b.Total.Quarantined != count(8) {
			t.Errorf("books %+v", b.Total)
		}
		if l := show(t, s, 2); l.Reason != "Failed-AVP 99" {
			t.Errorf("a covered record lost the reason of its refusal: %+v", l)
		}
	})
	t.Run("one that carried its own increment alone covers none", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		settle(t, s, acct.Quarantined, 2, 3)
		err := s.Outbox().Settle(t.Context(), []acct.Settlement{{ID: 4, State: acct.Acknowledged, Own: true}})
		if err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s, Config{})
		if got, want := session(s)(2, 3, 4), "quarantined quarantined acknowledged"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if b := balanced(t, s); b.Total.Acknowledged != count(4) || b.Total.Quarantined != count(3) {
			t.Errorf("books %+v", b.Total)
		}
	})
	t.Run("but no part of a record, whose classes no other has", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		part, stop := record(sessionID(1), 1, acct.Interim, count(1)), record(sessionID(1), 2, acct.Stop, count(2))
		part.Part, part.Parts, stop.Part, stop.Parts = 1, 2, 2, 2
		cut(t, s, part, stop)
		settle(t, s, acct.Quarantined, 1)
		settle(t, s, acct.Acknowledged, 2)
		if got, want := session(s)(1, 2), "quarantined acknowledged"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if b := balanced(t, s); b.Total.Acknowledged != count(2) || b.Total.Quarantined != count(1) {
			t.Errorf("books %+v", b.Total)
		}
	})
	t.Run("within one call", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		err := s.Outbox().Settle(t.Context(), []acct.Settlement{{ID: 2, State: acct.Quarantined}, {ID: 3, State: acct.Acknowledged}, {ID: 4, State: acct.Quarantined}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := session(s)(2, 3, 4), "covered acknowledged quarantined"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if b := balanced(t, s); b.Total.Acknowledged != count(3) || b.Total.Quarantined != count(4) {
			t.Errorf("books %+v", b.Total)
		}
	})
	t.Run("a later record is not covered by an earlier one", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		settle(t, s, acct.Quarantined, 3)
		settle(t, s, acct.Acknowledged, 2)
		if got, want := session(s)(2, 3), "acknowledged quarantined"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		balanced(t, s)
	})
	t.Run("requeued, covered meanwhile, refused again", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		settle(t, s, acct.Quarantined, 2)
		fresh, err := s.Outbox().Requeue(t.Context(), []uint64{2})
		if err != nil || !slices.Equal(fresh, []uint64{6}) {
			t.Fatalf("Requeue: %v, %v", fresh, err)
		}
		settle(t, s, acct.Acknowledged, 3, 4)
		s = reopen(t, s, Config{})
		if b := balanced(t, s); b.Total.Acknowledged != count(6) || b.Total.Pending != count(9) {
			t.Errorf("books %+v", b.Total)
		}
		settle(t, s, acct.Quarantined, 6)
		if got, want := session(s)(6), "covered"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if b := balanced(t, s); b.Total.Acknowledged != count(7) {
			t.Errorf("books %+v", b.Total)
		}
	})
	t.Run("requeued and acknowledged", func(t *testing.T) {
		s := open(t, t.TempDir(), Config{})
		four(s)
		settle(t, s, acct.Quarantined, 2)
		if _, err := s.Outbox().Requeue(t.Context(), []uint64{2}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.Outbox().Wake():
		default:
			t.Error("no wake after Requeue")
		}
		ds := pending(t, s.Outbox(), 5, 9)
		if !slices.Equal(ids(ds), []uint64{6}) || ds[0].Record.Number != 1 || ds[0].MaySent {
			t.Fatalf("pending %+v", ds)
		}
		if _, err := s.Show(t.Context(), 2); err == nil {
			t.Error("the old ID still shows a record")
		}
		settle(t, s, acct.Acknowledged, 6)
		if got, want := session(s)(6), "acknowledged"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if len(s.Outbox().held) != 0 {
			t.Errorf("held %v, want none", s.Outbox().held)
		}
		balanced(t, s)
	})
}

func TestOutboxSentRangesMerge(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	const n = 2*sentRows + 100
	records := make([]acct.Record, n)
	for i := range records {
		records[i] = record(sessionID(i), 0, acct.Event, count(1))
	}
	cut(t, s, records...)
	for _, odd := range []uint64{1, 0} { // every range is of one, then all are one
		var list []uint64
		for id := uint64(1); id <= n; id++ {
			if id%2 == odd {
				list = append(list, id)
			}
		}
		if err := s.Outbox().MarkSent(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if s.Outbox().sentDB != 1 {
		t.Errorf("%d rows, want one", s.Outbox().sentDB)
	}
	s = reopen(t, s, Config{})
	for _, d := range pending(t, s.Outbox(), 0, n) {
		if !d.MaySent {
			t.Fatalf("record %d lost its mark", d.ID)
		}
	}
}

func TestOutboxTrim(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	const n = 1000
	records := make([]acct.Record, n)
	for i := range records {
		records[i] = record(sessionID(i), 1, acct.Interim, count(1))
	}
	cut(t, s, records...)
	var acked []uint64
	for id := uint64(1); id <= n; id++ {
		switch {
		case id == 300:
			settle(t, s, acct.Quarantined, id)
		case id != 700:
			acked = append(acked, id)
		}
	}
	settle(t, s, acct.Acknowledged, acked...)
	before := balanced(t, s)
	trim := func(now time.Time, r Retention) uint64 {
		t.Helper()
		n, err := s.Outbox().TrimSettled(t.Context(), now, r)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := trim(noon.Add(time.Hour), Retention{Age: 2 * time.Hour}); got != 0 {
		t.Errorf("trimmed %d young records", got)
	}
	if got := trim(noon.Add(time.Hour), Retention{Age: time.Minute, Count: 600}); got != 399 {
		t.Errorf("trimmed %d records, want those up to 400 but the quarantined one", got)
	}
	if got := trim(noon.Add(time.Hour), Retention{}); got != 599 {
		t.Errorf("trimmed %d records, want all but the pending and the quarantined one", got)
	}
	for range 2 {
		left, err := s.List(t.Context(), Filter{})
		if err != nil || len(left) != 2 || left[0].ID != 300 || left[1].ID != 700 {
			t.Fatalf("left %v, %v", left, err)
		}
		if got := ids(pending(t, s.Outbox(), 0, 10)); !slices.Equal(got, []uint64{700}) {
			t.Errorf("pending %v", got)
		}
		if after := balanced(t, s); !reflect.DeepEqual(after, before) {
			t.Errorf("books changed\n%+v\nto\n%+v", before, after)
		}
		st, err := s.Stats(t.Context())
		if err != nil || st.Records["pending"] != 1 || st.Records["quarantined"] != 1 || st.Records["acknowledged"] != 0 || !st.Oldest.Equal(noon.Add(time.Minute)) {
			t.Errorf("stats %+v, %v", st, err)
		}
		s = reopen(t, s, Config{})
	}
	settle(t, s, acct.Acknowledged, 700)
	settle(t, s, acct.Acknowledged, 300) // settled already
	trim(noon.Add(time.Hour), Retention{})
	s = reopen(t, s, Config{})
	cut(t, s, record(sessionID(1), 2, acct.Interim, count(1)))
	if got := ids(pending(t, s.Outbox(), 0, 10)); !slices.Equal(got, []uint64{n + 1}) {
		t.Errorf("pending %v, want IDs to go on", got)
	}
}

func TestOutboxLogs(t *testing.T) {
	var lines bytes.Buffer
	s := open(t, t.TempDir(), Config{Log: testLog(&lines)})
	cut(t, s, record(sessionID(1), 0, acct.Event, count(1)))
	settle(t, s, acct.Acknowledged, 1)
	for _, say := range []string{"checkpoint begin", "checkpoint committed", "settle committed"} {
		if !strings.Contains(lines.String(), say) {
			t.Errorf("the log does not say %q", say)
		}
	}
	if strings.Contains(lines.String(), "alice") {
		t.Error("the log names a user")
	}
}

// TestOutboxModel compares an outbox with a map, over every operation and
// restarts, and audits the books after each.
func TestOutboxModel(t *testing.T) {
	t.Parallel()
	type entry struct {
		session  int
		number   uint32
		typ      acct.RecordType
		amount   uint64
		state    acct.DeliveryState
		sent     bool
		attempts uint32
		covered  bool // requeued, and covered since
	}
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		dir, remove := tempDir(t)
		defer remove()
		s, err := Open(dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if s != nil { // nil after an Open that failed
				s.Close()
			}
		}()
		model := make(map[uint64]*entry)
		next := uint64(1)
		numbers := make(map[int]uint32)
		used := make(map[uint32]uint64) // End-to-End Identifiers, by record and attempt
		all := func(f func(*entry) bool) []uint64 {
			var out []uint64
			for id, e := range model {
				if f(e) {
					out = append(out, id)
				}
			}
			slices.Sort(out)
			return out
		}
		waiting := func() []uint64 { return all(func(e *entry) bool { return e.state == acct.Pending }) }
		some := func(t *rapid.T, ids []uint64) []uint64 {
			if len(ids) == 0 {
				return nil
			}
			return rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, min(len(ids), 10), rapid.ID).Draw(t, "ids")
		}
		// quarantine and acknowledge are the rules in their plainest form.
		acknowledge := func(id uint64) {
			a := model[id]
			a.state = acct.Acknowledged
			if a.typ != acct.Interim && a.typ != acct.Stop {
				return
			}
			for other, e := range model {
				if other == id || e.session != a.session || e.typ != acct.Interim || e.number >= a.number {
					continue
				}
				if e.state == acct.Quarantined {
					e.state = acct.Covered
				}
				e.covered = true
			}
		}
		wasRequeued := make(map[uint64]bool)
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				b := acct.Batch{Position: s.checkpoint.position + 1}
				for range rapid.IntRange(1, 8).Draw(t, "n") {
					session := rapid.IntRange(0, 3).Draw(t, "session")
					e := &entry{session: session, number: numbers[session], typ: acct.Interim, amount: rapid.Uint64Range(0, 99).Draw(t, "amount")}
					switch {
					case e.number == 0:
						e.typ = acct.Start
					case rapid.IntRange(0, 9).Draw(t, "stop") == 0:
						e.typ = acct.Stop
					}
					numbers[session]++
					r := record(sessionID(session), e.number, e.typ, count(e.amount))
					r.MultiSessionID = strings.Repeat("long", rapid.SampledFrom([]int{0, 0, 0, 5000}).Draw(t, "length")) // several pages
					b.Records = append(b.Records, r)
					b.Ledger = append(b.Ledger, acct.LedgerRow{LedgerKey: key(noon.Unix()), Received: count(e.amount), Accounted: count(e.amount)})
					model[next] = e
					next++
				}
				if err := s.Commit(ctx, resumed(b)); err != nil {
					t.Fatal(err)
				}
			},
			"mark sent": func(t *rapid.T) {
				list := some(t, waiting())
				if err := s.Outbox().MarkSent(ctx, list); err != nil {
					t.Fatal(err)
				}
				for _, id := range list {
					model[id].sent = true
				}
			},
			"settle": func(t *rapid.T) {
				var list []acct.Settlement
				for _, id := range some(t, all(func(*entry) bool { return true })) {
					state := rapid.SampledFrom([]acct.DeliveryState{acct.Pending, acct.Acknowledged, acct.Quarantined}).Draw(t, "state")
					sent, result := rapid.Bool().Draw(t, "may have been sent"), rapid.SampledFrom([]uint32{0, 5001}).Draw(t, "result")
					list = append(list, acct.Settlement{ID: id, State: state, Result: result, At: noon, MaySent: sent})
					e := model[id]
					if e.state != acct.Pending {
						continue
					}
					switch state {
					case acct.Pending:
						e.attempts++
						e.sent = sent
					case acct.Acknowledged:
						acknowledge(id)
					case acct.Quarantined:
						e.state, e.sent = acct.Quarantined, result == 0
						if e.typ == acct.Interim && e.covered && wasRequeued[id] {
							e.state = acct.Covered
						}
					}
				}
				if err := s.Outbox().Settle(ctx, list); err != nil {
					t.Fatal(err)
				}
			},
			"requeue": func(t *rapid.T) {
				list := some(t, all(func(e *entry) bool { return e.state == acct.Quarantined }))
				if len(list) == 0 {
					return
				}
				fresh, err := s.Outbox().Requeue(ctx, list)
				if err != nil {
					t.Fatal(err)
				}
				for i, id := range list {
					if fresh[i] != next {
						t.Fatalf("record %d requeued as %d, want %d", id, fresh[i], next)
					}
					e := *model[id]
					e.state, e.attempts, e.covered = acct.Pending, 0, false
					delete(model, id)
					model[next] = &e
					wasRequeued[next] = true
					next++
				}
			},
			"trim": func(t *rapid.T) {
				keep := rapid.Uint64Range(0, 20).Draw(t, "keep")
				if _, err := s.Outbox().TrimSettled(ctx, noon.Add(time.Hour), Retention{Count: keep}); err != nil {
					t.Fatal(err)
				}
				for id, e := range model {
					if id+keep < next && (e.state == acct.Acknowledged || e.state == acct.Covered) {
						delete(model, id)
					}
				}
			},
			"restart": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = Open(dir, Config{}); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				after := rapid.Uint64Range(0, next).Draw(t, "after")
				limit := rapid.IntRange(1, 50).Draw(t, "max")
				ds, err := s.Outbox().Pending(ctx, after, limit)
				if err != nil {
					t.Fatal(err)
				}
				want := waiting()
				want = want[len(want)-len(slices.DeleteFunc(slices.Clone(want), func(id uint64) bool { return id <= after })):]
				want = want[:min(len(want), limit)]
				if !slices.Equal(ids(ds), want) {
					t.Fatalf("pending after %d: %v, want %v", after, ids(ds), want)
				}
				for _, d := range ds {
					e := model[d.ID]
					if d.MaySent != e.sent || d.Attempts != e.attempts || d.Record.Number != e.number || d.Record.SessionID != sessionID(e.session) {
						t.Fatalf("delivery %+v, want %+v", d, e)
					}
					this := d.ID<<8 | uint64(d.Attempts)
					if was, ok := used[d.EndToEnd]; ok && was != this {
						t.Fatalf("End-to-End Identifier %#x of %x used for %x", d.EndToEnd, was, this)
					}
					used[d.EndToEnd] = this
				}
				if rapid.IntRange(0, 3).Draw(t, "look closely") > 0 {
					return
				}
				listed, err := s.List(ctx, Filter{})
				if err != nil {
					t.Fatal(err)
				}
				if len(listed) != len(model) {
					t.Fatalf("%d records listed, want %d", len(listed), len(model))
				}
				for _, l := range listed {
					e := model[l.ID]
					if e == nil || l.State != e.state || l.Attempts != e.attempts {
						t.Fatalf("listed %d %v after %d attempts, want %+v", l.ID, l.State, l.Attempts, e)
					}
				}
				books, err := s.Audit(ctx)
				if err != nil || !books.Balanced {
					t.Fatalf("books %v, %v", books.Problems, err)
				}
				st, err := s.Stats(ctx)
				if err != nil || st.Records["pending"] != len(waiting()) || s.Outbox().Stats().Pending < uint64(len(waiting())) {
					t.Fatalf("stats %+v %v, want %d pending", st, err, len(waiting()))
				}
			},
		})
	})
}

func TestIDSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s idSet
		model := make(map[uint64]bool)
		for range rapid.IntRange(0, 30).Draw(t, "adds") {
			first := rapid.Uint64Range(0, 60).Draw(t, "first")
			last := first + rapid.Uint64Range(0, 8).Draw(t, "more")
			s.add(first, last)
			for id := first; id <= last; id++ {
				model[id] = true
			}
		}
		for id := range uint64(80) {
			if s.has(id) != model[id] {
				t.Fatalf("has(%d) is %v in %v", id, s.has(id), s.ranges)
			}
			free := id
			for model[free] {
				free++
			}
			if got := s.next(id); got != free {
				t.Fatalf("next(%d) is %d, want %d in %v", id, got, free, s.ranges)
			}
		}
		for i := 1; i < len(s.ranges); i++ {
			if s.ranges[i].first <= s.ranges[i-1].last+1 {
				t.Fatalf("ranges touch: %v", s.ranges)
			}
		}
	})
}

func TestList(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	var records []acct.Record
	for i := range 6 {
		r := record(sessionID(i/2), uint32(i%2), acct.Interim, count(1))
		r.User = fmt.Sprintf("user-%d", i/2)
		records = append(records, r)
	}
	cut(t, s, records...)
	settle(t, s, acct.Acknowledged, 1)
	settle(t, s, acct.Quarantined, 3)
	settle(t, s, acct.Pending, 5)
	state := func(s acct.DeliveryState) *acct.DeliveryState { return &s }
	for _, tt := range []struct {
		name string
		f    Filter
		want []uint64
	}{
		{"all", Filter{}, []uint64{1, 2, 3, 4, 5, 6}},
		{"pending", Filter{State: state(acct.Pending)}, []uint64{2, 4, 5, 6}},
		{"quarantined", Filter{State: state(acct.Quarantined)}, []uint64{3}},
		{"user", Filter{User: "user-1"}, []uint64{3, 4}},
		{"session", Filter{Session: sessionID(0)}, []uint64{1, 2}},
		{"multi session", Filter{Session: sessionID(2) + ";multi"}, []uint64{5, 6}},
		{"limit", Filter{Limit: 2}, []uint64{1, 2}},
		{"after", Filter{After: 2, Limit: 2}, []uint64{3, 4}},
		{"none", Filter{User: "nobody"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := s.List(t.Context(), tt.f)
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, l := range list {
				got = append(got, l.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("listed %v, want %v", got, tt.want)
			}
		})
	}
	if l := show(t, s, 5); l.State != acct.Pending || l.Attempts != 1 || l.Result != 5001 || l.Reason != "Failed-AVP 99" || len(l.Record.Shares) != 1 {
		t.Errorf("record 5: %+v", l)
	}
	if l, err := s.ShowNumber(t.Context(), sessionID(1), 1); err != nil || len(l) != 1 || l[0].ID != 4 {
		t.Errorf("ShowNumber: %+v, %v", l, err)
	}
	if _, err := s.ShowNumber(t.Context(), sessionID(1), 9); err == nil {
		t.Error("ShowNumber found what is not there")
	}
	if _, err := s.Show(t.Context(), 7); err == nil {
		t.Error("Show found what is not there")
	}
}
