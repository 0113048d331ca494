package aaaclient

import (
	"bytes"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// After an error answer a record goes out as a new request: with an End-to-End
// Identifier of its own and the T flag clear (RFC 6733, Section 3), and with
// the same AVPs, Session-Id and Accounting-Record-Number among them.
func TestErrorAnswerMakesANewRequest(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(1, 1)...)
	c, err := New(client(outbox, "192.0.2.1:3868"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s, conn := c.Stepper(), &deskConn{}
	s.Opened(0, conn)
	s.Woken()
	work := func() {
		t.Helper()
		for range 4 {
			s.Round(now)
			if !s.Work(t.Context()) {
				return
			}
			s.Done(now)
		}
	}
	work()
	first := conn.request(t)
	first.Octets = bytes.Clone(first.Octets)
	n := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}
	if err := s.Received(0, n.AppendError(nil, first, avp.ResultOutOfSpace, "", nil)); err != nil {
		t.Fatal(err)
	}
	for range 100 { // until it is tried again
		work()
		if len(conn.sent) > 0 {
			break
		}
		now = now.Add(10 * time.Second)
	}
	if len(conn.sent) == 0 {
		t.Fatal("not tried again")
	}
	again := conn.request(t)
	if again.EndToEnd == first.EndToEnd || again.Flags&avp.FlagRetransmitted != 0 {
		t.Errorf("flags %#x, end-to-end %d after %d", again.Flags, again.EndToEnd, first.EndToEnd)
	}
	if !bytes.Equal(again.AVPs(), first.AVPs()) {
		t.Errorf("AVPs %x\nwere %x", again.AVPs(), first.AVPs())
	}
}
