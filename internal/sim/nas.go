package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

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
