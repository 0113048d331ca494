package users

import (
	"cmp"
	"net/netip"
	"slices"
)

// Apply takes in an Event, which is normal, and returns the Claims that it
// changed, in order, with those of others whose address it took over.
//
//   - A session holds its Prefixes from its Begin until its End, which is the
//     earliest that was told. An Event that was applied before changes nothing.
//   - Within a source, who begins to hold a prefix ends what others held of
//     exactly that prefix: their End was lost or is late. It is so even if the
//     Begin comes late: a prefix is held by who began to hold it last.
//   - A session of which nothing has been heard since At + Timeout has ended
//     then; a later Event brings it back.
//   - An Update or End of an unknown session that says whose it is and what it
//     holds makes it, since Since. A Begin that comes after its End is known by
//     its time.
//   - An EndAll ends the sessions of a NAS that were not heard of since. One that
//     is, and says that it began before, has outlived the restart of the NAS, and
//     held what it holds all along; unless that was given to another since.
//   - Another User, or a Begin after the End, makes another session of an ID.
//   - An Update older than what is known changes nothing.
//   - Beyond MaxSessions nobody holds what a new session would, until a later
//     Event of it finds room.
func (t *Table) Apply(e Event) []*Claim {
	a := applying{t: t, e: &e, s: t.source(e.Source), at: toMilli(e.At)}
	if e.Kind == EndAll {
		a.endAll()
	} else {
		a.session()
	}
	t.dropIfEmpty(a.s)
	slices.SortFunc(a.changed, (*Claim).compare)
	return slices.Compact(a.changed)
}

// applying is an Event that is being applied.
type applying struct {
	t       *Table
	e       *Event
	s       *source
	at      int64 // Unix milliseconds
	changed []*Claim
}

// touch notes that c has changed.
func (a *applying) touch(c *Claim) {
	a.changed = append(a.changed, c)
	a.t.touch(c)
}

func (t *Table) touch(c *Claim) {
	if c.flags&claimDirty == 0 {
		c.flags |= claimDirty
		t.dirty = append(t.dirty, c)
	}
}

// endAll ends the sessions of a NAS that began at or before the Event and have
// not been heard of since.
func (a *applying) endAll() {
	for _, c := range a.s.claims.sorted() {
		if c.NAS() == a.e.NAS && !c.Ended() && c.began.ms() <= a.at && c.seen.ms() <= a.at {
			a.end(c, a.at)
			c.flags |= claimSwept
		}
	}
}

// since returns when a session began of which the Event is the first to tell.
func (a *applying) since() int64 {
	if since := toMilli(a.e.Since); since != 0 && a.e.Kind != Begin {
		return since
	}
	return a.at
}

// deadline returns when the session ends if nothing more is heard of it, 0 for
// never.
func (a *applying) deadline() int64 {
	if a.e.Timeout == 0 {
		return 0
	}
	return a.at + a.e.Timeout.Milliseconds()
}

// session applies an Event of one session.
func (a *applying) session() {
	c := a.s.claims.get(a.e.ID)
	switch {
	case c == nil:
		a.latest(a.begin(0))
	case c.User() == "" && a.since() <= c.until.ms():
		// The session's End came first, and did not say whose it was.
		if a.e.Kind != End {
			a.latest(a.begin(c.until.ms()))
		}
	case !a.another(c):
		a.goOn(c)
	case a.since() < c.began.ms():
		// It was over before c began.
		if old := a.earlier(); old != nil {
			a.repeat(old)
		} else if old := a.begin(c.began.ms()); old != nil {
			a.s.past = append(a.s.past, old)
		}
	default:
		if a.since() == c.Began() {
			if old := a.earlier(); old != nil && old.Began() == a.since() {
				a.repeat(old)
				return
			}
		}
		if from := a.since(); !c.Ended() || c.until.ms() > from {
			a.end(c, from)
		}
		a.latest(a.begin(0))
	}
}

// another reports whether the Event is of another session than c, of the same
// ID.
func (a *applying) another(c *Claim) bool {
	if a.e.User != "" && a.e.User != c.User() {
		return true
	}
	return c.Ended() && a.e.Kind != End && a.since() >= c.until.ms() && a.since() > c.Began()
}

// earlier returns an earlier session of the ID that the Event may be of: the
// latest of the user that began by then, nil for none.
func (a *applying) earlier() (c *Claim) {
	for _, old := range a.s.past {
		if began := old.Began(); old.ID() == a.e.ID && old.User() == a.e.User && began <= a.since() && (c == nil || began > c.Began()) {
			c = old
		}
	}
	return c
}

// repeat applies the Event to a session whose ID has gone to another: only its
// End may be news.
func (a *applying) repeat(c *Claim) {
	if a.e.Kind == End && a.at < c.until.ms() {
		a.end(c, a.at)
	}
}

