package sim

import (
	"bytes"
	"cmp"
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
	at       uint64       // position of the Message that records are taken from
	journal  []acct.Entry // all of it
	promised []*message   // that exporters were told of as durable
	infos    map[string]asm.SessionInfo

	now      int64 // the latest time of an entry, Unix nanoseconds
	boundary int64 // the next end of an interval
	settings asm.Settings
	set      bool // settings have come

	sessions     map[uint64]*transport
	seen         map[uint64]bool           // flows that were accounted or wait for a user
	windows      map[string]*window        // by exporter
	totals       map[string]*totals        // by exporter
	rates        map[exporterDomain]uint64 // sampling rates that exporters told
	waiting      []*waiting
	suspects     []*suspect
	released     map[uint64]bool // flows that an operator released
	holders      []*holder
	claims       []*claim // of user sessions
	translations []*translation
	realms       map[holderKey]string
	swept        int64     // when those that are over were last forgotten, Unix nanoseconds
	forgotten    int64     // who held what that ended until then may be forgotten, Unix milliseconds
	charges      []*charge // that may be contradicted
	remap        int64     // when waiting flows are mapped again, Unix nanoseconds; 0 for not

	spooled  map[spooled]bool   // Messages of acknowledged export that came
	requests map[string][]*flow // by Session-Id

	billed map[bill]acct.Usage
	events map[uint64]int // how often a flow goes to the AAA server as it is
	rows   map[acct.LedgerKey]*amounts
}

// A window is what is remembered of an exporter's flows.
type window struct {
	newest int64 // bucket of the newest flow end
	floor  int64 // Unix milliseconds
}

type exporterDomain struct {
	exporter string
	domain   uint32
}

// amounts are a row of the books.
type amounts struct{ received, mirrored, accounted, duplicate, suspended, rejected acct.Count }

// A transport is a Transport Session.
type transport struct {
	info    asm.SessionInfo
	relay   string                    // that has it; "" for our own
	session uint64                    // its number there
	forms   map[uint32]map[uint16]int // by domain and Template ID
	early   []early
	since   int64 // over UDP, since when the Collecting Process is another, Unix nanoseconds; 0 for not
}

// An early set came before its Template.
type early struct {
	position uint64 // of its entry
	time     int64  // likewise
	arrival  int64  // interval
	domain   uint32
	set      set
}

// A waiting flow has no user.
type waiting struct {
	position uint64 // in the journal
	flow     *flow
	row      *amounts
	since    int64
	back     int64 // to when the clock was set back farthest, while it waited; 0 for never
}

