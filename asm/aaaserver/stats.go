package aaaserver

import "sync/atomic"

// Stats counts what a Server has done since it was made.
type Stats struct {
	Connections   uint64 // peers that exchanged capabilities
	Refused       uint64 // connections that were not taken
	Open          int    // connections now
	Requests      uint64 // Accounting-Requests
	Retransmitted uint64 // of those, with the T flag
	Answered      uint64
	Stored        uint64
	Flows         uint64 // taken by the Pipeline, with a flow
	Forwarded     uint64 // taken by the Pipeline, for another realm
	Bindings      uint64 // taken by the Pipeline, of access servers
	Duplicates    uint64 // answered as stored, since they were
	Conflicts     uint64 // stored beside another of the same Session-Id and number
	Invalid       uint64 // refused for what they say
	Failed        uint64 // could not be stored
	Strange       uint64 // messages that are no Accounting-Request
}

type counters struct {
	connections, refused, requests, retransmitted, answered, stored, flows, forwarded, bindings, duplicates, conflicts, invalid, failed, strange atomic.Uint64
}

// Stats returns a snapshot. It may be called at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Stats{
		Connections: s.count.connections.Load(), Refused: s.count.refused.Load(), Open: open,
		Requests: s.count.requests.Load(), Retransmitted: s.count.retransmitted.Load(), Answered: s.count.answered.Load(),
		Stored: s.count.stored.Load(), Flows: s.count.flows.Load(), Forwarded: s.count.forwarded.Load(), Bindings: s.count.bindings.Load(), Duplicates: s.count.duplicates.Load(), Conflicts: s.count.conflicts.Load(),
		Invalid: s.count.invalid.Load(), Failed: s.count.failed.Load(), Strange: s.count.strange.Load(),
	}
}
