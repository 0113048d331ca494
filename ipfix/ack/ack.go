// Package ack is the vocabulary of acknowledged export: what an Exporting and
// a Collecting Process say to each other, in conforming IPFIX, about which
// Messages are durable. It is pure: no I/O, no state but a Watcher's.
//
// Whoever does not know it sees options records of an enterprise, and passes
// over them (RFC 7011, Section 9). docs/acknowledged-export.md has the
// protocol, with its examples octet for octet.
package ack

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"tollbridge/ipfix"
)

// Enterprise is the Private Enterprise Number that the elements have unless
// both sides are told another: the one for documentation (RFC 5612).
const Enterprise = 32473

// Version is of the protocol. A side that knows less answers with its own;
// what a version says never changes in a later one.
const Version = 1

// The enterprise-specific Information Elements.
const (
	ExporterInstance       = 1  // octetArray of 16 octets, identifier
	MessagePosition        = 2  // unsigned64, identifier
	AcknowledgementVersion = 3  // unsigned8
	AcknowledgementWants   = 4  // unsigned8, flags
	GivenUpRecords         = 5  // unsigned64, deltaCounter
	DurablePosition        = 6  // unsigned64, identifier
	HoldReason             = 7  // unsigned8, identifier
	PullRequest            = 8  // unsigned64, identifier
	PullAddress            = 9  // ipv6Address
	PullPrefixLength       = 10 // unsigned8
	PullResult             = 11 // unsigned8, identifier
	PullTime               = 12 // unsigned64, Unix milliseconds
	LastMessagePosition    = 13 // unsigned64, identifier
	ForwardedKind          = 14 // unsigned8, identifier
	ForwardedSession       = 15 // unsigned64, identifier
	ForwardedStream        = 16 // unsigned16, identifier
	ForwardedTime          = 17 // unsigned64, Unix nanoseconds
	ForwardedOctets        = 18 // octetArray of variable length
)

// Template IDs of our Processes. Others may choose their own: a record is
// known by its elements.
const (
	IdentityID        = 65535 // exporter to collector, at the front of each Message
	GivenUpID         = 65534 // exporter to collector
	PullAnswerID      = 65533 // exporter to collector
	ForwardedID       = 65499 // forwarding collector to collector
	AcknowledgementID = 65535 // collector to exporter
	HeldUpID          = 65534 // collector to exporter
	PullID            = 65533 // collector to exporter

	// FirstReserved is the least Template ID that an exporter that asks for
	// acknowledgements keeps for them.
	FirstReserved = 65500
)

// An Instance is one exporter's spool: 128 random bits, made with the spool.
type Instance [16]byte

// String returns i in hexadecimal.
func (i Instance) String() string { return hex.EncodeToString(i[:]) }

// Wants are what an exporter asks for, as flags.
type Wants uint8

const (
	Acknowledgements Wants = 1 << 0 // it keeps each Message until that is acknowledged
	Pulls            Wants = 1 << 1 // it exports its flow cache when asked to
)

// An Identity says which Message this is: the first record of its first Set.
// It stays the same in every sending, whatever else the header says.
type Identity struct {
	Instance Instance
	Position uint64 // 1, 2, 3 ... with gaps, never twice
	Version  uint8
	Wants    Wants
}

// IdentityLength is that of the record, IdentityOverhead with its Set Header.
const (
	IdentityLength   = 16 + 8 + 1 + 1
	IdentityOverhead = 4 + IdentityLength
)

// Append appends the record of IdentityTemplate.
func (i Identity) Append(b []byte) []byte {
	b = append(b, i.Instance[:]...)
	b = binary.BigEndian.AppendUint64(b, i.Position)
	return append(b, i.Version, byte(i.Wants))
}

// A GivenUp tells of Messages of the same instance that are not kept any more,
// for want of room. One that may have arrived all the same, as it was sent
// once, has a GivenUp of its own; several in one were never sent.
type GivenUp struct {
	First, Last uint64 // positions
	Records     uint64 // their Data Records, the Identities apart
}

// Append appends the record of GivenUpTemplate.
func (g GivenUp) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, g.First)
	b = binary.BigEndian.AppendUint64(b, g.Last)
	return binary.BigEndian.AppendUint64(b, g.Records)
}

// An Acknowledgement says that all Messages of an instance up to a position
// are durable, but those that the exporter never sent on this association.
type Acknowledgement struct {
	Instance Instance
	Position uint64
	Version  uint8
}

