// Package aaaserver is the Diameter entrance: it takes Accounting-Requests of
// clients, relays and partners' servers, and answers each once what it says is
// durable (RFC 6733, Section 9). What a request says decides where it goes:
//
//	an access server's        ──► Pipeline: who holds which addresses
//	a flow without a user     ──► Pipeline: users are mapped here
//	a realm that we forward   ──► Pipeline: stored, then delivered to that realm
//	anything else             ──► Store: the accounting application's CDRs
package aaaserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A Store keeps CDRs. Store returns when all of them are durable, with an
// Outcome for each; after an error none is. It is called by many goroutines
// at once and keeps nothing of what AVPs points to.
type Store interface {
	Store(context.Context, []acct.CDR) ([]acct.Outcome, error)
}

// A Pipeline takes requests that become accounting records here. Take returns
// when all of them are durable; after an error none need be. It is called by
// many goroutines at once and keeps nothing of what AVPs points to.
type Pipeline interface {
	Take(context.Context, []acct.Request) error
}

// ErrBusy is matched by the error of a Store or Pipeline that takes nothing at
// the moment: the request is answered with DIAMETER_TOO_BUSY.
var ErrBusy = errors.New("busy")

// A Config says who we are and from whom requests are taken.
type Config struct {
	OriginHost  string // required
	OriginRealm string // required
	StateID     uint32 // Origin-State-Id; 0 is not sent
	ProductName string // "" means "Tollbridge"

	// Table is shared with a client of the same OriginHost: client and server
	// are one node, which has one connection with each peer, whoever made it.
	// Nil: the server is a node by itself, whom peers connect to.
	Table *peer.Table

	Store        Store            // required
	Dictionary   *dict.Dictionary // reads requests; nil means dict.For(0)
	Applications []uint32         // accounting applications served; none means base accounting, 3
	Realms       []string         // Destination-Realms served, beside those of Forward; none means any

	// InterimInterval is the Acct-Interim-Interval of answers to START and
	// INTERIM records, in whole seconds (RFC 6733, Section 9.8.2); 0 asks for
	// none in particular.
	InterimInterval time.Duration

	Pipeline Pipeline // required with Flows, Forward, or access servers among Peers
	Flows    bool     // requests with a flow and without a user go there
	Forward  []string // Destination-Realms whose requests go there
	Controls bool     // access servers may be asked to end or change sessions: see Abort and Reauthorize
	Aliases  []string // other DiameterIdentities of this node, for the detection of loops

	// Held says whether, and why, the Pipeline has no room; nil means never.
	// Requests for it are then answered with DIAMETER_OUT_OF_SPACE at once.
	Held func() (reason string, held bool)

	Allow []netip.Prefix // addresses that may connect without TLS; none means loopback
	Peers []Peer         // admitted; none means any, who may speak for anybody on a connection that it has made

	// Credentials are those of ServeTLS. Their authorities vouch for who asks
	// over TLS on what a client has connected; nil: nobody may.
	Credentials *peer.Credentials

	MaxConnections int           // at once; 0 means 1024
	Batch          int           // the most requests stored at once, per connection; 0 means 1024
	Watchdog       time.Duration // the timer Tw; 0 means 30 s
	Probe          time.Duration // without Table: how long a former connection has to prove that it is good when its peer connects again; 0 means 3 s
	Patience       time.Duration // what takes longer to store is answered with DIAMETER_TOO_BUSY; 0 means 8 s
	Log            *slog.Logger  // nil discards
}

// A Server takes Accounting-Requests.
type Server struct {
	cfg   Config
	known *known
	count counters

	causes causes

	mu    sync.Mutex
	conns map[string]*connection // by Origin-Host as it compares
}

