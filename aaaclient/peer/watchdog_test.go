package peer

import (
	"testing"
	"time"
)

// event is one of the events of RFC 3539, Section 3.4.1.
type event string

const (
	up      event = "connection up"
	down    event = "connection down"
	dwa     event = "receive DWA"
	other   event = "receive non-DWA"
	expires event = "timer expires"
)

func TestWatchdog(t *testing.T) {
	type step struct {
		event event
		do    Action
		state State
	}
	for name, steps := range map[string][]step{
		"INITIAL, connection up: OKAY, and we try it with a DWR": {{up, SendWatchdog, Okay}, {dwa, Nothing, Okay}},
		"OKAY, timer expires & !Pending: SendWatchdog": {
			{up, SendWatchdog, Okay}, {dwa, Nothing, Okay}, {expires, SendWatchdog, Okay}, {dwa, Nothing, Okay}, {expires, SendWatchdog, Okay}},
		"OKAY, timer expires & Pending: Failover, SUSPECT": {{up, SendWatchdog, Okay}, {expires, Nothing, Suspect}},
		"OKAY, receive non-DWA: Pending stays":             {{up, SendWatchdog, Okay}, {other, Nothing, Okay}, {expires, Nothing, Suspect}},
		"SUSPECT, receive DWA: Failback, OKAY":             {{up, SendWatchdog, Okay}, {expires, Nothing, Suspect}, {dwa, Nothing, Okay}, {expires, SendWatchdog, Okay}},
		"SUSPECT, receive non-DWA: Failback, OKAY":         {{up, SendWatchdog, Okay}, {expires, Nothing, Suspect}, {other, Nothing, Okay}},
		"SUSPECT, timer expires: CloseConnection, DOWN":    {{up, SendWatchdog, Okay}, {expires, Nothing, Suspect}, {expires, CloseConnection, Suspect}, {down, Nothing, Down}},
		"OKAY, connection down: DOWN":                      {{up, SendWatchdog, Okay}, {down, Nothing, Down}},
		"DOWN, connection up: SendWatchdog, REOPEN; the third DWA makes it OKAY": {
			{up, SendWatchdog, Okay}, {down, Nothing, Down}, {up, SendWatchdog, Reopen}, {dwa, Nothing, Reopen},
			{expires, SendWatchdog, Reopen}, {dwa, Nothing, Reopen}, {expires, SendWatchdog, Reopen}, {dwa, Nothing, Okay}},
		"REOPEN, receive non-DWA: Throwaway": {
			{up, SendWatchdog, Okay}, {down, Nothing, Down}, {up, SendWatchdog, Reopen}, {other, Nothing, Reopen}, {other, Nothing, Reopen}, {other, Nothing, Reopen}},
		"REOPEN, timer expires & Pending: NumDWA = -1, then CloseConnection": {
			{up, SendWatchdog, Okay}, {down, Nothing, Down}, {up, SendWatchdog, Reopen}, {expires, Nothing, Reopen}, {expires, CloseConnection, Reopen}},
		"REOPEN, NumDWA = -1: four answers are needed": {
			{up, SendWatchdog, Okay}, {down, Nothing, Down}, {up, SendWatchdog, Reopen}, {expires, Nothing, Reopen}, {dwa, Nothing, Reopen},
			{expires, SendWatchdog, Reopen}, {dwa, Nothing, Reopen}, {expires, SendWatchdog, Reopen}, {dwa, Nothing, Reopen},
			{expires, SendWatchdog, Reopen}, {dwa, Nothing, Okay}},
		"a peer that never connected stays INITIAL": {{down, Nothing, Initial}},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := NewWatchdog(0)
			if err != nil {
				t.Fatal(err)
			}
			w.jitter = func() time.Duration { return 0 }
			now := time.Unix(1_700_000_000, 0)
			for i, s := range steps {
				act := Nothing
				switch s.event {
				case up:
					act = w.Open(now, true)
				case down:
					w.Close()
				case dwa:
					w.Receive(now, true)
				case other:
					w.Receive(now, false)
				case expires:
					if now = w.Deadline(); now.IsZero() {
						t.Fatalf("step %d: no deadline is set", i)
					}
					act = w.Expire(now)
				}
				if act != s.do || w.State() != s.state {
					t.Fatalf("step %d, %s: action %d in %v, want %d in %v", i, s.event, act, w.State(), s.do, s.state)
				}
			}
		})
	}
}

func TestWatchdogTimer(t *testing.T) {
	if _, err := NewWatchdog(5 * time.Second); err == nil {
		t.Error("Tw below 6 s is accepted (3.4.1)")
	}
	w, err := NewWatchdog(6 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	w.Open(now, false)
	low, high := time.Hour, time.Duration(0)
	for range 2000 {
		w.Receive(now, false)
		d := w.Deadline().Sub(now)
		low, high = min(low, d), max(high, d)
	}
	if low < 4*time.Second || low > 4500*time.Millisecond || high > 8*time.Second || high < 7500*time.Millisecond {
		t.Errorf("Tw of 6 s varies from %v to %v, want 4 s to 8 s", low, high)
	}
}
