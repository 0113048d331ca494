package sim

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/users"
)

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
	clear(t.holdersAt)
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

// sweepAtTimes forgets what is over, now and then.
func (t *truth) sweepAtTimes() {
	if every := int64(max(10*time.Minute, t.settings.Late/24)); t.now/every != t.swept/every {
		t.swept = t.now
		before := t.now/int64(time.Millisecond) - t.settings.Late.Milliseconds()
		t.sweep(before)
		clear(t.holdersAt)
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
