package asm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/dict"
	"tollbridge/internal/octets"
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

// A partial is a flow record that comes in several requests, those so far.
type partial struct {
	key       acct.LedgerKey // of its undecoded octets
	since     int64          // arrival of the first, Unix nanoseconds
	flows     [][]byte       // by Record-Part; nil for one that has not come
	octets    int
	request   request // the usage is the first part's
	duplicate bool    // all that came are duplicates
}

// partials are by the client and Acct-Multi-Session-Id.
type partials struct {
	open    map[string]*partial
	changed map[string]bool // since the last checkpoint
	early   map[string]*earlyAccount
}

func newPartials() partials {
	return partials{open: make(map[string]*partial), changed: make(map[string]bool), early: make(map[string]*earlyAccount)}
}

// add takes in the part that record is, and returns the whole once that is
// there, nil before. What waits is booked as undecoded. Beyond an exporter's
// bounds it stays so.
func (p *partials) add(m *Module, e acct.Entry, peer, exporter string, record *acct.Record, q *request, duplicate bool) *partial {
	if record.Part < 1 || record.Part > record.Parts || record.MultiSessionID == "" {
		m.undecodable(e, acct.LedgerKey{Exporter: exporter}, fmt.Errorf("asm: part %d of %d of flow %q: %w", record.Part, record.Parts, record.MultiSessionID, ErrCorrupt))
		return nil
	}
	id := peer + "\x00" + record.MultiSessionID
	w := p.open[id]
	if w == nil {
		if duplicate {
			return nil // of a flow that was whole, or given up
		}
		w = &partial{key: acct.LedgerKey{Exporter: exporter, Interval: m.interval}, since: m.now, flows: make([][]byte, record.Parts), duplicate: true}
	}
	if len(w.flows) != int(record.Parts) || w.flows[record.Part-1] != nil {
		return nil // it was there, or contradicts what was
	}
	a := p.account(exporter)
	n := len(record.Flow)
	row := m.ledger.row(w.key)
	row.UndecodedMessages++
	row.UndecodedOctets += uint64(n)
	if a.sets >= m.settings.EarlySets || a.octets+n > m.settings.EarlyOctets {
		m.stats.EarlyDropped++
		m.logs.warn(m.log, "parts of flow records are beyond the bound and stay undecoded", row.LedgerKey, uint64(e.Kind))
		return nil
	}
	a.sets++
	a.octets += n
	p.open[id], p.changed[id] = w, true
	w.flows[record.Part-1] = record.Flow
	w.octets += n
	w.duplicate = w.duplicate && duplicate
	if record.Part == 1 {
		w.request = *q
	}
	w.request.conflict = w.request.conflict || q.conflict
	if slices.ContainsFunc(w.flows, func(b []byte) bool { return b == nil }) {
		return nil
	}
	p.remove(id)
	return w
}

func (p *partials) account(exporter string) *earlyAccount {
	a := p.early[exporter]
	if a == nil {
		a = new(earlyAccount)
		p.early[exporter] = a
	}
	return a
}

func (p *partials) remove(id string) {
	w := p.open[id]
	a := p.early[w.key.Exporter]
	for _, b := range w.flows {
		if b != nil {
			a.sets--
		}
	}
	if a.octets -= w.octets; a.sets == 0 {
		delete(p.early, w.key.Exporter)
	}
	delete(p.open, id)
	p.changed[id] = true
}

// expire gives up on flows whose other parts have not come by limit, Unix
// nanoseconds.
func (p *partials) expire(m *Module, limit int64) {
	for id, w := range p.open {
		if w.since <= limit {
			m.stats.EarlyDropped++
			p.remove(id)
		}
	}
}

// partialVersion is the first octet of an encoded partial.
const partialVersion = 1

// put hands out what changed, for a checkpoint.
func (p *partials) put(put func(kind, key string, value []byte)) {
	for id := range p.changed {
		w := p.open[id]
		if w == nil {
			put(stateParts, id, nil)
			continue
		}
		b := append([]byte(nil), partialVersion)
		b = octets.AppendString(b, w.key.Exporter)
		b = binary.AppendVarint(b, w.key.Interval)
		b = binary.AppendVarint(b, w.since)
		for _, v := range []bool{w.duplicate, w.request.conflict, w.request.late, w.request.stated, w.request.estimated} {
			b = octets.AppendBool(b, v)
		}
		u := &w.request.usage
		for _, v := range []uint64{u.InputOctets, u.OutputOctets, u.InputPackets, u.OutputPackets} {
			b = binary.AppendUvarint(b, v)
		}
		b = binary.AppendUvarint(b, uint64(len(w.flows)))
		for _, flow := range w.flows {
			b = octets.AppendBytes(b, flow)
		}
		put(stateParts, id, b)
	}
	clear(p.changed)
}

// restore takes in a partial as put wrote it.
func (p *partials) restore(id string, data []byte) error {
	r := octets.NewReader(data)
	if r.Octet() != partialVersion {
		r.Fail()
	}
	w := &partial{}
	w.key.Exporter, w.key.Interval, w.since = r.Text(), r.Varint(), r.Varint()
	for _, v := range []*bool{&w.duplicate, &w.request.conflict, &w.request.late, &w.request.stated, &w.request.estimated} {
		*v = r.Bool()
	}
	u := &w.request.usage
	for _, v := range []*uint64{&u.InputOctets, &u.OutputOctets, &u.InputPackets, &u.OutputPackets} {
		*v = r.Uvarint()
	}
	w.flows = make([][]byte, r.Count())
	a := p.account(w.key.Exporter)
	for i := range w.flows {
		if b := r.Bytes(); len(b) > 0 {
			w.flows[i] = slices.Clone(b)
			w.octets += len(b)
			a.sets++
			a.octets += len(b)
		}
	}
	p.open[id] = w
	return r.Close()
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
