package asm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
	"tollbridge/internal/octets"
)

// A phase is where a session stands. The numbers are stored.
type phase uint8

const (
	active  phase = 1 // START is cut, STOP is not
	dormant phase = 2 // stopped for its age; the holder's next flow starts it anew
	ended   phase = 3 // stopped for its holder's end; later flows become EVENT records
)

// A bindingKey names a binding over reloads of its source: who held what from
// when on; or a user session, by its source's ID and when it began. The
// fallback user's has neither source nor prefix.
type bindingKey struct {
	source string
	id     string // of a user session; "" for a binding
	prefix netip.Prefix
	vrf    string
	ports  users.Ports
	user   string
	from   int64 // Unix milliseconds; 0 for always
}

// A session is the accounting of one binding: a chain of Diameter accounting
// sessions, one after another, under one Acct-Multi-Session-Id. One of them
// is current, or none.
type session struct {
	*tally

	usage []classUsage // cumulative while active; not yet cut after that
	open  []acct.Share // not yet cut
	room  struct {     // of usage and open, mostly
		usage [1]classUsage
		open  [1]acct.Share
	}

	id      uint64 // of its row
	key     bindingKey
	realm   string
	until   int64 // the binding's end, Unix milliseconds; 0 for none
	multiID string

	framed     netip.Prefix     // what the user holds, for the records
	attributes []acct.Attribute // that the source gave, likewise
	nas        string           // that told the source, likewise; "" for none
	timeZone   string           // of the user; "" for that of the realm or the settings
	midnight   int64            // when the user's next day begins, Unix milliseconds; 0 if it does not matter

	sessionID string
	number    uint32 // of the latest record cut
	interim   uint32 // that an answer asked for the current Diameter session, see acct.InterimInterval; 0 if none did
	started   int64  // the current Diameter session, Unix milliseconds
	cut       int64  // the latest record, or the first late flow since, Unix milliseconds
	stopped   int64  // when phase left active, Unix milliseconds

	due   int64 // of its timer, Unix milliseconds; 0 for none
	index int   // in the timers' heap; -1 for none
}

// stoppedAt returns when the STOP of s was cut, Unix seconds, 0 while it is
// active.
func (s *session) stoppedAt() int64 {
	if s.phase == active {
		return 0
	}
	return s.stopped / 1000
}

// newSession returns a session that has not begun.
func newSession(id uint64, key bindingKey) *session {
	s := &session{id: id, key: key, tally: &tally{phase: dormant, class: classes.None}, index: -1}
	s.session = s
	s.usage, s.open = s.room.usage[:0], s.room.open[:0]
	return s
}

// classUsage is the part of a session's usage that fell into one class.
type classUsage struct {
	class classes.Index
	acct.Usage
	cut acct.Usage // of it in the latest record
}

// add adds usage u, of class c and from the ledger's row key, to s.
func (s *session) add(c classes.Index, u acct.Usage, key acct.LedgerKey, n acct.Count) {
	s.open = acct.AddShare(s.open, key, n)
	for i := range s.usage {
		if s.usage[i].class == c {
			s.usage[i].Usage = s.usage[i].Usage.Plus(u)
			return
		}
	}
	s.usage = append(s.usage, classUsage{class: c, Usage: u})
}

// total sums the usage over the classes.
func (s *session) total() acct.Usage {
	var sum acct.Usage
	for i := range s.usage {
		sum = sum.Plus(s.usage[i].Usage)
	}
	return sum
}

// increase sums what the usage has become more by since the latest record.
func (s *session) increase() acct.Usage {
	var sum acct.Usage
	for i := range s.usage {
		sum = sum.Plus(s.usage[i].Minus(s.usage[i].cut))
	}
	return sum
}

// sessions are the sessions of all users.
type sessions struct {
	byKey   map[bindingKey]*session
	timers  timers
	byID    map[string]*session // by Session-Id; nil until an answer asks for an interval
	changed []*session          // in the order of their first usage since the last cut
	dirty   []*session          // changed since the last checkpoint
	active  int                 // sessions in that phase
	named   int                 // sessions of a name alone
	gone    []*session          // ended for good since the last checkpoint
	nextID  uint64
	counter uint64 // of Session-Ids

	rows    []acct.LedgerKey // that tallies refer to
	rowOf   map[acct.LedgerKey]uint32
	lastRow uint32
}

