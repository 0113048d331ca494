package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tollbridge/ipfix"
)

// batchMessages is the most Messages handed to the kernel by one system call.
const batchMessages = 64

// Run connects, sends what is exported, and connects again when a connection
// ends, to the preferred of the Collecting Processes that can be reached. It returns the error of ctx when that ends, and nil after a Close,
// which reports its own. It may be called once.
//
//	Export ──► encoder ──► queue ──► Run ── writes ──► Collecting Process
//	   ▲                     │        ▲                        │
//	   └── blocks while full ┘        └─ gone ◄── watch ◄── closes
//
// watch is one goroutine per connection other than UDP's. While a backup is
// exported to, another tries those that are preferred.
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
	r := newRoute(p.cfg.collectors())
	var now link // what to serve; none where conn is nil
	for {
		if now.conn == nil {
			next := r.next(len(r.collectors))
			if err := p.pause(ctx, next.due); err != nil {
				return err
			}
			if p.drained() {
				return nil
			}
			var err error
			if now, err = p.connect(ctx, next); err != nil {
				continue // a ctx that has ended ends the pause
			}
		}
		next, err := p.serve(ctx, r, now)
		if !errors.Is(err, errBrief) {
			now.to.succeeded(now.since, p.backoff)
		}
		if !errors.Is(err, errEnded) {
			return err
		}
		now = next
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
	return p.closing && len(p.queue.messages) == 0 && (p.keeping == nil || p.keeping.done())
}

// connect connects to one Collecting Process.
func (p *Process) connect(ctx context.Context, to *collector) (link, error) {
	to.attempt(time.Now(), p.backoff)
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	conn, err := p.dial(ctx, to.address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.counts.Failures++
		p.cfg.Log.Warn("connecting failed", "transport", p.cfg.Transport, "collector", to.address,
			"error", err, "retry", time.Until(to.due).Round(time.Millisecond), "messages_waiting", len(p.queue.messages))
		return link{}, err
	}
	p.counts.Connections++
	p.cfg.Log.Info("connected", "transport", p.cfg.Transport, "collector", conn.RemoteAddr(), "local", conn.LocalAddr())
	return link{conn, to, time.Now()}, nil
}

// dial connects and, over TLS and DTLS, makes sure who answered.
func (p *Process) dial(ctx context.Context, address string) (net.Conn, error) {
	switch p.cfg.Transport {
	case ipfix.TLS:
		return p.dialTLS(ctx, address)
	case ipfix.DTLS:
		return p.dialDTLS(ctx, address)
	case ipfix.SCTP:
		return p.dialSCTP(ctx, address)
	}
	return p.cfg.Dial(ctx, p.cfg.Transport.String(), address)
}

// errEnded is why serve returns when a connection ended that another may
// follow.
var errEnded = errors.New("export: connection ended")

// errBrief is an errEnded where the Collecting Process, or the path to it, ended
// the connection so soon that the attempt to connect counts as failed: it may
// take connections that it does not want, to close them.
var errBrief = fmt.Errorf("%w soon", errEnded)

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
	s := sender{conn: conn, cfg: p.cfg, limit: p.limit, unmeasured: p.unmeasured}
	switch p.cfg.Transport {
	case ipfix.UDP:
		return newUDP(s, s.conn)
	case ipfix.DTLS:
		return newDTLS(s)
	case ipfix.SCTP:
		return newSCTP(s)
	}
	return newTCP(s)
}

// limit sets the length of the Messages from here on.
func (p *Process) limit(maxMessage int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if maxMessage == p.longest {
		return
	}
	p.cutLocked()
	p.encoder, p.longest = ipfix.NewEncoder(p.cfg.Domain, maxMessage), maxMessage
}

// serve sends over one connection until it ends, or one to a preferred
// Collecting Process stands, which it returns. The error is nil after a Close,
// and errEnded where Run is to go on.
func (p *Process) serve(ctx context.Context, r *route, on link) (link, error) {
	better := p.prefer(ctx, r, on)
	send := p.send
	if p.keeping != nil {
		send = p.sendKept
	}
	err := send(ctx, on, better.found)
	next := better.stop()
	if next.conn != nil && !errors.Is(err, errEnded) {
		next.conn.Close() // it came too late to be of use
		next = link{}
	}
	return next, err
}

// send sends over one connection until it ends or a better one was found.
func (p *Process) send(ctx context.Context, on link, found <-chan struct{}) error {
	c := p.carrier(on.conn)
	defer c.close()
	defer context.AfterFunc(ctx, func() { on.conn.Close() })() // ends a write that blocks

	linger := time.NewTicker(p.cfg.Linger)
	defer linger.Stop()
	batch := make([]message, 0, batchMessages)
	for {
		select {
		case err := <-c.gone():
			return p.ended(ctx, on, err)
		case <-found:
			return p.moved(ctx, on, c)
		default:
		}
		var closing bool
		var templates []*ipfix.Template
		batch, templates, closing = p.head(batch[:0])
		n, err := c.send(batch, templates)
		p.sent(n, c.take())
		switch {
		case err != nil:
			return p.ended(ctx, on, err)
		case len(batch) > 0:
			continue // there may be more
		case closing:
			err := c.finish(ctx)
			p.sent(0, c.take())
			return err
		}
		select {
		case err := <-c.gone():
			return p.ended(ctx, on, err)
		case <-ctx.Done():
			return ctx.Err()
		case <-found:
			return p.moved(ctx, on, c)
		case <-linger.C:
			if err := c.refresh(templates); err != nil {
				return p.ended(ctx, on, err)
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
	p.progressLocked()
}

// progressLocked wakes who waits for room.
func (p *Process) progressLocked() {
	if p.progress != nil {
		close(p.progress)
		p.progress = nil
	}
}

// ended notes the end of a connection, and whether it was orderly.
func (p *Process) ended(ctx context.Context, on link, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // it was us
	}
	if errors.Is(err, errRenew) {
		return errEnded
	}
	ended := errEnded
	if time.Since(on.since) < p.cfg.Reconnect {
		ended = errBrief
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.cfg.Log.Info("collecting process closed the connection", "collector", on.to.address)
		return ended
	}
	p.counts.Broken++
	p.cfg.Log.Warn("connection broke, what was under way may be lost", "collector", on.to.address,
		"error", err, "messages_waiting", len(p.queue.messages))
	return fmt.Errorf("%w: %w", ended, err)
}

// leaveTimeout bounds how long a Collecting Process may take to read what it
// was sent, once a preferred one can be reached.
const leaveTimeout = 10 * time.Second

// moved ends a connection in an orderly way, as a better one stands.
func (p *Process) moved(ctx context.Context, on link, c interface{ finish(context.Context) error }) error {
	leaving, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := c.finish(leaving); err != nil {
		return p.ended(ctx, on, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Moved++
	p.cfg.Log.Info("moving to a preferred collecting process", "from", on.to.address)
	return errEnded
}
