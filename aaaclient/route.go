package aaaclient

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"tollbridge/aaaclient/peer"
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

// aim finds the links that take requests: of each route those in OKAY, or,
// while there are none, those in REOPEN. Requests on a link that takes none
// move to one that does (RFC 3539, Section 3.4.1: Failover).
func (d *delivery) aim() {
	var okay, reopen uint64
	suspect := false
	for _, l := range d.links {
		if l.live == nil {
			continue
		}
		switch s := l.live.Status(); {
		case s.State == peer.Suspect:
			suspect = suspect || l.window.Len() > 0
		case !s.Proven || s.Leaving:
		case s.State == peer.Okay:
			okay |= l.bit()
		case s.State == peer.Reopen:
			reopen |= l.bit()
		}
	}
	for _, r := range d.routes {
		r.okay = r.mask&okay != 0
		set := okay
		if !r.okay {
			set = reopen
		}
		var now uint64
		for _, l := range r.targets {
			now |= l.bit()
		}
		if now == set&r.mask {
			continue
		}
		r.targets = r.targets[:0]
		for _, l := range r.links {
			if l.bit()&set != 0 {
				r.targets = append(r.targets, l)
			}
			r.unpark(l)
		}
		r.count.ready.Store(len(r.targets) > 0)
	}
	if !suspect {
		return
	}
	for _, l := range d.links {
		if l.live == nil || l.window.Len() == 0 || l.live.Status().State != peer.Suspect {
			continue
		}
		moved := 0
		for _, s := range l.window.All() {
			if s.route.okay {
				d.abandon(s)
				d.acquit(s)
				d.move(s, sendable)
				moved++
			}
		}
		if moved > 0 {
			l.log.Warn("peer is suspect: its requests go elsewhere", "requests", moved)
		}
	}
}

// unpark takes the sessions of r that wait for l back, to choose again.
func (r *route) unpark(l *link) {
	for n := l.parked.len(); n > 0; n-- {
		s := l.parked.pop()
		switch {
		case s.route != r:
			l.parked.push(s)
		case s.stage == ready:
			r.ready.push(s)
		default:
			s.queued[ready] = false
		}
	}
}

// choose returns the link for the head of s, or nil while there is none: the
// best that has not failed it and is not mute, else the best that is not mute,
// else the best with a route.
func (d *delivery) choose(s *session) *link {
	mute := d.mute
	for mute != 0 {
		l := d.links[bits.TrailingZeros64(mute)]
		if mute &^= l.bit(); l.idle() && !d.now.Before(l.probe) && slices.Contains(s.route.targets, l) && l.bit()&(s.avoid|s.refused) == 0 {
			return l // to see whether it answers by now
		}
	}
	for _, without := range [...]uint64{s.avoid | s.refused | d.mute, s.refused | d.mute, s.avoid | s.refused, s.refused} {
		if l := s.route.pick(s, without); l != nil {
			return l
		}
	}
	return s.route.pick(s, 0)
}

// muteAfter is how many requests in a row a peer may leave unanswered before
// the others are preferred. It may be in OKAY all the same: a watchdog says
// nothing about a server's database.
const muteAfter = 3

// silent says that a request to l was not answered in time.
func (d *delivery) silent(l *link) {
	l.pace.slow(d.now)
	if l.unanswered++; l.unanswered < muteAfter {
		return
	}
	l.probe = d.now.Add(d.cfg.Timeout)
	if d.mute&l.bit() != 0 {
		return
	}
	d.mute |= l.bit()
	l.log.Warn("peer answers no requests: others are preferred")
	for _, r := range d.routes {
		r.unpark(l)
	}
}

// spoken says that l has answered a request.
func (d *delivery) spoken(l *link) {
	d.answers++
	l.answered, l.unanswered = d.answers, 0
	if d.mute&l.bit() != 0 {
		d.mute &^= l.bit()
		l.log.Info("peer answers requests again")
	}
}

// idle reports whether nothing is on its way to l.
func (l *link) idle() bool {
	return l.window != nil && l.window.Len()+l.assigned+l.parked.len() == 0
}

// pick returns the target of the best rank that is not in the set without. Of
// several it takes the same one for a session as long as it is there, and
// each as often as its Weight says (weighted rendezvous hashing).
func (r *route) pick(s *session, without uint64) *link {
	var best *link
	var most float64
	for _, l := range r.targets {
		if l.bit()&without != 0 {
			continue
		}
		if best == nil {
			best, most = l, -1
			continue
		}
		if l.rank != best.rank {
			break
		}
		if most < 0 {
			most = best.claim(s)
		}
		if c := l.claim(s); c > most {
			best, most = l, c
		}
	}
	return best
}

