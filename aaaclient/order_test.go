package aaaclient

import (
	"errors"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A session's next record does not leave before the answer to the one before
// is durable: after a crash that one, refused, would be sent again behind it.
func TestNextWaitsForSettle(t *testing.T) {
	for _, c := range []struct {
		name    string
		result  uint32
		maySent bool // the next record was marked in an earlier life
		want    acct.DeliveryState
	}{
		{name: "acknowledged", result: avp.ResultSuccess, want: acct.Acknowledged},
		{name: "refused", result: avp.ResultAVPUnsupported, want: acct.Quarantined},
		{name: "refused, the next was marked before", result: avp.ResultAVPUnsupported, maySent: true, want: acct.Quarantined},
	} {
		t.Run(c.name, func(t *testing.T) {
			outbox := newOutbox()
			outbox.add(records(1, 2)...)
			outbox.rows[1].MaySent = c.maySent
			full := true
			outbox.fail = func(call string) error {
				if full && call == "settle" {
					return errors.New("disk is full")
				}
				return nil
			}
			cfg := client(outbox, "192.0.2.1:3868")
			cfg.Timeout = time.Hour
			cl, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			s, conn, now := cl.Stepper(), &deskConn{}, time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
			work := func() {
				for range 4 { // read, mark, settle, and nothing
					s.Round(now)
					s.Work(t.Context())
					s.Done(now)
					now = now.Add(outboxPause)
				}
				s.Round(now)
			}
			answer := func(result uint32) {
				t.Helper()
				n := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}
				if err := s.Received(0, n.AppendError(nil, conn.request(t), result, "", nil)); err != nil {
					t.Fatal(err)
				}
			}
			s.Opened(0, conn)
			s.Woken()
			work()
			answer(c.result)
			work()
			if len(conn.sent) > 0 {
				t.Fatal("the next record is sent before the answer to the first is kept")
			}
			full = false
			work()
			answer(avp.ResultSuccess)
			work()
			outbox.check(t, acct.Acknowledged, 1)
			if state, _ := outbox.state(1); state != c.want {
				t.Errorf("the first record is %v, want %v", state, c.want)
			}
		})
	}
}
