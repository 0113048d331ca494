package asm

import (
	"slices"
	"strconv"
	"time"

	"tollbridge/asm/acct"
)

// Sizes that records are split by: an upper bound of what they take as an
// Accounting-Request, in octets.
const (
	minRecord = 2048 // the least Settings.MaxRecord: a record of one class always fits
	baseSize  = 640  // a record with no names
	classSize = 160  // a class with no name
)

// newSessionID returns the next Session-Id (RFC 6733, Section 8.8):
//
//	OriginHost;epoch;counter[;carry]
//
// The epoch rises when a spool is restored from a backup, the counter is part
// of the checkpoint; carry are the counter's bits beyond 32, left out while
// they are zero. So it is unique for ever and the same when the journal is
// read again.
func (m *Module) newSessionID() string {
	n := m.sessions.counter
	m.sessions.counter++
	var room [64]byte
	b := append(append(room[:0], m.settings.OriginHost...), ';')
	b = strconv.AppendUint(b, uint64(m.epoch), 10)
	b = strconv.AppendUint(append(b, ';'), uint64(uint32(n)), 10)
	if carry := n >> 32; carry != 0 {
		b = strconv.AppendUint(append(b, ';'), carry, 10)
	}
	return string(b)
}

// start begins a Diameter session of s, at a time in Unix milliseconds.
func (m *Module) start(s *session, at int64) {
	s.phase = active
	m.sessions.active++
	if s.multiID == "" {
		s.multiID = m.newSessionID()
	}
	m.sessions.rename(s, m.newSessionID())
	s.number, s.interim = 0, 0
	s.started, s.cut, s.last = at, at, at
	s.midnight = m.midnight(s, at)
	s.usage, s.estimated, s.layers = s.usage[:0], false, 0
	r := m.record(s, acct.Start, at)
	m.records = append(m.records, r)
	m.sessions.touch(s)
	m.sessions.timers.set(s, m.due(s))
}

// cut makes a record of the usage of s that is open: an INTERIM, or an EVENT
// if s has ended.
func (m *Module) cut(s *session, at int64) {
	if s.phase == active {
		m.emit(s, m.record(s, acct.Interim, at))
	} else {
		m.event(s, at)
	}
}

// stop ends the current Diameter session of s, which goes to the given phase.
func (m *Module) stop(s *session, at int64, next phase) {
	m.emit(s, m.record(s, acct.Stop, at))
	s.phase, s.stopped = next, at
	m.sessions.active--
	s.usage, s.estimated, s.layers = s.usage[:0], false, 0
}

// event makes an EVENT record, with a Session-Id of its own, of usage that
// came after the STOP.
func (m *Module) event(s *session, at int64) {
	r := m.record(s, acct.Event, at)
	r.SessionTime = 0
	cut := m.emitEvent(r)
	m.traceRecord(s, &cut[0])
	m.mark(s, &r, cut)
	s.usage, s.estimated, s.layers = s.usage[:0], false, 0
	s.cut = at
}

// emitEvent adds r, an EVENT, to the batch, in parts if it is too large, each
// with some of the classes and a Session-Id of its own, and returns them.
func (m *Module) emitEvent(r acct.Record) []acct.Record {
	first := len(m.records)
	parts := m.split(r.Classes, m.room(&r))
	shares := r.Shares
	for i, classes := range parts {
		p := r
		p.SessionID = m.newSessionID()
		p.Classes = classes
		if len(parts) > 1 {
			p.Part, p.Parts = uint16(i+1), uint16(len(parts))
			p.Usage = acct.Usage{}
			for _, c := range classes {
				p.Usage = p.Usage.Plus(c.Usage)
			}
			p.Increase = p.Usage
			p.Shares = shares
			if i < len(parts)-1 {
				p.Shares, shares = takeShares(shares, p.Usage)
			}
		}
		m.records = append(m.records, p)
	}
	return m.records[first:]
}

// mark notes, for corrections, that the records that r was cut into have what
// was charged to s since those before.
func (m *Module) mark(s *session, r *acct.Record, cut []acct.Record) {
	if m.charges.On() && r.Increase != (acct.Usage{}) {
		m.charges.MarkAll(s.id, false, cut, m.millis())
	}
}

