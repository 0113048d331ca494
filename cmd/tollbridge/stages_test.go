package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A stage that a later one holds up must not keep the daemon from stopping:
// the collector waits for a journal that waits for space on the disk.
func TestStagesStopThoughALaterOneHoldsUpAnEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("disk is full")
		released := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := runStages(ctx,
			stage{"collecting", func(context.Context) error { <-released; return full }},
			stage{"journal", func(ctx context.Context) error { <-ctx.Done(); close(released); return full }},
		)
		if took := time.Since(start); took != time.Second+stopTimeout {
			t.Errorf("stopped after %v, want %v", took, time.Second+stopTimeout)
		}
		if err == nil || !strings.Contains(err.Error(), "collecting: disk is full") || !strings.Contains(err.Error(), "journal: disk is full") {
			t.Errorf("error %v, want those of both stages", err)
		}
	})
}

// What a stage hands on while it stops is taken by the next.
func TestStagesStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		slow := func(name string) stage {
			return stage{name, func(ctx context.Context) error {
				<-ctx.Done()
				<-time.After(stopTimeout / 2)
				order = append(order, name)
				return nil
			}}
		}
		if err := runStages(ctx, slow("a"), slow("b"), slow("c")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, " "); got != "a b c" {
			t.Errorf("stopped in the order %s, want a b c", got)
		}
	})
}
