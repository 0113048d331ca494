package asm

import (
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// chunk is how many records are decoded before they are looked up: enough to
// keep memory busy, few enough for the first-level cache.
const chunk = 32

// dataRecords takes in the records of set, which arrived in the interval of row.
func (m *Module) dataRecords(set *ipfix.DataSet, d *domain, row *acct.LedgerRow, key acct.LedgerKey) {
	m.decoder.identified.records += uint64(set.Records)
	if set.Template.Scope > 0 {
		m.options(set, d)
		return
	}
	p := d.plan(set.Template, m.linkLayer)
	if p.nat != nil {
		m.natEvents(set, p.nat, key)
		return
	}
	switch p.useless {
	case noAddress:
		m.stats.NotUsage += uint64(set.Records)
		return
	case noCounter:
		n := acct.Count{Records: uint64(set.Records)}
		row.Received = row.Received.Plus(n)
		row.Rejected = row.Rejected.Plus(n)
		m.stats.NoCounter += n.Records
		m.logs.warn(m.log, "records without a counter are rejected", key, uint64(set.ID))
		return
	}
	if p.refiner.generation != m.generation {
		m.resolve(p, key, set.ID)
	}
	m.stats.Records += uint64(set.Records)
	m.decoder.rows.by(p)
	m.decoder.ordinal = 0
	m.windowOf(key.Exporter).From(m.origin(set))
	for m.chunk(set, p, row, key) {
	}
}

// origin returns where the records of set are to be found again, none if they
// need not be, or can't: where what another collector passed on lies in two
// entries, or is NetFlow, whose records are more than their octets.
func (m *Module) origin(set *ipfix.DataSet) dedup.Origin {
	c := &m.decoder
	if m.settings.CompareOctets == 0 || c.request != nil || c.inner == split || c.inner != 0 && set.Header.Version != ipfix.Version {
		return 0
	}
	return dedup.OriginAt(c.position, uint16(c.inner+set.Offset))
}

// chunk takes in the next records of set and reports whether there are more.
func (m *Module) chunk(set *ipfix.DataSet, p *plan, row *acct.LedgerRow, key acct.LedgerKey) bool {
	c := &m.decoder
	n, received := 0, acct.Count{}
	stated := c.request != nil && c.request.stated
	window := m.windowOf(key.Exporter)
	c.rows.read(set, int(c.ordinal))
	for i := 0; n < chunk; i++ {
		r, ok := set.Next()
		if !ok {
			break
		}
		c.ordinals[n] = c.ordinal
		c.ordinal++
		f := &c.flows[n]
		why := p.flow(c.rows.of(r, i), set.Header.ExportTime, f)
		switch {
		case why != "":
		case stated:
			if p.refiner.hasUser {
				m.nameUser(&p.refiner, r, f)
			}
			why = c.request.amend(f)
		case p.refiner.active:
			why = m.refine(p, r, f, n, key)
		}
		received = received.Plus(f.count())
		if why != "" {
			m.tooLarge(f, row, key, uint64(set.ID))
			continue
		}
		c.octets[n], c.ends[n] = r.Bytes(), f.end
		if p.timed {
			c.ids[n] = p.identity(r)
		}
		n++
	}
	more := n > 0
	again := c.identified.novelty == resent
	if p.timed && !again {
		if m.weaken != nil {
			for i := range n {
				c.ids[i] = m.weaken(c.ids[i])
			}
		}
		window.AddBatch(c.ids[:n], c.ends[:n], c.ordinals[:n], c.verdicts[:n])
	}
	comparing := p.timed && m.settings.CompareOctets > 0 && c.request == nil
	totals := p.counters.totals.Any() && !stated
	for i := range n {
		v := &c.verdicts[i]
		if again {
			*v = dedup.Duplicate
			continue
		}
		if !p.timed {
			*v = dedup.New
		}
		if comparing && *v == dedup.Duplicate {
			*v = m.compare(set, p, window, i)
		}
		if c.request != nil && c.request.late && !p.timed {
			*v = dedup.BelowFloor
		}
		if !totals && m.cameBefore(set, p, i) {
			*v = dedup.Duplicate
		}
	}
	if totals {
		n, received = m.settle(set, p, n, row, key)
	}
	row.Received = row.Received.Plus(received)
	if m.settings.Mode == ModeASM {
		m.lookup(n, p)
	}
	for i := range n {
		f := &c.flows[i]
		if f.skip && c.verdicts[i] != dedup.Duplicate {
			row.Skipped = row.Skipped.Plus(f.count())
			continue
		}
		switch c.verdicts[i] {
		case dedup.Duplicate:
			row.Duplicate = row.Duplicate.Plus(f.count())
			if t, ok := m.tracer.(DuplicateTracer); ok {
				m.traceDuplicate(t, set, p, window, i, key)
			}
		case dedup.BelowFloor:
			m.suspend(f, reasonBelowFloor, m.heldRecord(set, i, p.timed), row, key)
		case dedup.AheadOfClock:
			// A report of totals that adds nothing is none that a copy repeats.
			m.suspend(f, reasonAhead, m.heldRecord(set, i, !totals || f.count() != acct.Count{Records: 1}), row, key)
		case dedup.New:
			if totals && c.doubts[i] {
				m.suspend(f, reasonForgotten, m.heldRecord(set, i, false), row, key)
				continue
			}
			if c.request != nil && c.request.conflict {
				m.suspend(f, reasonConflict, m.heldRecord(set, i, false), row, key)
				continue
			}
			if m.settings.Mode == ModeAAAClient {
				m.flowEvent(f, set.Template, c.octets[i], key)
				f.book(row, f.count(), acct.Count{})
				continue
			}
			accounted, mirrored := m.account(f, c.holders[2*i], c.holders[2*i+1], key)
			if accounted.IsZero() {
				m.suspend(f, reasonUnmapped, heldRecord{}, row, key)
				continue
			}
			f.book(row, accounted, mirrored)
		}
	}
	return more
}

// tooLarge rejects f, whose counters are none that a record can have.
func (m *Module) tooLarge(f *flow, row *acct.LedgerRow, key acct.LedgerKey, template uint64) {
	row.Rejected = row.Rejected.Plus(f.count())
	m.stats.TooLarge++
	m.logs.warn(m.log, "records with an impossible counter are rejected", key, template)
}

// lookup finds the holders of the addresses of the first n flows.
func (m *Module) lookup(n int, p *plan) {
	c := &m.decoder
	for i := range n {
		f := &c.flows[i]
		if c.verdicts[i] == dedup.New {
			c.addrs[2*i], c.addrs[2*i+1] = f.source, f.destination
		} else {
			c.addrs[2*i], c.addrs[2*i+1] = netip.Addr{}, netip.Addr{}
		}
		c.moments[2*i], c.moments[2*i+1] = f.end, f.end
	}
	m.users.LookupBatch(c.addrs[:2*n], c.moments[:2*n], c.holders[:2*n])
	if p.refiner.vrf.reader != nil || m.users.Shared() {
		m.lookupEach(n)
	}
}

// lookupEach finds the holders of the first n flows where more than an address
// tells them.
func (m *Module) lookupEach(n int) {
	c := &m.decoder
	for i := range n {
		if c.verdicts[i] == dedup.New {
			c.holders[2*i], c.holders[2*i+1] = m.holder(&c.flows[i], false), m.holder(&c.flows[i], true)
		}
	}
}

// holder returns who held the source of f, or its destination, when it ended.
func (m *Module) holder(f *flow, to bool) *users.Holder {
	if p := f.behind.end(to); p.addr.IsValid() {
		return m.users.LookupVRF(p.vrf, p.addr, f.end)
	}
	a, port, vrf, remote := f.side(to)
	if m.users.Shared() {
		return m.users.LookupPort(vrf, a, port, f.protocol, remote, f.end)
	}
	return m.users.LookupVRF(vrf, a, f.end)
}
