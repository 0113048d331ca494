package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/dict/avp"
)

// Limits where nothing else is configured.
const (
	DefaultMaxMessage = 1 << 20 // octets
	DefaultTimeout    = 10 * time.Second
	readBuffer        = 64 << 10
	maxBacklog        = 1 << 20 // octets; Answer blocks above
	linger            = 5 * time.Second
)

// A Config says who we are on a connection and whom we expect.
type Config struct {
	Node       Node             // required
	Peer       string           // Origin-Host expected; "" takes any
	Admit      func(Node) error // refuses a peer that connects to us, by a *Refusal or else with 3010; nil takes any
	Handler    Handler          // required; but see Handle
	Table      *Table           // that the connection goes into; nil for none
	Watchdog   *Watchdog        // the peer's, over its connections; nil makes one of DefaultWatchdog
	Written    func([]byte)     // called with what each write has put on its way; nil for nothing
	MaxMessage int              // octets of the longest message taken; 0 means DefaultMaxMessage
	Timeout    time.Duration    // of the capabilities exchange, and of one write; 0 means DefaultTimeout
	Log        *slog.Logger     // nil discards
}

// A Handler takes what is not the base protocol's own. Receive and Flush are
// called by one goroutine; while it is busy there, nothing is read, and the
// peer is held up by its transport.
type Handler interface {
	// Receive takes a request, or an answer that nobody has matched yet. It
	// is valid until Receive returns. A request that Receive does not serve,
	// false, is answered with DIAMETER_COMMAND_UNSUPPORTED; an answer that it
	// does not, goes to who else uses the connection.
	Receive(m Message) bool
	// Flush follows the last of some messages that were read at once.
	Flush()
	// Changed says that Status may have changed. It may be
	// called by several goroutines at once and must not block.
	Changed()
}

// A Conn is one connection to a peer, after its capabilities exchange. Its
// methods may be called by many goroutines at once.
type Conn struct {
	cfg    Config
	nc     net.Conn
	r      *bufio.Reader
	local  Node
	remote Node
	try    bool        // send a DWR first
	dialed bool        // initiated by us
	hungry bool        // messages were handed over since the last Flush
	linger *time.Timer // closes the connection that a peer should close; nil until then

	reading atomic.Bool // from nc; not while Handler is busy

	wake chan struct{} // out is not empty
	done chan struct{} // closed with err set

	mu       sync.Mutex
	room     sync.Cond // out is empty, or the connection closed
	watchdog *Watchdog
	out      []byte // to be written
	answers  int    // octets of answers in out
	hop, end uint32 // the identifiers of our latest request of the base protocol
	dwr      [2]uint32
	dpr      [2]uint32
	heard    chan struct{} // closed when the next message comes; nil while nobody waits for one
	proven   bool
	leaving  bool
	cause    *DisconnectError // the peer's
	err      error
}

