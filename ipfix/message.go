package ipfix

import "encoding/binary"

const (
	Version      = 10    // of every Message (RFC 7011, Section 3.1)
	HeaderLength = 16    // octets of a Message Header
	MaxMessage   = 65535 // the longest Message, in octets
)

// A Header is a Message Header (RFC 7011, Section 3.1).
type Header struct {
	Length     uint16 // of the Message, header included, in octets
	ExportTime uint32 // Unix seconds
	Sequence   uint32 // Data Records sent before this Message, modulo 2^32
	Domain     uint32 // Observation Domain ID
}

// ParseHeader reads the Message Header at the start of b. It does not ask for
// the rest of the Message, so it serves to find a Message's end in a stream.
// Its errors are DecodeErrors of ErrVersion and ErrLength.
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
	}
	if h.Length < HeaderLength {
		return Header{}, &DecodeError{2, "Message Header", ErrLength}
	}
	return h, nil
}

// Append appends the header in wire form.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, h.Length)
	b = binary.BigEndian.AppendUint32(b, h.ExportTime)
	b = binary.BigEndian.AppendUint32(b, h.Sequence)
	return binary.BigEndian.AppendUint32(b, h.Domain)
}

// parseMessage reads the header of a Message that must be all of b.
func parseMessage(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err == nil && int(h.Length) != len(b) {
		err = &DecodeError{2, "Message Header", ErrLength}
	}
	return h, err
}

// Validate checks all of a Message that needs no Template: version, lengths,
// Sets, and the Template and Options Template Records in them. A Message that
// fails is malformed and is to be discarded whole (RFC 7011, Section 9.1).
// Errors are DecodeErrors. It may be called at once from many goroutines.
func Validate(msg []byte) error {
	if _, err := parseMessage(msg); err != nil {
		return err
	}
	for at := HeaderLength; at < len(msg); {
		s, err := parseSet(msg, at)
		if err != nil {
			return err
		}
		at = s.end
		if s.id != templateSet && s.id != optionsTemplateSet {
			continue
		}
		for !s.done() {
			if _, err := s.template(msg); err != nil {
				return err
			}
		}
	}
	return nil
}
