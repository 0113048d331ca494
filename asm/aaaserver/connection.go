package aaaserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// maxOctets bounds the requests of a connection that wait for the store.
const maxOctets = 4 << 20

// A connection reads requests into one batch while another is being stored,
// so that a store that takes longer gets more at once. While both are full,
// nothing is read.
//
//	peer.Conn ──► Receive ──► batch ──► store ──► Store, Pipeline ──► answers ──► peer.Conn
type connection struct {
	server *Server
	log    *slog.Logger
	conn   *peer.Conn

	origin  string // the peer's Origin-Host
	speaker *Peer  // who that is; nil for one who may speak for anybody

	asked asked

	mu   sync.Mutex
	cond sync.Cond // next has changed
	next *batch
}

// A batch is a number of requests with the octets that they point to.
type batch struct {
	octets   []byte
	requests []request
}

// attach has s serve the requests of a connection, whoever made it, until it
// ends (peer.Service).
func (s *Server) attach(conn *peer.Conn) (peer.Handler, func()) {
	origin, nc := conn.Remote().OriginHost, conn.Transport()
	speaker, err := s.admit(nc, conn.Remote())
	if err == nil {
		err = s.hears(conn, speaker)
	}
	if err != nil {
		s.logRefused(slog.LevelInfo, "peer may not send requests", origin, "peer", origin, "reason", err)
		return nil, nil
	}
	c := &connection{
		server: s, log: s.cfg.Log.With("remote", nc.RemoteAddr()),
		conn: conn, origin: origin, speaker: speaker, next: new(batch),
	}
	c.cond.L = &c.mu
	key := avp.FoldIdentity(origin)
	s.mu.Lock()
	s.conns[key] = c
	s.mu.Unlock()
	var g sync.WaitGroup
	g.Go(func() { c.store(context.Background()) })
	g.Go(func() {
		<-conn.Done()
		c.wake()
	})
	return c, func() {
		g.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conns[key] == c {
			delete(s.conns, key)
		}
	}
}

// hears returns why a peer that is admitted may not ask on conn. One that a
// client has made proves no less than those that Serve takes, and that anybody
// may connect is not said of those to whom we do.
func (s *Server) hears(conn *peer.Conn, speaker *Peer) error {
	nc, secure := conn.Transport().(*tls.Conn)
	switch {
	case conn.Initiated() && speaker == nil:
		return errors.New("we have connected to it, and no client or relay is configured")
	case !secure && !s.allowed(conn.Transport().RemoteAddr()):
		return errors.New("address is not allowed")
	case !secure || !conn.Initiated():
		return nil
	case s.cfg.Credentials == nil:
		return errors.New("the server has no authorities to vouch for its certificate")
	}
	return s.cfg.Credentials.Verify(nc, true)
}

