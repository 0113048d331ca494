package ipfix

import (
	"encoding/binary"
	"errors"
)

const (
	netFlow5HeaderLength = 24
	netFlow5RecordLength = 48
)

// IDs of the Templates that stand for the records of NetFlow version 5, which
// has none itself.
const (
	netFlow5Template        = 256
	netFlow5SampledTemplate = 257
)

// netFlow5Fields are a record of NetFlow version 5.
var netFlow5Fields = []FieldSpecifier{
	{ID: SourceIPv4Address, Length: 4},
	{ID: DestinationIPv4Address, Length: 4},
	{ID: IpNextHopIPv4Address, Length: 4},
	{ID: IngressInterface, Length: 2},
	{ID: EgressInterface, Length: 2},
	{ID: PacketDeltaCount, Length: 4},
	{ID: OctetDeltaCount, Length: 4},
	{ID: FlowStartSysUpTime, Length: 4},
	{ID: FlowEndSysUpTime, Length: 4},
	{ID: SourceTransportPort, Length: 2},
	{ID: DestinationTransportPort, Length: 2},
	{ID: PaddingOctets, Length: 1},
	{ID: TcpControlBits, Length: 1},
	{ID: ProtocolIdentifier, Length: 1},
	{ID: IpClassOfService, Length: 1},
	{ID: BgpSourceAsNumber, Length: 2},
	{ID: BgpDestinationAsNumber, Length: 2},
	{ID: SourceIPv4PrefixLength, Length: 1},
	{ID: DestinationIPv4PrefixLength, Length: 1},
	{ID: PaddingOctets, Length: 2},
}

// samplingFields follow systemInitTimeMilliseconds where the header tells of
// sampling.
var samplingFields = []FieldSpecifier{
	{ID: SamplingInterval, Length: 2},
	{ID: SamplingAlgorithm, Length: 1},
}

// The sampling field of the header: a mode, which samplingAlgorithm numbers
// alike, and an interval.
const (
	samplingInterval  = 1<<14 - 1
	samplingModeShift = 14
)

// sampled reports whether the header says that packets are sampled.
func (h *Header) sampled() bool { return h.sampling&samplingInterval != 0 }

// parseNetFlow5 reads the header of a packet that must be all of msg. With
// ErrCount the Header is good, and its Length is of the whole records.
func parseNetFlow5(msg []byte) (Header, error) {
	n, err := netFlow5Length(msg)
	if err == nil && n != len(msg) {
		err = &DecodeError{2, "NetFlow 5 header", ErrLength}
	}
	if err != nil && !errors.Is(err, ErrCount) {
		return Header{}, err
	}
	return Header{
		Length:     uint16(n),
		ExportTime: binary.BigEndian.Uint32(msg[8:]),
		Sequence:   binary.BigEndian.Uint32(msg[16:]),
		Domain:     uint32(binary.BigEndian.Uint16(msg[20:])),
		Version:    NetFlow5,
		UpTime:     binary.BigEndian.Uint32(msg[4:]),
		nanos:      binary.BigEndian.Uint32(msg[12:]),
		sampling:   binary.BigEndian.Uint16(msg[22:]),
	}, err
}

// netFlow5Length returns the octets of the packet at the start of b, or
// ErrCount and those of the whole records that are there, where there are any
// and the header counts more.
func netFlow5Length(b []byte) (int, error) {
	if len(b) < netFlow5HeaderLength {
		return 0, &DecodeError{0, "NetFlow 5 header", ErrLength}
	}
	said := int(binary.BigEndian.Uint16(b[2:]))
	there := (min(len(b), MaxMessage) - netFlow5HeaderLength) / netFlow5RecordLength
	n := netFlow5HeaderLength + netFlow5RecordLength*min(said, there)
	switch {
	case said <= there:
		return n, nil
	case there == 0:
		return 0, &DecodeError{2, "NetFlow 5 header", ErrLength}
	}
	return n, &DecodeError{2, "NetFlow 5 header", ErrCount}
}

// netFlow5 returns the records of a packet as a Data Set. It makes their
// Template if they are the first of their kind.
func (d *domain) netFlow5(h *Header) dataSet {
	id := uint16(netFlow5Template)
	if h.sampled() {
		id = netFlow5SampledTemplate
	}
	if d.templates[id] == nil {
		d.templates[id] = newNetFlow5(d.key.id(), id)
	}
	return dataSet{
		set:      set{id: id, start: netFlow5HeaderLength, at: netFlow5HeaderLength, end: int(h.Length)},
		template: d.templates[id],
		records:  (int(h.Length) - netFlow5HeaderLength) / netFlow5RecordLength,
	}
}

func newNetFlow5(domain uint32, id uint16) *Template {
	def := definition{id: id, count: len(netFlow5Fields), stamped: true, minLength: netFlow5RecordLength}
	for _, f := range netFlow5Fields {
		def.fields = f.Append(def.fields)
	}
	if id == netFlow5SampledTemplate {
		def.stamp = samplingFields
	}
	return def.template(domain)
}
