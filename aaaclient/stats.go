package aaaclient

import (
	"slices"
	"sync/atomic"

	"tollbridge/aaaclient/peer"
)

// Stats counts what a Client has done since it was made.
type Stats struct {
	Sent        uint64 // Accounting-Requests, each sending counted
	Resent      uint64 // of those, with the T flag
	Answered    uint64 // answers that belonged to a request
	Unmatched   uint64 // answers that did not, or could not be read
	Settled     uint64 // records acknowledged, durably
	Retried     uint64 // records answered with a failure that may pass
	Quarantined uint64 // records set aside, durably
	Timeouts    uint64 // requests that were not answered in time
	OutboxFails uint64 // failed calls of the Outbox
	Intervals   uint64 // Acct-Interim-Intervals of answers that were handed to Config.Obey
	ObeyFails   uint64 // failed calls of Config.Obey: what they were to make durable is handed over again
	Unproven    uint64 // cuts with one record in flight, which nothing proves to be its fault
	Peers       []PeerStats
	Routes      []RouteStats // beside Config.Routes
}

// RouteStats counts the records of one Route.
type RouteStats struct {
	Realms      []string // none: those that no other route has
	Ready       bool     // a peer takes its requests now
	Realtime    bool     // a peer demands DELIVER_AND_GRANT: service only while there is one that does
	Sent        uint64   // each sending counted
	Settled     uint64
	Quarantined uint64
	Limited     uint64 // rounds in which Route.Rate held records back
}

type routeCounters struct {
	sent, settled, quarantined, limited atomic.Uint64
	ready                               atomic.Bool
}

// PeerStats is where one peer stands.
type PeerStats struct {
	Address  string
	Host     string // its Origin-Host, once it was connected
	State    peer.State
	Ready    bool   // takes requests now
	Reason   string // why it is not connected; "" if it is
	InFlight uint64 // unanswered requests
	Window   int    // the most of them
	Limit    int    // the most of them that the peer gets now: it adapts to what the peer answers
	Reduced  uint64 // how often that was halved since it was connected
	Realtime bool   // it demands DELIVER_AND_GRANT (RFC 6733, Section 9.8.7), which is for whoever gives service to enforce
	Cutting  bool   // it cuts the connection off whatever it is sent
	Connects uint64
	Sent     uint64
	Answered uint64
	Timeouts uint64
}

type counters struct {
	sent, resent, answered, unmatched, settled, retried, quarantined, timeouts, outboxFails, obeyFails, unproven, intervals atomic.Uint64
}

type linkCounters struct {
	connects                           uint64 // guarded by link.mu
	sent, answered, timeouts, inFlight atomic.Uint64
	reduced                            atomic.Uint64
	limit                              atomic.Int64
	realtime                           atomic.Uint32
	cuts                               atomic.Int64 // with one record in flight, in a row
}

// Stats returns a snapshot. It may be called at any time.
func (c *Client) Stats() Stats {
	s := Stats{
		Sent: c.count.sent.Load(), Resent: c.count.resent.Load(), Answered: c.count.answered.Load(),
		Unmatched: c.count.unmatched.Load(), Settled: c.count.settled.Load(), Retried: c.count.retried.Load(),
		Intervals: c.count.intervals.Load(), ObeyFails: c.count.obeyFails.Load(),
		Quarantined: c.count.quarantined.Load(), Unproven: c.count.unproven.Load(), Timeouts: c.count.timeouts.Load(), OutboxFails: c.count.outboxFails.Load(),
	}
	for _, l := range c.links {
		s.Peers = append(s.Peers, l.stats())
	}
	for i := range c.routes {
		w := &c.routes[i]
		realtime := slices.ContainsFunc(w.links, func(l *link) bool { return l.count.realtime.Load() == deliverAndGrant })
		s.Routes = append(s.Routes, RouteStats{
			Realms: w.Realms, Ready: w.count.ready.Load(), Realtime: realtime, Sent: w.count.sent.Load(), Settled: w.count.settled.Load(),
			Quarantined: w.count.quarantined.Load(), Limited: w.count.limited.Load(),
		})
	}
	return s
}

func (l *link) stats() PeerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := PeerStats{
		Address: l.peer.Address, Host: l.host, Reason: l.reason, State: peer.Down, Window: l.client.cfg.Window,
		Limit: int(l.count.limit.Load()), Reduced: l.count.reduced.Load(), Cutting: l.count.cuts.Load() > 0, Realtime: l.count.realtime.Load() == deliverAndGrant,
		Connects: l.count.connects, InFlight: l.count.inFlight.Load(),
		Sent: l.count.sent.Load(), Answered: l.count.answered.Load(), Timeouts: l.count.timeouts.Load(),
	}
	if l.conn != nil {
		st := l.conn.Status()
		s.State, s.Ready = st.State, st.State == peer.Okay && st.Proven && !st.Leaving
	} else if l.count.connects == 0 {
		s.State = peer.Initial
	}
	return s
}
