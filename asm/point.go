package asm

import (
	"slices"

	"tollbridge/asm/sampling"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A point is what an exporter's observation points account for.
type point struct {
	policy     AccountPolicy
	interfaces []uint32 // ascending; none for all
}

// newPoint returns the policy of e, nil for one that accounts for all.
func newPoint(e ExporterSettings) *point {
	if (e.Account == "" || e.Account == AccountAll) && len(e.Interfaces) == 0 {
		return nil
	}
	return &point{e.Account, slices.Sorted(slices.Values(e.Interfaces))}
}

// skips reports whether record d, metered where r reads, is left to another
// observation point.
func (p *point) skips(r *sampling.Meter, d ipfix.Record) bool {
	egress := r.Egress(d)
	switch {
	case p.policy == AccountNone, p.policy == AccountIngress && egress, p.policy == AccountEgress && !egress:
		return true
	case len(p.interfaces) == 0 || !r.HasInterface():
		return false
	}
	_, ours := slices.BinarySearch(p.interfaces, uint32(r.Interface(d)))
	return !ours
}

// identityOf returns the name that identities of an exporter's records are made
// with: its own, or an older one that it had.
func (m *Module) identityOf(exporter string) string {
	if name, ok := m.identities[exporter]; ok {
		return name
	}
	return exporter
}

// windowOf returns the window of an exporter's records.
func (m *Module) windowOf(exporter string) *dedup.Window {
	if len(m.identities) > 0 {
		exporter = m.identityOf(exporter)
	}
	return m.windows.Of(exporter)
}
