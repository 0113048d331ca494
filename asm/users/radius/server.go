// Package radius takes user bindings from RADIUS accounting (RFC 2866): it is
// the server that a NAS or a proxy tells of sessions, and a client that ends
// or changes them (RFC 5176).
package radius

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/asm/users"
	"tollbridge/internal/crashpoint"
)

// Source is the name of this source of bindings.
const Source = "radius"

// A Journal makes events durable, in the order in which they are appended.
type Journal interface {
	// Append hands an event on and returns its position. It may block while
	// the journal is held up.
	Append(users.Event) (uint64, error)
	// Wait returns nil when a position is durable.
	Wait(ctx context.Context, position uint64) error
}

// A Config says whom a Server serves.
type Config struct {
	Journal Journal  // required
	Clients []Client // who may send; others are ignored

	User       []AttributeType // the first that a request has names the user; none means User-Name
	Attributes []AttributeType // that bindings bring along; none means DefaultAttributes
	Realm      bool            // what follows the last @ of the user's name is the Destination-Realm

	Idle           time.Duration // a session of which nothing is heard for so long is over; 0 means never
	ClockTolerance time.Duration // an Event-Timestamp further ahead is not believed; 0 means 5m
	MaxDelay       time.Duration // nor one further behind; 0 means 24h

	MaxWaiting int              // requests of a listener that may wait to be made durable; 0 means 1024
	Log        *slog.Logger     // nil discards
	Now        func() time.Time // nil means time.Now
}

// A Server answers Accounting-Requests, each as soon as what it says is durable
// and never before (RFC 2866, Section 2). Its methods are safe for use by any
// goroutines.
type Server struct {
	cfg       Config
	directory *directory

	mu        sync.Mutex
	strangers uint64
	told      map[netip.Addr]bool // strangers that the log has named
}

// maxStrangers is the most strangers that the log names.
const maxStrangers = 100

// New returns a Server that serves nobody yet: see Serve.
func New(cfg Config) (*Server, error) {
	if cfg.Journal == nil {
		return nil, errors.New("radius: Config.Journal is required")
	}
	d, err := newDirectory(cfg.Clients)
	if err != nil {
		return nil, err
	}
	if len(cfg.User) == 0 {
		cfg.User = []AttributeType{{Type: uint8(rfc2865.UserName_Type)}}
	}
	if len(cfg.Attributes) == 0 {
		cfg.Attributes = DefaultAttributes
	}
	if cfg.ClockTolerance == 0 {
		cfg.ClockTolerance = 5 * time.Minute
	}
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = 24 * time.Hour
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 1024
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{cfg: cfg, directory: d, told: map[netip.Addr]bool{}}, nil
}

// Serve answers what comes to conn until ctx ends or the Journal fails. It
// takes conn over and closes it. The end of ctx is no error; what is in the
// journal by then is still answered.
//
// The reader never waits for the disk: it journals in the order of arrival and
// goes on, while the answerer waits for one position after the other.
//
//	conn ──► read: check, journal ──► waiting ──► answer: durable? ──► conn
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	l, err := newListener(s, conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer conn.Close()
	g, running := errgroup.WithContext(ctx)
	stop := context.AfterFunc(running, func() { conn.SetReadDeadline(time.Now()) }) //nolint:errcheck // a closed one needs none
	defer stop()
	g.Go(func() error {
		defer close(l.waiting)
		return l.read(running)
	})
	g.Go(l.answer)
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("radius: %v: %w", conn.LocalAddr(), err)
	}
	return nil
}

// A listener serves one socket.
type listener struct {
	*Server
	socket  *socket
	waiting chan waiting // in the order of positions
}

// A waiting request is answered when its event is durable.
type waiting struct {
	position uint64 // 0: there is no event
	client   *client
	answer   *answer
	reply    reply
}

func newListener(s *Server, conn *net.UDPConn) (*listener, error) {
	socket, err := newSocket(conn)
	if err != nil {
		return nil, fmt.Errorf("radius: %v: %w", conn.LocalAddr(), err)
	}
	return &listener{Server: s, socket: socket, waiting: make(chan waiting, s.cfg.MaxWaiting)}, nil
}

