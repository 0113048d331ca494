package asm

import (
	"slices"

	"tollbridge/ipfix"
)

// Bounds of what is remembered of the exporters that requests name. It is
// found out anew when it is forgotten.
const (
	maxSources         = 4096
	maxSourceTemplates = 1024 // of one exporter
)

// sources are the exporters that requests name.
type sources map[string]*source

// A source is an exporter whose flow records come in requests, each with its
// Template.
type source struct {
	transport
	templates map[templateKey]*ipfix.Template
}

type templateKey struct {
	domain      uint32
	id          uint16
	fingerprint uint64
}

func (s sources) of(exporter string) *source {
	found := s[exporter]
	if found == nil {
		if len(s) >= maxSources {
			clear(s)
		}
		found = &source{transport: transport{info: SessionInfo{Exporter: exporter}}}
		found.clear()
		s[exporter] = found
	}
	return found
}

func (s *source) clear() {
	s.templates, s.domains, s.last = make(map[templateKey]*ipfix.Template), make(map[uint32]*domain), nil
}

// template returns the Template equal to t that came first, so that its plan
// is compiled once.
func (s *source) template(t *ipfix.Template) *ipfix.Template {
	key := templateKey{t.Domain, t.ID, t.Fingerprint()}
	if known := s.templates[key]; known != nil && slices.Equal(known.Fields, t.Fields) {
		return known
	}
	if len(s.templates) >= maxSourceTemplates {
		s.clear()
	}
	s.templates[key] = t
	return t
}
