// Package credit asks a credit-control server for each user's quota and tells
// it what was used (RFC 8506). It follows the accounting records: START begins
// a credit-control session, INTERIM and STOP bring its usage, an EVENT is
// debited at once, so what is charged is what is billed, to the octet.
//
// Tollbridge meters; it can't stop a packet. A quota that is used up is
// reported, and acted on by whoever is told.
package credit

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
)

// A Feed is where accounting records come from, a *spool.Spool.
type Feed interface {
	// Cut returns records with IDs above after, ascending, at most max of
	// them.
	Cut(ctx context.Context, after uint64, max int) ([]acct.Delivery, error)
}

// A Store keeps what must survive the process.
type Store interface {
	// Load returns the ID of the latest record that was taken from the Feed
	// and all sessions stored.
	Load(ctx context.Context) (after uint64, sessions []Session, err error)
	// Save stores these sessions, and removes those that are over (see
	// Session.Over), together with after, durably before it returns.
	Save(ctx context.Context, after uint64, sessions []Session) error
}

// A Peer is a credit-control server, or a relay before it.
type Peer = peer.Destination

// A Config sets up a Process.
type Config struct {
	OriginHost       string // required
	OriginRealm      string // required
	StateID          uint32
	DestinationRealm string // required; of users whose records name none
	ServiceContext   string // Service-Context-Id; required
	Peers            []Peer // the first is the primary, the others are backups; at least one

	Rating    func(class string) (ratingGroup uint32, charged bool) // required
	Request   uint64                                                // octets asked for at a time; 0 leaves it to the server
	Threshold int                                                   // percent of a quota at which more is asked for; 0 means 80

	Timeout  time.Duration // Tx: then a request is sent again (RFC 8506, Section 13); 0 means 10 s
	Connect  time.Duration // between attempts to connect; 0 means 30 s
	Watchdog time.Duration // Tw of RFC 3539; 0 means 30 s
	Poll     time.Duration // how often new records are looked for; 0 means 1 s
	Window   int           // requests unanswered at once; 0 means 256

	Feed  Feed  // required
	Store Store // required
	// Exhausted is told once of each quota that is used up or refused, and
	// of each session of which that is so when Run begins, since whoever was
	// told may have been killed before acting on it. False says that there is
	// no room: it is told again, while it is still so. It must not block. Nil
	// is for nobody.
	Exhausted func(Exhausted) bool
	Log       *slog.Logger // nil discards
}

// A Process is a credit-control client.
type Process struct {
	cfg    Config
	links  []*link
	events chan linkEvent

	mu    sync.Mutex // guards stats
	stats Stats

	// Of Run's goroutine alone.
	sessions map[string]*running // by SessionID
	byID     map[string]*running // by Session-Id of credit control
	ready    []*running          // with a Pending that is to be sent
	changed  map[*running]bool   // since the last Save
	untold   map[string]bool     // SessionIDs that Exhausted is to be told of (again)
	after    uint64
	endToEnd uint32
}

// A running session is one with what need not survive.
type running struct {
	Session
	waits  bool      // in ready, or sent
	copied bool      // an earlier copy of Pending may have left
	sent   time.Time // Pending, last
	again  time.Time // not to be sent before
	errors int       // error answers to it
}

// Over reports whether nothing will come of s any more.
func (s *Session) Over() bool { return s.Ended && s.Closed }

// Stats counts what a Process has done since it started.
type Stats struct {
	Sessions      int // under credit control now
	Unanswered    int // requests that wait or are on their way
	PeersReady    int
	Requests      uint64 // sent, copies too
	Retransmitted uint64
	Answers       uint64
	Malformed     uint64 // answers that could not be read
	Refused       uint64 // sessions that the server wants to know nothing of
	Exhausted     uint64 // quotas used up or denied
	StoreErrors   uint64
}

