package asm

import (
	"tollbridge/asm/sampling"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// An optionsPlan reads what options records of one Template say that matters
// here: either is nil.
type optionsPlan struct {
	acknowledgement *ack.Layout
	sampling        *sampling.Options
}

// newOptionsPlan compiles t, of AVPs of an enterprise.
func newOptionsPlan(t *ipfix.Template, enterprise uint32) (p optionsPlan) {
	if p.acknowledgement = ack.NewLayout(t, enterprise); p.acknowledgement == nil {
		p.sampling = sampling.NewOptions(t)
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

// options takes in the options records of set. What they say holds for Data
// Records that follow.
func (m *Module) options(set *ipfix.DataSet, d *domain) {
	m.stats.OptionsRecords += uint64(set.Records)
	p, ok := d.options[set.Template]
	if !ok {
		p = newOptionsPlan(set.Template, m.settings.VendorID)
		d.options[set.Template] = p
	}
	switch {
	case p.acknowledgement != nil:
		m.acknowledgement(p.acknowledgement, set, d)
		return
	case p.sampling == nil, m.decoder.identified.novelty == resent:
		return // of a resent Message it was heeded, and something newer may have been since
	}
	for r, ok := set.Next(); ok; r, ok = set.Next() {
		news, err := m.samplers.Learn(d.key.Exporter, d.key.Domain, p.sampling, r)
		if err != nil {
			m.stats.OptionsRefused++
			m.logs.warn(m.log, err.Error(), d.key, uint64(set.ID))
		}
		if news {
			m.generation++
		}
	}
}
