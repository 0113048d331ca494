package asm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// An earlySet is a Data Set that came before its Template. It stays in the
// journal.
type earlySet struct {
	position uint64 // of its Message
	time     int64  // arrival, Unix nanoseconds
	interval int64  // of its ledger row, Unix seconds
	inner    int    // where in the entry the Message begins, which another collector had
	offset   int    // of the Set Header in the Message
	domain   uint32
	template uint16
	octets   int
	message  dedup.Identity // hash of the Message; or judgedFirst, judgedCopy
	partial  bool           // another Data Set of the Message was not kept, so it will never be decoded whole
}

// In place of the hash, what versions of this program before states of version 4
// had found out of a Message when it came: a whole one was asked for then, once,
// and not each of its Data Sets as it is decoded (see Module.repeated).
var (
	judgedFirst = dedup.ParseIdentity(append(make([]byte, dedup.IdentitySize-1), 1))
	judgedCopy  = dedup.ParseIdentity(append(make([]byte, dedup.IdentitySize-1), 2))
)

// An earlyAccount is what an exporter makes us keep.
type earlyAccount struct{ sets, octets int }

func (a *earlyAccount) release(e earlySet) {
	a.sets--
	a.octets -= e.octets
}

func (t *transports) account(s *transport) *earlyAccount {
	a := t.early[s.info.Exporter]
	if a == nil {
		a = &earlyAccount{}
		t.early[s.info.Exporter] = a
	}
	return a
}

// oldest returns the earliest position that an early Data Set needs, or
// otherwise if there is none.
func (t *transports) oldest(otherwise uint64) uint64 {
	for _, s := range t.open {
		for _, e := range s.early {
			otherwise = min(otherwise, e.position)
		}
	}
	return otherwise
}

// keepEarly books a Data Set whose Template is not known and, within the
// exporter's bounds, remembers where it is, to decode it when the Template
// comes. Beyond them, or where it lies in two entries, it stays undecoded for
// good.
func (m *Module) keepEarly(set ipfix.DataSet, row *acct.LedgerRow) {
	c := &m.decoder
	n := len(set.Octets())
	row.UndecodedOctets += uint64(n)
	c.early = true
	m.stats.EarlySets++

	a := m.transports.account(c.transport)
	early := c.transport.early
	if c.inner == split || a.sets >= m.settings.EarlySets || a.octets+n > m.settings.EarlyOctets {
		m.stats.EarlyDropped++
		markPartial(early, c.position)
		m.dropped = c.position
		m.logs.warn(m.log, "data sets without their template are beyond the bound, or in two parts, and stay undecoded", row.LedgerKey, uint64(set.ID))
		return
	}
	a.sets++
	a.octets += n
	c.transport.early = append(early, earlySet{
		position: c.position, time: c.time, interval: row.Interval, inner: c.inner, offset: set.Offset,
		domain: set.Header.Domain, template: set.ID, octets: n,
		message: c.messageHash(), partial: m.dropped == c.position,
	})
}

// markPartial notes that a Data Set of the Message at position stays
// undecoded.
func markPartial(early []earlySet, position uint64) {
	for i := range early {
		if early[i].position == position {
			early[i].partial = true
		}
	}
}

// decodeEarly decodes the Data Sets of t that waited for one of templates.
// They are booked in the interval that they arrived in.
func (m *Module) decodeEarly(ctx context.Context, t *transport, templates []*ipfix.Template) error {
	wanted := func(e earlySet) bool {
		return slices.ContainsFunc(templates, func(tmpl *ipfix.Template) bool {
			return tmpl.ID == e.template && tmpl.Domain == e.domain
		})
	}
	if !slices.ContainsFunc(t.early, wanted) {
		return nil
	}
	early := t.early
	t.early = nil
	for i := range early {
		e := early[i]
		if !wanted(e) {
			t.early = append(t.early, e)
			continue
		}
		entry, err := m.journal.Read(ctx, e.position)
		if err != nil && !errors.Is(err, acct.ErrNoEntry) {
			return fmt.Errorf("asm: read data set at entry %d, which waited for template %d: %w", e.position, e.template, err)
		}
		m.transports.account(t).release(e)
		var set ipfix.DataSet
		if err == nil {
			set, err = t.decoder.DataSetAt(message(entry.Data, e.inner), e.offset)
		}
		if err != nil || set.Template == nil {
			// It is lost, or the Template does not fit it. It stays undecoded.
			m.stats.EarlyMisfits++
			markPartial(early[i+1:], e.position)
			markPartial(t.early, e.position)
			continue
		}
		d := t.domain(e.domain, m.hashKey)
		key := acct.LedgerKey{Exporter: d.key.Exporter, Domain: e.domain, Interval: e.interval}
		row := m.ledger.row(key)
		row.DecodedOctets += uint64(e.octets)
		rest := func(o earlySet) bool { return o.position == e.position }
		if !e.partial && !slices.ContainsFunc(early[i+1:], rest) && !slices.ContainsFunc(t.early, rest) {
			row.DecodedMessages++
		}
		c := &m.decoder
		c.transport, c.position, c.time = t, e.position, e.time
		c.domain, c.hash, c.hashed = d, e.message, true
		c.compared, c.duplicate = e.message == judgedFirst || e.message == judgedCopy, e.message == judgedCopy
		m.stats.EarlyDecoded++
		outer := c.inner
		c.inner = e.inner
		m.dataRecords(&set, d, row, key)
		c.inner = outer
	}
	return nil
}

// expireEarly gives up on Data Sets that have waited too long for their
// Template, so that they don't hold the journal for ever.
func (m *Module) expireEarly(now int64) {
	limit := now - m.settings.EarlyWait.Nanoseconds()
	m.parts.expire(m, limit)
	for _, t := range m.transports.open {
		n := len(t.early)
		t.early = slices.DeleteFunc(t.early, func(e earlySet) bool {
			if e.time > limit {
				return false
			}
			m.transports.account(t).release(e)
			m.stats.EarlyDropped++
			return true
		})
		if len(t.early) != n {
			m.transports.touch(t)
		}
	}
}
