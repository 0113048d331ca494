package asm

import (
	"bytes"

	"tollbridge/asm/acct"
	"tollbridge/asm/sampling"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A refiner does to the flows of one Template what only few Templates need.
type refiner struct {
	active     bool   // there is anything to do
	generation uint64 // of the Module when the following was found out

	rates       sampling.Plan
	initMatters bool   // records have up times, and do not say when that began
	init        int64  // as options records say of the Observation Domain; Unix milliseconds
	point       *point // nil where all is accounted
	user        ipfix.Accessor
	hasUser     bool
	vrf         vrfPlan

	// Of a Template whose counters are totals.

	keyPrefix dedup.Hash // of keys of totals
	keys      []ipfix.Accessor
	reason    ipfix.Accessor
	hasReason bool
}

// compile notes what the Template of p has.
func (r *refiner) compile(p *plan) {
	t := p.template
	r.rates = sampling.NewPlan(t)
	r.initMatters = (p.has[slotEndUptime] || p.has[slotStartUptime]) && !p.has[slotInit]
	if !p.counters.totals.Any() {
		return
	}
	for _, id := range flowKeys {
		if a, ok := t.Accessor(0, id); ok {
			r.keys = append(r.keys, a)
		}
	}
	r.reason, r.hasReason = t.Accessor(0, ipfix.FlowEndReason)
}

// bind begins the keys of totals of an Observation Domain.
func (r *refiner) bind(prefix dedup.Hash, t *ipfix.Template) {
	r.keyPrefix = prefix
	for _, a := range r.keys {
		f := t.Fields[a.Index()]
		r.keyPrefix = r.keyPrefix.Uint64(uint64(f.ID)<<16 | uint64(f.Length))
	}
}

// resolve finds out, by the settings and what options records have said so
// far, what there is to do.
func (m *Module) resolve(p *plan, key acct.LedgerKey, id uint16) {
	r := &p.refiner
	r.generation = m.generation
	if n, set := m.sampling[key.Exporter]; set {
		r.rates.Fix(n)
	} else {
		r.rates.Resolve(m.samplers, key.Exporter, key.Domain, id)
	}
	if r.initMatters {
		r.init = m.samplers.Init(key.Exporter, key.Domain)
	}
	r.user, r.hasUser = inBandOf(p.template, m.inBand)
	r.vrf = newVRFPlan(m.vrfs[key.Exporter], p.template)
	r.point = m.points[key.Exporter]
	r.active = r.point != nil || r.vrf.reader != nil || r.hasUser || r.rates.Scales() || p.counters.totals.Any()
}

// refine does to f, record d and number n of the chunk, what its Template
// needs beyond what plan.flow did, and says if it can't be used.
func (m *Module) refine(p *plan, d ipfix.Record, f *flow, n int, key acct.LedgerKey) reason {
	r := &p.refiner
	if r.hasUser {
		m.nameUser(r, d, f)
	}
	if r.vrf.reader != nil {
		r.vrf.read(d, f)
	}
	f.skip = r.point != nil && r.point.skips(&r.rates.Meter, d)
	v, known := r.rates.Rate(d)
	if !known {
		m.stats.UnknownSampler++
		m.ledger.row(key).Unscaled++
		m.logs.warn(m.log, "records of a sampler that no options record has told of are counted unscaled", key, uint64(p.template.ID))
		f.estimated = true
	}
	if p.counters.totals.Any() {
		c := &m.decoder
		c.rates[n] = v
		c.scratch = p.sight(d, f, &c.sightings[n], c.scratch)
		return ""
	}
	f.scale(v)
	if !f.fits() {
		return tooLarge
	}
	return ""
}

// trimName returns the name in the octets of a user element: without the zeros
// and spaces that it is filled up with.
func trimName(b []byte) []byte { return bytes.Trim(b, "\x00 ") }
