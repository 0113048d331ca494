package export_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// A failureLog takes down when attempts to connect failed.
type failureLog struct {
	slog.Handler
	at []time.Time
}

func (l *failureLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "connecting failed" {
		l.at = append(l.at, r.Time)
	}
	return nil
}

func (l *failureLog) Enabled(context.Context, slog.Level) bool { return true }

// waits returns the times between attempts.
func waits(at []time.Time) []time.Duration {
	var all []time.Duration
	for i := 1; i < len(at); i++ {
		all = append(all, at[i].Sub(at[i-1]))
	}
	return all
}

// backsOff checks that waits begin at least, double, and end at most, each up
// to a quarter longer.
func backsOff(t *testing.T, waits []time.Duration, least, most time.Duration) {
	t.Helper()
	want := least
	for i, got := range waits {
		if got < want || got > min(want+want/4, most) {
			t.Errorf("wait %d is %v, want %v to %v (all: %v)", i, got, want, min(want+want/4, most), waits)
		}
		want = min(2*want, most)
	}
}

// Attempts to connect that fail are a minute apart, by default (RFC 7011,
// Section 10.4.4), then ever longer, whatever they are over. The first comes at
// once.
func TestReconnectBacksOff(t *testing.T) {
	refused := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	ca := certtest.NewAuthority(t)
	secure := clientTLS(ca)
	for _, tt := range []struct {
		name        string
		cfg         export.Config
		least, most time.Duration
	}{
		{"UDP", export.Config{Transport: ipfix.UDP}, time.Minute, 10 * time.Minute},
		{"TCP", export.Config{Transport: ipfix.TCP}, time.Minute, 10 * time.Minute},
		{"TLS", export.Config{Transport: ipfix.TLS, TLS: secure}, time.Minute, 10 * time.Minute},
		{"DTLS", export.Config{Transport: ipfix.DTLS, TLS: secure}, time.Minute, 10 * time.Minute},
		{"SCTP", export.Config{Transport: ipfix.SCTP}, time.Minute, 10 * time.Minute},
		{"acknowledged", export.Config{Transport: ipfix.TCP, Acknowledged: &export.Acknowledged{}}, time.Minute, 10 * time.Minute},
		{"as configured", export.Config{Transport: ipfix.TCP, Reconnect: 3 * time.Second, MaxReconnect: 40 * time.Second}, 3 * time.Second, 40 * time.Second},
		{"constant", export.Config{Transport: ipfix.TCP, Reconnect: time.Second, MaxReconnect: time.Second}, time.Second, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &failureLog{}
				cfg := tt.cfg
				cfg.Address = "127.0.0.1:1" // where nobody listens
				cfg.Dial, cfg.Log = refused, slog.New(log)
				if cfg.Acknowledged != nil {
					cfg.Acknowledged.Backlog = openBacklog(t, t.TempDir(), backlog.Config{})
				}
				p, err := export.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 60*tt.least)
				defer cancel()
				if err := p.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if len(log.at) < 6 || !log.at[0].Equal(began) {
					t.Fatalf("attempts at %v, begun at %v", log.at, began)
				}
				backsOff(t, waits(log.at), tt.least, tt.most)
				if s := p.Stats(); s.Failures != uint64(len(log.at)) || s.Connections != 0 {
					t.Errorf("%d attempts, stats %+v", len(log.at), s)
				}
			})
		})
	}
}

// Two Processes that lost their collector together do not return together.
func TestReconnectIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		at := make(map[time.Time]int)
		attempts := make(chan time.Time)
		for range 20 {
			p, err := export.New(export.Config{
				Transport: ipfix.TCP, Address: "192.0.2.1:4739",
				Dial: func(context.Context, string, string) (net.Conn, error) {
					attempts <- time.Now()
					return nil, errors.New("refused")
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			go p.Run(ctx)
		}
		for {
			select {
			case when := <-attempts:
				at[when]++
				continue
			case <-ctx.Done():
			}
			break
		}
		began, together := 0, 0
		for _, n := range at {
			began, together = max(began, n), together+n
		}
		if later := len(at) - 1; began != 20 || together-began < 40 || later < (together-began)/2 {
			t.Errorf("%d began together, then %d attempts at %d times", began, together-began, later)
		}
		synctest.Wait()
	})
}

// A connection that lasts ends the doubling; one that the other end closes at
// once, as who does not want this exporter does, is a failure like others.
func TestReconnectBeginsAnewAfterASuccess(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lasts time.Duration
		anew  bool
	}{
		{name: "a connection that lasts", lasts: time.Hour, anew: true},
		{name: "a connection that is closed at once", lasts: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const refusals = 4
				var at []time.Time
				p, err := export.New(export.Config{
					Transport: ipfix.TCP, Address: "192.0.2.1:4739",
					Dial: func(context.Context, string, string) (net.Conn, error) {
						at = append(at, time.Now())
						if len(at) != refusals+1 {
							return nil, errors.New("refused")
						}
						ours, theirs := net.Pipe()
						time.AfterFunc(tt.lasts, func() { theirs.Close() })
						return ours, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
				defer cancel()
				p.Run(ctx)
				backsOff(t, waits(at[:refusals+1]), time.Minute, 10*time.Minute)
				after := waits(at[refusals:])
				if tt.anew {
					if after[0] != tt.lasts {
						t.Errorf("tried again %v after the connection began, which ended after %v", after[0], tt.lasts)
					}
					backsOff(t, after[1:], time.Minute, 10*time.Minute)
					return
				}
				if after[0] != 10*time.Minute || after[1] != 10*time.Minute {
					t.Errorf("waits %v, want 10 minutes each", after)
				}
			})
		})
	}
}
