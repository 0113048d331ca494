package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tollbridge/ipfix"
)

// connectTimeout bounds one attempt to connect.
const connectTimeout = 30 * time.Second

// batchMessages is the most Messages handed to the kernel by one system call.
const batchMessages = 64

// Run connects, sends what is exported, and connects again when a connection
// ends. It returns the error of ctx when that ends, and nil after a Close,
// which reports its own. It may be called once.
//
//	Export ──► encoder ──► queue ──► Run ── writes ──► Collecting Process
//	   ▲                     │        ▲                        │
//	   └── blocks while full ┘        └─ gone ◄── watch ◄── closes (TCP)
//
// watch is one goroutine per TCP connection.
func (p *Process) Run(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if p.cancel != nil {
		p.mu.Unlock()
		return errors.New("export: Run was called before")
	}
	p.cancel = cancel
	p.mu.Unlock()
	defer close(p.done)

	p.err = p.run(running)
	return ctx.Err()
}

func (p *Process) run(ctx context.Context) error {
	var next time.Time // no attempt to connect before it
	for {
		if err := p.pause(ctx, next); err != nil {
			return err
		}
		if p.drained() {
			return nil
		}
		next = time.Now().Add(p.cfg.Reconnect)
		conn, err := p.connect(ctx)
		if err != nil {
			continue // a ctx that has ended ends the pause
		}
		if err := p.serve(ctx, conn); !errors.Is(err, errEnded) {
			return err
		}
	}
}

// pause waits until a time, or until nothing is left to be sent.
func (p *Process) pause(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for !p.drained() {
		select {
		case <-timer.C:
			return ctx.Err()
		case <-p.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// drained reports whether Close was called and nothing is left to be sent.
func (p *Process) drained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing && len(p.queue.messages) == 0
}

func (p *Process) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := p.cfg.Dial(ctx, p.cfg.Transport.String(), p.cfg.Address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.counts.Failures++
		p.cfg.Log.Warn("connecting failed", "transport", p.cfg.Transport, "collector", p.cfg.Address,
			"error", err, "retry", p.cfg.Reconnect, "messages_waiting", len(p.queue.messages))
		return nil, err
	}
	p.counts.Connections++
	p.cfg.Log.Info("connected", "transport", p.cfg.Transport, "collector", conn.RemoteAddr(), "local", conn.LocalAddr())
	return conn, nil
}

// errEnded is why serve returns when a connection ended that another may
// follow.
var errEnded = errors.New("export: connection ended")

// A carrier sends Messages over one connection, as its transport asks.
type carrier interface {
	// send sends the first Messages of a batch, in order, with the Templates
	// they need before them. It returns how many need not be sent again.
	send(batch []message, templates []*ipfix.Template) (int, error)

	// refresh sends Templates again that are due.
	refresh(templates []*ipfix.Template) error

	// finish ends the Transport Session after the last Message.
	finish(ctx context.Context) error

	// gone receives when the Collecting Process has ended the connection: nil
	// if it closed its end, else why it broke.
	gone() <-chan error

	// take returns what was counted since the call before.
	take() Stats

	// close closes the connection and ends what the carrier started.
	close()
}

func (p *Process) carrier(conn net.Conn) carrier {
	s := sender{conn: conn, cfg: p.cfg}
	if p.cfg.Transport == ipfix.UDP {
		return newUDP(s)
	}
	return newTCP(s)
}

// serve sends over one connection until it ends. The error is nil after a
// Close, and errEnded where Run is to connect again.
func (p *Process) serve(ctx context.Context, conn net.Conn) error {
	c := p.carrier(conn)
	defer c.close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends a write that blocks

	linger := time.NewTicker(p.cfg.Linger)
	defer linger.Stop()
	batch := make([]message, 0, batchMessages)
	for {
		select {
		case err := <-c.gone():
			return p.ended(ctx, err)
		default:
		}
		var closing bool
		var templates []*ipfix.Template
		batch, templates, closing = p.head(batch[:0])
		n, err := c.send(batch, templates)
		p.sent(n, c.take())
		switch {
		case err != nil:
			return p.ended(ctx, err)
		case len(batch) > 0:
			continue // there may be more
		case closing:
			return c.finish(ctx)
		}
		select {
		case err := <-c.gone():
			return p.ended(ctx, err)
		case <-ctx.Done():
			return ctx.Err()
		case <-linger.C:
			if err := c.refresh(templates); err != nil {
				return p.ended(ctx, err)
			}
			p.sent(0, c.take())
			p.mu.Lock()
			p.cutLocked()
			p.mu.Unlock()
		case <-p.ready:
		}
	}
}

func (p *Process) head(batch []message) ([]message, []*ipfix.Template, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.head(batch), p.templates, p.closing
}

// sent takes n Messages from the queue and adds what was counted.
func (p *Process) sent(n int, counted Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.add(counted)
	if n == 0 {
		return
	}
	p.queue.pop(n)
	if p.progress != nil {
		close(p.progress)
		p.progress = nil
	}
}

// ended notes the end of a connection, and whether it was orderly.
func (p *Process) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // it was us
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.cfg.Log.Info("collecting process closed the connection", "collector", p.cfg.Address)
		return errEnded
	}
	p.counts.Broken++
	p.cfg.Log.Warn("connection broke, what was under way may be lost", "collector", p.cfg.Address,
		"error", err, "messages_waiting", len(p.queue.messages))
	return fmt.Errorf("%w: %w", errEnded, err)
}
