package asm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/dict"
	"tollbridge/ipfix"
)

// A request is an Accounting-Request that carries a flow, as chunk needs it.
type request struct {
	conflict  bool // its Session-Id and number came before with other content
	late      bool // it is too old for that to be known
	stated    bool // it says itself what the flow amounts to
	usage     acct.Usage
	estimated bool
}

// amend gives f the amounts that the request states, in place of the record's
// own counters: whoever made the request has seen to sampling and totals.
func (r *request) amend(f *flow) reason {
	f.forward = volume{r.usage.InputOctets, r.usage.InputPackets}
	f.reverse = volume{r.usage.OutputOctets, r.usage.OutputPackets}
	f.estimated = r.estimated
	if !f.fits() {
		return tooLarge
	}
	return ""
}

// request applies an EntryRequest.
func (m *Module) request(e acct.Entry) {
	r, err := acct.ParseRequest(e.Data)
	if err != nil {
		m.broken(e, err)
		return
	}
	record, err := m.dictionary.ParseRecord(r.AVPs)
	if err != nil {
		m.broken(e, err)
		return
	}
	m.stats.Requests++
	switch r.Task {
	case acct.RequestFlows:
		m.requestFlow(e, &r, &record)
	case acct.RequestForward:
		m.forward(&r, &record)
	}
}

// known reports whether a request came before, and whether what came before
// had other content. It remembers a request for messageMemory.
func (m *Module) known(r *acct.Request, record *acct.Record) (before, conflict bool) {
	h := m.hashKey.Hash().Uint64(requestIdentity).String(r.Peer).String(record.SessionID).Uint64(uint64(record.Number))
	content := dict.ContentDigest(r.AVPs)
	before = m.messages.Add(h.Sum(nil), m.millis()) == dedup.Duplicate
	again := m.messages.Add(h.Sum(content[:]), m.millis()) == dedup.Duplicate
	return before, before && !again
}

// requestFlow takes in the flow record that a request carries, as that of the
// exporter that it names.
func (m *Module) requestFlow(e acct.Entry, r *acct.Request, record *acct.Record) {
	exporter := cmp.Or(m.dictionary.ParseExporter(record.Flow), r.Peer)
	before, conflict := m.known(r, record)
	switch {
	case conflict:
		m.stats.RequestConflicts++
		m.logs.warn(m.log, "request contradicts one that came before; its flow is suspended", acct.LedgerKey{Exporter: exporter}, uint64(e.Kind),
			"session_id", record.SessionID, "number", record.Number)
	case before:
		m.stats.RequestDuplicates++
	}
	q := request{
		conflict: conflict, stated: dict.HasUsage(r.AVPs), usage: record.Usage, estimated: record.Estimated,
		late: !record.Event.IsZero() && record.Event.UnixMilli() < m.millis()-messageMemory.Milliseconds(),
	}
	flow := record.Flow
	if record.Parts > 1 {
		p := m.parts.add(m, e, r.Peer, exporter, record, &q, before && !conflict)
		if p == nil {
			return
		}
		q, before = p.request, p.duplicate
		var err error
		if flow, err = m.dictionary.Join(p.flows...); err != nil {
			m.broken(e, err)
			return
		}
		row := m.ledger.row(p.key)
		row.DecodedMessages += uint64(len(p.flows))
		row.DecodedOctets += uint64(p.octets)
	}
	key := acct.LedgerKey{Exporter: exporter}
	t, octets, err := m.dictionary.ParseFlow(flow)
	if err == nil && t.Scope > 0 {
		err = fmt.Errorf("asm: options record in a request: %w", ErrCorrupt)
	}
	if err != nil {
		m.undecodable(e, key, err)
		return
	}
	source := m.sources.of(exporter)
	source.name(m.identityOf(exporter))
	t = source.template(t)
	set, err := ipfix.NewDataSet(ipfix.Header{Domain: t.Domain, ExportTime: uint32(record.Event.Unix())}, t, octets)
	if err != nil {
		m.undecodable(e, key, err)
		return
	}
	c := &m.decoder
	c.transport, c.position, c.time = &source.transport, e.Position, e.Time
	c.domain = source.domain(t.Domain, m.hashKey)
	c.compared, c.duplicate, c.early = true, before && !conflict, false
	c.request = &q
	m.dataRecords(&set, c.domain, m.row(c.domain), c.domain.key)
	c.request = nil
}

// forward makes a record of a request for another realm, to be delivered as
// it came. One that was taken before is not delivered again; one that
// contradicts what was taken before is, as its server is to know.
func (m *Module) forward(r *acct.Request, record *acct.Record) {
	before, conflict := m.known(r, record)
	switch {
	case conflict:
		m.stats.RequestConflicts++
		m.logs.warn(m.log, "request contradicts one that came before; both are forwarded", acct.LedgerKey{Exporter: r.Peer}, uint64(acct.EntryRequest),
			"session_id", record.SessionID, "number", record.Number)
	case before:
		m.stats.RequestDuplicates++
		return
	}
	m.stats.Forwarded++
	record.Received = slices.Clone(r.AVPs)
	record.Flow = nil // it is part of what was received
	m.records = append(m.records, *record)
}

// messageMemory is how long the identities of Messages and requests are
// remembered.
const messageMemory = time.Hour