// read takes requests until ctx ends.
func (l *listener) read(ctx context.Context) error {
	var buffer [radius.MaxPacketLength]byte
	for {
		n, r, err := l.socket.read(buffer[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if err := l.datagram(buffer[:n], r); err != nil {
			return err
		}
	}
}

// datagram takes one request. Only errors of the Journal are errors.
func (l *listener) datagram(b []byte, r reply) error {
	c := l.directory.find(r.to.Addr())
	if c == nil {
		l.stranger(r.to.Addr())
		return nil
	}
	p, err := parseRequest(b, &c.Client)
	if err != nil {
		l.malformed(c, err)
		return nil
	}
	now := l.cfg.Now()
	key := requestKey{r.to, p.Identifier, p.Authenticator}
	if again := l.again(c, key); again != nil {
		l.repeat(c, again, r)
		return nil
	}
	w := waiting{client: c, reply: r, answer: new(answer)}
	if w.answer.packet, err = response(p, &c.Client); err != nil {
		l.malformed(c, &PacketError{CauseLength, err}) // all Proxy-States at their longest
		return nil
	}
	var a accounting
	if p.Code == radius.CodeAccountingRequest {
		if a, err = l.Server.read(p, &c.Client, now); err != nil {
			l.malformed(c, err)
			return nil
		}
	}
	if !l.admit(c, key, &w, p.Code, &a, now) {
		return nil
	}
	if a.event.Kind != 0 {
		if w.position, err = l.cfg.Journal.Append(a.event); err != nil {
			return err
		}
	}
	l.waiting <- w // admit found room, and nobody else sends
	return nil
}

// admit counts a new request and remembers it, unless too many wait already:
// then the NAS has to repeat it. A client may have half of what can wait.
func (l *listener) admit(c *client, key requestKey, w *waiting, code radius.Code, a *accounting, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == cap(l.waiting) || c.waiting >= max(cap(l.waiting)/2, 1) {
		c.stats.Overload++
		return false
	}
	c.waiting++
	c.seen.add(key, w.answer, now)
	switch {
	case code == radius.CodeStatusServer:
		c.stats.Pings++
	case a.status == rfc2866.AcctStatusType_Value_Start:
		c.stats.Starts++
		if a.event.Kind == 0 {
			c.stats.Empty++
		}
	case a.status == rfc2866.AcctStatusType_Value_InterimUpdate:
		c.stats.Interims++
	case a.status == rfc2866.AcctStatusType_Value_Stop:
		c.stats.Stops++
	case a.status == rfc2866.AcctStatusType_Value_AccountingOn, a.status == rfc2866.AcctStatusType_Value_AccountingOff:
		c.stats.Resets++
	default:
		c.stats.Others++
	}
	if a.skewed {
		c.stats.Skewed++
	}
	return true
}

// again returns the answer to a request that has come before, nil for a new
// one.
func (l *listener) again(c *client, key requestKey) *answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.seen.find(key)
}

// repeat answers a request again, unless it could not be answered yet.
func (l *listener) repeat(c *client, a *answer, r reply) {
	l.mu.Lock()
	due := a.due
	if due {
		c.stats.Repeated++
	} else {
		c.stats.Coalesced++
	}
	l.mu.Unlock()
	if due {
		l.write(c, a, r)
	}
}

// answer answers requests, each when its event is durable, until no more can
// come.
func (l *listener) answer() error {
	for w := range l.waiting {
		if w.position > 0 {
			// Not bound to any context: what is journaled will be durable, or
			// the journal ends.
			if err := l.cfg.Journal.Wait(context.Background(), w.position); err != nil {
				return err
			}
			crashpoint.At(crashpoint.BindingDurable)
		}
		l.mu.Lock()
		w.answer.due = true
		w.client.waiting--
		l.mu.Unlock()
		l.write(w.client, w.answer, w.reply)
	}
	return nil
}

// write sends an answer.
func (l *listener) write(c *client, a *answer, r reply) {
	err := l.socket.write(a.packet, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		c.stats.Unanswered++
		return
	}
	c.stats.Answered++
}

// stranger counts a datagram of somebody who is no client.
func (l *listener) stranger(a netip.Addr) {
	l.mu.Lock()
	l.strangers++
	news := len(l.told) < maxStrangers && !l.told[a]
	if news {
		l.told[a] = true
	}
	l.mu.Unlock()
	if news {
		l.cfg.Log.Warn("radius packets from an address that is no client's are ignored", "address", a.String())
	}
}

// malformed counts a packet that is discarded.
func (l *listener) malformed(c *client, err error) {
	var p *PacketError
	if !errors.As(err, &p) {
		panic("radius: internal error: " + err.Error())
	}
	l.mu.Lock()
	if c.stats.Malformed == nil {
		c.stats.Malformed = map[Cause]uint64{}
	}
	c.stats.Malformed[p.Cause]++
	news := !c.told[p.Cause]
	c.told[p.Cause] = true
	l.mu.Unlock()
	if news {
		l.cfg.Log.Warn("radius packets are discarded; further ones for this cause are counted only", "client", c.Name, "cause", p.Cause.String(), "error", p.Err)
	}
}