// Append appends the record of AcknowledgementTemplate.
func (a Acknowledgement) Append(b []byte) []byte {
	b = append(b, a.Instance[:]...)
	b = binary.BigEndian.AppendUint64(b, a.Position)
	return append(b, a.Version)
}

// A Reason is why a collector makes an exporter wait. The numbers travel.
type Reason uint8

const (
	Overload Reason = 1 // it is slower than what comes
	DiskFull Reason = 2
	Standby  Reason = 3 // it waits for another collector that is to have the Messages too
	Failing  Reason = 4 // what it writes to fails
)

func (r Reason) String() string {
	switch r {
	case Overload:
		return "overload"
	case DiskFull:
		return "disk full"
	case Standby:
		return "waits for another collector"
	case Failing:
		return "storage fails"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// A HeldUp says why nothing is acknowledged for now. The next
// Acknowledgement ends it.
type HeldUp struct {
	Instance Instance
	Reason   Reason
}

// Append appends the record of HeldUpTemplate.
func (h HeldUp) Append(b []byte) []byte {
	b = append(b, h.Instance[:]...)
	return append(b, byte(h.Reason))
}

// A Pull asks an exporter to export now what its flow cache has of addresses
// (RFC 5472, Section 4.4).
type Pull struct {
	Request uint64       // of the collector's choice, unique on the association
	Prefix  netip.Prefix // flows from or to these; ::/0 means all, of IPv4 too
}

// All is the Prefix of all flows.
var All = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// Append appends the record of PullTemplate. IPv4 travels as IPv4-mapped IPv6.
func (p Pull) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, p.Request)
	addr, bits := p.Prefix.Addr().As16(), p.Prefix.Bits()
	if p.Prefix.Addr().Is4() {
		bits += 96
	}
	b = append(b, addr[:]...)
	return append(b, byte(bits))
}

// A Result is how a Pull ended. The numbers travel.
type Result uint8

const (
	Done    Result = 0 // the flows are in the Messages before this
	Refused Result = 1 // this exporter can't
	Failed  Result = 2
)

// A PullAnswer ends a Pull: it comes behind all records that it caused.
type PullAnswer struct {
	Request uint64
	Result  Result
	Time    time.Time // up to when packets are in the records; whole milliseconds
}

// Append appends the record of PullAnswerTemplate.
func (p PullAnswer) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, p.Request)
	b = append(b, byte(p.Result))
	return binary.BigEndian.AppendUint64(b, uint64(p.Time.UnixMilli()))
}

// IdentityTemplate returns the Options Template of Identity records.
func IdentityTemplate(enterprise uint32) *ipfix.Template {
	return options(IdentityID, enterprise, 2, ExporterInstance, 16, MessagePosition, 8, AcknowledgementVersion, 1, AcknowledgementWants, 1)
}

// GivenUpTemplate returns the Options Template of GivenUp records.
func GivenUpTemplate(enterprise uint32) *ipfix.Template {
	return options(GivenUpID, enterprise, 2, MessagePosition, 8, LastMessagePosition, 8, GivenUpRecords, 8)
}

// PullAnswerTemplate returns the Options Template of PullAnswer records.
func PullAnswerTemplate(enterprise uint32) *ipfix.Template {
	return options(PullAnswerID, enterprise, 1, PullRequest, 8, PullResult, 1, PullTime, 8)
}

// AcknowledgementTemplate returns the Options Template of Acknowledgement
// records.
func AcknowledgementTemplate(enterprise uint32) *ipfix.Template {
	return options(AcknowledgementID, enterprise, 1, ExporterInstance, 16, DurablePosition, 8, AcknowledgementVersion, 1)
}

// HeldUpTemplate returns the Options Template of HeldUp records.
func HeldUpTemplate(enterprise uint32) *ipfix.Template {
	return options(HeldUpID, enterprise, 1, ExporterInstance, 16, HoldReason, 1)
}

// PullTemplate returns the Options Template of Pull records.
func PullTemplate(enterprise uint32) *ipfix.Template {
	return options(PullID, enterprise, 1, PullRequest, 8, PullAddress, 16, PullPrefixLength, 1)
}

// options makes an Options Template of pairs of element and length.
func options(id uint16, enterprise uint32, scope int, pairs ...uint16) *ipfix.Template {
	var fields []ipfix.FieldSpecifier
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, ipfix.FieldSpecifier{ID: pairs[i], Enterprise: enterprise, Length: pairs[i+1]})
	}
	t, err := ipfix.NewOptionsTemplate(id, scope, fields...)
	if err != nil {
		panic(fmt.Sprintf("ack: internal error: %v", err))
	}
	return t
}
