package asm

import (
	"time"

	"tollbridge/asm/acct"
)

// obey applies an acct.EntryInterim: from their next cut on the sessions that
// it names go by the Acct-Interim-Interval that an answer asked for, within the
// bounds of the settings, counted from their latest record (RFC 6733, Section
// 9.8.2). So sessions are cut at times of their own, not all at once. An
// interval without usage gives no record, as ever. A session that has stopped
// meanwhile, or rolled over, is another one, and hears for itself.
func (m *Module) obey(e acct.Entry) {
	list, err := acct.ParseInterimIntervals(e.Data)
	if err != nil {
		m.broken(e, err)
		return
	}
	for _, i := range list {
		s := m.sessions.withID(i.SessionID)
		if s == nil || s.phase != active {
			m.stats.InterimsIdle++
			continue
		}
		m.stats.Interims++
		s.interim = i.Seconds
		m.sessions.timers.set(s, m.due(s))
		m.sessions.touch(s)
	}
}

// interimDue returns when usage of s, which is active, is to be cut because of
// an interval of its own; 0 for not.
func (m *Module) interimDue(s *session) int64 {
	if s.interim == 0 || !s.changed {
		return 0
	}
	interval := time.Duration(s.interim) * time.Second
	interval = min(max(interval, m.settings.MinInterim), m.settings.MaxInterim)
	return s.cut + interval.Milliseconds()
}

// withID returns the session with a Session-Id, nil if there is none. The index
// is made when it is first asked for.
func (t *sessions) withID(id string) *session {
	if t.byID == nil {
		t.byID = make(map[string]*session, len(t.byKey))
		for _, s := range t.byKey {
			if s.sessionID != "" {
				t.byID[s.sessionID] = s
			}
		}
	}
	return t.byID[id]
}

// rename gives s the Session-Id of its next Diameter session.
func (t *sessions) rename(s *session, id string) {
	if t.byID != nil {
		delete(t.byID, s.sessionID)
		t.byID[id] = s
	}
	s.sessionID = id
}
