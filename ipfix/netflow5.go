package ipfix

import "encoding/binary"

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

// parseNetFlow5 reads the header of a packet that must be all of msg.
func parseNetFlow5(msg []byte) (Header, error) {
	n, err := netFlow5Length(msg)
	if err == nil && n != len(msg) {
		err = &DecodeError{2, "NetFlow 5 header", ErrLength}
	}
	if err != nil {
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
	}, nil
}

func netFlow5Length(b []byte) (int, error) {
	if len(b) < netFlow5HeaderLength {
		return 0, &DecodeError{0, "NetFlow 5 header", ErrLength}
	}
	n := netFlow5HeaderLength + netFlow5RecordLength*int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b) || n > MaxMessage {
		return 0, &DecodeError{2, "NetFlow 5 header", ErrLength}
	}
	return n, nil
}

// netFlow5 returns the records of a packet as a Data Set. It makes their
// Template if they are the first of their kind.
func (d *domain) netFlow5(h *Header, msg []byte) dataSet {
	id := uint16(netFlow5Template)
	if h.sampled() {
		id = netFlow5SampledTemplate
	}
	if d.templates[id] == nil {
		d.templates[id] = newNetFlow5(d.key.id(), id)
	}
	return dataSet{
		set:      set{id: id, start: netFlow5HeaderLength, at: netFlow5HeaderLength, end: len(msg)},
		template: d.templates[id],
		records:  (len(msg) - netFlow5HeaderLength) / netFlow5RecordLength,
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
