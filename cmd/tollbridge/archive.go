package main

import (
	"encoding/binary"
	"maps"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/spool/archive"
)

// maxArchived is how many Transport Sessions the Templates are remembered of.
const maxArchived = 4096

// archivedMessages knows the Templates of Transport Sessions, so that each file
// of the archive can begin with them.
type archivedMessages struct {
	sessions map[uint64]*archivedSession
}

var _ archive.Messages = (*archivedMessages)(nil)

// An archivedSession is what one Transport Session has defined.
type archivedSession struct {
	decoder  *ipfix.Session
	exported uint32 // the latest Export Time
	ids      map[uint32]map[uint16]bool
}

// Take implements archive.Messages.
func (m *archivedMessages) Take(e acct.Entry) bool {
	if len(e.Data) < 16 || binary.BigEndian.Uint16(e.Data) != ipfix.Version {
		return false
	}
	session, stream := e.Stream()
	s := m.sessions[session]
	if s == nil {
		if m.sessions == nil || len(m.sessions) >= maxArchived {
			m.sessions = make(map[uint64]*archivedSession)
		}
		s = &archivedSession{decoder: ipfix.NewSession(ipfix.UDP), ids: make(map[uint32]map[uint16]bool)}
		m.sessions[session] = s
	}
	r, err := s.decoder.DecodeStream(e.Data, stream, func(ipfix.DataSet) {})
	if err != nil {
		return false // it is kept, but would make a file unreadable
	}
	s.exported = r.Header.ExportTime
	for _, t := range r.New {
		ids := s.ids[r.Header.Domain]
		if ids == nil {
			ids = make(map[uint16]bool)
			s.ids[r.Header.Domain] = ids
		}
		ids[t.ID] = true
	}
	return true
}

// Opening implements archive.Messages.
func (m *archivedMessages) Opening(session uint64) []byte {
	s := m.sessions[session]
	if s == nil {
		return nil
	}
	var out []byte
	for _, domain := range slices.Sorted(maps.Keys(s.ids)) {
		e := ipfix.NewEncoder(domain, 65535)
		for _, id := range slices.Sorted(maps.Keys(s.ids[domain])) {
			t := s.decoder.Template(domain, id)
			if t == nil {
				continue
			}
			if e.AddTemplate(t) != nil { // full
				out = append(out, e.Flush(s.exported)...)
				if e.AddTemplate(t) != nil {
					continue // larger than any Message: it can't have come in one
				}
			}
		}
		out = append(out, e.Flush(s.exported)...)
	}
	return out
}
