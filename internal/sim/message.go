package sim

import (
	"fmt"
	"strings"
)

// A message is what an exporter has put into an IPFIX Message.
type message struct {
	octets   []byte
	domain   uint32
	sets     []set
	position uint64 // in the exporter's spool; 0 for none
}

// A set is a Template, its withdrawal, or Data Records of it.
type set struct {
	id           uint16
	form         int
	what         content
	flows        []*flow
	rate         uint64 // of the Observation Domain
	translations []*translation
	passed       *passedOn
}

type content uint8

const (
	definition content = iota
	withdrawal
	records
	sampling
	translations
	passing
)

func (m *message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain %d", m.domain)
	if m.position != 0 {
		fmt.Fprintf(&b, ", position %d", m.position)
	}
	for _, s := range m.sets {
		switch {
		case s.what == withdrawal:
			fmt.Fprintf(&b, ", withdrawal of %d", s.id)
		case s.what == sampling:
			fmt.Fprintf(&b, ", sampling rate %d", s.rate)
		case s.what == passing && s.passed.message != nil:
			fmt.Fprintf(&b, ", passed on in session %d: (%v)", s.passed.session, s.passed.message)
		case s.what == passing:
			fmt.Fprintf(&b, ", passed on: kind %d, session %d %+v", s.passed.kind, s.passed.session, s.passed.info)
		case s.what == translations:
			for _, x := range s.translations {
				fmt.Fprintf(&b, ", %v", x)
			}
		case s.what == definition:
			fmt.Fprintf(&b, ", template %d of form %d", s.id, s.form)
		default:
			fmt.Fprintf(&b, ", flows of %d:", s.id)
			for _, f := range s.flows {
				fmt.Fprintf(&b, " %d", f.id)
			}
		}
	}
	return b.String()
}

func (m *message) flows() (all []*flow) {
	for _, s := range m.sets {
		all = append(all, s.flows...)
		if s.passed != nil && s.passed.message != nil {
			all = append(all, s.passed.message.flows()...)
		}
	}
	return all
}
