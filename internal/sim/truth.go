package sim

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A truth is the plainest model of what the bridge must come to: it follows
// the durable entries of the journal, each once, and knows what the exporters
// have put into their Messages. It shares no code with the pipeline; lists are
// searched from one end to the other.
type truth struct {
	w        *world
	position uint64
	journal  []acct.Entry // all of it
	promised []*message   // that exporters were told of as durable
	infos    map[string]asm.SessionInfo

	now      int64 // the latest time of an entry, Unix nanoseconds
	boundary int64 // the next end of an interval
	settings asm.Settings
	set      bool // settings have come

	sessions map[uint64]*transport
	seen     map[uint64]bool // flows that were accounted or wait for a user
	newest   int64           // bucket of the newest flow end
	floor    int64           // Unix milliseconds
	waiting  []*waiting
	holders  []*holder

	billed map[bill]acct.Usage
	events map[uint64]bool // flows that go to the AAA server as they are
	total  map[exporterDomain]*totals
}

// A bill is what usage is summed by.
type bill struct{ user, class string }

func (b bill) compare(o bill) int {
	return cmp.Or(cmp.Compare(b.user, o.user), cmp.Compare(b.class, o.class))
}

type exporterDomain struct {
	exporter string
	domain   uint32
}

// totals are the books of an Observation Domain.
type totals struct{ received, mirrored, accounted, duplicate, suspended acct.Count }

// A transport is a Transport Session.
type transport struct {
	info  asm.SessionInfo
	forms map[exporterDomain]map[uint16]int // by domain and Template ID; the name is empty
	early []early
}

// An early set came before its Template.
type early struct {
	time   int64 // of its entry
	domain uint32
	set    set
}

// A waiting flow has no user.
type waiting struct {
	flow  *flow
	since int64
}

// A holder is a binding.
type holder struct {
	users.Binding
	source  string
	removed bool
}

func newTruth(w *world) *truth {
	return &truth{
		w: w, infos: map[string]asm.SessionInfo{}, sessions: map[uint64]*transport{}, seen: map[uint64]bool{},
		billed: map[bill]acct.Usage{}, events: map[uint64]bool{}, total: map[exporterDomain]*totals{},
		settings: asm.Settings{Interval: 5 * time.Minute},
	}
}

// follow takes in the durable entries that it has not.
func (t *truth) follow() {
	for {
		entries, err := t.w.disk.entries(t.position, 1000)
		if err != nil {
			t.w.fail("the journal does not read behind %d: %v", t.position, err)
		}
		if len(entries) == 0 {
			return
		}
		for _, e := range entries {
			t.entry(e)
			t.position = e.Position
			e.Data = bytes.Clone(e.Data)
			t.journal = append(t.journal, e)
			t.w.report.Entries++
		}
	}
}

func (t *truth) entry(e acct.Entry) {
	t.advance(e.Time)
	switch e.Kind {
	case acct.EntryOpen:
		s := &transport{info: t.infos[string(e.Data)], forms: map[exporterDomain]map[uint16]int{}}
		for number, old := range t.sessions {
			if old.info != s.info {
				continue
			}
			if s.info.Transport == ipfix.UDP { // it goes on
				s.forms, s.early = old.forms, old.early
			}
			delete(t.sessions, number)
			break
		}
		t.sessions[e.Position] = s
	case acct.EntryClose:
		delete(t.sessions, e.Session)
		for number, s := range t.sessions {
			if e.Session == 0 && s.info.Transport != ipfix.UDP {
				delete(t.sessions, number)
			}
		}
	case acct.EntryConfig:
		s, err := asm.ParseSettings(e.Data)
		if err != nil {
			t.w.fail("settings in the journal: %v", err)
		}
		before, after := mustEncode(t.settings), mustEncode(s)
		if t.set && before == after {
			return
		}
		t.settings, t.set = s, true
		t.raise()
		t.boundary = down(t.now, s.Interval) + int64(s.Interval)
	case acct.EntryUsers:
		list, ok := t.w.users.encoded[string(e.Data)]
		if !ok {
			t.w.fail("entry %d has users that nobody wrote", e.Position)
		}
		t.replace(list)
	case acct.EntryMessage:
		m := t.w.known[string(e.Data)]
		if m == nil {
			t.w.fail("entry %d is a message that nobody sent", e.Position)
		}
		if s := t.sessions[e.Session]; s != nil {
			t.message(s, m, e.Time)
		}
	}
}

