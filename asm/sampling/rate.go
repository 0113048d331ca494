// Package sampling knows at which rates exporters sample packets: as their
// options records say (RFC 5476, RFC 5477), or a record of its own, and scales
// counters by it.
package sampling

import (
	"math"
	"math/bits"

	"tollbridge/ipfix"
)

// A Rate says how many packets a sampled one stands for: a fraction, in lowest
// terms as far as it is known. The zero Rate is that of no sampling.
type Rate struct{ num, den uint64 }

// OneIn returns the Rate of one packet in n.
func OneIn(n uint64) Rate { return Rate{n, 1} }

// One reports whether the packets are not sampled.
func (r Rate) One() bool { return r.num == r.den }

// Scale multiplies v by r, rounding half up. What does not fit 64 bits is
// their largest value.
func (r Rate) Scale(v uint64) uint64 {
	if r.den == 0 {
		return v
	}
	hi, lo := bits.Mul64(v, r.num)
	lo, carry := bits.Add64(lo, r.den/2, 0)
	hi += carry
	if hi >= r.den {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, r.den)
	return q
}

// A reader reads the sampling rate that a record of one Template gives.
type reader struct {
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

// newReader compiles t; ok is false if it has no sampling rate.
func newReader(t *ipfix.Template) (r reader, ok bool) {
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
func (r *reader) rate(d ipfix.Record) (v Rate, ok bool) {
	const firstFilter, lastFilter = 5, 8 // Property Match Filtering and hash functions (RFC 5477)
	if r.hasAlgorithm {
		if a := r.algorithm.Uint64(d); a >= firstFilter && a <= lastFilter {
			return Rate{}, false
		}
	}
	switch {
	case r.hasInterval && r.hasSpace:
		n := r.interval.Uint64(d) & math.MaxUint32
		v = Rate{n + r.space.Uint64(d)&math.MaxUint32, n}
	case r.hasInterval:
		// Alone it is what exporters call the rate: one packet in so many.
		v = OneIn(r.interval.Uint64(d) & math.MaxUint32)
	case r.hasSize && r.hasPopulation:
		v = Rate{r.population.Uint64(d) & math.MaxUint32, r.size.Uint64(d) & math.MaxUint32}
	case r.hasProbability:
		const unit = 1 << 32
		if p := r.probability.Float64(d); p > 0 && p <= 1 {
			v = Rate{unit, max(uint64(math.Round(p*unit)), 1)}
		}
	case r.hasOne:
		v = OneIn(r.one.Uint64(d) & math.MaxUint32)
	}
	if v.num < v.den || v.den == 0 {
		return Rate{}, false
	}
	return v, true
}
