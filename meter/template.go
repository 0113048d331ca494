package meter

import (
	"encoding/binary"

	"tollbridge/ipfix"
)

// IDs of the meter's Templates.
const (
	TemplateIPv4 = 256
	TemplateIPv6 = 257
)

// template returns the Template of flows between addresses of an IP version.
// appendRecord has the same order.
func template(id, source, destination uint16, addressLength uint16, icmpTypeCode uint16) (*ipfix.Template, error) {
	return ipfix.NewTemplate(id,
		ipfix.FieldSpecifier{ID: ipfix.FlowStartMilliseconds, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.FlowEndMilliseconds, Length: 8},
		ipfix.FieldSpecifier{ID: source, Length: addressLength},
		ipfix.FieldSpecifier{ID: destination, Length: addressLength},
		ipfix.FieldSpecifier{ID: ipfix.SourceTransportPort, Length: 2},
		ipfix.FieldSpecifier{ID: ipfix.DestinationTransportPort, Length: 2},
		ipfix.FieldSpecifier{ID: icmpTypeCode, Length: 2},
		ipfix.FieldSpecifier{ID: ipfix.ProtocolIdentifier, Length: 1},
		ipfix.FieldSpecifier{ID: ipfix.IpDiffServCodePoint, Length: 1},
		ipfix.FieldSpecifier{ID: ipfix.TcpControlBits, Length: 2},
		ipfix.FieldSpecifier{ID: ipfix.IngressInterface, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.PacketDeltaCount, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.FlowEndReason, Length: 1},
	)
}

// appendRecord appends f as a Data Record of its Template.
func (f *flow) appendRecord(b []byte, reason EndReason) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(f.start/1e6))
	b = binary.BigEndian.AppendUint64(b, uint64(f.end/1e6))
	length := 16
	if f.key[keyVersion] == 4 {
		length = 4
	}
	b = append(b, f.key[keySource:keySource+length]...)
	b = append(b, f.key[keyDestination:keyDestination+length]...)
	if f.key.isICMP() {
		b = append(b, 0, 0, 0, 0)
		b = append(b, f.key[keyICMP:keyICMP+2]...)
	} else {
		b = append(b, f.key[keyPorts:keyPorts+4]...)
		b = append(b, 0, 0)
	}
	b = append(b, f.key[keyProtocol], f.key[keyDSCP])
	b = binary.BigEndian.AppendUint16(b, f.flags)
	b = append(b, f.key[keyInterface:keyInterface+4]...)
	b = binary.BigEndian.AppendUint64(b, f.octets)
	b = binary.BigEndian.AppendUint64(b, f.packets)
	return append(b, byte(reason))
}
