package aaaclient

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// An answer's Acct-Interim-Interval is handed on where it is another than that
// by which its record was cut, and again where that failed (RFC 6733, Section
// 9.8.2).
func TestInterimInterval(t *testing.T) {
	const none, zero = -1, 0
	broken := errors.New("the journal is full")
	for _, c := range []struct {
		name   string
		record func(*acct.Record)
		answer int // seconds
		fails  int // calls of Obey
		want   uint32
	}{
		{name: "none is included", answer: none},
		{name: "the answer to START", answer: 300, want: 300},
		{name: "the answer to INTERIM", record: func(r *acct.Record) { r.Number, r.Type = 1, acct.Interim }, answer: 300, want: 300},
		{name: "the session goes by it already", record: func(r *acct.Record) { r.Interim = 300 }, answer: 300},
		{name: "the most recent value counts", record: func(r *acct.Record) { r.Interim = 600 }, answer: 300, want: 300},
		{name: "0 asks for no INTERIM", answer: zero, want: acct.NoInterim},
		{name: "0 again", record: func(r *acct.Record) { r.Interim = acct.NoInterim }, answer: zero},
		{name: "the session is over", record: func(r *acct.Record) { r.Number, r.Type = 1, acct.Stop }, answer: 300},
		{name: "there is no session", record: func(r *acct.Record) { r.Type = acct.Event }, answer: 300},
		{name: "another node's session", record: func(r *acct.Record) { r.Received = []byte{} }, answer: 300},
		{name: "it could not be kept at first", answer: 300, fails: 2, want: 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			record := records(1, 2)[0]
			if c.record != nil {
				c.record(&record)
			}
			outbox := newOutbox()
			outbox.add(record)
			cfg := client(outbox, "192.0.2.1:3868")
			var got []acct.InterimInterval
			cfg.Obey = func(_ context.Context, list []acct.InterimInterval) error {
				if c.fails--; c.fails >= 0 {
					return broken
				}
				got = append(got, list...)
				return nil
			}
			cl, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			s, conn, now := cl.Stepper(), &deskConn{}, time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
			work := func() {
				for range 8 {
					s.Round(now)
					s.Work(t.Context())
					s.Done(now)
					now = now.Add(obeyPause)
				}
			}
			s.Opened(0, conn)
			s.Woken()
			s.Round(now)
			s.Work(t.Context())
			s.Done(now)
			s.Round(now)
			s.Work(t.Context())
			s.Done(now)
			s.Round(now)
			b := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}.AppendError(nil, conn.request(t), avp.ResultSuccess, "", nil)
			if c.answer != none {
				b = avp.AppendUint32(b, avp.AcctInterimInterval, 0, avp.FlagMandatory, uint32(c.answer))
				avp.SetLength(b)
			}
			if err := s.Received(0, b); err != nil {
				t.Fatal(err)
			}
			work()
			outbox.check(t, acct.Acknowledged)
			var want []acct.InterimInterval
			if c.want != 0 {
				want = []acct.InterimInterval{{SessionID: record.SessionID, Seconds: c.want}}
			}
			if !slices.Equal(got, want) {
				t.Errorf("handed on: %v, want %v", got, want)
			}
		})
	}
}

// While Config.Obey fails, or blocks for all the time that it has, records are
// settled and the next are marked and sent; that is told once, and is no
// failure of the outbox.
func TestDeliveryGoesOnWithoutObey(t *testing.T) {
	for _, c := range []struct {
		name string
		obey func(context.Context, []acct.InterimInterval) error
	}{
		{"it fails", func(context.Context, []acct.InterimInterval) error { return errors.New("the journal is full") }},
		{"it blocks", func(ctx context.Context, _ []acct.InterimInterval) error { <-ctx.Done(); return ctx.Err() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 5
				outbox := newOutbox()
				outbox.add(records(1, n)...)
				cfg := client(outbox, "192.0.2.1:3868")
				var log bytes.Buffer
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				calls := 0
				cfg.Obey = func(ctx context.Context, list []acct.InterimInterval) error {
					calls++
					return c.obey(ctx, list)
				}
				cl, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				s, conn := cl.Stepper(), &deskConn{}
				work := func() {
					for range 4 { // read, mark, settle, and nothing
						s.Round(time.Now())
						s.Work(t.Context())
						s.Done(time.Now())
					}
					s.Round(time.Now())
				}
				began := time.Now()
				s.Opened(0, conn)
				s.Woken()
				work()
				for range n {
					b := peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}.AppendError(nil, conn.request(t), avp.ResultSuccess, "", nil)
					b = avp.AppendUint32(b, avp.AcctInterimInterval, 0, avp.FlagMandatory, 300)
					avp.SetLength(b)
					if err := s.Received(0, b); err != nil {
						t.Fatal(err)
					}
					work()
				}
				outbox.check(t, acct.Acknowledged)
				if took := time.Since(began); calls != 1 || took > obeyTimeout {
					t.Errorf("Obey was called %d times, and %d records took %v", calls, n, took)
				}
				time.Sleep(obeyPause)
				work()
				if calls != 2 {
					t.Errorf("Obey was called %d times after a pause, want once more", calls)
				}
				if told := strings.Count(log.String(), "interim intervals"); told != 1 || cl.Stats().OutboxFails != 0 || cl.Stats().ObeyFails != 2 {
					t.Errorf("told %d times, want once, and %+v:\n%s", told, cl.Stats(), &log)
				}
			})
		})
	}
}
