package asm

import (
	"context"
	"fmt"
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/asm/sampling"
	"tollbridge/asm/totals"
	"tollbridge/asm/users"
	"tollbridge/dedup"
	"tollbridge/internal/memory"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// chunk is how many records are decoded before they are looked up: enough to
// keep memory busy, few enough for the first-level cache.
const chunk = 32

// A decoder is the scratch of decoding, reused for every Message.
type decoder struct {
	row      row
	flows    [chunk]flow
	octets   [chunk][]byte // of the records, in the Message
	ids      [chunk]dedup.Identity
	ends     [chunk]int64
	verdicts [chunk]dedup.Verdict
	ordinals [chunk]uint16 // in their Data Set
	ordinal  uint16        // of the next record

	// Of records whose counters are totals.
	sightings [chunk]totals.Sighting
	rates     [chunk]sampling.Rate
	doubts    [chunk]bool // what the record adds can't be known
	scratch   []byte
	addrs     [2 * chunk]netip.Addr // source and destination of each
	moments   [2 * chunk]int64
	holders   [2 * chunk]*users.Holder

	request *request // that the record at hand came in; nil for those of a Message

	// The Message at hand.
	transport *transport
	position  uint64
	time      int64 // arrival, Unix nanoseconds
	early     bool  // some Data Set waits for its Template

	// Whether the Data Set at hand was decoded before, in an equal Message. It
	// is asked only where records have no identity that says more, as the hash
	// of all octets costs time.
	domain    *domain
	message   []byte
	hash      dedup.Identity // of the Message, once hashed says so
	hashed    bool
	compared  bool // it was asked
	duplicate bool // the answer

	identified identified // by acknowledged export; zero for other Messages

	// Of a Message that another collector passes on.
	passing   ack.Instance    // of the latest Message with an Identity
	forwarded []ack.Forwarded // what the Message at hand brings of that collector's journal
	inner     int             // where in the entry the Message at hand begins, if it was passed on, or split
}

// message applies an EntryMessage.
func (m *Module) message(ctx context.Context, e acct.Entry) error {
	session, stream := e.Stream()
	t := m.transports.open[session]
	if t == nil {
		m.undecodable(e, acct.LedgerKey{}, fmt.Errorf("asm: transport session %d is not open", session))
		return nil
	}
	h, err := ipfix.MessageHeader(e.Data)
	if err != nil {
		m.undecodable(e, acct.LedgerKey{Exporter: t.info.Exporter}, err)
		return nil
	}
	m.stats.Messages++
	d := t.domain(h.Domain, m.hashKey)
	m.decoder.transport, m.decoder.position, m.decoder.time = t, e.Position, e.Time
	m.decoder.domain, m.decoder.message = d, e.Data
	m.decoder.hashed, m.decoder.early = false, false
	m.decoder.identified = identified{}
	m.decoder.forwarded = m.decoder.forwarded[:0]

	m.transports.touch(t)
	if m.tracer != nil {
		m.traceMessage(t, e)
	}
	result, err := t.decoder.DecodeStream(e.Data, stream, m.visit)
	if err != nil {
		// A malformed Message changes nothing (RFC 7011, Section 9.1). What
		// Observation Domain it claims is not believed: there are 2^32.
		if !d.decoded {
			t.forget(h.Domain)
		}
		key := acct.LedgerKey{Exporter: t.info.Exporter}
		m.undecodable(e, key, err)
		return nil
	}
	d.decoded = true
	m.see(t, h.ExportTime, e.Time)
	m.lose(t, d, &result)
	m.mismanaged(t, d, &result)
	row := m.row(d)
	if m.decoder.early {
		row.UndecodedMessages++
	} else if m.decoder.identified.spool != nil {
		m.identifiedDone(d)
	}
	m.decoder.identified = identified{}
	if len(m.decoder.forwarded) > 0 {
		if err := m.passedOn(ctx, e, t.info.Exporter); err != nil {
			return err
		}
	}
	if !result.TemplatesChanged {
		return nil
	}
	m.prune(t, h.Domain)
	if len(t.early) == 0 {
		return nil
	}
	return m.decodeEarly(ctx, t, result.New)
}

// mismanaged tells of Templates that an exporter manages otherwise than it
// should: the same again where a Template is sent once, and withdrawals of what
// is not held or over UDP (RFC 7011, Sections 8.1 and 8.4). They change nothing.
func (m *Module) mismanaged(t *transport, d *domain, r *ipfix.Result) {
	if r.Repeated > 0 && t.info.Transport.Reliable() {
		m.stats.TemplatesRepeated += uint64(r.Repeated)
		m.logs.warn(m.log, "a template is sent again over a reliable transport", d.key, 0)
	}
	if r.Ignored > 0 {
		m.stats.WithdrawalsIgnored += uint64(r.Ignored)
		m.logs.warn(m.log, "the withdrawal of a template that is not held, or over udp, is ignored", d.key, 0)
	}
}

// prune drops the plans of Templates that no longer hold.
func (m *Module) prune(t *transport, id uint32) {
	d := t.domain(id, m.hashKey)
	for tmpl := range d.plans {
		if t.decoder.Template(id, tmpl.ID) != tmpl {
			delete(d.plans, tmpl)
		}
	}
	for tmpl := range d.options {
		if t.decoder.Template(id, tmpl.ID) != tmpl {
			delete(d.options, tmpl)
		}
	}
}

// row returns the ledger's row of d for what arrives now.
func (m *Module) row(d *domain) *acct.LedgerRow {
	if d.row == nil || d.generation != m.ledger.generation || d.key.Interval != m.interval {
		d.key.Interval = m.interval
		d.row, d.generation = m.ledger.row(d.key), m.ledger.generation
	}
	return d.row
}

// dataSet takes in one Data Set of the Message at hand.
func (m *Module) dataSet(set ipfix.DataSet) {
	d := m.decoder.transport.domain(set.Header.Domain, m.hashKey)
	if set.Template == nil {
		m.keepEarly(set, m.row(d))
		return
	}
	m.decoder.compared = false
	m.dataRecords(&set, d, m.row(d), d.key)
}

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
	m.decoder.row, m.decoder.ordinal = slotsClear, 0
	m.windowOf(key.Exporter).From(m.origin(set))
	for m.chunk(set, p, row, key) {
	}
}

