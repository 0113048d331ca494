package aaaclient

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/crashpoint"
)

// A link is the way to one peer: it connects, again and again, and hands what
// happens to delivery. The fields of the last group belong to delivery.
type link struct {
	client   *Client
	index    int
	peer     Peer
	options  dict.Options
	watchdog *peer.Watchdog
	log      *slog.Logger
	wanted   chan struct{} // records wait: connect to a peer that asked to be left alone
	keeper   *peer.Keeper

	mu     sync.Mutex // guards what Stats reads
	conn   *peer.Conn // nil while there is none
	host   string     // Origin-Host of the latest connection
	reason string     // why there is no connection
	count  linkCounters

	live     Conn                   // from its event opened to its event closed; else nil
	window   *peer.Window[*session] // nil while live is
	oldest   time.Time              // no request in window times out before
	requests []byte                 // encoded, to be sent at the end of the round
	rank     int                    // the lowest is preferred; those of one rank share load
	salt     uint64                 // of claims
	parked   fifo[*session]         // ready, until there is room
	assigned int                    // marking and sendable sessions that are meant for it
	alone    bool                   // a suspect is in flight, and nothing else may be
	answered uint64                 // delivery.answers at its latest
	pace     pace

	unanswered int       // requests in a row
	probe      time.Time // a mute link gets no request before, while there are others
}

// bit is the link's place in a set of links.
func (l *link) bit() uint64 { return 1 << l.index }

func newLink(c *Client, index int, p Peer) (*link, error) {
	w, err := peer.NewWatchdog(c.cfg.Watchdog)
	if err != nil {
		return nil, err
	}
	l := &link{
		client: c, index: index, peer: p, watchdog: w, wanted: make(chan struct{}, 1),
		options: dict.Options{
			OriginHost: c.cfg.OriginHost, OriginRealm: c.cfg.OriginRealm, DestinationRealm: c.cfg.DestinationRealm,
			Application: c.cfg.Application, OriginStateID: c.cfg.StateID, Optional: p.Optional,
		},
		log: c.cfg.Log.With("peer", p.Address), salt: hash(p.Host + " " + p.Address), pace: newPace(c.cfg.Window),
	}
	if p.Realtime {
		l.count.realtime.Store(deliverAndGrant)
	}
	l.keeper = l.newKeeper()
	return l, nil
}

// cutOff reports whether a connection that has ended with err was cut off by the
// peer, perhaps for what it was sent: it has closed or reset the transport, or
// has answered what is no Diameter. Where the peer may ask too (Config.Table),
// that proves nothing, as it may be a request.
func (l *link) cutOff(err error) bool {
	if errors.Is(err, peer.ErrProtocol) {
		return l.client.cfg.Table == nil
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// accuse says that the peer has cut off the connection at a record that it was
// sent alone, and nothing proves that it takes others: no record is blamed, and
// the peer is tried less often.
func (l *link) accuse() {
	if l.count.cuts.Add(1) == 1 {
		l.log.Error("peer cuts the connection off whatever it is sent: records wait, none is blamed")
	}
}

// Values of Accounting-Realtime-Required (RFC 6733, Section 9.8.7).
const (
	deliverAndGrant = 1
	grantAndStore   = 2
	grantAndLose    = 3
)

// require reports that the peer wants service to end where its records can't
// be delivered in real time. A client gives no service that it could end: it
// stores what it can't deliver, which is GRANT_AND_STORE, and raises an alarm.
func (l *link) require(realtime uint32) {
	if l.count.realtime.Load() == realtime {
		return
	}
	l.count.realtime.Store(realtime)
	switch realtime {
	case deliverAndGrant:
		l.log.Error("peer demands DELIVER_AND_GRANT: service only while records can be delivered; those that can't be are stored")
	case grantAndStore, grantAndLose:
		l.log.Info("peer allows service without accounting in real time", "accounting_realtime_required", realtime)
	}
}

// pardon ends that.
func (l *link) pardon() {
	if l.count.cuts.Load() > 0 {
		l.count.cuts.Store(0)
		l.log.Info("peer answers again")
	}
}

// pause returns how long to wait between two attempts to connect.
func (l *link) pause() time.Duration {
	return l.client.cfg.Connect << min(l.count.cuts.Load(), maxPause)
}

// maxPause bounds how often it is doubled for a peer that cuts connections off.
const maxPause = 4

// A Conn is a connection as delivery uses it, a *peer.Conn.
type Conn interface {
	// Status returns what the connection is good for now.
	Status() peer.Status
	// Send queues whole messages, which it copies. It does not block.
	Send(messages []byte) error
}

// An event is something that happened on a link.
type event struct {
	link    *link
	opened  Conn
	answers *answers
	closed  bool
	err     error // of closed
}

// answers are those that were read at once. The octets that they point to are
// in octets.
type answers struct {
	octets []byte
	list   []answer
	bad    uint64 // answers that could not be read
}

var answersPool = sync.Pool{New: func() any { return new(answers) }}

// newKeeper returns what keeps the link connected.
func (l *link) newKeeper() *peer.Keeper {
	events, changed, to := l.client.events, l.client.changed, l.peer.destination()
	return &peer.Keeper{
		Config: peer.Config{Node: l.client.cfg.node(), Peer: l.peer.Host, Watchdog: l.watchdog, Written: l.written(), Log: l.log},
		Dial:   func(ctx context.Context) (net.Conn, error) { return to.Dial(ctx, l.client.cfg.Dial) },
		Proves: to.Proves,
		Pause:  l.pause,
		Opened: func(c *peer.Conn) peer.Handler {
			l.mu.Lock()
			l.conn, l.host, l.reason = c, c.Remote().OriginHost, ""
			l.count.connects++
			l.mu.Unlock()
			l.log.Info("peer is connected", "origin_host", c.Remote().OriginHost, "product", c.Remote().ProductName)
			events <- event{link: l, opened: c}
			return &handler{link: l, conn: c}
		},
		Closed: func(err error) {
			l.mu.Lock()
			l.conn = nil
			l.mu.Unlock()
			events <- event{link: l, closed: true, err: err}
		},
		Failed: func(err error, again bool) {
			l.mu.Lock()
			l.reason = err.Error()
			l.mu.Unlock()
			if !again {
				l.log.Warn("peer is not connected", "error", err)
			}
		},
		Left:   func() { poke(changed) },
		Wanted: l.wanted,
	}
}

// destination returns how p is reached.
func (p *Peer) destination() peer.Destination {
	return peer.Destination{Host: p.Host, Address: p.Address, SCTP: p.SCTP, TLS: p.TLS}
}

// name returns the peer's Origin-Host, or its address where none is known.
func (l *link) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.host, l.peer.Address)
}

