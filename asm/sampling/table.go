package sampling

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// Bounds of what options records can make us hold.
const (
	maxRates   = 4096 // rates of one Observation Domain
	maxDomains = 1024 // Observation Domains of one exporter that tell of rates or times
)

// What options records tell is ignored beyond the bounds.
var (
	ErrRates   = errors.New("an observation domain has too many sampling rates; one more is ignored")
	ErrDomains = errors.New("too many observation domains tell of sampling; what one more says is ignored")
)

// A domain is an Observation Domain of an exporter over all of its Transport
// Sessions.
type domain struct {
	exporter string
	id       uint32
}

// A table is what the options records of one Observation Domain say of its
// Data Records.
type table struct {
	all         Rate            // of the whole domain; zero where nothing is said
	bySelector  map[uint64]Rate // by selectorId or samplerId
	byInterface map[uint64]Rate
	byTemplate  map[uint64]Rate
	init        int64 // systemInitTimeMilliseconds, Unix milliseconds; 0 where nothing is said
	dirty       bool  // listed in Tables.dirty
}

// set makes r the rate of id in one of the maps of t, and reports whether
// there is room for it.
func (t *table) set(rates *map[uint64]Rate, id uint64, r Rate) bool {
	if _, ok := (*rates)[id]; !ok && len(t.bySelector)+len(t.byInterface)+len(t.byTemplate) >= maxRates {
		return false
	}
	if *rates == nil {
		*rates = make(map[uint64]Rate)
	}
	(*rates)[id] = r
	return true
}

// Tables have what the options records of all exporters say.
type Tables struct {
	byDomain map[domain]*table
	domains  map[string]int // of byDomain, by exporter
	dirty    []domain
}

// NewTables returns empty Tables.
func NewTables() *Tables {
	return &Tables{byDomain: make(map[domain]*table), domains: make(map[string]int)}
}

// Learn takes in options record d of an Observation Domain, and reports whether
// it says anything new: Plans are to be resolved anew. Its errors are ErrRates
// and ErrDomains.
func (x *Tables) Learn(exporter string, id uint32, o *Options, d ipfix.Record) (news bool, err error) {
	key := domain{exporter, id}
	t := x.byDomain[key]
	if t == nil {
		if x.domains[exporter] >= maxDomains {
			return false, ErrDomains
		}
		t = x.add(key)
	}
	news, room := t.learn(o, d)
	if news && !t.dirty {
		t.dirty = true
		x.dirty = append(x.dirty, key)
	}
	if !room {
		return news, ErrRates
	}
	return news, nil
}

func (x *Tables) add(key domain) *table {
	t := new(table)
	x.byDomain[key] = t
	x.domains[key.exporter]++
	return t
}

// Init returns when the up time of an Observation Domain's exporter began, as
// options records say, in Unix milliseconds, 0 where they don't.
func (x *Tables) Init(exporter string, id uint32) int64 {
	if t := x.byDomain[domain{exporter, id}]; t != nil {
		return t.init
	}
	return 0
}

// tableVersion is the first octet of an encoded table.
const tableVersion = 1

func (t *table) append(b []byte) []byte {
	b = append(b, tableVersion)
	b = binary.AppendVarint(b, t.init)
	b = binary.AppendUvarint(b, t.all.num)
	b = binary.AppendUvarint(b, t.all.den)
	for _, rates := range []map[uint64]Rate{t.bySelector, t.byInterface, t.byTemplate} {
		b = binary.AppendUvarint(b, uint64(len(rates)))
		for _, id := range slices.Sorted(maps.Keys(rates)) {
			b = binary.AppendUvarint(b, id)
			b = binary.AppendUvarint(b, rates[id].num)
			b = binary.AppendUvarint(b, rates[id].den)
		}
	}
	return b
}

// Delta hands out what changed since the last call, by Observation Domain.
func (x *Tables) Delta(put func(key string, value []byte)) {
	slices.SortFunc(x.dirty, func(a, b domain) int {
		return cmp.Or(strings.Compare(a.exporter, b.exporter), cmp.Compare(a.id, b.id))
	})
	for _, key := range x.dirty {
		t := x.byDomain[key]
		t.dirty = false
		put(strconv.FormatUint(uint64(key.id), 10)+"/"+key.exporter, t.append(nil))
	}
	x.dirty = x.dirty[:0]
}

// Restore takes in what Delta handed out of one Observation Domain. Errors
// match octets.ErrCorrupt.
func (x *Tables) Restore(key string, data []byte) error {
	number, exporter, ok := strings.Cut(key, "/")
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil || !ok {
		return fmt.Errorf("sampling: observation domain %q: %w", key, octets.ErrCorrupt)
	}
	r := octets.NewReader(data)
	if r.Octet() != tableVersion {
		r.Fail()
	}
	t := x.add(domain{exporter, uint32(id)})
	t.init, t.all = r.Varint(), Rate{r.Uvarint(), r.Uvarint()}
	for _, rates := range []*map[uint64]Rate{&t.bySelector, &t.byInterface, &t.byTemplate} {
		for range r.Count() {
			if id, v := r.Uvarint(), (Rate{r.Uvarint(), r.Uvarint()}); !t.set(rates, id, v) {
				r.Fail()
			}
		}
	}
	return r.Close()
}
