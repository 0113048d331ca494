package aaaclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A Peer is a Diameter node that records are sent to.
type Peer struct {
	Host     string            // Origin-Host expected; "" takes any, over TLS none
	Address  string            // host:port
	Priority int               // peers of a lower one are preferred
	Weight   int               // share of the load among peers of one Priority; 0: it stands by for those listed before it
	SCTP     bool              // in place of TCP
	TLS      *peer.Credentials // nil is no TLS (RFC 6733, Section 13.1: from the start)
	Realtime bool              // its latest answer, to an earlier Client, demanded DELIVER_AND_GRANT (RFC 6733, Section 9.8.7)
	Optional []uint32          // codes of standard AVPs that it gets with the M bit clear, since it does not know them
}

// A Profiles says how the records of the outbox from an ID on are written, so
// that one that was sent is sent again as it was, whatever is configured
// meanwhile. The first holds for the records before it too.
type Profiles struct {
	First  uint64                  // record ID
	Realms map[string]*dict.Writer // by Destination-Realm in lower case; "" is for all others, and required
}

// A Config says who delivers what to whom.
type Config struct {
	OriginHost  string // required
	OriginRealm string // required
	StateID     uint32 // Origin-State-Id; 0 is not sent
	ProductName string // "" means "Tollbridge"

	// Table is shared with a server of the same OriginHost: client and server
	// are one node, which has one connection with each peer, whoever made it.
	// Each Peer then has a Host of its own. Nil: the client is a node by itself,
	// and connects alone.
	Table *peer.Table

	DestinationRealm string           // of records that name none; "" means OriginRealm
	Peers            []Peer           // required: the primary, then its backups in order; at most 64
	Routes           []Route          // which peers take which realms' records; none: all take all
	Fates            map[Code]Fate    // other fates than DefaultFate's
	Outbox           Outbox           // required
	Dictionary       *dict.Dictionary // writes records as AVPs; nil means dict.For(0)
	Profiles         []Profiles       // how records are written, ascending; none: by base accounting
	Application      uint32           // Acct-Application-Id; 0 means base accounting, 3

	Window   int           // unanswered requests per peer; 0 means 256
	Buffer   int           // records kept in memory; 0 means 4096 or four windows, whichever is more
	Timeout  time.Duration // for an answer; 0 means 10 s
	Connect  time.Duration // at least this between two attempts to connect, the timer Tc; 0 means 30 s
	Watchdog time.Duration // the timer Tw; 0 means 30 s
	RetryMin time.Duration // before a record is tried again, doubled each time; 0 means 1 s
	RetryMax time.Duration // and at most this; 0 means 1 min
	Poison   int           // disconnects in a row with a record in flight before it is sent alone; 0 means 3
	Drain    time.Duration // at most this Run goes on delivering what there is when it is stopped; 0 sends nothing more
	Grace    time.Duration // for the answers that are due then; 0 means 5 s

	// Obey makes the Acct-Interim-Intervals that answers ask for durable, so
	// that those who cut records obey them (RFC 6733, Section 9.8.2), before the
	// records are settled; after an error those are settled all the same, and
	// the latest intervals are handed over again. It is called as Outbox is, with
	// a context of 2 s. Nil passes them over.
	Obey func(context.Context, []acct.InterimInterval) error

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // for TCP; nil means a net.Dialer
	Log  *slog.Logger                                                         // nil discards
}

// Defaults of Config.
const (
	DefaultWindow   = 256
	DefaultTimeout  = 10 * time.Second
	DefaultConnect  = 30 * time.Second
	DefaultRetryMin = time.Second
	DefaultRetryMax = time.Minute
	DefaultPoison   = 3
	DefaultGrace    = 5 * time.Second
	minBuffer       = 4096
	maxPeers        = 64
)

