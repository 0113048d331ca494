package sim

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
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
	promised []*flow      // that somebody was told of as durable
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
	decided      map[uint64]bool // IDs in suspense of suspects that an operator released or rejected
	released     map[uint64]bool // flows that an operator released
	holders      []*holder
	claims       []*claim // of user sessions
	holdersAt    map[place][]*holder
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

type exporterDomain struct {
	exporter string
	domain   uint32
}

func newTruth(w *world) *truth {
	return &truth{
		w: w, infos: map[string]asm.SessionInfo{}, sessions: map[uint64]*transport{}, seen: map[uint64]bool{}, windows: map[string]*window{},
		totals: map[string]*totals{}, rates: map[exporterDomain]uint64{},
		spooled: map[spooled]bool{}, requests: map[string][]*flow{}, decided: map[uint64]bool{}, released: map[uint64]bool{}, realms: map[holderKey]string{}, holdersAt: map[place][]*holder{},
		billed: map[bill]acct.Usage{}, events: map[uint64]int{}, rows: map[acct.LedgerKey]*amounts{},
		settings: asm.Settings{Interval: 5 * time.Minute, Late: 24 * time.Hour},
	}
}

// promise notes flows that an exporter was told of as durable, or a client.
func (t *truth) promise(flows ...*flow) { t.promised = append(t.promised, flows...) }

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
		r.flow.journaled = true
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

// interval returns the start of the interval of now, Unix seconds.
func (t *truth) interval() int64 { return down(t.now, t.settings.Interval) / int64(time.Second) }

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
