package sampling

import "tollbridge/ipfix"

// A Meter reads where records of one Template were metered.
type Meter struct {
	ingress, egress, direction          ipfix.Accessor
	hasIngress, hasEgress, hasDirection bool
}

// NewMeter compiles t.
func NewMeter(t *ipfix.Template) (m Meter) {
	m.ingress, m.hasIngress = t.Accessor(0, ipfix.IngressInterface)
	m.egress, m.hasEgress = t.Accessor(0, ipfix.EgressInterface)
	m.direction, m.hasDirection = t.Accessor(0, ipfix.FlowDirection)
	return m
}

// Egress reports whether the flow of record d was metered where it leaves, by
// its flowDirection.
func (m *Meter) Egress(d ipfix.Record) bool {
	const egressFlow = 1
	return m.hasDirection && m.direction.Uint64(d) == egressFlow
}

// HasInterface reports whether records say at which interface they were
// metered.
func (m *Meter) HasInterface() bool { return m.hasIngress || m.hasEgress }

// Interface returns the interface at which record d was metered: the one that
// its flow left by if its direction says so, else that it came in by.
func (m *Meter) Interface(d ipfix.Record) uint64 {
	if m.hasEgress && (!m.hasIngress || m.Egress(d)) {
		return m.egress.Uint64(d)
	}
	return m.ingress.Uint64(d)
}

// A source of a record's sampling rate. Of several the first in this order
// counts.
type source uint8

const (
	fixed       source = iota // set for the exporter, or the same for all records of the Template
	ofRecord                  // the record gives it
	ofSelector                // of the record's selectorId or samplerId
	ofInterface               // of the record's interface
)

// A Plan finds the sampling rates of the Data Records of one Template. It is of
// use once it was resolved.
type Plan struct {
	Meter
	rates                 reader
	selector              ipfix.Accessor
	hasRates, hasSelector bool

	source source
	fixed  Rate // also of records whose own source says nothing
	table  *table
}

// NewPlan compiles t.
func NewPlan(t *ipfix.Template) Plan {
	p := Plan{Meter: NewMeter(t)}
	p.rates, p.hasRates = newReader(t)
	p.selector, p.hasSelector = selectorOf(t)
	return p
}

// Fix gives all records the rate of one packet in n, whatever they say.
func (p *Plan) Fix(n uint32) { p.source, p.fixed, p.table = fixed, OneIn(uint64(n)), nil }

// Resolve finds out, by what options records have said so far of an Observation
// Domain, where records of the Template, with an ID there, have their rate from.
func (p *Plan) Resolve(x *Tables, exporter string, id uint32, template uint16) {
	t := x.byDomain[domain{exporter, id}]
	p.source, p.fixed, p.table = fixed, OneIn(1), t
	switch {
	case p.hasRates:
		if t != nil {
			_, p.fixed = p.choose(t, template)
		}
		p.source = ofRecord
	case t == nil && p.hasSelector:
		p.source, p.table = ofSelector, new(table)
	case t == nil:
	default:
		p.source, p.fixed = p.choose(t, template)
	}
}

// choose says where records, of a Template ID, have their rate from by t.
func (p *Plan) choose(t *table, template uint16) (source, Rate) {
	from, rate := fixed, t.all
	if v, ok := t.byTemplate[uint64(template)]; ok {
		rate = v
	}
	switch {
	case p.hasSelector:
		from = ofSelector
	case len(t.byInterface) > 0 && p.HasInterface():
		from = ofInterface
	case rate.den == 0 && len(t.byInterface) > 0:
		rate = uniform(t.byInterface)
	case rate.den == 0 && len(t.bySelector) > 0:
		rate = uniform(t.bySelector)
	}
	if rate.den == 0 {
		rate = OneIn(1)
	}
	return from, rate
}

// uniform returns the rate that all of rates are, the zero Rate if they differ.
func uniform(rates map[uint64]Rate) (v Rate) {
	for _, r := range rates {
		if v.den != 0 && v != r {
			return Rate{}
		}
		v = r
	}
	return v
}

// Scales reports whether any record may be of sampled packets.
func (p *Plan) Scales() bool { return p.source != fixed || !p.fixed.One() }

// Rate returns the sampling rate of record d; known is false if it names a
// sampler that nothing was said of.
func (p *Plan) Rate(d ipfix.Record) (v Rate, known bool) {
	switch p.source {
	case ofRecord:
		if v, ok := p.rates.rate(d); ok {
			return v, true
		}
	case ofSelector:
		id := p.selector.Uint64(d)
		if v, ok := p.table.bySelector[id]; ok {
			return v, true
		}
		// A selector of 0 is none. One that is not known may be another name
		// of what is said of the whole domain.
		return p.fixed, id == 0 || p.table.all.den != 0
	case ofInterface:
		if v, ok := p.table.byInterface[p.Interface(d)]; ok {
			return v, true
		}
	case fixed:
	}
	return p.fixed, true
}
