package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// A subscriber's session, as a NAS knows it.
type login struct {
	id, user, nas string
	prefixes      []netip.Prefix
	since         time.Time
	timeout       time.Duration
}

// nases hold sessions of users and tell the bridge of them, as well as they
// can: some events are lost, some come twice, late, or after others.
type nases struct {
	logins  []*login
	count   int
	encoded map[string]users.Event // what was put into the journal
}

const nasSource = "nas"

var nasNames = []string{"nas-a", "nas-b"}

// changes lets sessions begin, change and end while there is traffic.
func (n *nases) changes(w *world) {
	if w.rng.IntN(3) == 0 {
		return
	}
	n.encoded = map[string]users.Event{}
	for range 2 + w.rng.IntN(w.mood.events) {
		w.after(w.between(0, w.mood.traffic), func() {
			switch {
			case len(n.logins) == 0 || w.chance(0.45):
				n.login(w)
			case w.chance(0.5):
				n.update(w, one(&w.scheduler, n.logins))
			case w.chance(0.8):
				n.logout(w, one(&w.scheduler, n.logins))
			default:
				n.restart(w, one(&w.scheduler, nasNames))
			}
		})
	}
}

func (w *world) today() time.Time { return time.UnixMilli(w.now / int64(time.Millisecond)).UTC() }

// addresses are one or two of those that lists know too.
func (n *nases) addresses(w *world) []netip.Prefix {
	a := one(&w.scheduler, insiders)
	p := []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	if w.chance(0.4) {
		six := one(&w.scheduler, inside6)
		p = append(p, netip.PrefixFrom(six, 128))
	}
	return p
}

func (n *nases) login(w *world) {
	n.count++
	l := &login{
		id: fmt.Sprint("session ", n.count), user: one(&w.scheduler, people), nas: one(&w.scheduler, nasNames),
		prefixes: n.addresses(w), since: w.today(),
	}
	if w.chance(0.4) {
		l.timeout = w.between(30*time.Second, 10*time.Minute).Round(time.Millisecond)
	}
	n.logins = append(n.logins, l)
	n.tell(w, l, users.Begin)
}

func (n *nases) update(w *world, l *login) {
	if w.chance(0.5) {
		l.prefixes = n.addresses(w)
	}
	n.tell(w, l, users.Update)
}

func (n *nases) logout(w *world, l *login) {
	n.logins = slices.DeleteFunc(n.logins, func(x *login) bool { return x == l })
	n.tell(w, l, users.End)
}

func (n *nases) restart(w *world, nas string) {
	n.logins = slices.DeleteFunc(n.logins, func(l *login) bool { return l.nas == nas })
	n.send(w, users.Event{Source: nasSource, Kind: users.EndAll, NAS: nas, At: w.today()})
}

func (n *nases) tell(w *world, l *login, kind users.EventKind) {
	e := users.Event{Source: nasSource, Kind: kind, ID: l.id, NAS: l.nas, At: w.today(), Timeout: l.timeout}
	if kind == users.Begin || w.chance(0.7) {
		e.User, e.Prefixes = l.user, slices.Clone(l.prefixes)
	}
	if kind != users.Begin && w.chance(0.6) {
		e.Since = l.since
	}
	n.send(w, e)
}

// send puts an event into the journal: once, or twice, or never, now or later.
func (n *nases) send(w *world, e users.Event) {
	e, err := e.Normalize()
	if err != nil {
		w.fail("an event that a NAS tells is refused: %v", err)
	}
	times := 1
	if w.chance(0.1) {
		times = 0
	} else if w.chance(0.2) {
		times = 2
	}
	for range times {
		delay := time.Duration(0)
		if w.chance(w.mood.late) {
			delay = w.between(0, w.mood.latest)
		}
		w.after(delay, func() {
			if w.proc != nil && !w.quiet {
				n.put(w, e)
			}
		})
	}
}

func (n *nases) put(w *world, e users.Event) {
	data := e.AppendBinary(nil)
	n.encoded[string(data)] = e
	w.log("%v: %v %q at %v of %q since %v: %v, timeout %v", e.NAS, e.Kind, e.ID, e.At.Format("15:04:05.000"), e.User, e.Since.Format("15:04:05.000"), e.Prefixes, e.Timeout)
	w.proc.append(acct.EntryBinding, 0, data)
}

