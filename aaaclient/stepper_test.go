package aaaclient

import (
	"syscall"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A deskConn is a Conn on the desk of a test: it keeps what is sent.
type deskConn struct{ sent []byte }

func (c *deskConn) Status() peer.Status { return peer.Status{State: peer.Okay, Proven: true} }

func (c *deskConn) Send(b []byte) error {
	c.sent = append(c.sent, b...)
	return nil
}

// request takes the first request off what was sent.
func (c *deskConn) request(t *testing.T) peer.Message {
	t.Helper()
	h, err := avp.ParseHeader(c.sent)
	if err != nil {
		t.Fatal(err)
	}
	m := peer.Message{Header: h, Octets: c.sent[:h.Length]}
	c.sent = c.sent[h.Length:]
	return m
}

// A Stepper delivers as Run does, one step after the other.
func TestStepper(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(1, 2)...)
	cfg := client(outbox, "192.0.2.1:3868", "192.0.2.2:3868")
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := c.Stepper()
	first, second := &deskConn{}, &deskConn{}
	s.Opened(0, first)
	s.Woken()
	work := func() {
		t.Helper()
		for range 4 { // read, mark, and nothing
			s.Round(now)
			if !s.Work(t.Context()) {
				return
			}
			s.Done(now)
		}
	}
	work()
	r := first.request(t)
	if r.Flags&avp.FlagRetransmitted != 0 || len(first.sent) != 0 {
		t.Fatalf("sent first: flags %#x and %d octets more", r.Flags, len(first.sent))
	}

	s.Closed(0, syscall.ECONNRESET)
	s.Opened(1, second)
	work()
	again := second.request(t)
	if again.Flags&avp.FlagRetransmitted == 0 || again.EndToEnd != r.EndToEnd {
		t.Errorf("sent again: flags %#x, end-to-end %d, was %d", again.Flags, again.EndToEnd, r.EndToEnd)
	}

	answer := func(m peer.Message) {
		t.Helper()
		n := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}
		if err := s.Received(1, n.AppendError(nil, m, avp.ResultSuccess, "", nil)); err != nil {
			t.Fatal(err)
		}
	}
	answer(again)
	work()
	answer(second.request(t))
	work()
	outbox.check(t, acct.Acknowledged)
	if next := s.Round(now); !next.IsZero() || s.Work(t.Context()) {
		t.Errorf("something is to be done at %v, though all is settled", next)
	}
	if err := s.Received(1, []byte{1, 0}); err == nil {
		t.Error("two octets are taken for an answer")
	}
}