// New returns a Server that does nothing until Serve.
func New(cfg Config) (*Server, error) {
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 1024)
	cfg.Batch = cmp.Or(cfg.Batch, 1024)
	cfg.Patience = cmp.Or(cfg.Patience, 8*time.Second)
	if len(cfg.Applications) == 0 {
		cfg.Applications = []uint32{avp.ApplicationAccounting}
	}
	if len(cfg.Allow) == 0 {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	if cfg.Dictionary == nil {
		cfg.Dictionary = dict.For(0)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, conns: map[string]*connection{}}
	if cfg.Store == nil {
		return nil, errors.New("aaaserver: Config.Store is required")
	}
	access := slices.ContainsFunc(cfg.Peers, func(p Peer) bool { return p.Access })
	if cfg.Pipeline == nil && (cfg.Flows || len(cfg.Forward) > 0 || access) {
		return nil, errors.New("aaaserver: Config.Pipeline is required with Flows, Forward and access servers")
	}
	if s.cfg.Table == nil {
		s.cfg.Table = peer.NewTable(cfg.Probe)
	}
	if err := s.cfg.Table.Join(s.node()); err != nil {
		return nil, fmt.Errorf("aaaserver: Config: %w", err)
	}
	s.cfg.Table.Serve(s.attach)
	if _, err := peer.NewWatchdog(cfg.Watchdog); err != nil {
		return nil, fmt.Errorf("aaaserver: Config.Watchdog: %w", err)
	}
	if i := cfg.InterimInterval; i < 0 || i%time.Second != 0 || i/time.Second > math.MaxUint32 {
		return nil, fmt.Errorf("aaaserver: Config.InterimInterval %v is not of whole seconds, 0 to 2^32-1", i)
	}
	if cfg.MaxConnections < 1 || cfg.Batch < 1 {
		return nil, errors.New("aaaserver: Config: a limit is below 1")
	}
	s.known = newKnown(cfg.Dictionary)
	return s, nil
}

func (s *Server) node() peer.Node {
	var auth []uint32
	if s.cfg.Controls {
		auth = []uint32{avp.ApplicationNASREQ}
	}
	return peer.Node{
		Auth:       auth,
		OriginHost: s.cfg.OriginHost, OriginRealm: s.cfg.OriginRealm, StateID: s.cfg.StateID,
		ProductName: s.cfg.ProductName, Accounting: s.cfg.Applications, Vendors: []uint32{s.cfg.Dictionary.Vendor()},
	}
}

// ServeTLS is Serve for a listener of connections over TLS, by
// Config.Credentials, which are then required. Whoever connects must show a
// certificate for its Origin-Host (RFC 6733, Section 13.1), whatever its
// address.
func (s *Server) ServeTLS(ctx context.Context, ln net.Listener) error {
	if s.cfg.Credentials == nil {
		ln.Close()
		return errors.New("aaaserver: Config.Credentials is required for TLS")
	}
	return s.Serve(ctx, tls.NewListener(ln, s.cfg.Credentials.Server()))
}

// Serve takes connections from ln until ctx is done, takes leave of the peers
// and returns nil once all connections have ended, but those that a client
// shares by Config.Table, which end with that. It closes ln. It returns another
// error where ln fails.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	var g sync.WaitGroup
	defer g.Wait()
	slots := make(chan struct{}, s.cfg.MaxConnections)
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("aaaserver: accept: %w", err)
			}
			// Out of descriptors, say: it passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Error("accept fails", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		select {
		case slots <- struct{}{}:
		default:
			s.count.refused.Add(1)
			s.logRefused(slog.LevelWarn, "connection refused: too many", "", "remote", nc.RemoteAddr())
			nc.Close()
			continue
		}
		g.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, nc)
		})
	}
}

// serve serves one connection.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	log := s.cfg.Log.With("remote", nc.RemoteAddr())
	if _, secure := nc.(*tls.Conn); !secure && !s.allowed(nc.RemoteAddr()) {
		s.count.refused.Add(1)
		s.logRefused(slog.LevelWarn, "connection refused: address is not allowed", hostOf(nc.RemoteAddr()), "remote", nc.RemoteAddr())
		nc.Close()
		return
	}
	w, err := peer.NewWatchdog(s.cfg.Watchdog)
	if err != nil {
		panic("aaaserver: internal error: " + err.Error()) // New has checked it
	}
	conn, err := peer.Accept(ctx, nc, peer.Config{
		Node: s.node(), Table: s.cfg.Table, Watchdog: w, Log: log,
		Admit: func(n peer.Node) error {
			_, err := s.admit(nc, n)
			return err
		},
	})
	if err != nil {
		s.count.refused.Add(1)
		level := slog.LevelWarn
		if r := (*peer.Refusal)(nil); errors.As(err, &r) && r.Code == avp.ResultElectionLost {
			level = slog.LevelInfo // its other connection stays
		}
		s.logRefused(level, "peer is refused", hostOf(nc.RemoteAddr())+" "+rootOf(err).Error(), "remote", nc.RemoteAddr(), "error", err)
		return
	}
	s.count.connections.Add(1)
	log.Info("peer is connected", "origin_host", conn.Remote().OriginHost, "product", conn.Remote().ProductName)
	err = s.cfg.Table.Run(ctx, conn)
	log.Info("peer is disconnected", "origin_host", conn.Remote().OriginHost, "error", err)
}

// allowed reports whether requests may come from an address without TLS.
func (s *Server) allowed(remote net.Addr) bool {
	t, ok := remote.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return true // a transport without addresses of hosts
	}
	a := t.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s.cfg.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}
