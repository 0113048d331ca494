package ipfix

import "encoding/binary"

const (
	Version      = 10    // of every Message (RFC 7011, Section 3.1)
	HeaderLength = 16    // octets of a Message Header
	MaxMessage   = 65535 // the longest Message, in octets
)

// A Header is a Message Header (RFC 7011, Section 3.1), or the header of a
// NetFlow packet in the same terms.
type Header struct {
	Length     uint16 // of the Message, header included, in octets
	ExportTime uint32 // Unix seconds
	Sequence   uint32 // Data Records sent before this Message, modulo 2^32; of NetFlow version 9, packets
	Domain     uint32 // Observation Domain ID; Source ID of NetFlow version 9, engine type and ID of version 5
	Version    uint16 // Version, NetFlow9 or NetFlow5

	// Of NetFlow alone.
	UpTime   uint32 // milliseconds from the exporter's start to the export
	nanos    uint32 // of the export time beyond its second; version 5
	sampling uint16 // mode and interval; version 5
}

// ParseHeader reads the Message Header at the start of b. It does not ask for
// the rest of the Message, so it serves to find a Message's end in a stream,
// where there is no NetFlow. Its errors are DecodeErrors of ErrVersion and
// ErrLength.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLength {
		return Header{}, &DecodeError{0, "Message Header", ErrLength}
	}
	if binary.BigEndian.Uint16(b) != Version {
		return Header{}, &DecodeError{0, "Message Header", ErrVersion}
	}
	h := Header{
		Length:     binary.BigEndian.Uint16(b[2:]),
		ExportTime: binary.BigEndian.Uint32(b[4:]),
		Sequence:   binary.BigEndian.Uint32(b[8:]),
		Domain:     binary.BigEndian.Uint32(b[12:]),
		Version:    Version,
	}
	if h.Length < HeaderLength {
		return Header{}, &DecodeError{2, "Message Header", ErrLength}
	}
	return h, nil
}

// Append appends the header in wire form. It is always that of an IPFIX
// Message.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, h.Length)
	b = binary.BigEndian.AppendUint32(b, h.ExportTime)
	b = binary.BigEndian.AppendUint32(b, h.Sequence)
	return binary.BigEndian.AppendUint32(b, h.Domain)
}

// MessageHeader reads the header of a Message that must be all of msg: an
// IPFIX Message, or a NetFlow packet of version 9 or 5. Its errors are
// DecodeErrors of ErrVersion, ErrLength and ErrCount; with the last the Header
// is good, and its Length is that of the header and the records that are there.
func MessageHeader(msg []byte) (Header, error) {
	if len(msg) >= 2 && msg[0] == 0 {
		switch msg[1] {
		case NetFlow9:
			return parseNetFlow9(msg)
		case NetFlow5:
			return parseNetFlow5(msg)
		}
	}
	h, err := ParseHeader(msg)
	if err == nil && int(h.Length) != len(msg) {
		err = &DecodeError{2, "Message Header", ErrLength}
	}
	return h, err
}

// MessageLength returns the octets of the Message at the start of b, where
// others may follow it end to end, as in files of raw payloads. A NetFlow
// packet of version 9 does not say how long it is: it ends where a FlowSet
// would begin whose ID is the version of another packet, or with b. Errors
// are DecodeErrors of ErrVersion, ErrLength and ErrCount; with the last the
// packet is taken to be all the records that are there.
func MessageLength(b []byte) (int, error) {
	if len(b) >= 2 && b[0] == 0 {
		switch b[1] {
		case NetFlow9:
			return netFlow9Length(b)
		case NetFlow5:
			return netFlow5Length(b)
		}
	}
	h, err := ParseHeader(b)
	if err == nil && int(h.Length) > len(b) {
		err = &DecodeError{2, "Message Header", ErrLength}
	}
	return int(h.Length), err
}

// Validate checks all of a Message that needs no Template: version, lengths,
// Sets, and the Template and Options Template Records in them. A Message that
// fails is malformed and is to be discarded whole (RFC 7011, Section 9.1).
// NetFlow packets are Messages too. Errors are DecodeErrors. It may be called
// at once from many goroutines.
func Validate(msg []byte) error {
	h, err := MessageHeader(msg)
	if err != nil || h.Version == NetFlow5 {
		return err
	}
	for at := h.size(); at < len(msg); {
		s, err := h.set(msg, at)
		if err != nil {
			return err
		}
		at = s.end
		if !s.templates() {
			continue
		}
		for !s.done(msg) {
			if _, err := s.template(msg, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// size returns the octets of the header itself.
func (h *Header) size() int {
	switch h.Version {
	case NetFlow9:
		return netFlow9HeaderLength
	case NetFlow5:
		return netFlow5HeaderLength
	}
	return HeaderLength
}