// New checks cfg and returns a Process that does nothing until Run.
func New(cfg Config) (*Process, error) {
	switch {
	case cfg.OriginHost == "" || cfg.OriginRealm == "" || cfg.DestinationRealm == "":
		return nil, errors.New("credit: Config: OriginHost, OriginRealm and DestinationRealm are required")
	case cfg.ServiceContext == "":
		return nil, errors.New("credit: Config: ServiceContext is required")
	case len(cfg.Peers) == 0:
		return nil, errors.New("credit: Config: Peers: at least one is required")
	case cfg.Rating == nil || cfg.Feed == nil || cfg.Store == nil:
		return nil, errors.New("credit: Config: Rating, Feed and Store are required")
	case cfg.Threshold < 0 || cfg.Threshold > 100:
		return nil, fmt.Errorf("credit: Config: Threshold %d: want a percentage", cfg.Threshold)
	}
	def(&cfg.Threshold, 80)
	def(&cfg.Timeout, 10*time.Second)
	def(&cfg.Connect, 30*time.Second)
	def(&cfg.Poll, time.Second)
	def(&cfg.Window, 256)
	if cfg.Exhausted == nil {
		cfg.Exhausted = func(Exhausted) bool { return true }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Process{
		cfg: cfg, events: make(chan linkEvent, 64),
		sessions: make(map[string]*running), byID: make(map[string]*running), changed: make(map[*running]bool), untold: make(map[string]bool),
	}
	for i, to := range cfg.Peers {
		if err := to.Check(); err != nil {
			return nil, fmt.Errorf("credit: Config: Peers[%d]: %w", i, err)
		}
		w, err := peer.NewWatchdog(cfg.Watchdog)
		if err != nil {
			return nil, fmt.Errorf("credit: Config: Watchdog: %w", err)
		}
		p.links = append(p.links, &link{process: p, peer: to, watchdog: w, wanted: make(chan struct{}, 1)})
	}
	// End-to-End Identifiers are unique over restarts (RFC 6733, Section 3).
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	p.endToEnd = uint32(time.Now().Unix())<<20 | binary.BigEndian.Uint32(b[:])>>12
	return p, nil
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Stats returns a snapshot.
func (p *Process) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *Process) count(f func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.stats)
}

// Run works until ctx ends. A request that is unanswered then is sent again,
// with the T flag, by the next Run.
//
//	Feed ──► Run: sessions ──► Store, then ──► links ──► servers
//	          ▲─────── answers, RAR, ASR ───────┘
func (p *Process) Run(ctx context.Context) error {
	after, stored, err := p.cfg.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("credit: load: %w", err)
	}
	p.after = after
	for i := range stored {
		r := &running{Session: stored[i]}
		p.sessions[r.SessionID], p.byID[r.id()] = r, r
		p.untold[r.SessionID] = true
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range p.links {
		g.Go(func() error { l.keeper(ctx).Run(ctx); return nil })
	}
	g.Go(func() error {
		poll := time.NewTicker(p.cfg.Poll)
		defer poll.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case e := <-p.events:
				p.take(e)
			case <-poll.C:
			}
			for more := true; more; { // what has come at once
				select {
				case e := <-p.events:
					p.take(e)
				default:
					more = false
				}
			}
			p.round(ctx, time.Now())
		}
	})
	return g.Wait()
}

// round reads new records, decides what is to be said, stores it, and says it.
func (p *Process) round(ctx context.Context, now time.Time) {
	p.expire(now)
	p.read(ctx)
	p.tell()
	for _, r := range p.sessions {
		if r.request(now, p.cfg.Threshold, p.nextEndToEnd) {
			p.changed[r] = true
		}
		if r.Pending != nil && !r.waits && !now.Before(r.again) {
			r.waits = true
			p.ready = append(p.ready, r)
		}
	}
	to := p.usable()
	if (to == nil || to.silent > 0) && len(p.ready) > 0 {
		// Nobody answers: one that asked to be left alone may.
		for _, l := range p.links {
			select {
			case l.wanted <- struct{}{}:
			default: // it has been told
			}
		}
	}
	var sending []*running
	if to != nil {
		n := min(len(p.ready), to.window.Free())
		sending = slices.Clone(p.ready[:n])
		for _, r := range sending {
			// Stored before the first octet leaves: after a crash a copy
			// may be on its way, and the next one carries the T flag.
			if !r.Pending.Sent {
				p.changed[r] = true
			}
		}
	}
	if p.save(ctx, sending) && to != nil {
		p.ready = slices.Delete(p.ready, 0, len(sending))
		to.send(sending, now)
	}
	p.count(func(s *Stats) {
		s.Sessions, s.Unanswered = len(p.sessions), len(p.ready)
		for _, l := range p.links {
			if l.window != nil {
				s.Unanswered += l.window.Len()
			}
		}
	})
}

func (p *Process) nextEndToEnd() uint32 {
	p.endToEnd++
	return p.endToEnd
}

