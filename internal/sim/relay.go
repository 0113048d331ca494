package sim

import (
	"tollbridge/asm"
	"tollbridge/ipfix"
	protocol "tollbridge/ipfix/ack"
)

// A relay is a second collector, which passes on what it journals: to the bridge
// it is an exporter with acknowledged export. One of the exporters exports to
// both; of what it sends to the bridge itself some is lost.
type relay struct {
	*exporter
	behind *exporter // as it exports to the relay
	count  uint64    // Transport Sessions so far
	open   bool      // the latest of them is
}

const relayName = "second"

// A passedOn is an entry of a relay's journal.
type passedOn struct {
	kind    protocol.Journaled
	session uint64
	time    int64 // Unix nanoseconds
	info    asm.SessionInfo
	told    asm.SessionInfo // the same, but for a planted bug
	message *message
}

// addRelay puts a relay beside the bridge.
func (w *world) addRelay() {
	e := one(&w.scheduler, w.exporters)
	r := &relay{
		exporter: &exporter{w: w, name: relayName, domains: []uint32{1}, wantsAcks: true, spools: true, passive: true, port: 9000},
		behind:   &exporter{w: w, name: e.name, domains: e.domains, offset: e.offset, udp: w.chance(0.5), port: e.port + 700},
	}
	r.renew()
	r.behind.renew()
	e.relay = r
	w.exporters = append(w.exporters, r.exporter)
	w.mood.relayed = true
	w.mood.settings.Exporters = w.mood.forwarders(w.mood.settings.Exporters)
}

// forwarders returns settings of exporters with the relay, if there is one.
func (m *mood) forwarders(list []asm.ExporterSettings) []asm.ExporterSettings {
	if m.relayed {
		list = append(list, asm.ExporterSettings{Name: relayName, Forwards: true})
	}
	return list
}

// collect takes flows of the exporter behind r.
func (r *relay) collect(domain uint32, flows []*flow) {
	w := r.w
	switch {
	case w.chance(0.05):
		w.log("the relay begins anew")
		r.pass(&passedOn{kind: protocol.Began})
		r.leave()
	case r.open && w.chance(0.05):
		r.pass(&passedOn{kind: protocol.Closed, session: r.count})
		r.behind.renew()
		r.open = false
	}
	if !r.open {
		r.open = true
		r.count++
		info := asm.SessionInfo{Transport: ipfix.TCP, Exporter: r.behind.name, Remote: r.behind.remote, Local: collectorAddress}
		if r.behind.udp {
			info.Transport = ipfix.UDP
		}
		told := info
		if w.bug == CountedTwice {
			told.Exporter = relayName
		}
		r.pass(&passedOn{kind: protocol.Opened, session: r.count, info: info, told: told})
	}
	r.pass(&passedOn{kind: protocol.Received, session: r.count, message: r.behind.encode(domain, flows)})
}

// leave ends the session of the exporter behind r, which over UDP does not know
// of it.
func (r *relay) leave() {
	if r.open = false; !r.behind.udp {
		r.behind.renew()
	}
}

func (r *relay) pass(p *passedOn) {
	p.time = r.w.now
	r.send(r.spool(1, set{what: passing, passed: p}))
}

// octets returns the record of p.
func (p *passedOn) octets() ([]byte, error) {
	f := protocol.Forwarded{Kind: p.kind, Session: p.session, Time: p.time}
	var err error
	switch p.kind {
	case protocol.Opened:
		f.Octets, err = p.told.AppendBinary(nil)
	case protocol.Received:
		f.Octets = p.message.octets
	}
	return f.Append(nil), err
}

var passedOnTemplate = protocol.ForwardedTemplate(protocol.Enterprise)

// passOn takes in what a relay passes on, at a time.
func (t *truth) passOn(p *passedOn, at int64) {
	switch p.kind {
	case protocol.Began:
		t.beginAnew(relayName)
	case protocol.Opened:
		t.open(t.at, &transport{info: p.info, relay: relayName, session: p.session})
	case protocol.Closed:
		delete(t.sessions, t.passed(p.session))
	case protocol.Received:
		if s := t.sessions[t.passed(p.session)]; s != nil {
			t.message(s, p.message, min(at, p.time))
		}
	}
}

// passed returns the number of a session that a relay has.
func (t *truth) passed(session uint64) uint64 {
	for number, s := range t.sessions {
		if s.relay != "" && s.session == session {
			return number
		}
	}
	return 0
}
