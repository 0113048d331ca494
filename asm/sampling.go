package asm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// Bounds of what options records can make us hold.
const (
	maxRates   = 4096 // rates of one Observation Domain
	maxSampled = 1024 // Observation Domains of one exporter that tell of rates or times
)

// A samplerKey names an Observation Domain of an exporter over all of its
// Transport Sessions.
type samplerKey struct {
	exporter string
	domain   uint32
}

// samplers are what the options records of one Observation Domain say of its
// Data Records.
type samplers struct {
	all         rate            // of the whole domain; zero where nothing is said
	bySelector  map[uint64]rate // by selectorId or samplerId
	byInterface map[uint64]rate
	byTemplate  map[uint64]rate
	init        int64 // systemInitTimeMilliseconds, Unix milliseconds; 0 where nothing is said
	dirty       bool  // listed in Module.samplersDirty
}

// set makes r the rate of id in one of the maps of s, and reports whether
// there is room for it.
func (s *samplers) set(table *map[uint64]rate, id uint64, r rate) bool {
	if _, ok := (*table)[id]; !ok && len(s.bySelector)+len(s.byInterface)+len(s.byTemplate) >= maxRates {
		return false
	}
	if *table == nil {
		*table = make(map[uint64]rate)
	}
	(*table)[id] = r
	return true
}

// A rateReader reads the sampling rate that a record of one Template gives.
type rateReader struct {
	interval, space        ipfix.Accessor // samplingPacketInterval and samplingPacketSpace, or samplingTimeInterval and samplingTimeSpace
	size, population       ipfix.Accessor
	probability            ipfix.Accessor
	one                    ipfix.Accessor // samplingInterval or samplerRandomInterval: one in so many
	algorithm              ipfix.Accessor // selectorAlgorithm
	hasInterval, hasSpace  bool
	hasSize, hasPopulation bool
	hasProbability, hasOne bool
	hasAlgorithm           bool
}

// newRateReader compiles t; ok is false if it has no sampling rate.
func newRateReader(t *ipfix.Template) (r rateReader, ok bool) {
	find := func(a *ipfix.Accessor, has *bool, ids ...uint16) {
		for _, id := range ids {
			if !*has {
				*a, *has = t.Accessor(0, id)
			}
		}
	}
	find(&r.interval, &r.hasInterval, ipfix.SamplingPacketInterval)
	find(&r.space, &r.hasSpace, ipfix.SamplingPacketSpace)
	if !r.hasInterval {
		find(&r.interval, &r.hasInterval, ipfix.SamplingTimeInterval)
		r.hasSpace = false
		find(&r.space, &r.hasSpace, ipfix.SamplingTimeSpace)
	}
	find(&r.size, &r.hasSize, ipfix.SamplingSize)
	find(&r.population, &r.hasPopulation, ipfix.SamplingPopulation)
	find(&r.probability, &r.hasProbability, ipfix.SamplingProbability)
	find(&r.one, &r.hasOne, ipfix.SamplingInterval, ipfix.SamplerRandomInterval)
	find(&r.algorithm, &r.hasAlgorithm, ipfix.SelectorAlgorithm)
	return r, r.hasInterval || r.hasSize && r.hasPopulation || r.hasProbability || r.hasOne
}