// end ends all sessions.
func (n *nases) end(w *world) {
	if n.encoded == nil {
		return
	}
	for _, nas := range nasNames {
		n.put(w, users.Event{Source: nasSource, Kind: users.EndAll, NAS: nas, At: w.today()})
	}
}

// A claim is what the truth knows of a user session: intervals in a list, of
// which for each prefix the one counts that began last.
type claim struct {
	id, user, nas string
	began, seen   int64 // Unix milliseconds
	until         int64 // 0 for ever
	begun, ended  bool
	held          []interval
}

type interval struct {
	prefix      netip.Prefix
	from, given int64 // given up, or 0
}

// end returns when interval i of c ends of itself, 0 for never.
func (c *claim) end(i interval) int64 {
	if i.given == 0 || c.until == 0 {
		return i.given + c.until
	}
	return min(i.given, c.until)
}

func (c *claim) start() int64 {
	start := c.began
	for n, i := range c.held {
		if n == 0 || i.from < start {
			start = i.from
		}
	}
	return start
}

// newer orders intervals of one prefix.
func newer(c *claim, i interval, d *claim, j interval) bool {
	return cmp.Or(cmp.Compare(i.from, j.from), cmp.Compare(d.user, c.user), cmp.Compare(d.id, c.id)) > 0
}

// newest returns the interval of a prefix that began last by a moment.
func (t *truth) begun(p netip.Prefix, at int64) (best *claim, last interval) {
	for _, c := range t.claims {
		for _, i := range c.held {
			if i.prefix == p && i.from <= at && (best == nil || newer(c, i, best, last)) {
				best, last = c, i
			}
		}
	}
	return best, last
}

// event takes in an event of user sessions. Sessions never share an ID.
func (t *truth) event(e users.Event) {
	at := unix(e.At)
	t.sweepAtTimes()
	changed := false
	if e.Kind == users.EndAll {
		for _, c := range t.claims {
			if c.nas == e.NAS && !c.ended && c.began <= at && c.seen <= at {
				c.stop(at)
				changed = true
			}
		}
	} else {
		changed = t.tell(e, at)
	}
	t.mapSoon(changed)
}

// mapSoon maps what waits for a user again in a while, if who holds what has
// changed.
func (t *truth) mapSoon(changed bool) {
	if changed && t.remap == 0 && len(t.waiting) > 0 && t.settings.Mode == asm.ModeASM {
		t.remap = t.now + int64(time.Second) + int64(len(t.waiting))*int64(50*time.Microsecond)
	}
}

// sweepAtTimes forgets what is over, now and then.
func (t *truth) sweepAtTimes() {
	if every := int64(10 * time.Minute); t.now/every != t.swept/every {
		t.swept = t.now
		before := t.now/int64(time.Millisecond) - t.settings.Late.Milliseconds()
		t.sweep(before)
		t.forgetTranslations(before)
	}
}

func (t *truth) tell(e users.Event, at int64) (changed bool) {
	from, deadline := at, int64(0)
	if e.Kind != users.Begin && !e.Since.IsZero() {
		from = unix(e.Since)
	}
	if e.Timeout != 0 {
		deadline = at + e.Timeout.Milliseconds()
	}
	i := slices.IndexFunc(t.claims, func(c *claim) bool { return c.id == e.ID })
	var c *claim
	if i >= 0 {
		c = t.claims[i]
	}
	switch {
	case c == nil || c.user == "" && from <= c.until && e.Kind != users.End || c != nil && c.ended && e.Kind != users.End && from >= c.until && from > c.began:
		if e.User == "" && e.Kind != users.End {
			return false
		}
		made := &claim{id: e.ID, user: e.User, nas: e.NAS, began: from, seen: at, until: deadline, begun: e.Kind == users.Begin}
		if e.Kind == users.End {
			made.ended, made.until = true, max(at, from)
		}
		switch {
		case c != nil && c.user != "": // it begins anew
			t.claims[i].id += " before"
			t.claims = append(t.claims, made)
		case c != nil: // its end is known
			made.ended, made.until = true, max(c.until, from)
			t.claims[i] = made
		default:
			t.claims = append(t.claims, made)
		}
		for _, p := range e.Prefixes {
			made.held = append(made.held, interval{p, from, 0})
		}
		return true
	case c.user == "":
		return false
	}
	start := c.start()
	if e.Kind == users.Begin || !c.begun && !e.Since.IsZero() {
		for n := range c.held {
			h := &c.held[n]
			if h.from == start && from < start && !t.taken(c, *h, from) {
				h.from, changed = from, true
			}
		}
	}
	changed = changed || e.Kind == users.Begin && !c.begun
	c.begun = c.begun || e.Kind == users.Begin
	switch {
	case e.Kind == users.End && (!c.ended || at < c.until):
		c.stop(at)
		return true
	case e.Kind != users.End && at > c.seen && !c.ended:
		c.seen, c.until = at, deadline
		if e.Prefixes != nil {
			t.hold(c, e.Prefixes, at)
		}
		return true
	}
	return changed
}