// written returns what is called with the octets that have left: it passes the
// crash point and writes a line per request at Debug. There may be answers
// among them, of a server that shares the connection.
func (l *link) written() func([]byte) {
	debug := l.log.Enabled(context.Background(), slog.LevelDebug)
	return func(b []byte) {
		for len(b) > 0 {
			h, err := avp.ParseHeader(b)
			if err != nil {
				return
			}
			if h.Command == avp.CommandAccounting && h.Flags&avp.FlagRequest != 0 {
				if debug {
					id, _ := avp.Find(b[avp.HeaderLen:h.Length], avp.SessionID, 0)
					number, _ := avp.Find(b[avp.HeaderLen:h.Length], avp.AccountingRecordNumber, 0)
					n, _ := number.Uint32()
					l.log.Debug("acr sent", "session_id", string(id.Data), "number", n,
						"end_to_end", h.EndToEnd, "retransmitted", h.Flags&avp.FlagRetransmitted != 0)
				}
				crashpoint.At(crashpoint.RequestSent)
			}
			b = b[h.Length:]
		}
	}
}

// A handler reads the answers of one connection.
type handler struct {
	link  *link
	conn  *peer.Conn // nil with a Stepper
	batch *answers
}

func (h *handler) Receive(m peer.Message) bool {
	foreign := m.Command != avp.CommandAccounting
	if m.Request() || foreign && h.conn != nil && h.conn.Shared() {
		return false
	}
	if h.batch == nil {
		h.batch = answersPool.Get().(*answers)
	}
	b := h.batch
	if foreign {
		b.bad++
		return true
	}
	start := len(b.octets)
	b.octets = append(b.octets, m.Octets...)
	m.Octets = b.octets[start:]
	a, err := parseAnswer(m)
	if err != nil {
		h.link.log.Debug("answer is malformed", "error", err)
		b.bad++
		return true
	}
	b.list = append(b.list, a)
	return true
}

func (h *handler) Flush() {
	if h.batch != nil {
		h.link.client.events <- event{link: h.link, answers: h.batch}
		h.batch = nil
	}
}

func (h *handler) Changed() { poke(h.link.client.changed) }

// poke sends to a channel with room for one, unless that is taken.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// release returns the batch for use by others. Nothing may point into it.
func (a *answers) release() {
	clear(a.list)
	a.octets, a.list, a.bad = a.octets[:0], a.list[:0], 0
	answersPool.Put(a)
}
