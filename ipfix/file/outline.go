package file

import (
	"encoding/binary"
	"iter"

	"tollbridge/ipfix"
)

// A Set is a Set of a Message, or a FlowSet of a NetFlow packet.
type Set struct {
	ID      uint16
	Offset  int // of the Set Header in the Message
	Length  int // octets, header included
	Records []TemplateRecord
}

// A TemplateRecord is a Template Record or Options Template Record, or the
// withdrawal of one or all, as it stands in a Message.
type TemplateRecord struct {
	ID      uint16
	Options bool
	Fields  int // 0 for a withdrawal
}

// Sets returns what a well-formed Message consists of. NetFlow version 5 has no
// Sets. Of a malformed one it returns what comes before the fault.
func Sets(msg []byte) iter.Seq[Set] {
	return func(yield func(Set) bool) {
		if len(msg) < 2 {
			return
		}
		at, template, options := ipfix.HeaderLength, uint16(2), uint16(3)
		read := ipfixTemplate
		switch binary.BigEndian.Uint16(msg) {
		case ipfix.Version:
		case ipfix.NetFlow9:
			at, template, options, read = netflow9Header, 0, 1, netflow9Template
		default:
			return
		}
		for at+setHeader <= len(msg) {
			s := Set{ID: binary.BigEndian.Uint16(msg[at:]), Offset: at, Length: int(binary.BigEndian.Uint16(msg[at+2:]))}
			if s.Length < setHeader || s.Length > len(msg)-at {
				return
			}
			at += s.Length
			if s.ID == template || s.ID == options {
				s.Records = templateRecords(msg[s.Offset+setHeader:at], s.ID == options, read)
			}
			if !yield(s) {
				return
			}
		}
	}
}

// templateRecords reads the content of a Template Set until its padding.
func templateRecords(b []byte, options bool, read func([]byte, bool) (TemplateRecord, int)) (all []TemplateRecord) {
	for len(b) >= 4 {
		t, n := read(b, options)
		if n == 0 {
			break
		}
		all = append(all, t)
		b = b[n:]
	}
	return all
}

// ipfixTemplate reads the record at the start of b, which holds four octets,
// and returns its length, 0 if there is none.
func ipfixTemplate(b []byte, options bool) (TemplateRecord, int) {
	t := TemplateRecord{ID: binary.BigEndian.Uint16(b), Options: options, Fields: int(binary.BigEndian.Uint16(b[2:]))}
	if t.Fields == 0 && t.ID > 0 {
		return t, 4
	}
	if _, n, err := ipfix.ParseTemplate(b, options); err == nil {
		return t, n
	}
	return t, 0
}

// netflow9Template is ipfixTemplate for NetFlow version 9 (RFC 3954,
// Sections 5.2 and 6.1).
func netflow9Template(b []byte, options bool) (TemplateRecord, int) {
	t := TemplateRecord{ID: binary.BigEndian.Uint16(b), Options: options}
	fields, n := 4*int(binary.BigEndian.Uint16(b[2:])), 4
	if options {
		if len(b) < 6 {
			return t, 0
		}
		fields, n = int(binary.BigEndian.Uint16(b[2:]))+int(binary.BigEndian.Uint16(b[4:])), 6
	}
	t.Fields = fields / 4
	if t.ID < minTemplateID || fields == 0 || fields > len(b)-n {
		return t, 0
	}
	return t, n + fields
}
