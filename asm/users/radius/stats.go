package radius

import "maps"

// Stats counts what a Server has seen since it started.
type Stats struct {
	Strangers uint64                 // datagrams of nobody's address
	Clients   map[string]ClientStats // by name
}

// ClientStats counts packets of one client.
type ClientStats struct {
	Starts     uint64 // Accounting-Requests, repetitions apart
	Interims   uint64
	Stops      uint64
	Resets     uint64 // Accounting-On and Accounting-Off
	Others     uint64 // of a status that tells nothing of addresses, such as Tunnel-Start
	Pings      uint64 // Status-Server
	Empty      uint64 // of Starts: no address or no user yet, so nothing was noted
	Skewed     uint64 // whose Event-Timestamp was not believed
	Repeated   uint64 // came again, and were answered again
	Coalesced  uint64 // came again before they could be answered
	Overload   uint64 // discarded, since too many waited to be made durable
	Answered   uint64 // Accounting-Responses sent
	Unanswered uint64 // that could not be sent
	Malformed  map[Cause]uint64
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Stats{Strangers: s.strangers, Clients: map[string]ClientStats{}}
	for _, c := range s.directory.clients {
		stats := c.stats
		stats.Malformed = maps.Clone(stats.Malformed)
		all.Clients[c.Name] = stats
	}
	return all
}
