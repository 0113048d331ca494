package sim

import (
	"strings"

	"tollbridge/ipfix"
)

// A form is a Template without its ID: which elements in which encoding.
type form struct {
	fields   []ipfix.FieldSpecifier
	ipv6     bool
	begins   bool // the record says when the flow began
	seconds  bool // flow times are in whole seconds
	backward bool // the record has both directions (RFC 5103)
	totals   bool // the counters are totals
	named    bool // the record names its user
	sampled  bool // the record gives its sampling rate
	spaced   bool // the record names the VRFs of its addresses
	options  bool // the record tells the sampling rate of its Observation Domain
	values   func(*flow) []any
}

var forms = []form{
	{
		fields: fields(ipfix.FlowStartMilliseconds, 8, ipfix.FlowEndMilliseconds, 8, ipfix.SourceIPv4Address, 4,
			ipfix.DestinationIPv4Address, 4, ipfix.ProtocolIdentifier, 1, ipfix.IpDiffServCodePoint, 1,
			ipfix.SourceTransportPort, 2, ipfix.DestinationTransportPort, 2,
			ipfix.OctetDeltaCount, 8, ipfix.PacketDeltaCount, 4, ipfix.ConnectionTransactionId, 8),
		values: func(f *flow) []any {
			return []any{milli(f.start), milli(f.end), f.from, f.to, f.protocol, f.dscp, f.fromPort, f.toPort,
				f.forward.octets, f.forward.packets, f.id}
		},
		begins: true,
	},
	{
		fields: fields(ipfix.ConnectionTransactionId, 8, ipfix.OctetDeltaCount, 4, ipfix.PacketDeltaCount, 3, ipfix.FlowEndSeconds, 4,
			ipfix.DestinationTransportPort, 2, ipfix.SourceTransportPort, 2, ipfix.ProtocolIdentifier, 1,
			ipfix.IpClassOfService, 1, ipfix.DestinationIPv4Address, 4, ipfix.SourceIPv4Address, 4),
		seconds: true,
		values: func(f *flow) []any {
			return []any{f.id, f.forward.octets, f.forward.packets, milli(f.end), f.toPort, f.fromPort, f.protocol,
				f.dscp << 2, f.to, f.from}
		},
	},
	{
		fields: fields(ipfix.SourceIPv6Address, 16, ipfix.DestinationIPv6Address, 16, ipfix.FlowEndMilliseconds, 8,
			ipfix.ProtocolIdentifier, 1, ipfix.IpDiffServCodePoint, 1, ipfix.SourceTransportPort, 2,
			ipfix.DestinationTransportPort, 2, ipfix.OctetDeltaCount, 8, ipfix.PacketDeltaCount, 8, ipfix.ConnectionTransactionId, 8),
		ipv6: true,
		values: func(f *flow) []any {
			return []any{f.from, f.to, milli(f.end), f.protocol, f.dscp, f.fromPort, f.toPort,
				f.forward.octets, f.forward.packets, f.id}
		},
	},
	{
		fields: append(fields(ipfix.ApplicationDescription, ipfix.VariableLength, ipfix.FlowEndMilliseconds, 8,
			ipfix.SourceIPv4Address, 4, ipfix.DestinationIPv4Address, 4, ipfix.ProtocolIdentifier, 1,
			ipfix.IpDiffServCodePoint, 1, ipfix.SourceTransportPort, 2, ipfix.DestinationTransportPort, 2,
			ipfix.OctetDeltaCount, 8, ipfix.PacketDeltaCount, 8, ipfix.ConnectionTransactionId, 8),
			ipfix.FieldSpecifier{Enterprise: ipfix.ReversePEN, ID: ipfix.OctetDeltaCount, Length: 8},
			ipfix.FieldSpecifier{Enterprise: ipfix.ReversePEN, ID: ipfix.PacketDeltaCount, Length: 8}),
		backward: true,
		values: func(f *flow) []any {
			return []any{strings.Repeat("x", int(f.id%40)), milli(f.end), f.from, f.to, f.protocol, f.dscp, f.fromPort, f.toPort,
				f.forward.octets, f.forward.packets, f.id, f.backward.octets, f.backward.packets}
		},
	},
	{
		fields: fields(ipfix.FlowStartMilliseconds, 8, ipfix.FlowEndMilliseconds, 8, ipfix.SourceIPv4Address, 4,
			ipfix.DestinationIPv4Address, 4, ipfix.ProtocolIdentifier, 1, ipfix.IpDiffServCodePoint, 1,
			ipfix.SourceTransportPort, 2, ipfix.DestinationTransportPort, 2,
			ipfix.OctetTotalCount, 8, ipfix.PacketTotalCount, 8, ipfix.ConnectionTransactionId, 8),
		totals: true, begins: true,
		values: func(f *flow) []any {
			return []any{milli(f.start), milli(f.end), f.from, f.to, f.protocol, f.dscp, f.fromPort, f.toPort,
				f.forward.octets, f.forward.packets, f.id}
		},
	},
	{
		fields: fields(ipfix.FlowEndMilliseconds, 8, ipfix.UserName, ipfix.VariableLength, ipfix.SourceIPv4Address, 4,
			ipfix.DestinationIPv4Address, 4, ipfix.ProtocolIdentifier, 1, ipfix.IpDiffServCodePoint, 1,
			ipfix.SourceTransportPort, 2, ipfix.DestinationTransportPort, 2, ipfix.SamplingInterval, 4,
			ipfix.OctetDeltaCount, 8, ipfix.PacketDeltaCount, 8, ipfix.ConnectionTransactionId, 8),
		named: true, sampled: true,
		values: func(f *flow) []any {
			return []any{milli(f.end), f.user, f.from, f.to, f.protocol, f.dscp, f.fromPort, f.toPort, f.rate,
				f.forward.octets, f.forward.packets, f.id}
		},
	},
	{fields: fields(ipfix.ObservationDomainId, 4, ipfix.SamplingInterval, 4), options: true},
	{
		fields: fields(ipfix.FlowEndMilliseconds, 8, ipfix.SourceIPv4Address, 4, ipfix.DestinationIPv4Address, 4,
			ipfix.IngressVRFID, 4, ipfix.EgressVRFID, 4, ipfix.ProtocolIdentifier, 1, ipfix.IpDiffServCodePoint, 1,
			ipfix.SourceTransportPort, 2, ipfix.DestinationTransportPort, 2,
			ipfix.OctetDeltaCount, 8, ipfix.PacketDeltaCount, 8, ipfix.ConnectionTransactionId, 8),
		spaced: true,
		values: func(f *flow) []any {
			return []any{milli(f.end), f.from, f.to, f.fromVRF, f.toVRF, f.protocol, f.dscp, f.fromPort, f.toPort,
				f.forward.octets, f.forward.packets, f.id}
		},
	},
	{
		fields: fields(ipfix.ObservationTimeMilliseconds, 8, ipfix.NatEvent, 1, ipfix.SourceIPv4Address, 4,
			ipfix.PostNATSourceIPv4Address, 4, ipfix.PortRangeStart, 2, ipfix.PortRangeEnd, 2, ipfix.IngressVRFID, 4),
	},
}

// Forms up to optionsForm are of flows, and so is spacedForm, where addresses
// are of several spaces.
const (
	optionsForm = 6 + iota
	spacedForm
	natForm
)

// flowForm returns the form of some flows.
func (w *world) flowForm() int {
	form := w.rng.IntN(optionsForm)
	if w.mood.shared && w.chance(0.3) {
		return spacedForm
	}
	return form
}

func fields(list ...uint16) (out []ipfix.FieldSpecifier) {
	for i := 0; i < len(list); i += 2 {
		out = append(out, ipfix.FieldSpecifier{ID: list[i], Length: list[i+1]})
	}
	return out
}

// template returns the Template of a form and ID.
func (w *world) template(form int, id uint16) *ipfix.Template {
	key := [2]int{form, int(id)}
	t := w.templates[key]
	if t == nil {
		fo, err := &forms[form], error(nil)
		if fo.options {
			t, err = ipfix.NewOptionsTemplate(id, 1, fo.fields...)
		} else {
			t, err = ipfix.NewTemplate(id, fo.fields...)
		}
		if err != nil {
			w.fail("form %d: %v", form, err)
		}
		w.templates[key] = t
	}
	return t
}