func newConn(nc net.Conn, cfg Config) (*Conn, error) {
	if err := cfg.Node.Check(); err != nil {
		return nil, err
	}
	if cfg.Watchdog == nil {
		w, err := NewWatchdog(0)
		if err != nil {
			return nil, err
		}
		cfg.Watchdog = w
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = DefaultMaxMessage
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	local := cfg.Node
	if cfg.Table != nil {
		local = cfg.Table.Node()
	}
	c := &Conn{
		cfg: cfg, nc: nc, r: bufio.NewReaderSize(nc, readBuffer), local: local.filled(nc.LocalAddr()),
		watchdog: cfg.Watchdog, wake: make(chan struct{}, 1), done: make(chan struct{}),
		hop: rand.Uint32(),
		// RFC 6733, Section 3: the time in the high 12 bits, so that a
		// restarted node does not repeat itself.
		end: uint32(time.Now().Unix())<<20 | rand.Uint32()>>12,
	}
	c.room.L = &c.mu
	return c, nil
}

// Handle makes h the connection's Handler, in place of Config's. It is called
// before Run.
func (c *Conn) Handle(h Handler) { c.cfg.Handler = h }

// adopt makes a connection that the peer has made, and that is not served yet,
// like one that was made by cfg.
func (c *Conn) adopt(cfg Config) {
	c.try, c.cfg.Written = true, cfg.Written
	if cfg.Watchdog != nil {
		c.watchdog = cfg.Watchdog
	}
}

// Shared reports whether there is somebody else on the connection who may know
// an answer that the Handler does not (see Table).
func (c *Conn) Shared() bool {
	_, ok := c.cfg.Handler.(both)
	return ok
}

// Remote returns what the peer said of itself.
func (c *Conn) Remote() Node { return c.remote }

// Transport returns what the connection runs on, to be looked at.
func (c *Conn) Transport() net.Conn { return c.nc }

// Initiated reports whether this node has made the connection, not the peer.
func (c *Conn) Initiated() bool { return c.dialed }

// Local returns what was said to the peer.
func (c *Conn) Local() Node { return c.local }

// A Status is what a connection is good for.
type Status struct {
	State State
	// Proven says that a watchdog was answered on this connection. Some
	// servers lose the answer to the first request behind CEA, so an
	// initiator waits for it.
	Proven bool
	// Leaving says that either side has sent a DPR, or that the connection
	// is closed: no new request may be sent (RFC 6733, Section 5.4).
	Leaving bool
}

// Status returns what the connection is good for now.
func (c *Conn) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return Status{Down, c.proven, true} // the Watchdog may serve another connection already
	}
	return Status{c.watchdog.State(), c.proven, c.leaving}
}

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Send queues whole messages, one after the other in b, which it copies. All
// that is queued leaves in one write. It does not block; see Answer.
func (c *Conn) Send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(b)
}

// Answer is Send for answers: it blocks while more than a mebibyte of them is
// queued, for those that answer as fast as they are asked. Requests don't count:
// whoever sends them bounds what is in flight. A peer that does not read loses
// its connection after Config.Timeout, which ends Answer too.
func (c *Conn) Answer(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sendLocked(b); err != nil {
		return err
	}
	for c.answers += len(b); c.answers > maxBacklog && c.err == nil; {
		c.room.Wait()
	}
	return nil
}