// rate returns the rate that record d gives, ok false if none: a value is
// zero, or packets are not sampled but filtered.
func (r *rateReader) rate(d ipfix.Record) (v rate, ok bool) {
	const firstFilter, lastFilter = 5, 8 // Property Match Filtering and hash functions (RFC 5477)
	if r.hasAlgorithm {
		if a := r.algorithm.Uint64(d); a >= firstFilter && a <= lastFilter {
			return rate{}, false
		}
	}
	switch {
	case r.hasInterval && r.hasSpace:
		n := r.interval.Uint64(d) & math.MaxUint32
		v = rate{n + r.space.Uint64(d)&math.MaxUint32, n}
	case r.hasInterval:
		// Alone it is what exporters call the rate: one packet in so many.
		v = rate{r.interval.Uint64(d) & math.MaxUint32, 1}
	case r.hasSize && r.hasPopulation:
		v = rate{r.population.Uint64(d) & math.MaxUint32, r.size.Uint64(d) & math.MaxUint32}
	case r.hasProbability:
		const unit = 1 << 32
		if p := r.probability.Float64(d); p > 0 && p <= 1 {
			v = rate{unit, max(uint64(math.Round(p*unit)), 1)}
		}
	case r.hasOne:
		v = rate{r.one.Uint64(d) & math.MaxUint32, 1}
	}
	if v.num < v.den || v.den == 0 {
		return rate{}, false
	}
	return v, true
}

// An optionsPlan reads what options records of one Template say that matters
// here.
type optionsPlan struct {
	acknowledgement *ack.Layout // of acknowledged export; then nothing else

	rates                   rateReader
	init                    ipfix.Accessor
	hasRates, hasInit       bool
	selector, iface, scoped ipfix.Accessor // selectorId or samplerId; an interface; templateId
	hasSelector, hasIface   bool
	hasTemplate             bool
}

// newOptionsPlan returns nil for an Options Template that says nothing here.
func newOptionsPlan(t *ipfix.Template, enterprise uint32) *optionsPlan {
	p := &optionsPlan{acknowledgement: ack.NewLayout(t, enterprise)}
	if p.acknowledgement != nil {
		return p
	}
	p.rates, p.hasRates = newRateReader(t)
	p.init, p.hasInit = t.Accessor(0, ipfix.SystemInitTimeMilliseconds)
	if !p.hasRates && !p.hasInit {
		return nil
	}
	p.selector, p.hasSelector = selectorOf(t)
	for _, id := range []uint16{ipfix.IngressInterface, ipfix.EgressInterface} {
		if !p.hasIface {
			p.iface, p.hasIface = t.Accessor(0, id)
		}
	}
	if i, ok := t.Index(0, ipfix.TemplateId); ok && i < t.Scope {
		p.scoped, p.hasTemplate = t.AccessorAt(i), true
	}
	return p
}

// forgetOptions lets all Options Templates be looked at anew.
func (m *Module) forgetOptions() {
	for _, t := range m.transports.open {
		for _, d := range t.domains {
			clear(d.options)
		}
	}
}

// selectorOf returns the way to the selectorId or samplerId of records of t.
func selectorOf(t *ipfix.Template) (ipfix.Accessor, bool) {
	if a, ok := t.Accessor(0, ipfix.SelectorId); ok {
		return a, true
	}
	return t.Accessor(0, ipfix.SamplerId)
}

// options takes in the options records of set. What they say holds for Data
// Records that follow.
func (m *Module) options(set *ipfix.DataSet, d *domain) {
	m.stats.OptionsRecords += uint64(set.Records)
	p, ok := d.options[set.Template]
	if !ok {
		p = newOptionsPlan(set.Template, m.settings.VendorID)
		d.options[set.Template] = p
	}
	if p == nil {
		return
	}
	if p.acknowledgement != nil {
		m.acknowledgement(p.acknowledgement, set, d)
		return
	}
	if m.decoder.identified.novelty == resent {
		return // it was heeded, and something newer may have been since
	}
	for r, ok := set.Next(); ok; r, ok = set.Next() {
		m.option(p, r, d, set.ID)
	}
}

