package dict

import (
	"encoding/binary"
	"net/netip"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// ClassifierOptions say how a flow key is written for servers that can't read
// all of RFC 5777.
type ClassifierOptions struct {
	// Mandatory sets the M bit of the Classifier and of all within it. Where it
	// is clear, a server that does not know them passes them over.
	Mandatory bool

	// AllProtocols writes Protocol whatever its value. Otherwise it is left out
	// if neither TCP nor UDP: dictionaries enumerate few protocols, and a strict
	// decoder, such as Erlang's, refuses a request for another with
	// DIAMETER_INVALID_AVP_VALUE, also if its M bit is clear.
	AllProtocols bool
}

// A flowKey is what a Classifier can say of a flow.
type flowKey struct {
	source, destination         netip.Addr
	sourcePort, destinationPort int // negative for none
	protocol, codePoint         int // negative for none
	icmp                        int // type and code; negative for none
}

// AppendClassifier appends a Classifier AVP (RFC 5777, Section 4.1) that
// matches the packets of the flow in a record of Template t: addresses, ports,
// protocol, ICMP type and code, and DSCP, as many as the record has; nothing
// if it has none of them. Its Classifier-ID is a hash of the rest, so equal flow
// keys have equal classifiers. record must be one of t.
func AppendClassifier(b []byte, t *ipfix.Template, record []byte, o ClassifierOptions) []byte {
	key, ok := readKey(t, record)
	if !ok {
		return b
	}
	var flags uint8
	if o.Mandatory {
		flags = avp.FlagMandatory
	}
	b, group := avp.Begin(b, avp.Classifier, 0, flags)
	idAt := len(b) + 8
	b = avp.AppendUint64(b, avp.ClassifierID, 0, flags, 0)
	rest := len(b)
	const tcp, udp = 6, 17
	if key.protocol == tcp || key.protocol == udp || key.protocol >= 0 && o.AllProtocols {
		b = avp.AppendUint32(b, avp.Protocol, 0, flags, uint32(key.protocol))
	}
	b = appendSpec(b, avp.FromSpec, flags, key.source, key.sourcePort)
	b = appendSpec(b, avp.ToSpec, flags, key.destination, key.destinationPort)
	if key.codePoint >= 0 {
		b = avp.AppendUint32(b, avp.DiffservCodePoint, 0, flags, uint32(key.codePoint))
	}
	if key.icmp >= 0 {
		icmp := 0
		b, icmp = avp.Begin(b, avp.ICMPType, 0, flags)
		b = avp.AppendUint32(b, avp.ICMPTypeNumber, 0, flags, uint32(key.icmp>>8))
		b = avp.AppendUint32(b, avp.ICMPCode, 0, flags, uint32(key.icmp&255))
		avp.End(b, icmp)
	}
	avp.End(b, group)
	hash := fnvOffset ^ uint64(key.protocol+1) // which may have been left out
	for _, c := range b[rest:] {
		hash = (hash ^ uint64(c)) * fnvPrime
	}
	binary.BigEndian.PutUint64(b[idAt:], hash)
	return b
}

// FNV-1a of 64 bits.
const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

// appendSpec appends a From-Spec or To-Spec.
func appendSpec(b []byte, code uint32, flags uint8, a netip.Addr, port int) []byte {
	if !a.IsValid() && port < 0 {
		return b
	}
	b, group := avp.Begin(b, code, 0, flags)
	if a.IsValid() {
		b = avp.AppendAddress(b, avp.IPAddress, 0, flags, a)
	}
	if port >= 0 {
		b = avp.AppendInt32(b, avp.Port, 0, flags, int32(port))
	}
	avp.End(b, group)
	return b
}

// readKey reads the flow key of a record. Of elements that repeat the first
// counts.
func readKey(t *ipfix.Template, record []byte) (flowKey, bool) {
	key := flowKey{sourcePort: -1, destinationPort: -1, protocol: -1, codePoint: -1, icmp: -1}
	found := false
	first := func(n *int, v uint64) {
		if found = true; *n < 0 {
			*n = int(v)
		}
	}
	address := func(a *netip.Addr, v []byte) {
		if addr, ok := netip.AddrFromSlice(v); ok && !a.IsValid() {
			*a, found = addr, true
		}
	}
	for _, f := range t.Fields {
		n := int(f.Length)
		if f.Length == ipfix.VariableLength {
			length, size := variableLength(record)
			if size == 0 {
				return key, false
			}
			n, record = length, record[size:]
		}
		if n > len(record) {
			return key, false
		}
		v := record[:n]
		record = record[n:]
		if f.Enterprise != 0 || n == 0 {
			continue
		}
		if f.ID == ipfix.SourceIPv4Address && n == 4 || f.ID == ipfix.SourceIPv6Address && n == 16 {
			address(&key.source, v)
			continue
		}
		if f.ID == ipfix.DestinationIPv4Address && n == 4 || f.ID == ipfix.DestinationIPv6Address && n == 16 {
			address(&key.destination, v)
			continue
		}
		if n > 2 {
			continue
		}
		u := unsigned(v)
		switch f.ID {
		case ipfix.SourceTransportPort, ipfix.UdpSourcePort, ipfix.TcpSourcePort:
			first(&key.sourcePort, u)
		case ipfix.DestinationTransportPort, ipfix.UdpDestinationPort, ipfix.TcpDestinationPort:
			first(&key.destinationPort, u)
		case ipfix.ProtocolIdentifier:
			first(&key.protocol, u)
		case ipfix.IpDiffServCodePoint:
			first(&key.codePoint, u&63)
		case ipfix.IpClassOfService:
			first(&key.codePoint, u>>2&63)
		case ipfix.IcmpTypeCodeIPv4, ipfix.IcmpTypeCodeIPv6:
			first(&key.icmp, u)
		}
	}
	const icmp, icmpv6 = 1, 58
	if key.protocol == icmp || key.protocol == icmpv6 {
		// Exporters fill these with the type or with zero.
		key.sourcePort, key.destinationPort = -1, -1
	} else {
		key.icmp = -1
	}
	return key, found
}
