package main

import (
	"context"
	"errors"
	"fmt"
)

// A stage is a part of the daemon that runs until its context ends. An error
// of run brings the daemon down.
type stage struct {
	name string
	run  func(context.Context) error
}

// runStages runs stages at once until ctx ends or one of them does. It stops
// them in order, each after the one before has returned, so that what a stage
// still hands on is taken by the next.
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
	var errs []error
	for _, r := range all {
		r.cancel()
		<-r.done
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