// option takes in one options record.
func (m *Module) option(p *optionsPlan, r ipfix.Record, d *domain, id uint16) {
	s := m.samplersOf(d.key)
	if s == nil {
		m.stats.OptionsRefused++
		m.logs.warn(m.log, "too many observation domains tell of sampling; what one more says is ignored", d.key, 0)
		return
	}
	changed, room := false, true
	if p.hasInit {
		if init := p.init.UnixMilli(r); init != s.init {
			s.init, changed = init, true
		}
	}
	if p.hasRates {
		v, ok := p.rates.rate(r)
		if !ok {
			v = rate{1, 1}
		}
		put := func(table *map[uint64]rate, id uint64) {
			if (*table)[id] != v {
				changed, room = true, s.set(table, id, v)
			}
		}
		switch {
		case p.hasSelector:
			put(&s.bySelector, p.selector.Uint64(r))
		case p.hasIface && p.iface.Uint64(r) != 0: // no interface has the number 0
			put(&s.byInterface, p.iface.Uint64(r))
		case p.hasTemplate && p.scoped.Uint64(r) != 0:
			put(&s.byTemplate, p.scoped.Uint64(r))
		case s.all != v:
			s.all, changed = v, true
		}
	}
	if !room {
		m.stats.OptionsRefused++
		m.logs.warn(m.log, "an observation domain has too many sampling rates; one more is ignored", d.key, uint64(id))
	}
	if !changed {
		return
	}
	m.generation++
	if !s.dirty {
		s.dirty = true
		m.samplersDirty = append(m.samplersDirty, samplerKey{d.key.Exporter, d.key.Domain})
	}
}

// samplersOf returns what is known of an Observation Domain, nil if its
// exporter has too many already.
func (m *Module) samplersOf(key acct.LedgerKey) *samplers {
	k := samplerKey{key.Exporter, key.Domain}
	s := m.samplers[k]
	if s == nil && m.sampled[k.exporter] < maxSampled {
		s = &samplers{}
		m.samplers[k] = s
		m.sampled[k.exporter]++
	}
	return s
}

// samplersVersion is the first octet of encoded samplers.
const samplersVersion = 1

func (s *samplers) appendState(b []byte) []byte {
	b = append(b, samplersVersion)
	b = binary.AppendVarint(b, s.init)
	b = binary.AppendUvarint(b, s.all.num)
	b = binary.AppendUvarint(b, s.all.den)
	for _, table := range []map[uint64]rate{s.bySelector, s.byInterface, s.byTemplate} {
		b = binary.AppendUvarint(b, uint64(len(table)))
		for _, id := range sortedKeys(table) {
			b = binary.AppendUvarint(b, id)
			b = binary.AppendUvarint(b, table[id].num)
			b = binary.AppendUvarint(b, table[id].den)
		}
	}
	return b
}

// restoreSamplers takes in the state of one Observation Domain.
func (m *Module) restoreSamplers(key string, data []byte) error {
	number, exporter, ok := strings.Cut(key, "/")
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil || !ok {
		return fmt.Errorf("asm: samplers of %q: %w", key, ErrCorrupt)
	}
	r := octets.NewReader(data)
	if r.Octet() != samplersVersion {
		r.Fail()
	}
	s := &samplers{init: r.Varint(), all: rate{r.Uvarint(), r.Uvarint()}}
	for _, table := range []*map[uint64]rate{&s.bySelector, &s.byInterface, &s.byTemplate} {
		for range r.Count() {
			if id, v := r.Uvarint(), (rate{r.Uvarint(), r.Uvarint()}); !s.set(table, id, v) {
				r.Fail()
			}
		}
	}
	m.samplers[samplerKey{exporter, uint32(id)}] = s
	m.sampled[exporter]++
	return r.Close()
}

// putSamplers hands out what of the samplers changed.
func (m *Module) putSamplers(put func(kind, key string, value []byte)) {
	slices.SortFunc(m.samplersDirty, func(a, b samplerKey) int {
		return cmp.Or(strings.Compare(a.exporter, b.exporter), cmp.Compare(a.domain, b.domain))
	})
	for _, k := range m.samplersDirty {
		s := m.samplers[k]
		s.dirty = false
		put(stateSampling, strconv.FormatUint(uint64(k.domain), 10)+"/"+k.exporter, s.appendState(nil))
	}
	m.samplersDirty = m.samplersDirty[:0]
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