func mustEncode(s asm.Settings) string {
	b, err := s.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func down(at int64, step time.Duration) int64 { return at - at%int64(step) }

// advance moves the clock, which never goes back.
func (t *truth) advance(to int64) {
	if to <= t.now {
		return
	}
	if t.boundary == 0 {
		t.boundary = down(to, t.settings.Interval) + int64(t.settings.Interval)
	}
	for ; t.boundary <= to; t.boundary += int64(t.settings.Interval) {
		for _, s := range t.sessions {
			s.early = slices.DeleteFunc(s.early, func(e early) bool { return e.time <= t.boundary-int64(t.settings.EarlyWait) })
		}
		if t.settings.Fallback == "" || t.settings.Mode != asm.ModeASM {
			continue
		}
		t.waiting = slices.DeleteFunc(t.waiting, func(x *waiting) bool {
			if x.since > t.boundary-int64(t.settings.Wait) {
				return false
			}
			f := x.flow
			t.use(t.settings.Fallback, t.class(f, f.to, f.toPort, ""), f.forward, f.backward)
			t.leave(f, 1)
			return true
		})
	}
	t.now = to
}

// message takes in the sets of a Message.
func (t *truth) message(s *transport, m *message, at int64) {
	domain := exporterDomain{"", m.domain}
	if s.forms[domain] == nil {
		s.forms[domain] = map[uint16]int{}
	}
	told := map[uint16]bool{}
	for _, x := range m.sets {
		known, ok := s.forms[domain][x.id]
		switch {
		case x.withdraw:
			delete(s.forms[domain], x.id)
		case x.flows == nil:
			told[x.id] = told[x.id] || !ok
			s.forms[domain][x.id] = x.form
		case !ok:
			if t.earlyOf(s.info.Exporter) < t.settings.EarlySets {
				s.early = append(s.early, early{at, m.domain, x})
			}
			for _, f := range x.flows {
				f.journaled = true
			}
		case known != x.form:
			t.w.fail("a model exporter sends records of form %d as form %d", x.form, known)
		default:
			t.flows(s, x.flows)
		}
	}
	rest := s.early[:0:0]
	for _, e := range s.early {
		if e.domain == m.domain && told[e.set.id] {
			t.flows(s, e.set.flows)
		} else {
			rest = append(rest, e)
		}
	}
	s.early = rest
}

// earlyOf returns how many early sets of an exporter are kept.
func (t *truth) earlyOf(exporter string) (n int) {
	for _, s := range t.sessions {
		if s.info.Exporter == exporter {
			n += len(s.early)
		}
	}
	return n
}

// bucket is how finely the window of identities is divided.
const bucket = int64(time.Minute / time.Millisecond)

// flows takes in Data Records that were decoded.
func (t *truth) flows(s *transport, list []*flow) {
	for _, f := range list {
		f.journaled = true
		x, n := t.books(f), f.count()
		x.received = x.received.Plus(n)
		if f.end > t.now/int64(time.Millisecond)+t.settings.ClockTolerance.Milliseconds() || f.end < t.floor {
			// Suspended, or a duplicate if the whole Message is one.
			continue
		}
		if at := f.end / bucket; at > t.newest {
			t.newest = at
			t.raise()
		}
		if t.seen[f.id] {
			x.duplicate = x.duplicate.Plus(n)
			continue
		}
		t.seen[f.id] = true
		if t.settings.Mode == asm.ModeAAAClient {
			t.events[f.id] = true
			x.accounted = x.accounted.Plus(n)
			continue
		}
		if sides := t.bill(f); sides == 0 {
			x.suspended = x.suspended.Plus(n)
			t.waiting = append(t.waiting, &waiting{f, t.now})
		} else {
			t.account(f, sides)
		}
	}
}

// raise keeps the window's length before the newest flow end.
func (t *truth) raise() {
	t.floor = max(t.floor, (t.newest-(t.settings.DedupWindow.Milliseconds()+bucket-1)/bucket)*bucket)
}

func (t *truth) books(f *flow) *totals {
	key := exporterDomain{f.exporter, f.domain}
	x := t.total[key]
	if x == nil {
		x = &totals{}
		t.total[key] = x
	}
	return x
}

// account books a flow of which 1 or 2 sides are accounted.
func (t *truth) account(f *flow, sides int) {
	x, n := t.books(f), f.count()
	x.accounted = x.accounted.Plus(n)
	if sides == 2 {
		x.accounted, x.mirrored = x.accounted.Plus(n), x.mirrored.Plus(n)
	}
}

// leave books a flow that waited.
func (t *truth) leave(f *flow, sides int) {
	x := t.books(f)
	x.suspended = x.suspended.Minus(f.count())
	t.account(f, sides)
}

func (f *flow) count() acct.Count {
	return acct.Count{Records: 1, Octets: f.forward.octets + f.backward.octets, Packets: f.forward.packets + f.backward.packets}
}

// map_ bills a flow to whoever held its addresses and returns how many did.
func (t *truth) bill(f *flow) (sides int) {
	if h := t.held(f.from, f.end); h != nil {
		t.use(h.User, t.class(f, f.to, f.toPort, h.Class), f.forward, f.backward)
		sides++
	}
	if h := t.held(f.to, f.end); h != nil {
		t.use(h.User, t.class(f, f.from, f.fromPort, h.Class), f.backward, f.forward)
		sides++
	}
	return sides
}

// use bills what went from a user and to him.
func (t *truth) use(user, class string, from, to volume) {
	key := bill{user, class}
	t.billed[key] = t.billed[key].Plus(acct.Usage{
		InputOctets: from.octets, InputPackets: from.packets, OutputOctets: to.octets, OutputPackets: to.packets,
	})
}

// class names the first class whose rule matches.
func (t *truth) class(f *flow, far netip.Addr, port uint16, own string) string {
	for _, c := range t.settings.Classes {
		if len(c.DSCP) > 0 && !slices.Contains(c.DSCP, f.dscp) || len(c.Protocols) > 0 && !slices.Contains(c.Protocols, f.protocol) {
			continue
		}
		if len(c.Ports) > 0 && !slices.ContainsFunc(c.Ports, func(r asm.PortRange) bool { return r.First <= port && port <= r.Last }) {
			continue
		}
		if len(c.Prefixes) > 0 && !slices.ContainsFunc(c.Prefixes, func(p netip.Prefix) bool { return p.Contains(far) }) {
			continue
		}
		return c.Name
	}
	return cmp.Or(own, t.settings.ClassDefault)
}

// held returns who held an address at a moment in Unix milliseconds: by the
// longest prefix, and then since the latest moment.
func (t *truth) held(a netip.Addr, at int64) *holder {
	var best *holder
	for _, h := range t.holders {
		switch {
		case !h.Prefix.Contains(a) || at < unix(h.From) || !h.Until.IsZero() && at >= unix(h.Until):
		case best == nil || h.before(best):
			best = h
		}
	}
	return best
}

func (h *holder) before(g *holder) bool {
	if h.Prefix.Bits() != g.Prefix.Bits() {
		return h.Prefix.Bits() > g.Prefix.Bits()
	}
	if unix(h.From) != unix(g.From) {
		return unix(h.From) > unix(g.From)
	}
	if h.removed != g.removed {
		return g.removed
	}
	if h.source != g.source {
		return h.source < g.source
	}
	return h.User < g.User
}

// unix returns Unix milliseconds, 0 for the zero time.
func unix(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// replace puts a source's bindings in the place of those it listed before.
// One that is missing ends now.
func (t *truth) replace(l listing) {
	now := t.now / int64(time.Millisecond)
	same := func(h *holder, b *users.Binding) bool {
		return h.source == l.source && h.Prefix == b.Prefix && h.User == b.User && unix(h.From) == unix(b.From)
	}
	listed := map[*holder]bool{}
	for i := range l.bindings {
		b := &l.bindings[i]
		at := slices.IndexFunc(t.holders, func(h *holder) bool { return same(h, b) })
		if at < 0 {
			t.holders = append(t.holders, &holder{*b, l.source, false})
			at = len(t.holders) - 1
		}
		h := t.holders[at]
		if !listed[h] {
			h.Binding, h.removed, listed[h] = *b, false, true
		}
	}
	before := now - t.settings.Late.Milliseconds()
	t.holders = slices.DeleteFunc(t.holders, func(h *holder) bool {
		if h.source == l.source && !listed[h] && !h.removed {
			h.removed = true
			if h.Until.IsZero() || unix(h.Until) > now {
				h.Until = milli(now)
			}
			if unix(h.Until) <= unix(h.From) {
				return true
			}
		}
		return h.removed && unix(h.Until) <= before
	})
	if t.settings.Mode != asm.ModeASM {
		return
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(x *waiting) bool {
		sides := t.bill(x.flow)
		if sides > 0 {
			t.leave(x.flow, sides)
		}
		return sides > 0
	})
}
