package asm

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/sampling"
	"tollbridge/asm/totals"
	"tollbridge/asm/users"
	"tollbridge/dedup"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// A decoder is the scratch of decoding, reused for every Message.
type decoder struct {
	rows     rows
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
	t.decoder.Arrival = uint32(e.Time / int64(time.Second))
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
	tell := func(text string) {
		if n, ok := m.logs.lets(limiterKey{text: text, exporter: d.key.Exporter}); ok {
			m.log.Warn(text, "exporter", d.key.Exporter, "domain", d.key.Domain, "times", n)
		}
	}
	// NetFlow 9 knows no transport over which Templates are sent once.
	if r.Repeated > 0 && t.info.Transport.Reliable() && r.Header.Version == ipfix.Version {
		m.stats.TemplatesRepeated += uint64(r.Repeated)
		tell("a template is sent again over a reliable transport")
	}
	if r.Ignored > 0 {
		m.stats.WithdrawalsIgnored += uint64(r.Ignored)
		tell("the withdrawal of a template that is not held, or over udp, is ignored")
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
