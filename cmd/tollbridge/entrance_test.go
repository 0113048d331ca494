package main

import (
	"errors"
	"testing"
	"testing/synctest"

	"tollbridge/asm/aaaserver"
)

// A daemon whose start fails before data is collected refuses what waits for
// that, at once.
func TestEntranceClosesUnopened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bridge{entrance: entrance{opened: make(chan struct{}), closed: make(chan struct{})}}
		obeyed, taken := make(chan error, 1), make(chan error, 1)
		go func() { obeyed <- b.obey(t.Context(), nil) }()
		go func() { taken <- b.entrance.Take(t.Context(), nil) }()
		synctest.Wait()
		if len(obeyed)+len(taken) > 0 {
			t.Fatal("nothing waits until data is collected")
		}
		close(b.entrance.closed)
		if err := <-obeyed; !errors.Is(err, errStops) {
			t.Errorf("interim intervals: %v, want %v", err, errStops)
		}
		if err := <-taken; !errors.Is(err, errStops) || !errors.Is(err, aaaserver.ErrBusy) {
			t.Errorf("requests: %v, want %v and %v", err, errStops, aaaserver.ErrBusy)
		}
	})
}
