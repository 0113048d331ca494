// Package aaaclient delivers accounting records: it takes them from an Outbox,
// sends them to Diameter peers as Accounting-Requests and settles them by the
// answers (RFC 6733, Section 9; RFC 3539).
//
// The records of one session go strictly in order, one at a time; sessions go
// in parallel, up to a window of unanswered requests per peer. A record leaves
// the outbox by an answer alone: what is not answered, or answered with a
// transient failure, is tried again for ever; what is refused for good is
// quarantined and does not hold up the later records of its session.
package aaaclient

import "fmt"

// A Client delivers the records of one Outbox.
type Client struct {
	cfg     Config
	links   []*link
	routes  []wayTo
	count   counters
	events  chan event    // of the links
	changed chan struct{} // room for one: the state of a connection has
}

// New returns a Client that does nothing until Run.
func New(cfg Config) (*Client, error) {
	cfg = cfg.filled()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, events: make(chan event, 8), changed: make(chan struct{}, 1)}
	if cfg.Table != nil {
		if err := cfg.Table.Join(cfg.node()); err != nil {
			return nil, fmt.Errorf("aaaclient: Config.Table: %w", err)
		}
	}
	for i, p := range cfg.Peers {
		l, err := newLink(c, i, p)
		if err != nil {
			return nil, fmt.Errorf("aaaclient: Config.Watchdog: %w", err)
		}
		if cfg.Table != nil {
			if err := cfg.Table.Keep(l.keeper); err != nil {
				return nil, fmt.Errorf("aaaclient: Config.Peers[%d].Host: %w", i, err)
			}
		}
		c.links = append(c.links, l)
	}
	c.makeRoutes()
	return c, nil
}
