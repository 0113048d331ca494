package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tollbridge/dict/avp"
)

// DefaultProbe is how long a connection has to prove that it is good when its
// peer connects again.
const DefaultProbe = 3 * time.Second

// A Table is the peer table of one Diameter node (RFC 6733, Section 2.6). It
// holds the node to one connection with each peer (Section 2.1), whichever of
// the two has initiated it, and decides the election where both do at once
// (Section 5.6.4).
//
// What asks the peers (a Keeper for each) and what serves their requests share
// the connections: those that a Keeper makes serve requests too, and one that
// a peer makes is given to its Keeper. Methods may be called by many
// goroutines at once.
type Table struct {
	probe time.Duration

	mu      sync.Mutex
	node    Node
	service Service // nil for none
	entries map[string]*entry
}

// A Service takes what peers ask on a connection, which it may use to ask the
// peer too. It returns nil for a peer that may not ask. What it has begun for
// the connection ends with that, which done waits for.
type Service func(c *Conn) (h Handler, done func())

// An entry is one peer. It is in the Table while there is, or may come to be, a
// connection.
type entry struct {
	phase   phase
	keeper  *Keeper       // nil for a peer that is not connected to
	attempt *attempt      // in waitConnAck, waitICEA, waitReturns
	waiting *waiting      // in waitReturns
	conn    *Conn         // in rOpen, iOpen
	free    chan struct{} // likewise: closed when that is over
}

// waiting is a CER that the peer's answer to ours decides about.
type waiting struct {
	conn    *Conn
	verdict chan action // rSndCEA or rDisc
}

// NewTable returns the Table of a node that has not said yet who it is. A
// connection has probe to prove that it is good when its peer connects again, 0
// for DefaultProbe.
func NewTable(probe time.Duration) *Table {
	if probe == 0 {
		probe = DefaultProbe
	}
	return &Table{probe: probe, entries: map[string]*entry{}}
}

// Join adds what n has to what the node says of itself in a capabilities
// exchange. All that join are the same node. It is called before there are
// connections.
func (t *Table) Join(n Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node.OriginHost == "" {
		t.node = n
		return nil
	}
	if !avp.EqualIdentity(t.node.OriginHost, n.OriginHost) || !avp.EqualIdentity(t.node.OriginRealm, n.OriginRealm) {
		return fmt.Errorf("peer: %s of %s and %s of %s are two nodes, which share no connections", t.node.OriginHost, t.node.OriginRealm, n.OriginHost, n.OriginRealm)
	}
	for to, from := range map[*[]uint32][]uint32{&t.node.Accounting: n.Accounting, &t.node.Auth: n.Auth, &t.node.Vendors: n.Vendors} {
		*to = slices.Clone(*to)
		for _, v := range from {
			if !slices.Contains(*to, v) {
				*to = append(*to, v)
			}
		}
	}
	return nil
}

// Node returns what the node says of itself.
func (t *Table) Node() Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.node
}

// Serve makes s take what the peers ask. It is called before there are
// connections, once.
func (t *Table) Serve(s Service) { t.service = s }

