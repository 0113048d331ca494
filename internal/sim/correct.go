package sim

import (
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// A charge is usage of a flow as it was billed to whoever held one of its
// addresses, while a binding that comes late may say otherwise.
type charge struct {
	at     int64 // the moment that decides, Unix milliseconds
	near   end
	shared bool // its port says whose it is: some address was shared then
	to     holderKey
	class  string
	own    bool // the class is the binding's
	usage  acct.Usage
	closed int64 // the end of the interval in which it was billed, Unix nanoseconds; 0 while that lasts
}

// remember keeps what h was billed, if that may be contradicted: no binding says
// what the flow itself says, or the fallback.
func (t *truth) remember(f *flow, h *holder, c charge) {
	if t.settings.Correct == 0 || h.source == "" || f.user == h.User || c.usage == (acct.Usage{}) {
		return
	}
	c.to = h.key()
	t.charges = append(t.charges, &c)
}

// party returns whom it comes to the same to bill as who has a key: the user, of
// the realm that the source said last.
func (t *truth) party(k holderKey) [2]string { return [2]string{k.user, t.realms[k]} }

// correct moves, at the end of an interval, what was charged to one and is, by
// all that is known now, another's: as a credit and a debit. What is forgotten
// of who held what, or was charged, stays as it is.
func (t *truth) correct() {
	settings := &t.settings
	if settings.Correct == 0 {
		return
	}
	for i, c := range slices.Backward(t.charges) {
		if c.closed != 0 && c.closed <= t.boundary-int64(settings.Correct) {
			t.charges = t.charges[i+1:]
			break
		}
	}
	t.forget(t.boundary)
	horizon := t.forgotten + settings.UserTolerance.Milliseconds()
	var moved []*charge
	t.charges = slices.DeleteFunc(t.charges, func(c *charge) bool {
		if c.closed == 0 {
			c.closed = t.boundary
		}
		if c.at <= horizon {
			return false
		}
		to, own := holderKey{user: settings.Fallback}, ""
		h := t.alone(c.near.space, c.near.address, c.at)
		if c.shared {
			h = t.held(c.near, c.at)
		}
		if h != nil {
			to, own = h.key(), h.Class
		}
		if t.party(to) == t.party(c.to) {
			return false
		}
		t.w.log("truth: %+v of %v at %v moves from %q to %q", c.usage, c.near, milli(c.at).Format("15:04:05.000"), c.to.user, to.user)
		next := *c
		next.to, next.closed = to, 0
		t.book(c, true)
		if c.own && to.user != "" {
			next.class = t.classOr(own)
		}
		t.book(&next, false)
		moved = append(moved, &next)
		t.w.report.Moved++
		return true
	})
	t.charges = append(t.charges, moved...)
}

// book books one half of a correction, if it is anybody's.
func (t *truth) book(c *charge, credit bool) {
	if c.to.user == "" {
		return
	}
	key := acct.LedgerKey{Exporter: acct.DebitBook, Interval: t.interval()}
	if credit {
		key.Exporter = acct.CreditBook
	}
	n := acct.Count{Octets: c.usage.InputOctets + c.usage.OutputOctets, Packets: c.usage.InputPackets + c.usage.OutputPackets}
	row, b := t.row(key), bill{c.to.user, c.class, credit}
	row.received, row.accounted = row.received.Plus(n), row.accounted.Plus(n)
	t.billed[b] = t.billed[b].Plus(c.usage)
}

// forget notes that the clock has come to a time, Unix nanoseconds: who held what
// that ended long before may be forgotten.
func (t *truth) forget(now int64) {
	t.forgotten = max(t.forgotten, now/int64(time.Millisecond)-t.settings.Late.Milliseconds())
}