// claim returns how much l claims the session: the highest gets it.
func (l *link) claim(s *session) float64 {
	if s.hash == 0 {
		s.hash = hash(s.id)
	}
	x := s.hash ^ l.salt
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	u := (float64(x>>11) + 0.5) / (1 << 53)
	return -float64(l.peer.Weight) / math.Log(u)
}

// hash is FNV-1a of 64 bits: the same in every run, so that a session stays
// with its peer over a restart.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// admit lets as many records go on as will have room: to be marked, or to be
// sent if they were marked in an earlier life and nothing of their session is
// to be settled before. The others are parked with the
// link that they are meant for, so that a slow one holds up no other.
func (d *delivery) admit() {
	for _, r := range d.routes {
		if len(r.targets) == 0 {
			continue
		}
		for r.ready.len() > 0 {
			if !r.bucket.take(d.now) {
				r.count.limited.Add(1)
				break
			}
			s := take(&r.ready, ready)
			if s == nil {
				break
			}
			s.queued[ready] = true
			d.choose(s).parked.push(s)
		}
	}
	for _, l := range d.links {
		for l.room() > 0 {
			s := take(&l.parked, ready)
			if s == nil {
				s = d.relieve(l)
			}
			if s == nil {
				break
			}
			if s.marked && s.settling == 0 {
				d.move(s, sendable)
			} else {
				d.move(s, marking)
				d.marks = append(d.marks, s)
			}
			s.assign(l)
		}
	}
}

// relieve returns a session that waits for a link that shares the load with l,
// or nil. The session leaves its peer, since that is too slow: those that wait
// for it take up half of what may be in memory.
func (d *delivery) relieve(l *link) *session {
	for _, other := range d.links {
		if other.rank != l.rank || other == l {
			continue
		}
		for other.parked.len() > d.cfg.Buffer/2 {
			s := take(&other.parked, ready)
			if s == nil {
				break
			}
			if (s.avoid|s.refused)&l.bit() == 0 && slices.Contains(s.route.targets, l) {
				return s
			}
			s.queued[ready] = true
			other.parked.push(s)
			break
		}
	}
	return nil
}

// room returns how many more records may be admitted for l.
func (l *link) room() int {
	if l.window == nil {
		return 0
	}
	return l.free() - l.assigned
}

// free returns how many more requests may be sent on l.
func (l *link) free() int {
	if l.window == nil {
		return 0
	}
	return min(l.window.Free(), l.pace.limit()-l.window.Len())
}

// send transmits what may be sent and has room. A suspect goes with nothing
// else in flight on its link.
func (d *delivery) send() {
	var hold uint64
	for n := d.suspects.len(); n > 0; n-- {
		s := d.suspects.pop()
		if s.stage != sendable || !s.alone {
			continue
		}
		l := d.choose(s)
		if l == nil || hold&l.bit() != 0 || l.window.Len() > 0 {
			if l != nil {
				hold |= l.bit()
			}
			d.suspects.push(s)
			continue
		}
		hold |= l.bit()
		d.transmit(s, l)
		l.alone = true
	}
	for _, r := range d.routes {
		if len(r.targets) == 0 {
			continue
		}
		for n := r.sendable.len(); n > 0; n-- {
			s := take(&r.sendable, sendable)
			if s == nil {
				break
			}
			l := s.to
			if l == nil || (s.avoid|s.refused)&l.bit() != 0 || !slices.Contains(r.targets, l) {
				l = d.choose(s)
			}
			if hold&l.bit() == 0 && !l.alone && l.free() > 0 {
				d.transmit(s, l)
			} else {
				s.queued[sendable] = true
				r.sendable.push(s)
			}
		}
	}
}

// released says that s is not in flight on l any more.
func (l *link) released(s *session) {
	if s.alone {
		l.alone = false
	}
}

// flying returns the sessions in flight.
func (d *delivery) flying() int {
	n := 0
	for _, r := range d.routes {
		n += r.stages[inFlight]
	}
	return n
}

// hosts are the Destination-Hosts that are known of sessions.
type hosts map[string]string

// maxHosts bounds them, about 100 octets each. Those beyond are sought again
// by realm, which costs nothing but the relay's search.
const maxHosts = 1 << 16

func (h *hosts) learn(session string, origin []byte) {
	if *h == nil {
		*h = hosts{}
	}
	if known, ok := (*h)[session]; ok && known == string(origin) {
		return
	}
	if len(*h) >= maxHosts {
		for s := range *h {
			delete(*h, s)
			break
		}
	}
	(*h)[session] = string(origin)
}

// learn notes who answered the head of s.
func (r *route) learn(s *session, a *answer) {
	if !r.LearnHost {
		return
	}
	switch kind := uint32(s.head().Record.Type); {
	case kind == avp.StopRecord || kind == avp.EventRecord:
		delete(r.hosts, s.id)
	case len(a.origin) > 0 && avp.ValidIdentity(string(a.origin)):
		r.hosts.learn(s.id, a.origin)
	}
}
