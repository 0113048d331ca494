package aaaclient

import (
	"context"
	"sync"
	"time"
)

// Run delivers until ctx is done. For up to Config.Drain it then goes on as long
// as peers take and answer what there is; when nothing is left, or nothing
// moves, it sends nothing more, waits up to Config.Grace for the answers that
// are due, settles them, takes leave of the peers (Disconnect-Cause REBOOTING)
// and returns nil. It is called once.
//
//	Run ─┬─ delivery (this goroutine) ◄── events ── a link per peer: connects, reads answers
//	     │      │  ▲
//	     │     jobs results
//	     │      ▼  │
//	     └─── clerk ──► Outbox
func (c *Client) Run(ctx context.Context) error {
	var links, clerk sync.WaitGroup
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	for _, l := range c.links {
		links.Go(func() { l.keeper.Run(linked) })
	}
	jobs, results := make(chan job, 1), make(chan done, 1)
	clerk.Go(func() { c.clerk(ctx, jobs, results) })

	d := newDelivery(c)
	d.loop(ctx, jobs, results)
	close(jobs)
	clerk.Wait()

	// The links may be blocked on events.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		unlink()
		links.Wait()
	}()
	for {
		select {
		case <-c.events:
		case <-gone:
			return nil
		}
	}
}

// loop works in rounds: one for whatever has happened since the last.
func (d *delivery) loop(ctx context.Context, jobs chan<- job, results <-chan done) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		d.round(time.Now())
		if j, ok := d.job(); ok {
			jobs <- j // has room: the clerk was idle
		}
		if d.ended() {
			return
		}
		var due <-chan time.Time
		if next := d.next(); !next.IsZero() {
			timer.Reset(next.Sub(d.now))
			due = timer.C
		}
		select {
		case <-stop:
			stop = nil
			d.drain(time.Now())
		case e := <-d.events:
			d.now = time.Now()
			d.happen(e)
			for more := true; more; {
				select {
				case e := <-d.events:
					d.happen(e)
				default:
					more = false
				}
			}
		case r := <-results:
			d.now = time.Now()
			d.done(r)
		case <-d.cfg.Outbox.Wake():
			d.woken()
		case <-d.changed:
		case <-due:
		}
	}
}
