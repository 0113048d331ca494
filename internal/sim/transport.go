package sim

import (
	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

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
