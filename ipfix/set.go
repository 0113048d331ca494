package ipfix

import "encoding/binary"

// Set IDs (RFC 7011, Section 3.3.2). 0 and 1 are not used, 4 to 255 are
// reserved, and higher ones are Template IDs.
const (
	templateSet        = 2
	optionsTemplateSet = 3
	minTemplateID      = 256
)

const setHeaderLength = 4

// A set is a Set's place in a Message.
type set struct {
	id    uint16
	start int // of the Set Header
	at    int // of what has not been read of the content
	end   int
}

// parseSet reads the Set Header at an offset of msg.
func parseSet(msg []byte, at int) (set, error) {
	if len(msg)-at < setHeaderLength {
		return set{}, &DecodeError{at, "Set Header", ErrLength}
	}
	length := int(binary.BigEndian.Uint16(msg[at+2:]))
	if length < setHeaderLength || length > len(msg)-at {
		return set{}, &DecodeError{at + 2, "Set Header", ErrLength}
	}
	return set{binary.BigEndian.Uint16(msg[at:]), at, at + setHeaderLength, at + length}, nil
}

// done reports whether what is left of a Template Set or Options Template Set
// is too short for a record, so it is padding (RFC 7011, Section 3.3.1).
func (s *set) done() bool { return s.end-s.at < withdrawalLength }

// template reads the next record of a Template Set or Options Template Set.
func (s *set) template(msg []byte) (definition, error) {
	d, n, err := parseDefinition(msg[s.at:s.end], s.id == optionsTemplateSet)
	if err != nil {
		what := "Template Record"
		if s.id == optionsTemplateSet {
			what = "Options Template Record"
		}
		return d, &DecodeError{s.at, what, err}
	}
	s.at += n
	return d, nil
}
