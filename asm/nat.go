package asm

import (
	"net/netip"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A natReader reads the NAT event records of one Template (RFC 8158): which
// ports of a public address stand for which private address, and until when.
type natReader struct {
	event, time                ipfix.Accessor
	private4, private6, public ipfix.Accessor
	protocol                   ipfix.Accessor
	port, first, last          ipfix.Accessor // of the public address
	step, number               ipfix.Accessor
	remote, remotePort         ipfix.Accessor
	vrf                        ipfix.Accessor
	has                        map[*ipfix.Accessor]bool
}

// Elements of NAT events whose names say less than their numbers.
const (
	natSessionFirst = 4 // NAT44 session create
	natSessionLast  = 7 // NAT64 session delete
)

// newNATReader returns the reader of the records of t, nil if they are no NAT
// events that name both addresses.
func newNATReader(t *ipfix.Template) *natReader {
	r := &natReader{has: make(map[*ipfix.Accessor]bool)}
	for _, f := range []struct {
		to *ipfix.Accessor
		id uint16
	}{
		{&r.event, ipfix.NatEvent}, {&r.time, ipfix.ObservationTimeMilliseconds},
		{&r.private4, ipfix.SourceIPv4Address}, {&r.private6, ipfix.SourceIPv6Address}, {&r.public, ipfix.PostNATSourceIPv4Address},
		{&r.protocol, ipfix.ProtocolIdentifier}, {&r.port, ipfix.PostNAPTSourceTransportPort},
		{&r.first, ipfix.PortRangeStart}, {&r.last, ipfix.PortRangeEnd},
		{&r.step, ipfix.PortRangeStepSize}, {&r.number, ipfix.PortRangeNumPorts},
		{&r.remote, ipfix.DestinationIPv4Address}, {&r.remotePort, ipfix.DestinationTransportPort},
		{&r.vrf, ipfix.IngressVRFID},
	} {
		*f.to, r.has[f.to] = t.Accessor(0, f.id)
	}
	if !r.has[&r.event] || !r.has[&r.public] || !r.has[&r.private4] && !r.has[&r.private6] {
		return nil
	}
	return r
}

// natEvents takes in the NAT event records of set.
func (m *Module) natEvents(set *ipfix.DataSet, r *natReader, key acct.LedgerKey) {
	m.sweep()
	changed := false
	m.changeUsers(func() {
		for d, ok := set.Next(); ok; d, ok = set.Next() {
			changed = m.natEvent(r, d, set.Header.ExportTime, key) || changed
		}
	})
	if changed {
		m.retryLater()
	}
}

// natEvent applies one record, and reports whether it changed anything. Values
// of natEvent are those of RFC 8158, Section 4.3: even numbers from 4 to 10,
// and 14 and 16, create something that the next number deletes.
func (m *Module) natEvent(r *natReader, d ipfix.Record, exported uint32, key acct.LedgerKey) bool {
	m.stats.NATEvents++
	event := r.event.Uint64(d)
	switch {
	case event == 1 || event == 2: // of the time before RFC 8158
	case event >= 4 && event <= 11, event >= 14 && event <= 17:
	default: // thresholds and quotas
		m.stats.NATOther++
		return false
	}
	create := event&1 == 0 && event > 2 || event == 1
	at := int64(exported) * 1000
	if r.has[&r.time] {
		// A time that can't be is as good as none.
		if told := r.time.Uint64(d); told > 0 && told <= uint64(at+m.settings.ClockTolerance.Milliseconds()) {
			at = int64(told)
		}
	}
	var x users.Mapping
	x.Public = r.address(&r.public, d)
	if x.Private = r.address(&r.private4, d); !x.Private.IsValid() || x.Private.IsUnspecified() {
		x.Private = r.address(&r.private6, d)
	}
	x.PrivateVRF = m.natVRF(r, d, key)
	step := 1
	switch {
	case event == 14 || event == 15: // the whole address
		x.Last = 1<<16 - 1
	case event == 16 || event == 17:
		x.First, x.Last = uint16(r.number64(&r.first, d)), uint16(r.number64(&r.last, d))
		if number := r.number64(&r.number, d); !r.has[&r.last] && number > 0 {
			x.Last = uint16(min(uint64(x.First)+number-1, 1<<16-1))
		}
		step = max(int(r.number64(&r.step, d)), 1)
	default:
		x.First = uint16(r.number64(&r.port, d))
		x.Last, x.Protocol = x.First, uint8(r.number64(&r.protocol, d))
		if event >= natSessionFirst && event <= natSessionLast {
			x.Remote = netip.AddrPortFrom(r.address(&r.remote, d), uint16(r.number64(&r.remotePort, d)))
		}
	}
	if !x.Public.Is4() || x.Public.IsUnspecified() || !x.Private.IsValid() || x.First > x.Last {
		m.stats.NATInvalid++
		m.logs.warn(m.log, "NAT event records without address or ports are of no use", key, event)
		return false
	}
	if step == 1 {
		return m.mapPorts(x, at, create)
	}
	changed := false
	for port, last := int(x.First), int(x.Last); port <= last; port += step {
		x.First, x.Last = uint16(port), uint16(port)
		changed = m.mapPorts(x, at, create) || changed
	}
	return changed
}

func (m *Module) mapPorts(x users.Mapping, at int64, create bool) bool {
	if create {
		return m.users.Map(x, at)
	}
	return m.users.Unmap(x, at)
}

// natVRF returns the address space of a record's private address.
func (m *Module) natVRF(r *natReader, d ipfix.Record, key acct.LedgerKey) string {
	v := m.vrfs[key.Exporter]
	if v == nil || v.in != (ipfix.Element{ID: ipfix.IngressVRFID}) || !r.has[&r.vrf] {
		return ""
	}
	return v.name(r.vrf.Bytes(d), true)
}

// address returns that of a field, the zero Addr if the Template has none.
func (r *natReader) address(field *ipfix.Accessor, d ipfix.Record) netip.Addr {
	if !r.has[field] {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(field.Bytes(d))
	return a
}

// number64 returns the number in a field, 0 if the Template has none.
func (r *natReader) number64(field *ipfix.Accessor, d ipfix.Record) uint64 {
	if !r.has[field] {
		return 0
	}
	return field.Uint64(d)
}
