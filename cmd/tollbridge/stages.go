package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A stage is a part of the daemon that runs until its context ends. An error
// of run brings the daemon down.
type stage struct {
	name string
	run  func(context.Context) error
}

// stopTimeout is how long a stage may take to stop before the next is stopped
// beside it: one may be held up by another that can't go on, as the collector
// is by a journal without space on the disk.
const stopTimeout = 20 * time.Second

// runStages runs stages at once until ctx ends or one of them does. It stops
// them in order, each after the one before has returned or stopTimeout has
// passed, so that what a stage still hands on is taken by the next. It returns
// when all have.
func runStages(ctx context.Context, stages ...stage) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
		err    error
	}
	ended := make(chan struct{}, len(stages))
	all := make([]*running, len(stages))
	for i, s := range stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{cancel: cancel, done: make(chan struct{})}
		all[i] = r
		go func() {
			defer close(r.done)
			if err := s.run(stageCtx); err != nil {
				r.err = fmt.Errorf("%s: %w", s.name, err)
			} else if stageCtx.Err() == nil {
				r.err = fmt.Errorf("%s: ended of itself", s.name)
			}
			ended <- struct{}{}
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	for _, r := range all {
		r.cancel()
		late := time.NewTimer(stopTimeout)
		select {
		case <-r.done:
		case <-late.C:
		}
		late.Stop()
	}
	var errs []error
	for _, r := range all {
		<-r.done
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