// latest makes c, if there is one, the latest Claim of its ID.
func (a *applying) latest(c *Claim) {
	if c == nil {
		return
	}
	if old := a.s.claims.get(c.ID()); old != nil {
		if a.touch(old); old.User() == "" {
			old.flags |= claimGone // c says what it said
		} else {
			a.s.past = append(a.s.past, old)
		}
	}
	a.s.claims.put(c)
}

// begin makes a Claim of the Event, which has ended at a moment, 0 for not
// yet. An Event that doesn't say enough makes none, but an End is remembered.
func (a *applying) begin(ended int64) *Claim {
	e, known := a.e, a.e.User != "" && len(a.e.Prefixes) > 0
	if !known && e.Kind != End {
		return nil
	}
	if a.t.sessions() >= a.t.most() {
		a.t.sessionsRefused++
		a.displace()
		return nil
	}
	c := a.t.newClaim(a.s.origin(e.NAS, e.VRF), e.User, e.ID, e.Options)
	c.began, c.seen, c.until = momentOf(a.since()), momentOf(a.at), momentOf(a.deadline())
	if e.Kind == Begin {
		c.flags |= claimBegun
	}
	a.touch(c)
	if e.Kind == End && (ended == 0 || a.at < ended) {
		ended = a.at
	}
	if ended != 0 {
		c.flags |= claimEnded
		c.until = momentOf(max(ended, c.Began()))
	}
	if known {
		for _, p := range e.Prefixes {
			a.hold(c, p, c.began.ms())
		}
	}
	return c
}

// displace ends what others held of the Event's prefixes, for a session that is
// not to be known: nobody is better than somebody else.
func (a *applying) displace() {
	e := a.e
	c := a.t.newClaim(a.s.origin(e.NAS, e.VRF), e.User, e.ID, e.Options)
	for _, p := range e.Prefixes {
		a.hold(c, p, a.since())
	}
	for h := range c.Holders() {
		a.t.unlink(h)
	}
}

// goOn applies the Event to its session, which is known.
func (a *applying) goOn(c *Claim) {
	exact := a.e.Kind == Begin
	if exact || c.flags&claimBegun == 0 && !a.e.Since.IsZero() {
		a.extend(c, a.since())
	}
	if exact && c.flags&claimBegun == 0 {
		c.flags |= claimBegun
		a.touch(c)
	}
	if c.flags&claimSwept != 0 && a.at > c.seen.ms() && a.since() < c.until.ms() && !a.t.overtaken(c) {
		c.flags &^= claimEnded | claimSwept
	}
	switch {
	case a.e.Kind == End:
		if !c.Ended() || a.at < c.until.ms() {
			a.end(c, a.at)
		}
	case a.at > c.seen.ms() && !c.Ended():
		a.update(c)
	}
}

// extend lets c hold what it held first since an earlier moment, unless others
// began to hold it in between.
func (a *applying) extend(c *Claim, from int64) {
	start := c.start()
	if from >= start {
		return
	}
	for h := range c.Holders() {
		if h.From != start || a.t.taken(h, from) {
			continue
		}
		a.t.unlink(h)
		h.From = from
		a.link(h)
		a.t.doubtHolder(h) // all of it: others that began since come before it now
		a.touch(c)
	}
}

// start returns when c began to hold anything.
func (c *Claim) start() int64 {
	if c.first == nil {
		return c.began.ms()
	}
	start := c.first.From
	for h := range c.Holders() {
		start = min(start, h.From)
	}
	return start
}

// taken reports whether another session of the same source began to hold the
// prefix of h from a moment on but before h did.
func (t *Table) taken(h *Holder, from int64) bool {
	for g := h.next; g != nil && g.From >= from; g = g.next {
		if g.rivals(h) {
			return true
		}
	}
	return false
}

// rivals reports whether g and h are of sessions of one source: only one of
// them can hold their prefix.
func (h *Holder) rivals(g *Holder) bool {
	return h.origin.source == g.origin.source && h.ID() != "" && g.ID() != "" && h.ports() == g.ports()
}

// update applies an Update, or another Begin, that is newer than what is known
// of c.
func (a *applying) update(c *Claim) {
	a.touch(c)
	c.seen, c.until = momentOf(a.at), momentOf(a.deadline())
	if a.e.Options != (Options{}) && a.e.Options != *c.Options {
		a.change(c)
	}
	if len(a.e.Prefixes) > 0 {
		held := make(map[netip.Prefix]bool)
		for h := range c.Holders() {
			switch p := h.Prefix(); {
			case h.flags&holderGiven != 0:
			case slices.Contains(a.e.Prefixes, p):
				held[p] = held[p] || a.t.rival(h) == nil
			default:
				a.t.setUntil(h, max(a.at, h.From))
				a.bound(h)
				h.flags |= holderGiven
			}
		}
		for _, p := range a.e.Prefixes {
			if !held[p] {
				a.hold(c, p, a.at)
			}
		}
	}
	for h := range c.Holders() {
		if h.flags&holderGiven == 0 {
			a.t.setUntil(h, c.until.ms())
			a.bound(h)
		}
	}
}