// taken reports whether another interval of the prefix of i began from a moment
// on but before i.
func (t *truth) taken(c *claim, i interval, from int64) bool {
	for _, d := range t.claims {
		for _, j := range d.held {
			if (d != c || j != i) && j.prefix == i.prefix && j.from >= from && newer(c, i, d, j) {
				return true
			}
		}
	}
	return false
}

// hold makes prefixes what c holds from a moment on.
func (t *truth) hold(c *claim, prefixes []netip.Prefix, at int64) {
	goesOn := map[netip.Prefix]bool{}
	for n := range c.held {
		h := &c.held[n]
		if h.given != 0 {
			continue
		}
		if !slices.Contains(prefixes, h.prefix) {
			h.given = max(at, h.from)
		} else if d, last := t.begun(h.prefix, 1<<60); d == c && last.from == h.from {
			goesOn[h.prefix] = true
		}
	}
	for _, p := range prefixes {
		if !goesOn[p] {
			c.held = append(c.held, interval{p, at, 0})
		}
	}
}

func (c *claim) stop(at int64) {
	c.ended, c.seen, c.until = true, max(c.seen, at), max(at, c.start())
	for n := range c.held {
		if h := &c.held[n]; h.given > at {
			h.given = max(at, h.from)
		}
	}
}

// lasts returns when interval i of c ends: of itself, or when another of the
// prefix begins; 0 for never.
func (t *truth) lasts(c *claim, i interval) int64 {
	end := c.end(i)
	for _, d := range t.claims {
		for _, j := range d.held {
			if (d != c || j != i) && j.prefix == i.prefix && newer(d, j, c, i) && (end == 0 || j.from < end) {
				end = j.from
			}
		}
	}
	if end != 0 {
		end = max(end, i.from)
	}
	return end
}

// sweep forgets what ended at a moment or earlier.
func (t *truth) sweep(before int64) {
	type ending struct {
		c *claim
		i interval
	}
	ended := map[ending]bool{}
	for _, c := range t.claims {
		for _, i := range c.held {
			end := t.lasts(c, i)
			ended[ending{c, i}] = end != 0 && end <= before
		}
	}
	t.claims = slices.DeleteFunc(t.claims, func(c *claim) bool {
		c.held = slices.DeleteFunc(c.held, func(i interval) bool { return ended[ending{c, i}] })
		return len(c.held) == 0 && c.until != 0 && c.until <= before && c.seen <= before
	})
}

// claimed returns what user sessions hold or held of an address.
func (t *truth) claimed(a netip.Addr) (all []*holder) {
	for _, c := range t.claims {
		for _, i := range c.held {
			end := t.lasts(c, i)
			if i.prefix.Contains(a) && end != i.from {
				all = append(all, &holder{Binding: users.Binding{Prefix: i.prefix, User: c.user, From: milli(i.from), Until: milli(end)}, source: nasSource, id: c.id})
			}
		}
	}
	for _, h := range all {
		if unix(h.Until) == 0 {
			h.Until = time.Time{}
		}
	}
	return all
}

// nearest returns who held an address at nearly a moment at which nobody did.
func (t *truth) nearest(all []*holder, at int64) (best *holder) {
	// Twice how far away h is, and one more if it has yet to begin.
	distance := func(h *holder) int64 {
		if at < unix(h.From) {
			return 2*(unix(h.From)-at) + 1
		}
		return 2 * (at - unix(h.Until))
	}
	most := t.settings.UserTolerance.Milliseconds()
	for _, h := range all {
		switch {
		case most == 0 || !h.Until.IsZero() && !h.Until.After(h.From) || distance(h)/2 > most:
		case best == nil || h.Prefix.Bits() > best.Prefix.Bits():
			best = h
		case h.Prefix.Bits() < best.Prefix.Bits():
		case distance(h) < distance(best) || distance(h) == distance(best) && h.before(best):
			best = h
		}
	}
	return best
}
