package asm

import (
	"bytes"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A source of a record's sampling rate. Of several the first in this order
// counts.
type rateSource uint8

const (
	rateFixed      rateSource = iota // set for the exporter, or the same for all records of the Template
	rateOwn                          // the record gives it
	rateSelector                     // of the record's selectorId or samplerId
	rateInterfaces                   // of the record's interface
)

// A refiner does to the flows of one Template what only few Templates need.
type refiner struct {
	active     bool   // there is anything to do
	generation uint64 // of the Module when the following was found out

	source   rateSource
	fixed    rate // also of records whose own source says nothing
	samplers *samplers
	init     int64  // of the Observation Domain, as options records say; Unix milliseconds
	point    *point // nil where all is accounted
	user     ipfix.Accessor
	hasUser  bool
	vrf      vrfPlan

	// Of the Template.

	rates                     rateReader
	selector                  ipfix.Accessor
	ingress, egress           ipfix.Accessor
	direction                 ipfix.Accessor
	hasRates, hasSelector     bool
	hasIngress, hasEgress     bool
	hasDirection, initMatters bool

	keyPrefix dedup.Hash // of keys of totals
	keys      []ipfix.Accessor
	reason    ipfix.Accessor
	hasReason bool
}

// compile notes what the Template of p has.
func (r *refiner) compile(p *plan) {
	t := p.template
	r.rates, r.hasRates = newRateReader(t)
	r.selector, r.hasSelector = selectorOf(t)
	r.ingress, r.hasIngress = t.Accessor(0, ipfix.IngressInterface)
	r.egress, r.hasEgress = t.Accessor(0, ipfix.EgressInterface)
	r.direction, r.hasDirection = t.Accessor(0, ipfix.FlowDirection)
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
	r.source, r.fixed, r.init = rateFixed, rate{1, 1}, 0
	r.samplers = m.samplers[samplerKey{key.Exporter, key.Domain}]
	s := r.samplers
	if s != nil && r.initMatters {
		r.init = s.init
	}
	switch n, set := m.sampling[key.Exporter]; {
	case set:
		r.fixed = rate{uint64(n), 1}
	case r.hasRates:
		if s != nil {
			_, r.fixed = s.choose(r, uint64(id))
		}
		r.source = rateOwn
	case s == nil && r.hasSelector:
		r.source, r.samplers = rateSelector, &samplers{}
	case s == nil:
	default:
		r.source, r.fixed = s.choose(r, uint64(id))
	}
	r.user, r.hasUser = inBandOf(p.template, m.inBand)
	r.vrf = newVRFPlan(m.vrfs[key.Exporter], p.template)
	r.point = m.points[key.Exporter]
	r.active = r.point != nil || r.vrf.reader != nil || r.hasUser || r.source != rateFixed || !r.fixed.one() || p.counters.totals.Any()
}

// choose says where records that r reads, of a Template ID, have their rate
// from.
func (s *samplers) choose(r *refiner, id uint64) (rateSource, rate) {
	source, fixed := rateFixed, s.all
	if v, ok := s.byTemplate[id]; ok {
		fixed = v
	}
	switch {
	case r.hasSelector:
		source = rateSelector
	case len(s.byInterface) > 0 && (r.hasIngress || r.hasEgress):
		source = rateInterfaces
	case fixed.den == 0 && len(s.byInterface) > 0:
		fixed = uniform(s.byInterface)
	case fixed.den == 0 && len(s.bySelector) > 0:
		fixed = uniform(s.bySelector)
	}
	if fixed.den == 0 {
		fixed = rate{1, 1}
	}
	return source, fixed
}

// uniform returns the rate that all of a table are, the zero rate if they
// differ.
func uniform(table map[uint64]rate) (v rate) {
	for _, r := range table {
		if v.den != 0 && v != r {
			return rate{}
		}
		v = r
	}
	return v
}

// rate returns the sampling rate of record d; known is false if it names a
// sampler that nothing was said of.
func (r *refiner) rate(d ipfix.Record) (v rate, known bool) {
	switch r.source {
	case rateOwn:
		if v, ok := r.rates.rate(d); ok {
			return v, true
		}
	case rateSelector:
		id := r.selector.Uint64(d)
		if v, ok := r.samplers.bySelector[id]; ok {
			return v, true
		}
		// A selector of 0 is none. One that is not known may be another name
		// of what is said of the whole domain.
		return r.fixed, id == 0 || r.samplers.all.den != 0
	case rateInterfaces:
		if v, ok := r.samplers.byInterface[r.interfaceOf(d)]; ok {
			return v, true
		}
	case rateFixed:
	}
	return r.fixed, true
}

// interfaceOf returns the interface at which record d was metered: the one
// that its flow left by if its direction says so, else that it came in by.
func (r *refiner) interfaceOf(d ipfix.Record) uint64 {
	out := r.hasEgress && (!r.hasIngress || r.hasDirection && r.direction.Uint64(d) == egressFlow)
	if out {
		return r.egress.Uint64(d)
	}
	return r.ingress.Uint64(d)
}

// egressFlow is the flowDirection of a flow metered where it leaves.
const egressFlow = 1

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
	f.skip = r.point != nil && r.point.skips(r, d)
	v, known := r.rate(d)
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
