package asm

import (
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/ipfix"
)

// flowEvent makes an EVENT record of a flow that the AAA server is to map
// (RFC 5472, Section 3.5.1). It carries the whole record, octets of Template
// t; its usage takes the source for the user's side. One too large for an
// Accounting-Request goes in parts, under an Acct-Multi-Session-Id of their
// own, and the first has the usage. Each request names the exporter.
func (m *Module) flowEvent(f *flow, t *ipfix.Template, octets []byte, key acct.LedgerKey) {
	m.emitFlow(f, m.flowAVPs(t, octets), key)
}

// flowAVPs returns the encoded AVPs of a record of Template t.
func (m *Module) flowAVPs(t *ipfix.Template, octets []byte) []byte {
	flow, err := m.dictionary.AppendFlow(nil, t, octets)
	if err != nil {
		// The record was decoded by the Template that it is encoded by.
		panic("asm: internal error: " + err.Error())
	}
	return dict.AppendClassifier(flow, t, octets, dict.ClassifierOptions{})
}

// emitFlow makes the EVENT record of a flow whose AVPs are given.
func (m *Module) emitFlow(f *flow, flow []byte, key acct.LedgerKey) {
	r := acct.Record{
		SessionID: m.newSessionID(), Type: acct.Event,
		Realm: m.settings.DestinationRealm,
		Start: milliTime(f.start), End: milliTime(f.end), Event: milliTime(m.millis()),
		SessionTime: time.Duration(f.end-f.start) * time.Millisecond,
		Usage:       usage(f.forward, f.reverse),
		Estimated:   f.estimated,
		Layer:       f.layer.Layer(),
		Shares:      []acct.Share{{LedgerKey: key, Count: f.count()}},
	}
	if m.tracer != nil {
		m.tracer.Flow(0, m.traced(f, "", r.Usage, key, f.count()))
		m.tracer.Record(0, &r)
	}
	r.Increase = r.Usage
	exporter := m.dictionary.AppendExporter(nil, key.Exporter)
	r.Flow = slices.Concat(flow, exporter)
	room := m.room(&r)
	if len(r.Flow) <= room {
		m.records = append(m.records, r)
		return
	}
	parts, err := m.dictionary.Split(flow, room-len(exporter))
	if err != nil {
		// One value alone is too large. Better a large request than none.
		m.stats.Oversized++
		m.records = append(m.records, r)
		return
	}
	r.MultiSessionID = m.newSessionID()
	for i, part := range parts {
		p := r
		p.Flow = append(part, exporter...)
		p.Part, p.Parts = uint16(i+1), uint16(len(parts))
		if i > 0 {
			p.SessionID, p.Usage, p.Increase, p.Shares = m.newSessionID(), acct.Usage{}, acct.Usage{}, nil
		}
		m.records = append(m.records, p)
	}
}