func (c *Conn) sendLocked(b []byte) error {
	if c.err != nil {
		return c.err
	}
	c.out = append(c.out, b...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// lives asks the peer with a DWR whether the connection is still good, and
// reports whether anything came within a time. What is not read because we are
// busy ourselves proves nothing against the peer.
func (c *Conn) lives(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c.mu.Lock()
	if c.heard == nil {
		c.heard = make(chan struct{})
	}
	heard := c.heard
	c.mu.Unlock()
	c.act(SendWatchdog)
	select {
	case <-heard:
		return true
	case <-c.done:
		return false
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.reading.Load()
}

// abandon closes a connection that does not live: Run returns ErrSilent.
func (c *Conn) abandon() { c.close(fmt.Errorf("peer: %w", ErrSilent)) }

// Run serves the connection until it ends and returns why: a *DisconnectError
// if the peer took leave, ErrClosed after Disconnect, ErrSilent, ErrProtocol,
// the context's cause, or what the transport said. It is called once.
//
//	Run = read ──► Handler.Receive, Flush ──► Send ──► out
//	 ├─ write: out ──► net.Conn
//	 └─ watch: the watchdog's deadline
func (c *Conn) Run(ctx context.Context) error {
	if c.cfg.Handler == nil {
		panic("peer: a Conn without a Handler")
	}
	stop := context.AfterFunc(ctx, func() { c.close(context.Cause(ctx)) })
	defer stop()

	var g sync.WaitGroup
	c.mu.Lock()
	c.proven = !c.try
	act := c.watchdog.Open(time.Now(), c.try)
	c.mu.Unlock()
	c.act(act)
	c.cfg.Handler.Changed()
	g.Go(c.write)
	g.Go(c.watch)
	c.close(c.read())
	g.Wait()
	if c.linger != nil {
		c.linger.Stop()
	}
	c.cfg.Handler.Changed()
	return c.err
}

// Disconnect takes leave with a DPR and closes the connection once the DPA
// has come or ctx is done. Run must be running.
func (c *Conn) Disconnect(ctx context.Context, cause uint32) {
	c.mu.Lock()
	c.leaving = true
	b := c.request(avp.CommandDisconnectPeer, &c.dpr)
	b = c.local.appendOrigin(b)
	b = avp.AppendUint32(b, avp.DisconnectCause, 0, avp.FlagMandatory, cause)
	c.mu.Unlock()
	avp.SetLength(b)
	if c.Send(b) == nil {
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	c.close(ErrClosed)
}

// close ends the connection for the first reason given.
func (c *Conn) close(err error) {
	c.mu.Lock()
	if c.err == nil {
		if c.cause != nil {
			err = c.cause
		}
		c.err = err
		c.leaving = true
		c.watchdog.Close()
		close(c.done)
	}
	c.mu.Unlock()
	c.room.Broadcast()
	c.nc.Close()
}

// write empties the queue into the connection, all of it at once.
func (c *Conn) write() {
	var b []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b, c.out, c.answers = c.out, b[:0], 0
		c.mu.Unlock()
		c.room.Broadcast()
		if len(b) == 0 {
			continue
		}
		err := c.nc.SetWriteDeadline(time.Now().Add(c.cfg.Timeout))
		if err == nil {
			_, err = c.nc.Write(b)
		}
		if err != nil {
			c.close(fmt.Errorf("peer: write: %w", err))
			return
		}
		if c.cfg.Written != nil {
			c.cfg.Written(b)
		}
		if cap(b) > 4*maxBacklog {
			b = nil
		}
	}
}

// watch runs the watchdog's deadlines.
func (c *Conn) watch() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		now := time.Now()
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		act, before := Nothing, c.watchdog.State()
		if due := c.watchdog.Deadline(); !due.IsZero() && !now.Before(due) {
			act = c.watchdog.Expire(now)
		}
		after, wait := c.watchdog.State(), c.watchdog.Deadline().Sub(now)
		c.mu.Unlock()
		c.act(act)
		if after != before {
			c.cfg.Handler.Changed()
		}
		t.Reset(wait)
	}
}

func (c *Conn) act(act Action) {
	switch act {
	case CloseConnection:
		c.abandon()
	case SendWatchdog:
		c.mu.Lock()
		b := c.request(avp.CommandDeviceWatchdog, &c.dwr)
		c.mu.Unlock()
		b = c.local.appendOrigin(b)
		b = c.local.appendStateID(b)
		avp.SetLength(b)
		c.Send(b) //nolint:errcheck // a closed connection needs no watchdog
	}
}

// NextIDs returns Hop-by-Hop and End-to-End Identifiers for a request of an
// owner that does not give out its own.
func (c *Conn) NextIDs() (ids [2]uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hop++
	c.end++
	return [2]uint32{c.hop, c.end}
}

// request begins a request of the base protocol and notes its identifiers.
// c.mu is held.
func (c *Conn) request(command uint32, ids *[2]uint32) []byte {
	c.hop++
	c.end++
	*ids = [2]uint32{c.hop, c.end}
	return avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest, Command: command, HopByHop: c.hop, EndToEnd: c.end})
}

// alive tells the watchdog of traffic.
func (c *Conn) alive(answer bool) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.heard != nil {
		close(c.heard)
		c.heard = nil
	}
	before, proven := c.watchdog.State(), c.proven
	c.watchdog.Receive(time.Now(), answer)
	c.proven = c.proven || answer
	changed := before != c.watchdog.State() || proven != c.proven
	c.mu.Unlock()
	if changed {
		c.cfg.Handler.Changed()
	}
}

// read hands over messages until the connection ends.
func (c *Conn) read() error {
	for {
		m, err := c.next()
		if err != nil {
			c.flush()
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("peer: closed by the peer: %w", err)
			}
			return fmt.Errorf("peer: read: %w", err)
		}
		if err := c.dispatch(m); err != nil {
			c.flush()
			return err
		}
	}
}