// Receive takes an Accounting-Request (peer.Handler).
func (c *connection) Receive(m peer.Message) bool {
	if !m.Request() {
		if (m.Command == avp.CommandAbortSession || m.Command == avp.CommandReAuth) && c.asked.answered(m) {
			return true
		}
		c.server.count.strange.Add(1)
		return true
	}
	if m.Command != avp.CommandAccounting {
		c.server.count.strange.Add(1)
		return false
	}
	c.server.count.requests.Add(1)
	if m.Flags&avp.FlagRetransmitted != 0 {
		c.server.count.retransmitted.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.fullLocked() {
		c.cond.Broadcast()
		if c.ended() {
			return true
		}
		c.cond.Wait()
	}
	// A batch that grows leaves earlier requests with the octets they had.
	start := len(c.next.octets)
	c.next.octets = append(c.next.octets, m.Octets...)
	m.Octets = c.next.octets[start:len(c.next.octets):len(c.next.octets)]
	r := request{message: m, speaker: c.speaker}
	c.server.read(&r)
	c.next.requests = append(c.next.requests, r)
	return true
}

func (c *connection) fullLocked() bool {
	return len(c.next.requests) >= c.server.cfg.Batch || len(c.next.octets) > maxOctets
}

// Flush lets the store begin (peer.Handler).
func (c *connection) Flush() { c.wake() }

// Changed does nothing: requests are taken whatever the watchdog says.
func (c *connection) Changed() {}

func (c *connection) wake() {
	c.mu.Lock() // whoever is about to wait has begun to
	c.cond.Broadcast()
	c.mu.Unlock()
}

// ended reports whether the connection is closed.
func (c *connection) ended() bool {
	select {
	case <-c.conn.Done():
		return true
	default:
		return false
	}
}

// store stores batches and answers them until the connection has ended. What
// has come by then and is not stored stays unanswered: its sender has it yet.
func (c *connection) store(ctx context.Context) {
	spare := new(batch)
	var cdrs []acct.CDR
	var answers []byte
	node := c.conn.Local()
	for {
		c.mu.Lock()
		for len(c.next.requests) == 0 && !c.ended() {
			c.cond.Wait()
		}
		b := c.next
		c.next = spare
		c.mu.Unlock()
		c.cond.Broadcast()
		if c.ended() {
			return
		}
		cdrs = c.settle(ctx, b, cdrs[:0])
		answers = answers[:0]
		for i := range b.requests {
			answers = c.server.appendAnswer(answers, &b.requests[i], node)
		}
		if c.conn.Answer(answers) == nil {
			c.server.count.answered.Add(uint64(len(b.requests)))
		}
		clear(b.requests)
		b.octets, b.requests = b.octets[:0], b.requests[:0]
		spare = b
	}
}

// settle stores what b asks for and decides all results.
//
// A request whose Session-Id and number were stored before with other content
// is a conflict. It is kept beside the first, counted and logged, and answered
// with DIAMETER_SUCCESS: it is durable here, no retry could make it better,
// and which of the two is right is for people to say.
func (c *connection) settle(ctx context.Context, b *batch, cdrs []acct.CDR) []acct.CDR {
	ctx, cancel := context.WithTimeout(ctx, c.server.cfg.Patience)
	defer cancel()
	now := time.Now()
	var taken []acct.Request
	for i := range b.requests {
		switch r := &b.requests[i]; {
		case r.result != 0:
			c.refused(r)
		case r.task != 0:
			taken = append(taken, c.taken(r))
		default:
			r.cdr.At = now
			cdrs = append(cdrs, r.cdr)
		}
	}
	if len(taken) > 0 {
		c.take(ctx, b, taken)
	}
	if len(cdrs) == 0 {
		return cdrs
	}
	outcomes, err := c.server.cfg.Store.Store(ctx, cdrs)
	result, text := uint32(avp.ResultSuccess), ""
	if err != nil || len(outcomes) != len(cdrs) {
		result, text = c.failed(len(cdrs), err)
	}
	n := 0
	for i := range b.requests {
		r := &b.requests[i]
		if r.result != 0 {
			continue
		}
		if r.result, r.text = result, text; text == "" {
			c.outcome(outcomes[n], &cdrs[n])
		}
		n++
	}
	return cdrs
}

// refused counts and logs a request that is not taken for what it says.
func (c *connection) refused(r *request) {
	c.server.count.invalid.Add(1)
	level := slog.LevelDebug
	switch r.result {
	case avp.ResultAuthorizationRejected, avp.ResultLoopDetected, avp.ResultRealmNotServed:
		level = slog.LevelWarn // the network is not as somebody thinks
	}
	c.server.logRefused(level, "request is refused", c.origin+" "+r.text, "peer", c.origin, "result_code", r.result, "reason", r.text,
		"origin_realm", r.cdr.OriginRealm)
}

// failed returns the answer to n requests that could not be stored.
func (c *connection) failed(n int, err error) (result uint32, text string) {
	c.server.count.failed.Add(uint64(n))
	c.server.logRefused(slog.LevelError, "requests can't be stored", c.origin, "peer", c.origin, "requests", n, "error", err)
	if errors.Is(err, ErrBusy) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return avp.ResultTooBusy, "the request can't be stored in time"
	}
	return avp.ResultOutOfSpace, "the request can't be stored now"
}

// taken is r as the Pipeline gets it: one to be forwarded says by whom it came
// (RFC 6733, Section 6.1.9).
func (c *connection) taken(r *request) acct.Request {
	avps := r.message.AVPs()
	if r.task == acct.RequestForward {
		avps = avp.AppendString(slices.Clip(avps), avp.RouteRecord, 0, avp.FlagMandatory, c.origin)
	}
	return acct.Request{Task: r.task, Peer: r.cdr.OriginHost, AVPs: avps}
}

// take hands requests to the Pipeline and decides their results.
func (c *connection) take(ctx context.Context, b *batch, taken []acct.Request) {
	result, text := uint32(avp.ResultSuccess), ""
	if reason, held := c.held(); held {
		result, text = avp.ResultOutOfSpace, reason
		c.server.count.failed.Add(uint64(len(taken)))
		c.server.logRefused(slog.LevelError, "requests are held off", c.origin, "peer", c.origin, "requests", len(taken), "reason", reason)
	} else if err := c.server.cfg.Pipeline.Take(ctx, taken); err != nil {
		result, text = c.failed(len(taken), err)
	}
	for i := range b.requests {
		r := &b.requests[i]
		if r.result != 0 || r.task == 0 {
			continue
		}
		r.result, r.text = result, text
		switch {
		case result != avp.ResultSuccess:
		case r.task == acct.RequestForward:
			c.server.count.forwarded.Add(1)
		case r.task == acct.RequestBinding:
			c.server.count.bindings.Add(1)
		default:
			c.server.count.flows.Add(1)
		}
	}
}

func (c *connection) held() (string, bool) {
	if c.server.cfg.Held == nil {
		return "", false
	}
	return c.server.cfg.Held()
}

func (c *connection) outcome(o acct.Outcome, cdr *acct.CDR) {
	switch o {
	case acct.Stored:
		c.server.count.stored.Add(1)
	case acct.Duplicate:
		c.server.count.duplicates.Add(1)
	case acct.Conflict:
		c.server.count.conflicts.Add(1)
		c.log.Warn("request contradicts one stored before", "session_id", cdr.SessionID, "number", cdr.Number)
	}
}
