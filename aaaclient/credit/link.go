package credit

import (
	"context"
	"errors"
	"net"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

var errForeign = errors.New("it is of another command or session")

// A link is the way to one peer. Its fields below process belong to Run's
// goroutine.
type link struct {
	process  *Process
	peer     Peer
	watchdog *peer.Watchdog
	wanted   chan struct{} // requests wait: connect to a peer that asked to be left alone

	conn   *peer.Conn // nil while there is none
	window *peer.Window[*running]
	silent int // requests that it left unanswered since its latest answer
	buf    []byte
}

// A linkEvent is something that happened on a link.
type linkEvent struct {
	link    *link
	opened  *peer.Conn
	closed  bool
	message []byte // an answer, or a request of the server
}

// keeper returns what keeps the link connected until ctx is done.
func (l *link) keeper(ctx context.Context) *peer.Keeper {
	cfg := &l.process.cfg
	log := cfg.Log.With("peer", l.peer.Address)
	h := &handler{link: l, ctx: ctx}
	return &peer.Keeper{
		Config: peer.Config{
			Node: peer.Node{OriginHost: cfg.OriginHost, OriginRealm: cfg.OriginRealm, StateID: cfg.StateID, Auth: []uint32{Application}},
			Peer: l.peer.Host, Watchdog: l.watchdog, Log: log,
		},
		Dial:  func(ctx context.Context) (net.Conn, error) { return l.peer.Dial(ctx, nil) },
		Pause: func() time.Duration { return cfg.Connect },
		Opened: func(c *peer.Conn) peer.Handler {
			log.Info("credit-control peer is connected", "origin_host", c.Remote().OriginHost)
			h.tell(linkEvent{link: l, opened: c})
			return h
		},
		Closed: func(error) { h.tell(linkEvent{link: l, closed: true}) },
		Failed: func(err error, again bool) {
			if !again {
				log.Warn("credit-control peer is not connected", "error", err)
			}
		},
		Wanted: l.wanted,
	}
}

// A handler passes messages of a connection on to Run.
type handler struct {
	link *link
	ctx  context.Context // of Run
}

func (h *handler) tell(e linkEvent) {
	select {
	case h.link.process.events <- e:
	case <-h.ctx.Done():
	}
}

func (h *handler) Receive(m peer.Message) bool {
	if m.Request() && m.Command != avp.CommandReAuth && m.Command != avp.CommandAbortSession {
		return false
	}
	h.tell(linkEvent{link: h.link, message: append([]byte(nil), m.Octets...)})
	return true
}

func (h *handler) Flush() {}

func (h *handler) Changed() {
	// Run looks at the status of the connection in each round.
	select {
	case h.link.process.events <- linkEvent{link: h.link}:
	default:
	}
}

// take takes what happened on a link.
func (p *Process) take(e linkEvent) {
	l := e.link
	switch {
	case e.opened != nil:
		l.conn, l.silent = e.opened, 0
		l.window = peer.NewWindow[*running](p.cfg.Window)
	case e.closed:
		if l.conn == nil {
			return
		}
		for _, r := range l.window.All() {
			r.waits, r.again = false, time.Time{} // to be sent again, elsewhere
		}
		l.conn, l.window = nil, nil
	case e.message != nil && l.conn != nil:
		h, err := avp.ParseHeader(e.message)
		if err != nil {
			return // the connection has framed it by this header
		}
		m := peer.Message{Header: h, Octets: e.message}
		if m.Request() {
			p.asked(l, m)
		} else {
			p.answered(l, m, time.Now())
		}
	}
}

// send sends requests, which have been stored.
func (l *link) send(list []*running, now time.Time) {
	if len(list) == 0 {
		return
	}
	l.buf = l.buf[:0]
	again := 0
	for _, r := range list {
		start := len(l.buf)
		l.buf = l.process.cfg.appendRequest(l.buf, &r.Session, r.copied)
		if r.copied {
			again++
		}
		r.sent = now
		avp.SetHopByHop(l.buf[start:], l.window.Add(r.Pending.EndToEnd, r))
	}
	l.process.count(func(s *Stats) {
		s.Requests += uint64(len(list))
		s.Retransmitted += uint64(again)
	})
	_ = l.conn.Send(l.buf) // a connection that is closed says so by its event
}

// answered takes an answer.
func (p *Process) answered(l *link, m peer.Message, now time.Time) {
	r, ok := l.window.Get(m.HopByHop, m.EndToEnd)
	if !ok {
		return // to a request that was given up, or to none
	}
	a, err := parseAnswer(m)
	if err == nil && m.Command != command || a.session != "" && a.session != r.id() {
		err = errForeign
	}
	if err != nil {
		p.count(func(s *Stats) { s.Malformed++ })
		p.cfg.Log.Warn("credit-control answer can't be used", "peer", l.peer.Address, "session_id", r.SessionID, "error", err)
		return // the request times out, and is sent again
	}
	l.window.Remove(m.HopByHop)
	l.silent = 0
	r.waits, r.again = false, time.Time{}
	p.count(func(s *Stats) { s.Answers++ })
	before := r.id()
	what, exhausted := r.answer(a, now)
	switch what {
	case tryAgain:
		// An error answer: what follows is a new request.
		r.Pending.EndToEnd, r.Pending.Sent = p.nextEndToEnd(), false
		r.again = now.Add(min(time.Second<<min(r.errors, 5), 30*time.Second))
		r.errors++
		p.cfg.Log.Debug("credit-control request is answered with an error", "session_id", r.SessionID, "result", a.result, "text", a.text)
	case refused:
		p.count(func(s *Stats) { s.Refused++ })
		p.cfg.Log.Error("the server refuses credit control of a session", "session_id", r.SessionID, "result", a.String())
		fallthrough
	case goOn:
		r.errors = 0
	}
	if id := r.id(); id != before {
		delete(p.byID, before)
		p.byID[id] = r
		p.cfg.Log.Warn("the server has lost a credit-control session, which begins anew", "session_id", r.SessionID)
	}
	for _, e := range exhausted {
		p.exhausted(e)
	}
	p.changed[r] = true
}

// asked answers a Re-Auth-Request, by which the server wants to hear of a
// session now (RFC 8506, Section 5.5), and an Abort-Session-Request.
func (p *Process) asked(l *link, m peer.Message) {
	const success, limitedSuccess = 2001, 2002
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	r := p.byID[string(id.Data)]
	result := uint32(unknownSession)
	switch {
	case r == nil || r.Closed:
	case m.Command == avp.CommandReAuth:
		r.Asked, result = true, limitedSuccess
	default:
		r.Aborted, result = true, success
		p.exhausted(r.allExhausted(abortedWhy))
	}
	if r != nil {
		p.changed[r] = true
	}
	b := peer.AppendAnswerHeader(nil, m, result)
	b = avp.Append(b, avp.SessionID, 0, avp.FlagMandatory, id.Data)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, result)
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, p.cfg.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, p.cfg.OriginRealm)
	b = peer.AppendProxyInfo(b, m.AVPs())
	avp.SetLength(b)
	_ = l.conn.Send(b)
}
