package asm

import (
	"slices"

	"tollbridge/asm/acct"
)

// newEpoch begins an epoch of Session-Ids, since those that were given out
// after a backup was made, and the numbers of sessions that went on, are not
// to be given out again (RFC 6733, Section 8.8). What is open and not yet cut
// becomes EVENT records, and each session goes on as a new one, under its
// Acct-Multi-Session-Id. The former ones get no STOP: its number may have been
// another record's. It returns how many sessions that are.
func (m *Module) newEpoch(e acct.Entry) (begun uint64) {
	m.epoch = max(m.epoch+1, uint32(e.Time/1e9))
	var all []*session
	for _, s := range m.sessions.byKey {
		if s.phase == active {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *session) int { return int(int64(a.id) - int64(b.id)) })
	at := m.now / 1e6
	for _, s := range all {
		m.sessions.fold(s)
		if s.increase() != (acct.Usage{}) {
			for i := range s.usage {
				s.usage[i].Usage = s.usage[i].Minus(s.usage[i].cut)
				s.usage[i].cut = acct.Usage{}
			}
			m.event(s, at)
		}
		m.sessions.active--
		m.start(s, at)
	}
	return uint64(len(all))
}