// next reads one message, which is valid until the following call. A Message
// Length that can't be is an ErrProtocol: behind it nothing can be found.
func (c *Conn) next() (Message, error) {
	head, err := c.peek(avp.HeaderLen)
	if err != nil {
		return Message{}, err
	}
	h, err := avp.ParseHeader(head)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	n := int(h.Length)
	if n > c.cfg.MaxMessage {
		return Message{}, fmt.Errorf("%w: Message Length %d is above %d", ErrProtocol, n, c.cfg.MaxMessage)
	}
	if n > readBuffer {
		c.flush()
		big := make([]byte, n)
		c.reading.Store(true)
		_, err := io.ReadFull(c.r, big)
		c.reading.Store(false)
		if err != nil {
			return Message{}, err
		}
		c.alive(false)
		return Message{h, big}, nil
	}
	octets, err := c.peek(n)
	if err != nil {
		return Message{}, err
	}
	// What was peeked stays in place until the reader is filled again, which
	// the next peek does, after the message has been handled.
	_, err = c.r.Discard(n)
	return Message{h, octets}, err
}

// peek returns the next n octets. Where it has to wait for them, what was
// handed over before is flushed first.
func (c *Conn) peek(n int) ([]byte, error) {
	if c.r.Buffered() >= n {
		return c.r.Peek(n)
	}
	c.flush()
	c.reading.Store(true)
	b, err := c.r.Peek(n)
	c.reading.Store(false)
	if err == nil {
		c.alive(false)
	}
	return b, err
}

func (c *Conn) flush() {
	if c.hungry {
		c.hungry = false
		c.cfg.Handler.Flush()
	}
}

// dispatch serves the base protocol and hands over the rest.
func (c *Conn) dispatch(m Message) error {
	if m.Request() && m.Flags&avp.FlagError != 0 {
		c.reply(c.local.AppendError(nil, m, avp.ResultInvalidHeaderBits, "the E bit is set in a request", nil))
		return nil
	}
	switch m.Command {
	case avp.CommandCapabilitiesExchange:
		if m.Request() {
			c.reply(c.appendCEA(nil, m, nil))
		}
	case avp.CommandDeviceWatchdog:
		if m.Request() {
			b := AppendAnswerHeader(nil, m, avp.ResultSuccess)
			b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, avp.ResultSuccess)
			b = c.local.appendStateID(c.local.appendOrigin(b))
			avp.SetLength(b)
			c.reply(b)
		} else if c.ours(m, &c.dwr) {
			c.alive(true)
		}
	case avp.CommandDisconnectPeer:
		if m.Request() {
			c.leave(m)
		} else if c.ours(m, &c.dpr) {
			return ErrClosed
		}
	default:
		c.hungry = true
		if !c.cfg.Handler.Receive(m) && m.Request() {
			c.reply(c.local.AppendError(nil, m, avp.ResultCommandUnsupported, fmt.Sprintf("command %d is not supported", m.Command), nil))
		}
	}
	return nil
}

// ours reports whether m answers our request with those identifiers, which it
// then forgets.
func (c *Conn) ours(m Message, ids *[2]uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *ids == [2]uint32{} || *ids != [2]uint32{m.HopByHop, m.EndToEnd} {
		return false
	}
	*ids = [2]uint32{}
	return true
}

// reply sends an answer of the base protocol. A peer that asks and does not
// read is held up here.
func (c *Conn) reply(b []byte) {
	c.Answer(b) //nolint:errcheck // the next read fails for the same reason
}

// leave answers a DPR. Its sender closes the connection when it has the
// answer; for one that does not, we do after a while.
func (c *Conn) leave(m Message) {
	cause := uint32(avp.Rebooting)
	if a, ok := avp.Find(m.AVPs(), avp.DisconnectCause, 0); ok {
		if v, err := a.Uint32(); err == nil {
			cause = v
		}
	}
	b := AppendAnswerHeader(nil, m, avp.ResultSuccess)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, avp.ResultSuccess)
	b = c.local.appendOrigin(b)
	avp.SetLength(b)
	c.reply(b)
	c.mu.Lock()
	first := c.cause == nil
	c.leaving = true
	c.cause = &DisconnectError{cause}
	c.mu.Unlock()
	if first {
		c.linger = time.AfterFunc(linger, func() { c.close(&DisconnectError{cause}) })
	}
	c.cfg.Handler.Changed()
}
