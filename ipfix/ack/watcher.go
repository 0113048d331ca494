package ack

import (
	"encoding/binary"

	"tollbridge/ipfix"
)

const (
	optionsTemplateSet = 3 // RFC 7011, Section 3.3.2
	setHeaderLength    = 4
	minTemplateID      = 256
	maxLayouts         = 64 // of one Transport Session; one more is passed over
)

// A Watcher finds the records of this vocabulary in the raw Messages of one
// Transport Session. A session that has none costs it a look at each Set
// Header. It belongs to one goroutine.
type Watcher struct {
	enterprise uint32
	layouts    map[layoutKey]watched
}

type layoutKey struct {
	domain uint32
	id     uint16
}

type watched struct {
	layout   *Layout
	template *ipfix.Template
}

// NewWatcher returns a Watcher that has seen nothing.
func NewWatcher(enterprise uint32) *Watcher {
	return &Watcher{enterprise: enterprise, layouts: make(map[layoutKey]watched)}
}

// Know tells w of a Template that it need not see.
func (w *Watcher) Know(domain uint32, t *ipfix.Template) {
	if l := NewLayout(t, w.enterprise); l != nil {
		w.layouts[layoutKey{domain, t.ID}] = watched{l, t}
	}
}

// Message calls visit for each record of this vocabulary in msg, a Message for
// which ipfix.Validate returned nil. front says that the record is the first
// of the Message, which an Identity must be. What is not IPFIX has none.
func (w *Watcher) Message(msg []byte, visit func(l *Layout, r ipfix.Record, front bool)) {
	h, err := ipfix.ParseHeader(msg)
	if err != nil {
		return // NetFlow
	}
	for at := ipfix.HeaderLength; at+setHeaderLength <= len(msg); {
		id, n := binary.BigEndian.Uint16(msg[at:]), int(binary.BigEndian.Uint16(msg[at+2:]))
		if n < setHeaderLength || at+n > len(msg) {
			return
		}
		content := msg[at+setHeaderLength : at+n]
		switch {
		case id == optionsTemplateSet:
			w.templates(h.Domain, content)
		case id >= minTemplateID && len(w.layouts) > 0:
			if known, ok := w.layouts[layoutKey{h.Domain, id}]; ok {
				known.records(content, at == ipfix.HeaderLength, visit)
			}
		}
		at += n
	}
}

// templates takes in an Options Template Set.
func (w *Watcher) templates(domain uint32, b []byte) {
	const withdrawal = 4
	for len(b) >= withdrawal {
		id := binary.BigEndian.Uint16(b)
		if binary.BigEndian.Uint16(b[2:]) == 0 {
			if id == optionsTemplateSet { // all of them (RFC 7011, Section 8.1)
				for k := range w.layouts {
					if k.domain == domain {
						delete(w.layouts, k)
					}
				}
			}
			delete(w.layouts, layoutKey{domain, id})
			b = b[withdrawal:]
			continue
		}
		t, n, err := ipfix.ParseTemplate(b, true)
		if err != nil {
			return
		}
		b = b[n:]
		key := layoutKey{domain, id}
		if l := NewLayout(t, w.enterprise); l == nil {
			delete(w.layouts, key)
		} else if _, known := w.layouts[key]; known || len(w.layouts) < maxLayouts {
			w.layouts[key] = watched{l, t}
		}
	}
}

// records visits the records of a Data Set. Those of a length that varies,
// which no Template of ours has, are passed over.
func (k watched) records(b []byte, front bool, visit func(*Layout, ipfix.Record, bool)) {
	if !k.template.Fixed() {
		return
	}
	for n := k.template.MinLength(); len(b) >= n; b, front = b[n:], false {
		r, err := k.template.Record(b[:n:n])
		if err != nil {
			return
		}
		visit(k.layout, r, front)
	}
}

// Body returns what of a Message is the same in every sending of it: all but
// Export Time, Sequence Number and Version.
func Body(msg []byte) []byte { return msg[12:] }
