package export

import (
	"bytes"
	"errors"
	"fmt"

	"tollbridge/ipfix"
)

// split returns Messages of no more than longest octets with the records of
// one that is longer, in order, and how many records are longer themselves.
func split(m message, templates []*ipfix.Template, longest int) (parts []message, lost int) {
	h, err := ipfix.ParseHeader(m.octets)
	if err != nil {
		panic(fmt.Sprintf("export: internal error: split: %v", err))
	}
	var (
		e   = ipfix.NewEncoder(h.Domain, longest)
		cut = func() {
			if n := e.Records(); n > 0 {
				parts = append(parts, message{bytes.Clone(e.Flush(0)), n, m.templates, 0})
			}
		}
		add = func(t *ipfix.Template, record []byte) {
			err := e.AppendRecord(t, record)
			if errors.Is(err, ipfix.ErrFull) {
				cut()
				err = e.AppendRecord(t, record)
			}
			if err != nil {
				lost++
			}
		}
	)
	_, err = known(h.Domain, templates[:m.templates]).Decode(m.octets, func(s ipfix.DataSet) {
		for r, ok := s.Next(); ok; r, ok = s.Next() {
			add(s.Template, r.Bytes())
		}
	})
	if err != nil {
		panic(fmt.Sprintf("export: internal error: split: %v", err))
	}
	cut()
	return parts, lost
}

// known returns a session that has seen Templates.
func known(domain uint32, templates []*ipfix.Template) *ipfix.Session {
	session := ipfix.NewSession(ipfix.TCP)
	session.Limits.Templates = len(templates)
	e := ipfix.NewEncoder(domain, ipfix.MaxMessage)
	for _, t := range templates {
		err := e.AddTemplate(t)
		if err == nil {
			_, err = session.Decode(e.Flush(0), func(ipfix.DataSet) {})
		}
		if err != nil {
			panic(fmt.Sprintf("export: internal error: template %d was accepted but %v", t.ID, err))
		}
	}
	return session
}
