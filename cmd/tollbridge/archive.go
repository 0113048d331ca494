package main

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
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

// An archivedSession is what one Transport Session has defined, and the file
// that its Messages go into.
type archivedSession struct {
	decoder  *ipfix.Session
	exported uint32 // the latest Export Time
	ids      map[uint32]map[uint16]bool

	buffer *bytes.Buffer
	file   *file.Writer
}

// Append implements archive.Messages.
func (m *archivedMessages) Append(to *bytes.Buffer, e acct.Entry) (archive.Place, bool) {
	if len(e.Data) < ipfix.HeaderLength || binary.BigEndian.Uint16(e.Data) != ipfix.Version {
		return archive.Place{}, false
	}
	number, stream := e.Stream()
	s := m.sessions[number]
	if s == nil {
		if m.sessions == nil || len(m.sessions) >= maxArchived {
			m.sessions = make(map[uint64]*archivedSession)
		}
		s = &archivedSession{decoder: ipfix.NewSession(ipfix.UDP), ids: make(map[uint32]map[uint16]bool)}
		m.sessions[number] = s
	}
	if to != s.buffer {
		s.begin(to)
	}
	before := to.Len()
	if s.file.Write(e.Data) != nil {
		return archive.Place{}, false // it is kept, but would make a file unreadable
	}
	written := to.Bytes()[before:]
	for { // Template Withdrawals of ours may come first
		n := int(binary.BigEndian.Uint16(written[2:]))
		if n == len(written) {
			break
		}
		before, written = before+n, written[n:]
	}
	s.learn(e.Data, stream)
	return archive.Place{
		Offset: before, Octets: len(written), Added: len(written) - len(e.Data),
		Raised: binary.BigEndian.Uint32(written[8:]) - binary.BigEndian.Uint32(e.Data[8:]),
	}, true
}

// learn takes note of the Templates in a Message that can be read.
func (s *archivedSession) learn(msg []byte, stream uint16) {
	r, err := s.decoder.DecodeStream(msg, stream, func(ipfix.DataSet) {})
	if err != nil {
		return
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
}

// begin begins a file with Messages that define what Templates of the session
// hold.
func (s *archivedSession) begin(to *bytes.Buffer) {
	w, err := file.NewWriter(to, file.Config{Checksums: true})
	if err != nil {
		panic("tollbridge: internal error: " + err.Error())
	}
	s.buffer, s.file = to, w
	put := func(msg []byte) {
		if msg == nil {
			return
		}
		if err := w.Write(msg); err != nil {
			panic("tollbridge: internal error: " + err.Error()) // the Templates were read before
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(s.ids)) {
		e := ipfix.NewEncoder(domain, 65535)
		for _, id := range slices.Sorted(maps.Keys(s.ids[domain])) {
			t := s.decoder.Template(domain, id)
			if t == nil {
				continue
			}
			if e.AddTemplate(t) != nil { // full
				put(e.Flush(s.exported))
				if e.AddTemplate(t) != nil {
					continue // larger than any Message: it can't have come in one
				}
			}
		}
		put(e.Flush(s.exported))
	}
}
