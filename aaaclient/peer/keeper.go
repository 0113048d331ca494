package peer

import (
	"context"
	"errors"
	"net"
	"time"

	"tollbridge/dict/avp"
)

// leaveTimeout bounds the wait for a Disconnect-Peer-Answer.
const leaveTimeout = 2 * time.Second

// A Keeper keeps a connection to a peer: while there is none it tries to make
// one. Attempts begin at least a Pause apart, so a connection that lasted that
// long is replaced at once. All functions are called by Run's goroutine.
type Keeper struct {
	Config Config                                  // of its connections; Config.Handler is ignored
	Dial   func(context.Context) (net.Conn, error) // required
	Pause  func() time.Duration                    // the timer Tc (RFC 6733, Section 2.1); required
	Opened func(*Conn) Handler                     // a connection has exchanged capabilities, and is served next; required
	Closed func(error)                             // it has ended, and why; required
	Failed func(err error, again bool)             // an attempt or a connection has; again: for the same reason as before; required
	Left   func()                                  // the peer asked to be left alone; nil for nothing
	Wanted chan struct{}                           // room for one; receives when such a peer is wanted all the same; required
}

// Run keeps the connection until ctx ends. It then takes leave of the peer
// (Disconnect-Cause REBOOTING) and returns.
func (k *Keeper) Run(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		start := time.Now()
		err := k.serve(ctx)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) { // we took leave
			return
		}
		k.Failed(err, err.Error() == last)
		last = err.Error()
		if !sleep(ctx, k.Pause()-time.Since(start)) {
			return
		}
		var left *DisconnectError
		if errors.As(err, &left) && left.Cause != avp.Rebooting {
			// RFC 6733, Section 5.4: no periodic attempts; only when
			// there is something to send and nobody else to take it. What
			// was wanted before is old; it is said again if it is not.
			select {
			case <-k.Wanted:
			default:
			}
			if k.Left != nil {
				k.Left()
			}
			select {
			case <-ctx.Done():
			case <-k.Wanted:
			}
		}
	}
}

// serve connects once and serves the connection until it ends.
func (k *Keeper) serve(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	nc, err := k.Dial(dialing)
	if err != nil {
		return err
	}
	c, err := Connect(ctx, nc, k.Config)
	if err != nil {
		return err
	}
	c.Handle(k.Opened(c))
	err = c.RunUntil(ctx)
	k.Closed(err)
	return err
}

// RunUntil is Run, but that it takes leave of the peer when ctx ends
// (Disconnect-Cause REBOOTING).
func (c *Conn) RunUntil(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
		defer cancel()
		c.Disconnect(leaving, avp.Rebooting)
	})
	defer stop()
	return c.Run(context.WithoutCancel(ctx))
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
