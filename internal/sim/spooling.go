package sim

import (
	"cmp"

	"tollbridge/ipfix"
	protocol "tollbridge/ipfix/ack"
)

// An exporter with acknowledged export has its Templates fixed, so that a
// Message is the same in every Transport Session.

func fixedID(form int) uint16 { return uint16(256 + form) }

var identity = protocol.IdentityTemplate(protocol.Enterprise)

// spool puts a set into a Message of the next position.
func (e *exporter) spool(domain uint32, s set) *message {
	e.position++
	return e.encodeSpooled(&message{domain: domain, sets: []set{s}, position: e.position})
}

// encodeSpooled encodes a Message of the spool for the present Transport
// Session.
func (e *exporter) encodeSpooled(m *message) *message {
	d, s := e.dialects[m.domain], m.sets[0]
	id := protocol.Identity{Position: m.position, Version: protocol.Version, Wants: protocol.Acknowledgements}
	copy(id.Instance[:], e.name)
	err := d.encoder.AppendRecord(identity, id.Append(nil))
	var t *ipfix.Template
	if s.what != passing {
		t = e.w.template(s.form, s.id)
	}
	err = cmp.Or(err, s.encode(d.encoder, t, m.domain))
	if err != nil {
		e.w.fail("encode: %v", err)
	}
	e.finish(d, m)
	return m
}

// introduce tells the Templates of a domain, in a Message without Identity.
func (e *exporter) introduce(domain uint32) *message {
	d, m := e.dialects[domain], &message{domain: domain}
	add := func(t *ipfix.Template) {
		if err := d.encoder.AddTemplate(t); err != nil {
			e.w.fail("encode: %v", err)
		}
	}
	add(identity)
	if e.passive {
		add(passedOnTemplate)
	}
	for form := range forms {
		m.sets = append(m.sets, set{id: fixedID(form), form: form})
		add(e.w.template(form, fixedID(form)))
	}
	e.finish(d, m)
	return m
}

// connectSpool begins a stream with the Templates, and sends again what is not
// acknowledged.
func (e *exporter) connectSpool() {
	for _, domain := range e.domains {
		e.stream.queue = append(e.stream.queue, e.introduce(domain))
	}
	again := e.unacked
	e.unacked = nil
	e.w.log("exporter %s sends %d messages again", e.name, len(again))
	for _, m := range again {
		e.send(e.encodeSpooled(&message{domain: m.domain, sets: m.sets, position: m.position}))
	}
	e.stream.pump()
}

// A spooled names a Message of an exporter's spool.
type spooled struct {
	exporter string
	position uint64
}
