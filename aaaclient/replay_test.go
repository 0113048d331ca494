package aaaclient

import (
	"slices"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// TestEndToEndReplay: an answer that was seen before settles nothing, whichever
// of its identifiers were made to fit the request that is on its way now.
func TestEndToEndReplay(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(1, 2)...)
	c, err := New(client(outbox, "192.0.2.1:3868"))
	if err != nil {
		t.Fatal(err)
	}
	s, conn, now := c.Stepper(), &deskConn{}, time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	work := func() {
		t.Helper()
		for range 4 {
			s.Round(now)
			s.Work(t.Context())
			s.Done(now)
		}
	}
	receive := func(b []byte) {
		t.Helper()
		if err := s.Received(0, b); err != nil {
			t.Fatal(err)
		}
		work()
	}
	s.Opened(0, conn)
	s.Woken()
	work()
	answer := func(m peer.Message) []byte { // as a server repeats the request's Session-Id and number
		b := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}.AppendError(nil, m, avp.ResultSuccess, "", nil)
		if number, ok := avp.Find(m.AVPs(), avp.AccountingRecordNumber, 0); ok {
			b = number.Append(b)
		}
		avp.SetLength(b)
		return b
	}
	first := answer(conn.request(t))
	receive(first)
	second := conn.request(t)
	for name, change := range map[string]func(b []byte){
		"as it was":                           func([]byte) {},
		"with the other's Hop-by-Hop":         func(b []byte) { avp.SetHopByHop(b, second.HopByHop) },
		"with the other's End-to-End":         func(b []byte) { avp.SetEndToEnd(b, second.EndToEnd) },
		"with both, but of the former number": func(b []byte) { avp.SetHopByHop(b, second.HopByHop); avp.SetEndToEnd(b, second.EndToEnd) },
	} {
		before := c.Stats().Unmatched
		b := slices.Clone(first)
		change(b)
		receive(b)
		if state, _ := outbox.state(2); state != acct.Pending || c.Stats().Unmatched != before+1 {
			t.Errorf("an old answer %s: the record is %v, %+v", name, state, c.Stats())
		}
	}
	receive(answer(second))
	receive(answer(second)) // and that again
	outbox.check(t, acct.Acknowledged)
	if got := c.Stats(); got.Settled != 2 || got.Unmatched != 5 {
		t.Errorf("stats %+v", got)
	}
}
