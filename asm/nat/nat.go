// Package nat reads the NAT event records of IPFIX (RFC 8158): which ports of a
// public address stand for which private address, and until when.
package nat

import (
	"iter"
	"net/netip"
	"time"

	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A Reader reads the records of one Template.
type Reader struct {
	event, time                ipfix.Accessor
	private4, private6, public ipfix.Accessor
	protocol                   ipfix.Accessor
	port, first, last          ipfix.Accessor // of the public address
	step, number               ipfix.Accessor
	remote, remotePort         ipfix.Accessor
	vrf                        ipfix.Accessor
	has                        map[*ipfix.Accessor]bool
}

// NewReader returns the Reader of records of t, nil if they are no NAT events
// that name both addresses.
func NewReader(t *ipfix.Template) *Reader {
	r := &Reader{has: make(map[*ipfix.Accessor]bool)}
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

// What a natEvent is, by its value (RFC 8158, Section 4.3): even numbers from 4
// to 10, and 14 and 16, create something that the next number deletes.
const (
	sessionFirst = 4 // NAT44 session create
	sessionLast  = 7 // NAT64 session delete
)

// A Kind says what became of the ports of an Event.
type Kind uint8

const (
	Other   Kind = iota // nothing: a threshold or a quota
	Invalid             // nothing: addresses or ports are missing or can't be
	Created
	Deleted
)

// An Event is what one record says.
type Event struct {
	Kind    Kind
	At      int64 // Unix milliseconds
	mapping users.Mapping
	step    int // between ports
}

// Mappings returns the mappings that were created or deleted: one of a range of
// ports or, where they lie apart, one of each.
func (e *Event) Mappings() iter.Seq[users.Mapping] {
	return func(yield func(users.Mapping) bool) {
		if e.step == 1 {
			yield(e.mapping)
			return
		}
		x := e.mapping
		for port, last := int(x.First), int(x.Last); port <= last; port += e.step {
			x.First, x.Last = uint16(port), uint16(port)
			if !yield(x) {
				return
			}
		}
	}
}

// Event reads record d, which was exported at a time in Unix seconds. Its time,
// if it has one, may be ahead of that by ahead. Private addresses are of
// address space vrf.
func (r *Reader) Event(d ipfix.Record, exported uint32, ahead time.Duration, vrf string) (e Event) {
	event := r.event.Uint64(d)
	switch {
	case event == 1 || event == 2: // of the time before RFC 8158
	case event >= 4 && event <= 11, event >= 14 && event <= 17:
	default:
		return Event{Kind: Other}
	}
	e.Kind = Deleted
	if event&1 == 0 && event > 2 || event == 1 {
		e.Kind = Created
	}
	e.At, e.step = int64(exported)*1000, 1
	if r.has[&r.time] {
		// A time that can't be is as good as none.
		if told := r.time.Uint64(d); told > 0 && told <= uint64(e.At+ahead.Milliseconds()) {
			e.At = int64(told)
		}
	}
	x := &e.mapping
	x.PrivateVRF = vrf
	x.Public = r.address(&r.public, d)
	if x.Private = r.address(&r.private4, d); !x.Private.IsValid() || x.Private.IsUnspecified() {
		x.Private = r.address(&r.private6, d)
	}
	switch {
	case event == 14 || event == 15: // the whole address
		x.Last = 1<<16 - 1
	case event == 16 || event == 17:
		x.First, x.Last = uint16(r.uint64(&r.first, d)), uint16(r.uint64(&r.last, d))
		e.step = max(int(r.uint64(&r.step, d)), 1)
		if number := min(r.uint64(&r.number, d), 1<<16); !r.has[&r.last] && number > 0 {
			x.Last = uint16(min(uint64(x.First)+(number-1)*uint64(e.step), 1<<16-1))
		}
	default:
		x.First = uint16(r.uint64(&r.port, d))
		x.Last, x.Protocol = x.First, uint8(r.uint64(&r.protocol, d))
		if event >= sessionFirst && event <= sessionLast {
			x.Remote = netip.AddrPortFrom(r.address(&r.remote, d), uint16(r.uint64(&r.remotePort, d)))
		}
	}
	if !x.Public.Is4() || x.Public.IsUnspecified() || !x.Private.IsValid() || x.First > x.Last {
		e.Kind = Invalid
	}
	return e
}

// VRF returns the octets of ingressVRFID, nil if the Template has none.
func (r *Reader) VRF(d ipfix.Record) []byte {
	if !r.has[&r.vrf] {
		return nil
	}
	return r.vrf.Bytes(d)
}

// address returns that of a field, the zero Addr if the Template has none.
func (r *Reader) address(field *ipfix.Accessor, d ipfix.Record) netip.Addr {
	if !r.has[field] {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(field.Bytes(d))
	return a
}

// uint64 returns the number in a field, 0 if the Template has none.
func (r *Reader) uint64(field *ipfix.Accessor, d ipfix.Record) uint64 {
	if !r.has[field] {
		return 0
	}
	return field.Uint64(d)
}