// change gives c the Options of the Event. Other ports are in other places.
func (a *applying) change(c *Claim) {
	moved := a.e.Ports != c.Ports
	for h := range c.Holders() {
		if moved {
			a.t.unlink(h)
		}
	}
	c.Options = a.t.intern(a.e.Options)
	for h := range c.Holders() {
		if moved {
			a.link(h)
			a.t.doubtHolder(h)
		}
	}
}

// end ends c at a moment.
func (a *applying) end(c *Claim, at int64) {
	c.flags = c.flags&^claimSwept | claimEnded
	c.seen, c.until = momentOf(max(c.Seen(), at)), momentOf(max(at, c.start()))
	for h := range c.Holders() {
		if h.flags&holderGiven == 0 || h.Until > at {
			a.t.setUntil(h, max(at, h.From))
			a.bound(h)
		}
	}
	a.touch(c)
}

// hold lets c hold p from a moment on.
func (a *applying) hold(c *Claim, p netip.Prefix, from int64) {
	h := c.holder(from)
	h.Until = c.until.ms()
	h.setPrefix(p)
	a.link(h)
	a.t.doubtHolder(h)
}

// link puts h into the Table, and ends what its rivals held.
func (a *applying) link(h *Holder) {
	a.t.link(h)
	a.bound(h)
	for g := h.next; g != nil; g = g.next {
		if !g.rivals(h) || g.Until != 0 && g.Until <= h.From {
			continue
		}
		a.t.setUntil(g, h.From)
		a.t.overlaps++
		a.touch(g.Claim)
	}
}

// bound ends h when a rival begins.
func (a *applying) bound(h *Holder) {
	if g := a.t.rival(h); g != nil && (h.Until == 0 || h.Until > g.From) {
		a.t.setUntil(h, g.From)
	}
}

// rival returns who took the prefix of h over, nil if nobody did.
func (t *Table) rival(h *Holder) (next *Holder) {
	for g := t.in(h.VRF()).chain(h.Prefix(), h.ports()); g != h; g = g.next {
		if g.rivals(h) {
			next = g
		}
	}
	return next
}

// Overlaps counts how often a session began to hold a prefix while another one
// of the same source still held it.
func (t *Table) Overlaps() uint64 { return t.overlaps }

// MaxSessions bounds the user sessions that a Table remembers, which are those
// that are not over and those whose flows may still come: some 4 GB.
const MaxSessions = 16 << 20

// Sessions returns how many user sessions there are that Events told of, and how
// often another was refused since there were MaxSessions.
func (t *Table) Sessions() (n int, refused uint64) { return t.sessions(), t.sessionsRefused }

func (t *Table) sessions() (n int) {
	for _, s := range t.sources {
		n += s.claims.n + len(s.past)
	}
	return n
}

// most returns how many sessions there may be.
func (t *Table) most() int { return cmp.Or(t.maxSessions, MaxSessions) }

// overtaken reports whether another session began to hold a prefix of c after c
// had ended.
func (t *Table) overtaken(c *Claim) bool {
	for h := range c.Holders() {
		if g := t.rival(h); g != nil && h.flags&holderGiven == 0 && g.From >= c.until.ms() {
			return true
		}
	}
	return false
}

// TrimSessions drops what user sessions held, and Mappings were for, until a
// moment in Unix milliseconds or earlier.
func (t *Table) TrimSessions(before int64) {
	for _, s := range slices.Clone(t.sources) {
		t.trimSessions(s, before)
		t.dropIfEmpty(s)
	}
	t.trimMappings(before)
}

func (t *Table) trimSessions(s *source, before int64) {
	over := func(c *Claim) bool {
		last := &c.first
		for h := *last; h != nil; h = h.sibling {
			if h.Until == 0 || h.Until > before {
				last = &h.sibling
				continue
			}
			t.unlink(h)
			*last = h.sibling
			t.touch(c)
		}
		if c.first != nil || c.until.ms() == 0 || c.until.ms() > before || c.seen.ms() > before {
			return false
		}
		c.flags |= claimGone
		t.touch(c)
		return true
	}
	s.past = slices.DeleteFunc(s.past, over)
	for _, c := range s.claims.sorted() {
		if over(c) {
			s.claims.remove(c)
		}
	}
}

// Delta calls put for each user session that changed since the last Delta, in
// no order: with a key of its own and an encoding that RestoreClaim reads, nil
// for one that was dropped.
func (t *Table) Delta(put func(key string, value []byte)) {
	for _, c := range t.dirty {
		c.flags &^= claimDirty
		if c.flags&claimGone != 0 {
			put(c.key(), nil)
		} else {
			put(c.key(), c.append(nil))
		}
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
}

// Claims returns the user sessions of a source that Events told of, in order.
func (t *Table) Claims(source string) []*Claim {
	i, ok := t.search(source)
	if !ok {
		return nil
	}
	s := t.sources[i]
	all := slices.Concat(s.claims.sorted(), s.past)
	slices.SortFunc(all, (*Claim).compare)
	return all
}
