package export

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"tollbridge/ipfix"
)

// A Duplicate exports every record to several Collecting Processes, one
// Process each. Where one is held up so are the others, unless it may drop
// (Config.DropWhenFull). Its methods do what those of each Process do, and
// join their errors.
type Duplicate []*Process

// Export exports one record to each, in order.
func (d Duplicate) Export(ctx context.Context, t *ipfix.Template, record []byte) error {
	var errs []error
	for _, p := range d {
		if err := p.Export(ctx, t, record); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run runs them all. It returns when all have ended.
func (d Duplicate) Run(ctx context.Context) error {
	return d.all(func(p *Process) error { return p.Run(ctx) })
}

// Flush returns when each has.
func (d Duplicate) Flush(ctx context.Context) error {
	return d.all(func(p *Process) error { return p.Flush(ctx) })
}

// Close closes them all, at once: none waits for another's collector.
func (d Duplicate) Close(ctx context.Context) error {
	return d.all(func(p *Process) error { return p.Close(ctx) })
}

func (d Duplicate) all(f func(*Process) error) error {
	errs := make([]error, len(d))
	var g errgroup.Group
	for i, p := range d {
		g.Go(func() error {
			errs[i] = f(p)
			return nil
		})
	}
	_ = g.Wait() // they are in errs
	return errors.Join(errs...)
}