func newTruth(w *world) *truth {
	return &truth{
		w: w, infos: map[string]asm.SessionInfo{}, sessions: map[uint64]*transport{}, seen: map[uint64]bool{}, windows: map[string]*window{},
		totals: map[string]*totals{}, rates: map[exporterDomain]uint64{},
		spooled: map[spooled]bool{}, requests: map[string][]*flow{}, released: map[uint64]bool{}, realms: map[holderKey]string{},
		billed: map[bill]acct.Usage{}, events: map[uint64]int{}, rows: map[acct.LedgerKey]*amounts{},
		settings: asm.Settings{Interval: 5 * time.Minute, Late: 24 * time.Hour},
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
		t.open(e.Position, &transport{info: t.infos[string(e.Data)]})
	case acct.EntryCommand:
		if o, ok := t.w.operator.encoded[string(e.Data)]; ok {
			t.carryOut(o)
		} else {
			t.setBack(e.Time)
		}
	case acct.EntryClose:
		if delete(t.sessions, e.Session); e.Session == 0 {
			t.beginAnew("")
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
		if s.Mode != t.settings.Mode || s.Correct == 0 {
			t.charges = nil
		}
		t.settings, t.set = s, true
		for _, w := range t.windows {
			t.raise(w)
		}
		t.boundary = down(t.now, s.Interval) + int64(s.Interval)
	case acct.EntryUsers:
		list, ok := t.w.users.encoded[string(e.Data)]
		if !ok {
			t.w.fail("entry %d has users that nobody wrote", e.Position)
		}
		t.replace(list)
	case acct.EntryBinding:
		event, ok := t.w.nases.encoded[string(e.Data)]
		if !ok {
			t.w.fail("entry %d is an event that nobody told", e.Position)
		}
		t.event(event)
	case acct.EntryRequest:
		r, ok := t.w.client.encoded[string(e.Data)]
		if !ok {
			t.w.fail("entry %d is a request that nobody sent", e.Position)
		}
		t.at = e.Position
		before := t.requests[r.session]
		conflict := len(before) > 0 && !slices.Contains(before, r.flow)
		t.requests[r.session] = append(before, r.flow)
		t.flow(r.flow, t.row(acct.LedgerKey{Exporter: r.flow.exporter, Interval: t.interval()}), false, conflict)
	case acct.EntryMessage:
		m := t.w.known[string(e.Data)]
		if m == nil {
			t.w.fail("entry %d is a message that nobody sent", e.Position)
		}
		if s := t.sessions[e.Session]; s != nil {
			t.at = e.Position
			t.message(s, m, e.Time)
		}
	}
}

// open begins a Transport Session. One over UDP goes on as the same did before.
func (t *truth) open(number uint64, s *transport) {
	s.forms = map[uint32]map[uint16]int{}
	for n, old := range t.sessions {
		if old.info == s.info && old.relay == s.relay {
			if s.info.Transport == ipfix.UDP {
				s.forms, s.early = old.forms, old.early
			}
			delete(t.sessions, n)
			break
		}
	}
	t.sessions[number] = s
}

// beginAnew ends the sessions of a relay, or our own: those over UDP in a while,
// unless they go on.
func (t *truth) beginAnew(relay string) {
	for number, s := range t.sessions {
		switch {
		case s.relay != relay:
		case s.info.Transport != ipfix.UDP:
			delete(t.sessions, number)
		case s.since == 0:
			s.since = t.now
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
	for ; ; t.boundary += int64(t.settings.Interval) {
		if t.remap != 0 && t.remap <= min(to, t.boundary) {
			t.again()
		}
		if t.boundary > to {
			break
		}
		for number, s := range t.sessions {
			if s.since != 0 && s.since <= t.boundary-int64(time.Hour) {
				delete(t.sessions, number)
			}
			s.early = slices.DeleteFunc(s.early, func(e early) bool { return e.time <= t.boundary-int64(t.settings.EarlyWait) })
		}
		if t.settings.Fallback != "" && t.settings.Mode == asm.ModeASM {
			t.fallBack()
		}
		t.correct()
	}
	t.now = to
	t.forget(to)
}

// fallBack bills the fallback user what has waited for long enough.
func (t *truth) fallBack() {
	t.waiting = slices.DeleteFunc(t.waiting, func(x *waiting) bool {
		since := x.since
		if x.back != 0 {
			since = min(since, x.back)
		}
		if since > t.boundary-int64(t.settings.Wait) {
			return false
		}
		f := x.flow
		if nobody := (&holder{Binding: users.Binding{User: t.settings.Fallback}}); f.half == toEnd {
			t.use(f, nobody, side{far: f.source()}, f.end, f.backward, f.forward)
		} else {
			t.use(f, nobody, side{far: f.destination()}, f.end, f.forward, f.backward)
		}
		x.leave(1)
		return true
	})
}

// setBack sets the clock to an earlier time.
func (t *truth) setBack(to int64) {
	if to >= t.now {
		return
	}
	t.now = to
	if t.forgotten > to/int64(time.Millisecond) {
		t.charges, t.forgotten = nil, 0
		t.forget(to)
	}
	t.boundary = down(to, t.settings.Interval) + int64(t.settings.Interval)
	for _, s := range t.sessions {
		s.since = min(s.since, to)
		for i := range s.early {
			s.early[i].time = min(s.early[i].time, to)
		}
	}
	for _, x := range t.waiting {
		if x.back == 0 || to < x.back {
			x.back = to
		}
	}
}

// message takes in the sets of a Message.
func (t *truth) message(s *transport, m *message, at int64) {
	known := s.forms[m.domain]
	if known == nil {
		known = map[uint16]int{}
		s.forms[m.domain] = known
	}
	told := map[uint16]bool{}
	again := m.position != 0 && t.spooled[spooled{s.info.Exporter, m.position}]
	if m.position != 0 {
		t.spooled[spooled{s.info.Exporter, m.position}] = true
	}
	for _, x := range m.sets {
		form, ok := known[x.id]
		switch {
		case x.what == passing:
			if !again {
				t.passOn(x.passed, at)
			}
		case x.what == withdrawal:
			delete(known, x.id)
		case x.what == definition:
			told[x.id] = told[x.id] || !ok
			known[x.id] = x.form
		case !ok:
			if t.earlyOf(s.info.Exporter) < t.settings.EarlySets {
				s.early = append(s.early, early{t.at, at, t.interval(), m.domain, x})
			}
			for _, f := range x.flows {
				f.journaled = true
			}
		case form != x.form:
			t.w.fail("a model exporter sends records of form %d as form %d", x.form, form)
		default:
			t.records(s, m.domain, x, t.interval(), again)
		}
	}
	rest := s.early[:0:0]
	for _, e := range s.early {
		if e.domain == m.domain && told[e.set.id] {
			t.at = e.position
			t.records(s, e.domain, e.set, e.arrival, false)
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

// interval returns the start of the interval of now, Unix seconds.
func (t *truth) interval() int64 { return down(t.now, t.settings.Interval) / int64(time.Second) }

// records takes in a set that was decoded and arrived in an interval.
func (t *truth) records(s *transport, domain uint32, x set, interval int64, again bool) {
	if x.what == sampling {
		if again {
			return
		}
		t.rates[exporterDomain{s.info.Exporter, domain}] = x.rate
		return
	}
	if x.what == translations {
		t.translate(s.info.Exporter, x.translations)
		return
	}
	for _, f := range x.flows {
		f.journaled = true
		t.flow(f, t.row(acct.LedgerKey{Exporter: s.info.Exporter, Domain: domain, Interval: interval}), again, false)
	}
}

// outside reports whether a flow ended before what is remembered of its
// exporter, or ahead of the clock.
func (t *truth) outside(f *flow) bool { return t.ahead(f) || f.end < t.window(f).floor }

func (t *truth) ahead(f *flow) bool {
	return f.end > t.now/int64(time.Millisecond)+t.settings.ClockTolerance.Milliseconds()
}

func (t *truth) window(f *flow) *window {
	w := t.windows[f.exporter]
	if w == nil {
		w = &window{}
		t.windows[f.exporter] = w
	}
	return w
}

// reach moves the window of a flow's exporter to where the flow is in it.
func (t *truth) reach(f *flow) {
	if w, at := t.window(f), f.end/bucket; at > w.newest {
		w.newest = at
		t.raise(w)
	}
}

// flow takes in a Data Record. resent says that its whole Message came before,
// conflict that another came in a request of the same identity.
func (t *truth) flow(sent *flow, x *amounts, resent, conflict bool) {
	outside := !resent && t.outside(sent)
	again := resent || !outside && (t.seen[sent.id] || t.released[sent.id])
	added, doubt := *sent, conflict // by the record, scaled
	f := &added
	if f.long != nil {
		// A report ahead of the clock is left to the next one that is not.
		if f.forward = (volume{}); !again && !t.ahead(sent) {
			f.forward, doubt = t.delta(sent)
		}
	}
	if len(t.settings.InBand) == 0 {
		f.user = ""
	}
	if forms[f.form].spaced {
		f.fromSpace, f.toSpace = t.space(f.exporter, f.fromVRF), t.space(f.exporter, f.toVRF)
	}
	f.scale(t.rate(f))
	n := f.count()
	t.w.log("truth: flow %d of form %d, ends %v, rate %d, outside %v, again %v: %+v", f.id, f.form, milli(f.end).Format("15:04:05.000"), t.rate(f), outside, again, n)
	x.received = x.received.Plus(n)
	suspect := &suspect{position: t.at, flow: f, row: x, proven: doubt && !outside, ahead: t.ahead(f), events: t.settings.Mode == asm.ModeAAAClient}
	switch {
	case outside && t.released[f.id] && (f.long == nil || n.Octets == 0):
		x.duplicate = x.duplicate.Plus(n)
		return
	case outside: // suspended, or a duplicate if the whole Message is one
		t.suspects = append(t.suspects, suspect)
		return
	}
	if !resent {
		t.reach(f)
	}
	if again {
		x.duplicate = x.duplicate.Plus(n)
		return
	}
	t.seen[f.id] = true
	if doubt {
		x.suspended = x.suspended.Plus(n)
		t.suspects = append(t.suspects, suspect)
		return
	}
	t.accept(f, x, t.at)
}

// accept accounts a flow that is new, or lets it wait for a user.
func (t *truth) accept(f *flow, x *amounts, position uint64) {
	n := f.count()
	if t.settings.Mode == asm.ModeAAAClient {
		t.events[f.id]++
		x.accounted = x.accounted.Plus(n)
		return
	}
	if sides := t.charge(f, x, position); sides == 0 {
		x.suspended = x.suspended.Plus(n)
		t.waiting = append(t.waiting, &waiting{position, f, x, t.now, 0})
	} else {
		x.account(n, sides)
	}
}

// totals are what an exporter's connections were reported with, the one used
// longest ago first.
type totals struct {
	list    []*total
	horizon int64 // latest end of those that were forgotten, Unix milliseconds
}

type total struct {
	long    *connection
	forward volume
	end     int64
}

// delta returns what a report adds to the one before. One that comes late, when
// more is known already, adds nothing. Doubt says that the connection may have
// been forgotten.
func (t *truth) delta(f *flow) (added volume, doubt bool) {
	x := t.totals[f.exporter]
	if x == nil {
		x = &totals{}
		t.totals[f.exporter] = x
	}
	e := &total{long: f.long}
	if i := slices.IndexFunc(x.list, func(e *total) bool { return e.long == f.long }); i >= 0 {
		e = x.list[i]
		x.list = slices.Delete(x.list, i, i+1)
	} else {
		doubt = x.horizon != 0 && f.start <= x.horizon
	}
	if f.forward.octets > e.forward.octets {
		added = volume{f.forward.octets - e.forward.octets, f.forward.packets - e.forward.packets}
		e.forward, e.end = f.forward, max(e.end, f.end)
	}
	x.list = append(x.list, e)
	for len(x.list) > t.settings.MaxTotals {
		x.horizon = max(x.horizon, x.list[0].end)
		x.list = x.list[1:]
	}
	return added, doubt
}

// rate returns how many packets one that was counted stands for: as the
// operator, the record or its exporter says.
func (t *truth) rate(f *flow) uint64 {
	if f.stated {
		return 1
	}
	for _, e := range t.settings.Exporters {
		if e.Name == f.exporter && e.Sampling != 0 {
			return uint64(e.Sampling)
		}
	}
	return cmp.Or(f.rate, t.rates[exporterDomain{f.exporter, f.domain}], 1)
}

func (f *flow) scale(rate uint64) {
	for _, v := range []*uint64{&f.forward.octets, &f.forward.packets, &f.backward.octets, &f.backward.packets} {
		*v *= rate
	}
}

// raise keeps the window's length before the newest flow end.
func (t *truth) raise(w *window) {
	w.floor = max(w.floor, (w.newest-(t.settings.DedupWindow.Milliseconds()+bucket-1)/bucket)*bucket)
}

func (t *truth) row(key acct.LedgerKey) *amounts {
	x := t.rows[key]
	if x == nil {
		x = &amounts{}
		t.rows[key] = x
	}
	return x
}

// account books a flow of which 1 or 2 sides are accounted.
func (x *amounts) account(n acct.Count, sides int) {
	x.accounted = x.accounted.Plus(n)
	if sides == 2 {
		x.accounted, x.mirrored = x.accounted.Plus(n), x.mirrored.Plus(n)
	}
}

// leave books a flow that waited.
func (w *waiting) leave(sides int) {
	n := w.flow.count()
	w.row.suspended = w.row.suspended.Minus(n)
	w.row.account(n, sides)
}

func (f *flow) count() acct.Count {
	return acct.Count{Records: 1, Octets: f.forward.octets + f.backward.octets, Packets: f.forward.packets + f.backward.packets}
}