func newSessions() sessions {
	return sessions{byKey: make(map[bindingKey]*session), rowOf: make(map[acct.LedgerKey]uint32), nextID: 1}
}

// touch marks s for the next checkpoint.
func (t *sessions) touch(s *session) {
	if !s.dirty {
		s.dirty = true
		t.dirty = append(t.dirty, s)
	}
}

// change marks the session of y for the next checkpoint and for the interval's
// end.
func (t *sessions) change(y *tally) {
	if !y.dirty {
		t.touch(y.session)
	}
	if !y.changed {
		y.changed = true
		t.changed = append(t.changed, y.session)
	}
}

// add takes in s, a new one.
func (t *sessions) add(s *session) {
	t.byKey[s.key] = s
	if s.named() {
		t.named++
	}
}

// remove forgets s. Whatever it owed has been cut.
func (t *sessions) remove(s *session) {
	t.timers.remove(s)
	delete(t.byKey, s.key)
	delete(t.byID, s.sessionID)
	if s.named() {
		t.named--
	}
	s.changed, s.gone = false, true
	t.gone = append(t.gone, s)
}

// takeChanged returns the sessions with usage to be cut, in their order; without
// all, those only that go by the common interval. It leaves the others listed.
func (t *sessions) takeChanged(all bool) []*session {
	changed := slices.DeleteFunc(t.changed, func(s *session) bool { return !s.changed })
	slices.SortFunc(changed, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	changed = slices.Compact(changed)
	t.changed = nil
	if all {
		return changed
	}
	return slices.DeleteFunc(changed, func(s *session) bool {
		own := s.phase == active && s.interim != 0
		if own {
			t.changed = append(t.changed, s)
		}
		return own
	})
}

// all returns all sessions in their order.
func (t *sessions) all() []*session {
	return slices.SortedFunc(maps.Values(t.byKey), func(a, b *session) int { return cmp.Compare(a.id, b.id) })
}

// sessionStateVersion is the first octet of an encoded session.
const sessionStateVersion = 7

// appendState appends what a restart needs of s beside its row.
func (s *session) appendState(b []byte, classNames []string) []byte {
	b = append(b, sessionStateVersion, byte(s.phase))
	b = octets.AppendString(b, s.key.source)
	b = octets.AppendPrefix(b, s.key.prefix)
	b = binary.AppendVarint(b, s.key.from)
	b = octets.AppendString(b, s.realm)
	if s.class == classes.None {
		b = octets.AppendString(b, "")
	} else {
		b = octets.AppendString(b, classNames[s.class])
	}
	b = binary.AppendVarint(b, s.until)
	b = octets.AppendString(b, s.multiID)
	b = octets.AppendBool(b, s.changed)
	for _, t := range []int64{s.started, s.cut, s.last, s.stopped, s.due} {
		b = binary.AppendVarint(b, t)
	}
	b = binary.AppendUvarint(b, uint64(len(s.usage)))
	for _, u := range s.usage {
		b = octets.AppendString(b, classNames[u.class])
		for _, v := range []uint64{u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets} {
			b = binary.AppendUvarint(b, v)
		}
	}
	b = octets.AppendBool(b, s.estimated)
	b = octets.AppendString(b, s.key.id)
	b = octets.AppendString(b, s.key.vrf)
	b = octets.AppendString(b, string(s.key.ports))
	b = octets.AppendPrefix(b, s.framed)
	b = binary.AppendUvarint(b, uint64(len(s.attributes)))
	for _, a := range s.attributes {
		b = binary.AppendUvarint(b, uint64(a.Code))
		b = binary.AppendUvarint(b, uint64(a.Vendor))
		b = octets.AppendBytes(b, a.Data)
	}
	b = append(b, byte(s.layers))
	b = octets.AppendString(b, s.timeZone)
	b = binary.AppendVarint(b, s.midnight)
	for _, u := range s.usage {
		open := u.Minus(u.cut)
		for _, v := range []uint64{open.InputOctets, open.OutputOctets, open.InputPackets, open.OutputPackets} {
			b = binary.AppendUvarint(b, v)
		}
	}
	b = binary.AppendUvarint(b, uint64(s.interim))
	return octets.AppendString(b, s.nas)
}

// restoreSession reads a row; class returns the index of a class's name.
func restoreSession(row acct.SessionState, class func(string) classes.Index) (*session, error) {
	r := octets.NewReader(row.State)
	version := r.Octet()
	if version == 0 || version > sessionStateVersion {
		return nil, ErrCorrupt
	}
	p := phase(r.Octet())
	s := newSession(row.ID, bindingKey{source: r.Text(), prefix: r.Prefix(), user: row.User, from: r.Varint()})
	s.phase, s.sessionID, s.number = p, row.SessionID, row.Number
	s.open = append(s.open, row.Open...)
	s.realm = r.Text()
	if name := r.Text(); name != "" {
		s.class = class(name)
	}
	s.until = r.Varint()
	s.multiID = r.Text()
	s.changed = r.Bool()
	for _, t := range []*int64{&s.started, &s.cut, &s.last, &s.stopped, &s.due} {
		*t = r.Varint()
	}
	for range r.Count() {
		u := classUsage{class: class(r.Text())}
		for _, v := range []*uint64{&u.InputOctets, &u.OutputOctets, &u.InputPackets, &u.OutputPackets} {
			*v = r.Uvarint()
		}
		s.usage = append(s.usage, u)
	}
	if version > 1 {
		s.estimated = r.Bool()
	}
	s.framed = s.key.prefix
	if version > 2 {
		s.key.id, s.key.vrf, s.key.ports, s.framed = r.Text(), r.Text(), users.Ports(r.Text()), r.Prefix()
		for range r.Count() {
			s.attributes = append(s.attributes, acct.Attribute{Code: uint32(r.Uvarint()), Vendor: uint32(r.Uvarint()), Data: bytes.Clone(r.Bytes())})
		}
	}
	if version > 3 {
		s.layers, s.timeZone, s.midnight = acct.Layers(r.Octet()), r.Text(), r.Varint()
	}
	for i := range s.usage {
		u := &s.usage[i]
		if version <= 4 {
			u.cut = u.Usage // what was open then is in no record's Increase
			continue
		}
		open := acct.Usage{InputOctets: r.Uvarint(), OutputOctets: r.Uvarint(), InputPackets: r.Uvarint(), OutputPackets: r.Uvarint()}
		if open.InputOctets > u.InputOctets || open.OutputOctets > u.OutputOctets || open.InputPackets > u.InputPackets || open.OutputPackets > u.OutputPackets {
			r.Fail()
			break
		}
		u.cut = u.Minus(open)
	}
	if version > 5 {
		s.interim = uint32(r.Uvarint())
	}
	if version > 6 {
		s.nas = r.Text()
	}
	if s.phase < active || s.phase > ended {
		r.Fail()
	}
	return s, r.Close()
}

// take returns the sessions that changed since the last checkpoint, in their
// order.
func (t *sessions) take(classNames []string) []acct.SessionState {
	slices.SortFunc(t.dirty, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	rows := make([]acct.SessionState, 0, len(t.dirty)+len(t.gone))
	size := len(t.dirty) * 128
	b := make([]byte, 0, size)
	for _, s := range t.dirty {
		s.dirty = false
		if s.gone {
			continue
		}
		t.fold(s)
		start := len(b)
		b = s.appendState(b, classNames)
		rows = append(rows, acct.SessionState{
			ID: s.id, SessionID: s.sessionID, User: s.key.user, State: b[start:len(b):len(b)],
			Usage: s.total(), Number: s.number, Started: s.started / 1000, Stopped: s.stoppedAt(), Open: s.open,
		})
	}
	for _, s := range t.gone {
		rows = append(rows, acct.SessionState{ID: s.id, SessionID: s.sessionID, User: s.key.user, Ended: true})
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
	t.forgetRows()
	return rows
}
