package asm

import (
	"tollbridge/asm/acct"
	"tollbridge/asm/nat"
	"tollbridge/ipfix"
)

// natEvents takes in the NAT event records of set: who shares an address has
// changed.
func (m *Module) natEvents(set *ipfix.DataSet, r *nat.Reader, key acct.LedgerKey) {
	m.sweep()
	changed := false
	m.changeUsers(func() {
		for d, ok := set.Next(); ok; d, ok = set.Next() {
			e := r.Event(d, set.Header.ExportTime, m.settings.ClockTolerance, m.natVRF(r, d, key))
			changed = m.natEvent(&e, key) || changed
		}
	})
	if changed {
		m.retryLater()
	}
}

// natEvent applies e, and reports whether it changed anything.
func (m *Module) natEvent(e *nat.Event, key acct.LedgerKey) (changed bool) {
	m.stats.NATEvents++
	switch e.Kind {
	case nat.Other:
		m.stats.NATOther++
	case nat.Invalid:
		m.stats.NATInvalid++
		m.logs.warn(m.log, "NAT event records without address or ports are of no use", key, 0)
	case nat.Created:
		for x := range e.Mappings() {
			changed = m.users.Map(x, e.At) || changed
		}
	case nat.Deleted:
		for x := range e.Mappings() {
			changed = m.users.Unmap(x, e.At) || changed
		}
	}
	return changed
}

// natVRF returns the address space of a record's private address.
func (m *Module) natVRF(r *nat.Reader, d ipfix.Record, key acct.LedgerKey) string {
	v := m.vrfs[key.Exporter]
	if v == nil || v.in != (ipfix.Element{ID: ipfix.IngressVRFID}) {
		return ""
	}
	id := r.VRF(d)
	if id == nil {
		return ""
	}
	return v.name(id, true)
}