// read takes the records that have been cut since.
func (p *Process) read(ctx context.Context) {
	const most = 1000
	for {
		list, err := p.cfg.Feed.Cut(ctx, p.after, most)
		if err != nil {
			if ctx.Err() == nil {
				p.cfg.Log.Error("accounting records can't be read for credit control", "error", err)
			}
			return
		}
		for i := range list {
			p.after = list[i].ID
			p.apply(&list[i].Record)
		}
		if len(list) < most {
			return
		}
	}
}

// apply takes one accounting record.
func (p *Process) apply(rec *acct.Record) {
	r := p.sessions[rec.SessionID]
	if r == nil {
		if rec.User == "" || rec.Type == acct.Stop {
			return // nobody's, or of a session that we never knew
		}
		r = &running{Session: Session{SessionID: rec.SessionID, User: rec.User, Realm: rec.Realm, Event: rec.Type == acct.Event,
			Attributes: rec.Attributes, Source: rec.Source, NAS: rec.NAS}}
		r.Refund = rec.Corrects != nil && rec.Corrects.Credit
		for _, class := range append([]string{""}, classesOf(rec)...) {
			if group, charged := p.cfg.Rating(class); charged && !r.Event {
				r.service(group)
			}
		}
		p.sessions[r.SessionID], p.byID[r.id()] = r, r
	}
	r.apply(rec, p.cfg.Rating)
	if len(r.Services) == 0 && r.Ended {
		r.Closed = true // nothing of it is charged
	}
	for _, e := range r.beyond() {
		p.exhausted(e)
	}
	p.changed[r] = true
}

func classesOf(r *acct.Record) (names []string) {
	for _, c := range r.Classes {
		names = append(names, c.Class)
	}
	return names
}

func (p *Process) exhausted(e Exhausted) {
	p.count(func(s *Stats) { s.Exhausted++ })
	p.cfg.Log.Warn("credit is exhausted", "session_id", e.SessionID, "rating_group", e.RatingGroup, "used", e.Used, "limit", e.Limit, "why", e.Why)
	if !p.cfg.Exhausted(e) {
		p.untold[e.SessionID] = true
	}
}

// tell tells Exhausted of sessions that it was not told of, as far as they still are.
func (p *Process) tell() {
	for id := range p.untold {
		r := p.sessions[id]
		if r != nil {
			if e, is := r.standing(); is && !p.cfg.Exhausted(e) {
				continue
			}
		}
		delete(p.untold, id)
	}
}

// save stores what has changed, with the requests of sending marked as sent,
// and reports whether it is durable.
func (p *Process) save(ctx context.Context, sending []*running) bool {
	for _, r := range sending {
		r.copied, r.Pending.Sent = r.Pending.Sent, true
	}
	if len(p.changed) == 0 {
		return true
	}
	list := make([]Session, 0, len(p.changed))
	for r := range maps.Keys(p.changed) {
		list = append(list, r.Session)
	}
	if err := p.cfg.Store.Save(ctx, p.after, list); err != nil {
		// Nothing has left, so nothing is lost: the next round saves again.
		for _, r := range sending {
			r.Pending.Sent = r.copied
		}
		p.count(func(s *Stats) { s.StoreErrors++ })
		if ctx.Err() == nil {
			p.cfg.Log.Error("credit-control state can't be stored", "error", err)
		}
		return false
	}
	for r := range p.changed {
		if r.Over() {
			delete(p.sessions, r.SessionID)
			delete(p.byID, r.id())
		}
	}
	clear(p.changed)
	return true
}

// expire takes back requests that nobody has answered in time.
func (p *Process) expire(now time.Time) {
	for _, l := range p.links {
		if l.conn == nil {
			continue
		}
		for id, r := range l.window.All() {
			if now.Sub(r.sent) >= p.cfg.Timeout {
				l.window.Remove(id)
				l.silent++
				r.waits = false
			}
		}
	}
}

// usable returns the first peer that can be sent to: one that is connected and
// answers, else one that is connected.
func (p *Process) usable() *link {
	var silent *link
	ready := 0
	var best *link
	for _, l := range p.links {
		if l.conn == nil {
			continue
		}
		if s := l.conn.Status(); s.Leaving || !s.Proven || s.State == peer.Suspect {
			continue
		}
		ready++
		switch {
		case l.silent > 0:
			if silent == nil || l.silent < silent.silent {
				silent = l
			}
		case best == nil:
			best = l
		}
	}
	p.count(func(s *Stats) { s.PeersReady = ready })
	if best != nil {
		return best
	}
	return silent
}
