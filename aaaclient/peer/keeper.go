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
// long is replaced at once. All functions but Proves are called by Run's
// goroutine.
//
// A Keeper that a Table has (Table.Keep) takes a connection that the peer makes
// as its own. Where an attempt has given way to one that is over before it is
// taken, the next begins at once.
type Keeper struct {
	Config Config                                  // of its connections; Config.Handler is ignored
	Dial   func(context.Context) (net.Conn, error) // required
	Pause  func() time.Duration                    // the timer Tc (RFC 6733, Section 2.1); required
	Opened func(*Conn) Handler                     // a connection has exchanged capabilities, and is served next; required
	Closed func(error)                             // it has ended, and why; required
	Failed func(err error, again bool)             // an attempt or a connection has; again: for the same reason as before; required
	Left   func()                                  // the peer asked to be left alone; nil for nothing
	Wanted chan struct{}                           // room for one; receives when such a peer is wanted all the same; required
	Proves func(context.Context, net.Conn) error   // what the peer has made proves as much as what Dial makes, or a *Refusal; nil takes all

	table *Table
	given chan *Conn // by table: the peer has made it; nil without
}

// Run keeps the connection until ctx ends. It then takes leave of the peer
// (Disconnect-Cause REBOOTING) and returns.
func (k *Keeper) Run(ctx context.Context) {
	last := ""
	var given *Conn
	if k.table != nil {
		defer func() { k.table.leave(k, given) }()
	}
	for ctx.Err() == nil {
		start := time.Now()
		err := k.serve(ctx, given)
		given = nil
		if ctx.Err() != nil || errors.Is(err, ErrClosed) { // we took leave
			return
		}
		if errors.Is(err, errYielded) {
			given = k.wait(ctx, nil, k.table.over(k.Config.Peer))
			continue
		}
		k.Failed(err, err.Error() == last)
		last = err.Error()
		pause := time.NewTimer(k.Pause() - time.Since(start))
		given = k.wait(ctx, pause.C, nil)
		pause.Stop()
		if given != nil || ctx.Err() != nil {
			continue
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
			given = k.wait(ctx, nil, k.Wanted)
		}
	}
}

// wait waits for one of the channels, for ctx to end, or for a connection that
// the peer has made.
func (k *Keeper) wait(ctx context.Context, due <-chan time.Time, event <-chan struct{}) *Conn {
	select {
	case <-ctx.Done():
	case <-due:
	case <-event:
	case c := <-k.given:
		return c
	}
	return nil
}

// serve serves a connection until it ends: the one given, or else one that it
// makes.
func (k *Keeper) serve(ctx context.Context, c *Conn) error {
	if c == nil {
		var err error
		if c, err = k.connect(ctx); err != nil {
			return err
		}
	} else {
		c.adopt(k.Config)
	}
	h := k.Opened(c)
	if k.table != nil {
		return k.table.run(ctx, c, h, k.Closed)
	}
	c.Handle(h)
	err := c.RunUntil(ctx)
	k.Closed(err)
	return err
}

// connect makes a connection, or returns errYielded where the peer has.
func (k *Keeper) connect(ctx context.Context) (*Conn, error) {
	a, ctx, err := k.table.attempt(ctx, k.Config.Peer)
	if err != nil {
		return nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	nc, err := k.Dial(dialing)
	if err != nil {
		return nil, a.failed(err)
	}
	if err := a.acked(); err != nil {
		nc.Close()
		return nil, err
	}
	cfg := k.Config
	cfg.Table = k.table
	c, err := Connect(ctx, nc, cfg)
	if err != nil {
		return nil, a.failed(err)
	}
	if err := a.opened(c); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
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
