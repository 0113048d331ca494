package asm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
)

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