// takeShares divides shares into what makes up usage u, as far as they go, and
// the rest. A Data Record is counted where its share begins.
func takeShares(shares []acct.Share, u acct.Usage) (taken, rest []acct.Share) {
	octets, packets := u.InputOctets+u.OutputOctets, u.InputPackets+u.OutputPackets
	for _, s := range shares {
		n := acct.Count{Octets: min(octets, s.Octets), Packets: min(packets, s.Packets)}
		if !n.IsZero() {
			n.Records = s.Records
			taken = append(taken, acct.Share{LedgerKey: s.LedgerKey, Count: n})
			octets, packets = octets-n.Octets, packets-n.Packets
		}
		if left := s.Count.Minus(n); !left.IsZero() {
			rest = append(rest, acct.Share{LedgerKey: s.LedgerKey, Count: left})
		}
	}
	return taken, rest
}

// record returns the record of s at a time in Unix milliseconds, with all but
// its number, and takes the open usage of s.
func (m *Module) record(s *session, t acct.RecordType, at int64) acct.Record {
	m.sessions.fold(s)
	r := acct.Record{
		SessionID: s.sessionID, Type: t, MultiSessionID: s.multiID,
		User: s.key.user, Realm: s.realm, Framed: s.framed,
		Start: milliTime(s.cut), End: milliTime(at), Event: milliTime(at),
		SessionTime: time.Duration(at-s.started) * time.Millisecond,
		Usage:       s.total(), Increase: s.increase(), Classes: m.classUsage(s),
		Estimated: s.estimated, Layer: s.layers.Layer(), Attributes: m.attributes(s), Source: s.key.source, NAS: s.nas, Interim: s.interim,
		Shares: slices.Clone(s.open),
	}
	if r.Realm == "" {
		r.Realm = m.settings.DestinationRealm
	}
	for i := range s.usage {
		s.usage[i].cut = s.usage[i].Usage
	}
	s.open, s.changed = s.open[:0], false
	m.sessions.touch(s)
	return r
}

// emit numbers r and adds it to the batch, in parts if it is too large: each
// with the whole usage, some of the classes and their increase, and the
// increment in the first.
func (m *Module) emit(s *session, r acct.Record) {
	first := len(m.records)
	parts := m.split(r.Classes, m.room(&r))
	for i, classes := range parts {
		p := r
		p.Classes = classes
		if len(parts) > 1 {
			p.Part, p.Parts = uint16(i+1), uint16(len(parts))
			p.Increase = acct.Usage{}
			for _, c := range classes {
				p.Increase = p.Increase.Plus(c.Increase)
			}
		}
		if i < len(parts)-1 {
			p.Type = acct.Interim // only the last record of a session is its STOP
		}
		if i > 0 {
			p.Shares = nil
			p.Start = p.End
		}
		s.number++
		p.Number = s.number
		if i == 0 {
			m.traceRecord(s, &p)
		}
		m.records = append(m.records, p)
	}
	m.mark(s, &r, m.records[first:])
	s.cut = r.End.UnixMilli()
}

// classUsage returns the classes of s in the order of their first use, none
// if no classes are configured.
func (m *Module) classUsage(s *session) []acct.ClassUsage {
	if len(s.usage) == 0 || len(s.usage) == 1 && m.classNames[s.usage[0].class] == "" {
		return nil
	}
	classes := make([]acct.ClassUsage, len(s.usage))
	for i, u := range s.usage {
		classes[i] = acct.ClassUsage{
			Class: m.classNames[u.class], Usage: u.Usage, Increase: u.Minus(u.cut), ZeroRated: m.classes.ZeroRated(u.class),
		}
	}
	return classes
}

// room returns how many octets the classes of r, or its flow, may take.
func (m *Module) room(r *acct.Record) int {
	return m.settings.MaxRecord - baseSize - 2*len(m.settings.OriginHost) - len(r.SessionID) - len(r.MultiSessionID) - len(r.User) - len(r.Realm)
}

// split divides classes into parts of at most room octets, at least one.
func (m *Module) split(classes []acct.ClassUsage, room int) [][]acct.ClassUsage {
	var parts [][]acct.ClassUsage
	first, size := 0, 0
	for i, c := range classes {
		n := classSize + len(c.Class)
		if size+n > room && i > first {
			parts = append(parts, classes[first:i:i])
			first, size = i, 0
		}
		size += n
	}
	return append(parts, classes[first:])
}

// milliTime returns a time in Unix milliseconds as records carry it.
func milliTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
