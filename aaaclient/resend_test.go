package aaaclient

import (
	"bytes"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
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

// silence lets the first peer get the record of d and say nothing, and returns
// that request and the copy that the second one gets.
func silence(t *testing.T, d *desk) (first, second peer.Message) {
	t.Helper()
	first = d.conns[0].request(t)
	first.Octets = bytes.Clone(first.Octets)
	d.now = d.now.Add(time.Minute)
	d.work()
	second = d.conns[1].request(t)
	second.Octets = bytes.Clone(second.Octets)
	if second.Flags&avp.FlagRetransmitted == 0 || second.EndToEnd != first.EndToEnd {
		t.Fatalf("the copy has flags %#x, end-to-end %d after %d", second.Flags, second.EndToEnd, first.EndToEnd)
	}
	return first, second
}

// An error answer of one peer says nothing of what another, which was silent,
// has made of its copy: the new request still carries the T flag, also after a
// restart.
func TestErrorAnswerBesideASilentPeer(t *testing.T) {
	for _, result := range []uint32{avp.ResultTooBusy, avp.ResultOutOfSpace, avp.ResultUnableToDeliver} {
		d := newDesk(t, records(1, 1), nil)
		first, second := silence(t, d)
		d.answer(1, second, result, "", nil)
		for n := 0; len(d.conns[0].sent)+len(d.conns[1].sent) == 0; n++ {
			if n == 100 {
				t.Fatalf("%d: nothing is sent again", result)
			}
			d.now = d.now.Add(10 * time.Second)
			d.work()
		}
		for _, c := range d.conns {
			if len(c.sent) > 0 {
				if m := c.request(t); m.Flags&avp.FlagRetransmitted == 0 || m.EndToEnd == first.EndToEnd {
					t.Errorf("%d: flags %#x, end-to-end %d after %d", result, m.Flags, m.EndToEnd, first.EndToEnd)
				}
			}
		}
		pending, err := d.outbox.Pending(t.Context(), 0, 1)
		if err != nil || len(pending) != 1 || !pending[0].MaySent {
			t.Errorf("%d: the outbox has %+v, %v", result, pending, err)
		}
	}
}

// What a peer says late of its copy, but for having accounted it, decides
// nothing while another peer may account another.
func TestLateErrorAnswerBesideACopy(t *testing.T) {
	for _, result := range []uint32{avp.ResultAVPUnsupported, avp.ResultTooBusy, avp.ResultUnableToDeliver} {
		d := newDesk(t, records(1, 1), nil)
		first, second := silence(t, d)
		d.answer(0, first, result, "late", nil)
		d.work()
		if state, all := d.outbox.state(1); state != acct.Pending || len(all) != 0 {
			t.Errorf("%d: the record is %v: %+v", result, state, all)
		}
		d.answer(1, second, avp.ResultSuccess, "", nil)
		d.work()
		if state, all := d.outbox.state(1); state != acct.Acknowledged {
			t.Errorf("%d: a peer has accounted the record, and it is %v: %+v", result, state, all)
		}
	}
}
