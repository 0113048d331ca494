package asm

import (
	"cmp"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A domain is one Observation Domain of a Transport Session, with what its
// records have in common.
type domain struct {
	key        acct.LedgerKey
	row        *acct.LedgerRow // of key, good for one generation of the ledger
	generation uint64
	prefix     dedup.Hash // exporter and domain, of record identities
	messages   dedup.Hash // the same, of message identities
	totals     dedup.Hash // the same, of flows whose counters are totals
	plans      map[*ipfix.Template]*plan
	options    map[*ipfix.Template]optionsPlan
	decoded    bool // some Message of it was well-formed
}

// domain returns the Observation Domain id of t.
func (t *transport) domain(id uint32, key dedup.Key) *domain {
	if t.last != nil && t.last.key.Domain == id {
		return t.last
	}
	d := t.domains[id]
	if d == nil {
		name := cmp.Or(t.alias, t.info.Exporter)
		d = &domain{
			key:      acct.LedgerKey{Exporter: t.info.Exporter, Domain: id},
			prefix:   key.Hash().Uint64(recordIdentity).String(name).Uint64(uint64(id)),
			messages: key.Hash().Uint64(messageIdentity).String(name).Uint64(uint64(id)),
			totals:   key.Hash().Uint64(totalIdentity).String(name).Uint64(uint64(id)),
			plans:    make(map[*ipfix.Template]*plan),
			options:  make(map[*ipfix.Template]optionsPlan),
		}
		t.domains[id] = d
	}
	t.last = d
	return d
}

// name sets the name that identities are made with.
func (t *transport) name(name string) {
	if cmp.Or(t.alias, t.info.Exporter) != name {
		t.domains, t.last = make(map[uint32]*domain), nil
	}
	t.alias = name
}

// forget drops what domain made for an Observation Domain.
func (t *transport) forget(id uint32) {
	delete(t.domains, id)
	t.last = nil
}

// What identities begin with, so that those of records and of messages share
// one window.
const (
	recordIdentity  = 1
	messageIdentity = 2
	totalIdentity   = 3
	requestIdentity = 4
)

// plan returns the plan of a Template.
func (d *domain) plan(t *ipfix.Template, link bool) *plan {
	p := d.plans[t]
	if p == nil || p.counters.link != link {
		p = newPlan(t, d.prefix, link)
		p.refiner.bind(d.totals, t)
		d.plans[t] = p
	}
	return p
}