func (c Config) filled() Config {
	c.DestinationRealm = cmp.Or(c.DestinationRealm, c.OriginRealm)
	c.Application = cmp.Or(c.Application, avp.ApplicationAccounting)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	c.Buffer = cmp.Or(c.Buffer, max(minBuffer, 4*c.Window))
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Connect = cmp.Or(c.Connect, DefaultConnect)
	c.RetryMin = cmp.Or(c.RetryMin, DefaultRetryMin)
	c.RetryMax = cmp.Or(c.RetryMax, max(DefaultRetryMax, c.RetryMin))
	c.Poison = cmp.Or(c.Poison, DefaultPoison)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	if c.Dictionary == nil {
		c.Dictionary = dict.For(0)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) node() peer.Node {
	return peer.Node{
		OriginHost: c.OriginHost, OriginRealm: c.OriginRealm, StateID: c.StateID, ProductName: c.ProductName,
		Accounting: c.applications(), Vendors: c.vendors(),
	}
}

// applications returns those that records are sent under.
func (c Config) applications() []uint32 {
	all := []uint32{c.Application}
	for p := range c.writers() {
		for _, app := range p.Profile().Applications() {
			if !slices.Contains(all, app) {
				all = append(all, app)
			}
		}
	}
	return all
}

// vendors returns the Vendor-Ids of foreign AVPs that records carry.
func (c Config) vendors() []uint32 {
	for p := range c.writers() {
		if p.Profile().Kind == dict.Rf {
			return []uint32{dict.Vendor3GPP}
		}
	}
	return nil
}

func (c Config) writers() iter.Seq[*dict.Writer] {
	return func(yield func(*dict.Writer) bool) {
		for _, p := range c.Profiles {
			for _, w := range p.Realms {
				if !yield(w) {
					return
				}
			}
		}
	}
}

func (c Config) check() error {
	if c.Outbox == nil {
		return errors.New("aaaclient: Config.Outbox is required")
	}
	if err := c.node().Check(); err != nil {
		return fmt.Errorf("aaaclient: Config: %w", err)
	}
	if !avp.ValidIdentity(c.DestinationRealm) {
		return fmt.Errorf("aaaclient: Config.DestinationRealm %q is no realm", c.DestinationRealm)
	}
	if n := len(c.Peers); n == 0 || n > maxPeers {
		return fmt.Errorf("aaaclient: Config.Peers has %d peers, wants 1 to %d", n, maxPeers)
	}
	for i, p := range c.Peers {
		_, port, err := net.SplitHostPort(p.Address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("aaaclient: Config.Peers[%d].Address %q is not host:port: %w", i, p.Address, err)
		}
		if p.Host != "" && !avp.ValidIdentity(p.Host) {
			return fmt.Errorf("aaaclient: Config.Peers[%d].Host %q is no DiameterIdentity", i, p.Host)
		}
		to := p.destination()
		if err := to.Check(); err != nil {
			return fmt.Errorf("aaaclient: Config.Peers[%d]: %w", i, err)
		}
		if p.Weight < 0 {
			return fmt.Errorf("aaaclient: Config.Peers[%d].Weight is %d, must be at least 0", i, p.Weight)
		}
	}
	if err := c.checkRoutes(); err != nil {
		return err
	}
	for i, p := range c.Profiles {
		if p.Realms[""] == nil {
			return fmt.Errorf("aaaclient: Config.Profiles[%d].Realms has no profile for other realms than those it names", i)
		}
		if i > 0 && p.First <= c.Profiles[i-1].First {
			return fmt.Errorf("aaaclient: Config.Profiles[%d].First is %d, must be above that before", i, p.First)
		}
	}
	for code, fate := range c.Fates {
		if err := checkFate(code, fate); err != nil {
			return fmt.Errorf("aaaclient: Config.Fates: %w", err)
		}
	}
	for _, limit := range [...]struct {
		name         string
		value, least int64
	}{
		{"Window", int64(c.Window), 1}, {"Buffer", int64(c.Buffer), 1}, {"Poison", int64(c.Poison), 1},
		{"Timeout", int64(c.Timeout), 1}, {"Connect", int64(c.Connect), 0}, {"Grace", int64(c.Grace), 0}, {"Drain", int64(c.Drain), 0},
		{"RetryMin", int64(c.RetryMin), 0}, {"RetryMax", int64(c.RetryMax), int64(c.RetryMin)},
	} {
		if limit.value < limit.least {
			return fmt.Errorf("aaaclient: Config.%s is %d, must be at least %d", limit.name, limit.value, limit.least)
		}
	}
	return nil
}

func (c Config) checkRoutes() error {
	if _, ok := c.Outbox.(RealmOutbox); !ok && len(c.Routes) > 1 {
		return errors.New("aaaclient: Config.Outbox can't read by realm, which several Routes want")
	}
	realms, rest := map[string]bool{}, len(c.Routes) == 0
	for i, r := range c.Routes {
		if len(r.Realms) == 0 {
			if rest && i > 0 {
				return fmt.Errorf("aaaclient: Config.Routes[%d].Realms is empty, as another route's is", i)
			}
			rest = true
		}
		for _, realm := range r.Realms {
			switch {
			case !avp.ValidIdentity(realm):
				return fmt.Errorf("aaaclient: Config.Routes[%d].Realms: %q is no realm", i, realm)
			case realms[avp.FoldIdentity(realm)]:
				return fmt.Errorf("aaaclient: Config.Routes[%d].Realms: %q has a route already", i, realm)
			}
			realms[avp.FoldIdentity(realm)] = true
		}
		for _, p := range r.Peers {
			if p < 0 || p >= len(c.Peers) {
				return fmt.Errorf("aaaclient: Config.Routes[%d].Peers: there is no peer %d", i, p)
			}
		}
		if r.Rate < 0 {
			return fmt.Errorf("aaaclient: Config.Routes[%d].Rate is %d, must be at least 0", i, r.Rate)
		}
	}
	if !rest {
		return errors.New("aaaclient: Config.Routes has no route for other realms than those it names")
	}
	return nil
}
