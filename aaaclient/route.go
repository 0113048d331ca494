package aaaclient

import (
	"cmp"
	"slices"

	"tollbridge/dict/avp"
)

// A Route says which peers take the records of some realms (RFC 6733, Section
// 2.7). Its records wait for its peers alone: one route stands still while
// others go on.
type Route struct {
	Realms []string // Destination-Realms; none: those that no other route has
	Peers  []int    // places in Config.Peers; none: all of them

	// LearnHost puts the Origin-Host of the node that answered a session's
	// record as Destination-Host into the session's later ones, so that behind a
	// relay they reach the same server. A server that can't be reached so is
	// forgotten.
	LearnHost bool

	Rate int // records a second at most; 0 is no limit
}

// A wayTo is a Route of a Client.
type wayTo struct {
	Route
	links  []*link // by rank
	mask   uint64  // set of links
	serves func(realm []byte) bool
	count  routeCounters
}

// makeRoutes fills c.routes.
func (c *Client) makeRoutes() {
	ranked := rank(c.links)
	routes := c.cfg.Routes
	if len(routes) == 0 {
		routes = []Route{{}}
	}
	c.routes = make([]wayTo, len(routes))
	taken := map[string]bool{}
	for _, r := range routes {
		for _, realm := range r.Realms {
			taken[avp.FoldIdentity(realm)] = true
		}
	}
	ours := avp.FoldIdentity(c.cfg.DestinationRealm)
	for i, r := range routes {
		w := &c.routes[i]
		w.Route = r
		for _, l := range ranked {
			if len(r.Peers) == 0 || slices.Contains(r.Peers, l.index) {
				w.links = append(w.links, l)
				w.mask |= l.bit()
			}
		}
		if len(routes) == 1 {
			break
		}
		if len(r.Realms) == 0 {
			w.serves = func(realm []byte) bool {
				if len(realm) == 0 {
					return !taken[ours]
				}
				return !taken[avp.FoldIdentity(realm)]
			}
			continue
		}
		mine := map[string]bool{}
		for _, realm := range r.Realms {
			mine[avp.FoldIdentity(realm)] = true
		}
		w.serves = func(realm []byte) bool {
			if len(realm) == 0 {
				return mine[ours]
			}
			return mine[avp.FoldIdentity(realm)]
		}
	}
}

// RouteOf returns the place in Config.Routes, 0 where there are none, of the
// Route that takes a realm's records; -1 where none does. It may be called at
// any time.
func (c *Client) RouteOf(realm []byte) int {
	for i := range c.routes {
		if serves := c.routes[i].serves; serves == nil || serves(realm) {
			return i
		}
	}
	return -1
}

// rank returns the links in the order in which they are preferred: by
// Priority, then those that share load before those that stand by. Links of
// one rank share the load.
func rank(links []*link) []*link {
	all := slices.Clone(links)
	slices.SortStableFunc(all, func(a, b *link) int {
		return cmp.Or(cmp.Compare(a.peer.Priority, b.peer.Priority), -cmp.Compare(min(a.peer.Weight, 1), min(b.peer.Weight, 1)))
	})
	for i, l := range all {
		l.rank = i
		if i == 0 {
			continue
		}
		if p := all[i-1]; p.peer.Priority == l.peer.Priority && p.peer.Weight > 0 && l.peer.Weight > 0 {
			l.rank = p.rank
		}
	}
	return all
}

// A route is the state of a Route in delivery.
type route struct {
	*wayTo
	stages   [stages]int // sessions in each stage
	ready    fifo[*session]
	sendable fifo[*session]
	reading  fifo[*session]
	targets  []*link // that take requests in this round, by rank
	okay     bool    // they are in OKAY
	held     int     // records in memory
	cursor   uint64  // the highest ID read in order
	end      bool    // nothing was above cursor
	seen     uint64  // delivery.wakes when that was found
	hosts    hosts
	bucket   bucket
}

func newRoute(w *wayTo) *route { return &route{wayTo: w, bucket: bucket{rate: w.Rate}} }
