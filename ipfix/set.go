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
	id      uint16 // that of IPFIX for Template Sets of NetFlow too
	netFlow bool   // it is a FlowSet of NetFlow version 9
	start   int    // of the Set Header
	at      int    // of what has not been read of the content
	end     int
}

// set reads the Set Header at an offset of msg, whose header is h. Zeros up to
// the end of the Message are one Set of padding: there are exporters that fill
// up with them.
func (h *Header) set(msg []byte, at int) (set, error) {
	s := set{id: templateSet, netFlow: h.Version == NetFlow9, start: at, at: len(msg), end: len(msg)}
	if zeros(msg[at:min(at+setHeaderLength, len(msg))]) && zeros(msg[at:]) {
		return s, nil
	}
	if len(msg)-at < setHeaderLength {
		return set{}, &DecodeError{at, "Set Header", ErrLength}
	}
	length := int(binary.BigEndian.Uint16(msg[at+2:]))
	if length < setHeaderLength || length > len(msg)-at {
		return set{}, &DecodeError{at + 2, "Set Header", ErrLength}
	}
	s.id, s.at, s.end = binary.BigEndian.Uint16(msg[at:]), at+setHeaderLength, at+length
	if s.netFlow {
		s.id = flowSetID(s.id)
	}
	return s, nil
}

// templates reports whether the Set is a Template Set or an Options Template
// Set.
func (s *set) templates() bool { return s.id == templateSet || s.id == optionsTemplateSet }

// done reports whether what is left of a Template Set or Options Template Set
// is too short for a record, so it is padding (RFC 7011, Section 3.3.1).
// NetFlow is padded with more at times, but with zeros.
func (s *set) done(msg []byte) bool {
	return s.end-s.at < withdrawalLength || s.netFlow && zeros(msg[s.at:s.end])
}

// template reads the next record of a Template Set or Options Template Set.
// One of NetFlow is written in the terms of IPFIX at the end of scratch, to
// which the definition then refers.
func (s *set) template(msg, scratch []byte) (definition, error) {
	var d definition
	var n int
	var err error
	if s.netFlow {
		d, n, err = parseNetFlow9Definition(msg[s.at:s.end], s.id == optionsTemplateSet, scratch)
	} else {
		d, n, err = parseDefinition(msg[s.at:s.end], s.id == optionsTemplateSet)
	}
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
