package ack

import (
	"encoding/binary"

	"tollbridge/ipfix"
)

// A Journaled says what a Forwarded is. The numbers travel.
type Journaled uint8

const (
	Began    Journaled = 1 // the forwarding collector: its Transport Sessions but those over UDP are over
	Opened   Journaled = 2 // a Transport Session; the octets say which, as the forwarding collector's implementation has it
	Received Journaled = 3 // a Message: the octets are it, as it came
	Closed   Journaled = 4 // a Transport Session
	Head     Journaled = 5 // the octets that a Message begins with which is too long to be passed on whole
	Rest     Journaled = 6 // its others: the next of that session
)

// A Forwarded is what a collector journaled that passes on what it collects
// (docs/adr/0006-several-collectors.md). Each has a Message of its own.
type Forwarded struct {
	Kind    Journaled
	Session uint64 // of the forwarding collector's choice
	Stream  uint16 // of SCTP
	Time    int64  // Unix nanoseconds
	Octets  []byte
}

// MaxForwarded is the longest Message that can be passed on whole: it has to
// fit into one, with an Identity.
const MaxForwarded = ipfix.MaxMessage - ipfix.HeaderLength - IdentityOverhead - setHeaderLength - (1 + 8 + 2 + 8 + 3)

// ForwardedTemplate returns the Options Template of Forwarded records.
func ForwardedTemplate(enterprise uint32) *ipfix.Template {
	return options(ForwardedID, enterprise, 2, ForwardedKind, 1, ForwardedSession, 8, ForwardedStream, 2, ForwardedTime, 8, ForwardedOctets, ipfix.VariableLength)
}

// Append appends the record of ForwardedTemplate.
func (f Forwarded) Append(b []byte) []byte {
	b = append(b, byte(f.Kind))
	b = binary.BigEndian.AppendUint64(b, f.Session)
	b = binary.BigEndian.AppendUint16(b, f.Stream)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Time))
	return ipfix.AppendVariable(b, f.Octets)
}

// Forwarded reads a record of KindForwarded. Octets belong to the record.
func (l *Layout) Forwarded(r ipfix.Record) Forwarded {
	return Forwarded{
		Kind: Journaled(l.fields[0].Uint64(r)), Session: l.fields[1].Uint64(r), Stream: uint16(l.fields[2].Uint64(r)),
		Time: int64(l.fields[3].Uint64(r)), Octets: l.fields[4].Bytes(r),
	}
}