var slotsClear row

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
	for n < chunk {
		r, ok := set.Next()
		if !ok {
			break
		}
		c.ordinals[n] = c.ordinal
		c.ordinal++
		f := &c.flows[n]
		why := p.flow(r, &c.row, set.Header.ExportTime, f)
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
			window.Prefetch(c.ids[n], f.end)
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

// lookup finds the holders of the addresses of the first n flows. Their
// tallies are fetched before any is used, so that the waits for memory overlap.
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
	for _, h := range c.holders[:2*n] {
		if h == nil {
			continue
		}
		if y, _ := h.Session.(*tally); y != nil {
			memory.Prefetch(y)
		}
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

// undecodable books a Message that can't be decoded, now or later.
func (m *Module) undecodable(e acct.Entry, key acct.LedgerKey, err error) {
	key.Interval = m.interval
	row := m.ledger.row(key)
	row.UndecodedMessages++
	row.UndecodedOctets += uint64(len(e.Data))
	m.broken(e, err)
}

// broken notes an entry that can't be applied; whoever wrote it should have
// refused it.
func (m *Module) broken(e acct.Entry, err error) {
	m.stats.Broken++
	key := acct.LedgerKey{}
	if t := m.transports.open[e.Session]; t != nil {
		key.Exporter = t.info.Exporter
	}
	m.logs.warn(m.log, "journal entry can't be applied", key, uint64(e.Kind), "position", e.Position, "kind", e.Kind, "error", err)
}
