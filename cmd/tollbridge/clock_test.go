package main

import (
	"testing"
	"time"
)

func TestHostClockSteps(t *testing.T) {
	var c hostClock
	wall, since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), time.Duration(0)
	for i, x := range []struct{ passed, wall, want time.Duration }{
		{0, 0, 0},
		{time.Second, time.Second, 0},
		{time.Second, time.Second + 500*time.Microsecond, 0}, // slewed
		{time.Second, time.Hour + time.Second, time.Hour},
		{time.Second, time.Second, 0},
		{time.Second, time.Second - 24*time.Hour, -24 * time.Hour},
		{time.Second, time.Second, 0},
	} {
		wall, since = wall.Add(x.wall), since+x.passed
		if got := c.look(wall, since); got != x.want {
			t.Errorf("look %d: step of %v, want %v", i, got, x.want)
		}
	}
	if c.forward.Load() != 1 || c.back.Load() != 1 {
		t.Errorf("%d steps forward, %d back", c.forward.Load(), c.back.Load())
	}
}

// The pipeline is set back when it stays ahead, and not again at once.
func TestHostClockAhead(t *testing.T) {
	var c hostClock
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	look := func(ahead time.Duration) bool {
		now = now.Add(clockEvery)
		return c.isAhead(now.Add(ahead).UnixNano(), now, now)
	}
	for range 10 {
		if look(clockTolerance) || c.behind.Load() != 0 {
			t.Fatal("set back within the tolerance")
		}
	}
	for i, ahead := range []time.Duration{time.Hour, time.Hour, 0, time.Hour, time.Hour} {
		if look(ahead) {
			t.Fatalf("look %d: set back for a moment's difference", i)
		}
	}
	if !look(time.Hour) || c.behind.Load() != int64(time.Hour) {
		t.Fatal("not set back")
	}
	for range int(clockRest/clockEvery) - 1 {
		if look(time.Hour) {
			t.Fatal("set back again at once")
		}
	}
	if !look(time.Hour) {
		t.Error("not set back again after a while")
	}
	if look(0); c.behind.Load() != 0 {
		t.Error("still behind")
	}
}