// Keep has k keep the connections with its peer, Config.Peer, from now until
// its Run ends: no other Keeper does, and it is given those that the peer
// makes.
func (t *Table) Keep(k *Keeper) error {
	if k.Config.Peer == "" {
		return errors.New("peer: a connection can only be shared with a peer whose Origin-Host is known")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.atLocked(k.Config.Peer)
	if e.keeper != nil {
		return fmt.Errorf("peer: %s is another peer's Origin-Host too, and a peer has one connection (RFC 6733, Section 2.1)", k.Config.Peer)
	}
	e.keeper, k.table, k.given = k, t, make(chan *Conn, 1)
	return nil
}

// leave is the end of Keep. Of a connection that the peer has made, and which k
// was given in vain (nil for none), leave is taken.
func (t *Table) leave(k *Keeper, given *Conn) {
	t.mu.Lock()
	t.atLocked(k.Config.Peer).keeper = nil
	t.tidyLocked(k.Config.Peer)
	t.mu.Unlock()
	if given == nil {
		select {
		case given = <-k.given:
		default:
			return
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	t.run(over, given, nobody{}, func(error) {}) //nolint:errcheck // that we took leave
}

// nobody asks nothing.
type nobody struct{}

func (nobody) Receive(Message) bool { return false }
func (nobody) Flush()               {}
func (nobody) Changed()             {}

// Run serves a connection that Accept has returned until it ends and returns
// why, as Conn.Run does. Where the peer has a Keeper, that does so; then Run
// also returns, nil, when ctx ends, which ends other connections as RunUntil
// has it.
func (t *Table) Run(ctx context.Context, c *Conn) error {
	t.mu.Lock()
	k := t.atLocked(c.remote.OriginHost).keeper
	if k != nil {
		k.given <- c // has room: a peer has one connection
	}
	t.mu.Unlock()
	if k == nil {
		return t.run(ctx, c, nil, func(error) {})
	}
	select {
	case <-ctx.Done():
		return nil
	case <-c.done:
		return c.err
	}
}

// run serves a connection for those that ask, nil for nobody, and for the
// Service.
func (t *Table) run(ctx context.Context, c *Conn, asks Handler, closed func(error)) error {
	var serves Handler
	if t.service != nil {
		var done func()
		if serves, done = t.service(c); serves != nil {
			defer done()
		}
	}
	switch {
	case asks == nil && serves == nil:
		panic("peer: internal error: a connection that nobody uses")
	case asks == nil:
		c.Handle(serves)
	case serves == nil:
		c.Handle(asks)
	default:
		c.Handle(both{asks, serves})
	}
	err := c.RunUntil(ctx)
	closed(err)
	t.release(c)
	return err
}

// both are those who ask on a connection and those who serve.
type both struct{ asks, serves Handler }

// Receive hands over what was read for those who ask before those who serve take
// their time.
func (b both) Receive(m Message) bool {
	if m.Request() {
		b.asks.Flush()
	} else if b.asks.Receive(m) {
		return true
	}
	return b.serves.Receive(m)
}

func (b both) Flush() {
	b.asks.Flush()
	b.serves.Flush()
}

func (b both) Changed() {
	b.asks.Changed()
	b.serves.Changed()
}

func (t *Table) atLocked(host string) *entry {
	host = avp.FoldIdentity(host)
	e := t.entries[host]
	if e == nil {
		e = new(entry)
		t.entries[host] = e
	}
	return e
}

// tidyLocked forgets a peer of which there is nothing to remember.
func (t *Table) tidyLocked(host string) {
	host = avp.FoldIdentity(host)
	if e := t.entries[host]; e != nil && e.phase == closed && e.keeper == nil {
		delete(t.entries, host)
	}
}

// step has h happen, which can't be impossible.
func (e *entry) step(h happening, wins bool) action {
	to, do, ok := e.phase.next(h, wins)
	if !ok {
		panic(fmt.Sprintf("peer: internal error: event %d in state %d", h, e.phase))
	}
	e.phase = to
	return do
}

func (e *entry) open(c *Conn) { e.conn, e.free = c, make(chan struct{}) }

// release says that c is not, or no more, the connection of its peer.
func (t *Table) release(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.atLocked(c.remote.OriginHost)
	if e.conn == c {
		e.step(ended, false)
		close(e.free)
		e.conn, e.free = nil, nil
	}
	t.tidyLocked(c.remote.OriginHost)
}

// accept decides about the CER of a peer that is admitted: nil makes c its
// connection, which a *Refusal does not. While an election is undecided it
// waits. A connection that stands stays (R-Reject), so that nobody can push a
// peer out. But the peer may have lost it without our knowledge: one that
// answers no watchdog now gives way at once, where Section 5.6 would have the
// peer come back later.
func (t *Table) accept(ctx context.Context, c *Conn) error {
	host := c.remote.OriginHost
	var suited *Keeper
	for {
		t.mu.Lock()
		e := t.atLocked(host)
		if k := e.keeper; k != suited {
			t.mu.Unlock()
			if k != nil {
				if err := k.suits(ctx, c); err != nil {
					return err
				}
			}
			suited = k
			continue
		}
		do := e.step(rConnCER, wins(c.local.OriginHost, host))
		if do&iDisc != 0 {
			e.attempt.giveUpLocked()
		}
		if do&rSndCEA != 0 {
			e.open(c)
			t.mu.Unlock()
			return nil
		}
		former, free := e.conn, e.free
		var w *waiting
		if do&rReject == 0 {
			w = &waiting{c, make(chan action, 1)}
			e.waiting = w
		}
		t.mu.Unlock()
		switch {
		case w != nil:
			return t.await(ctx, e, w)
		case former != nil && !former.lives(ctx, t.probe):
			if ctx.Err() != nil {
				return context.Cause(ctx) // we stop: that says nothing about the former
			}
			former.abandon()
			select {
			case <-free:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return &Refusal{Code: avp.ResultUnableToComply, Message: host + " has a connection already, and a peer has one (RFC 6733, Section 2.1)"}
	}
}

// await waits in Wait-Returns for what the peer makes of our own CER.
func (t *Table) await(ctx context.Context, e *entry, w *waiting) error {
	var do action
	select {
	case do = <-w.verdict:
	case <-ctx.Done():
		t.mu.Lock()
		if e.waiting == w {
			e.step(rEnded, false)
			e.waiting, do = nil, rReject
		} else {
			do = <-w.verdict
		}
		t.mu.Unlock()
	}
	switch do {
	case rSndCEA:
		return nil
	case rDisc:
		return &Refusal{Code: avp.ResultElectionLost, Message: "the connection of " + w.conn.local.OriginHost + " stays"}
	}
	return context.Cause(ctx)
}

// suits reports, by a *Refusal, whether a connection that the peer has made
// serves k as one of its own would.
func (k *Keeper) suits(ctx context.Context, c *Conn) error {
	if k.Proves != nil {
		if err := k.Proves(ctx, c.nc); err != nil {
			return err
		}
	}
	return checkCommon(k.Config.Node.filled(c.nc.LocalAddr()), c.remote)
}

// An attempt is one of ours to connect. A nil attempt is one of a node whose
// peers do not connect to it: nothing gets in its way.
type attempt struct {
	table *Table
	entry *entry
	stop  context.CancelCauseFunc // ends it
}

// errYielded says that the connection which the peer has made is there in place of
// ours.
var errYielded = errors.New("the peer has connected to us")

// attempt begins one (Start), unless there is a connection: errYielded. It ends
// by opened or failed. It goes on within the context that is returned.
func (t *Table) attempt(ctx context.Context, host string) (*attempt, context.Context, error) {
	if t == nil {
		return nil, ctx, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.atLocked(host)
	if e.phase != closed {
		return nil, nil, errYielded
	}
	e.step(iStart, false)
	ctx, stop := context.WithCancelCause(ctx)
	e.attempt = &attempt{t, e, stop}
	return e.attempt, ctx, nil
}

// stepped takes the state machine's step for what happened to the attempt, and
// has do follow it, with the table locked. It returns errYielded where the
// attempt was given up before.
func (a *attempt) stepped(h happening, do func(e *entry, then action) error) error {
	a.table.mu.Lock()
	defer a.table.mu.Unlock()
	if a.entry.attempt != a {
		return errYielded
	}
	return do(a.entry, a.entry.step(h, false))
}

// acked says that the transport stands (I-Rcv-Conn-Ack). After errYielded no
// CER may be sent on it.
func (a *attempt) acked() error {
	if a == nil {
		return nil
	}
	return a.stepped(iRcvConnAck, func(*entry, action) error { return nil })
}

// opened says that the peer's CEA is there (I-Rcv-CEA). Without an error c is
// the connection with it.
func (a *attempt) opened(c *Conn) error {
	if a == nil {
		return nil
	}
	return a.stepped(iRcvCEA, func(e *entry, then action) error {
		if then&rDisc != 0 {
			e.waiting.verdict <- rDisc
			e.waiting = nil
		}
		a.giveUpLocked()
		e.open(c)
		return nil
	})
}

// failed says that the attempt has failed and returns err, or errYielded where
// the peer's own connection is there in its place.
func (a *attempt) failed(err error) error {
	if a == nil {
		return err
	}
	return a.stepped(iEnded, func(e *entry, then action) error {
		a.giveUpLocked()
		if then&rSndCEA != 0 {
			e.open(e.waiting.conn)
			e.waiting.verdict <- rSndCEA
			e.waiting = nil
			return errYielded
		}
		return err
	})
}

// giveUpLocked ends the attempt.
func (a *attempt) giveUpLocked() {
	a.entry.attempt = nil
	a.stop(errYielded)
}

// over returns what is closed when the present connection with a host is over.
func (t *Table) over(host string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.atLocked(host); e.free != nil {
		return e.free
	}
	none := make(chan struct{})
	close(none)
	return none
}
