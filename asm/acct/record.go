package acct

import (
	"fmt"
	"net/netip"
	"time"
)

// A RecordType is an Accounting-Record-Type (RFC 6733, Section 9.8.1).
type RecordType uint8

const (
	Event   RecordType = 1
	Start   RecordType = 2
	Interim RecordType = 3
	Stop    RecordType = 4
)

func (t RecordType) String() string {
	switch t {
	case Event:
		return "EVENT"
	case Start:
		return "START"
	case Interim:
		return "INTERIM"
	case Stop:
		return "STOP"
	}
	return fmt.Sprintf("RecordType(%d)", uint8(t))
}

// Usage is a volume in both directions as RFC 7155 has them: input is from
// the user, output is to the user.
type Usage struct {
	InputOctets   uint64 `json:"input_octets"`
	OutputOctets  uint64 `json:"output_octets"`
	InputPackets  uint64 `json:"input_packets"`
	OutputPackets uint64 `json:"output_packets"`
}

// Plus returns u + v, at the limit of Count.Plus where it would not fit.
func (u Usage) Plus(v Usage) Usage {
	return Usage{
		add(u.InputOctets, v.InputOctets), add(u.OutputOctets, v.OutputOctets),
		add(u.InputPackets, v.InputPackets), add(u.OutputPackets, v.OutputPackets),
	}
}

// Minus returns u - v, which must not be more than u.
func (u Usage) Minus(v Usage) Usage {
	return Usage{
		u.InputOctets - v.InputOctets, u.OutputOctets - v.OutputOctets,
		u.InputPackets - v.InputPackets, u.OutputPackets - v.OutputPackets,
	}
}

// ClassUsage is the part of a record's usage that fell into one class.
type ClassUsage struct {
	Class string `json:"class"`
	Usage
	ZeroRated bool  `json:"zero_rated,omitempty"` // it is to cost nothing
	Increase  Usage `json:"increase"`             // since the session's record before
}

// A Layer says which octets of a packet are counted. The numbers are stored.
type Layer uint8

const (
	LayerUnknown Layer = 0 // the exporter does not say, or exporters differ
	LayerNetwork Layer = 3 // from the IP header on, as octetDeltaCount has it
	LayerLink    Layer = 2 // with the frame's header, as layer2OctetDeltaCount has it
)

// Layers is a set of what octets were counted at. The bits are stored.
type Layers uint8

const (
	AtNetwork Layers = 1 << iota // LayerNetwork
	AtLink                       // LayerLink
	AtOther                      // nobody knows, or payload alone
)

// Layer returns what a Record says of octets counted at all of l.
func (l Layers) Layer() Layer {
	switch l {
	case AtNetwork:
		return LayerNetwork
	case AtLink:
		return LayerLink
	}
	return LayerUnknown
}

// An Attribute is an AVP that a user's binding brought along. RADIUS
// attributes 1 to 255 are AVPs of the same code without a vendor (RFC 6733,
// Section 4.1).
type Attribute struct {
	Code   uint32 `json:"code"`
	Vendor uint32 `json:"vendor,omitempty"`
	Data   []byte `json:"data"`
}

// The books of corrections: in a LedgerKey they stand where an exporter's name
// does, which none can have. What was accounted, less what the book of credits
// has and with what the book of debits has, is what users are to be charged.
const (
	CreditBook = "(credit)"
	DebitBook  = "(debit)"
)

// A Correction ties a record to one that it amends.
type Correction struct {
	SessionID string `json:"session_id"` // of the record that was wrong
	Number    uint32 `json:"number"`     // likewise
	Credit    bool   `json:"credit"`     // the usage is to be taken away, else it is to be added
	Reason    string `json:"reason"`     // for people and auditors: "late binding", "operator: ..."
}

// A Record is an accounting record. Its content is frozen when it is cut:
// every sending of it, to whichever peer, carries the same.
//
// Volumes are cumulative since the session's START; an EVENT record carries
// its own. Times are whole milliseconds.
type Record struct {
	SessionID      string // RFC 6733, Section 8.8; unique for ever
	Number         uint32 // Accounting-Record-Number: START and EVENT 0, INTERIM 1..n, STOP n+1
	Type           RecordType
	MultiSessionID string // Acct-Multi-Session-Id; "" for none
	User           string // User-Name; "" for a flow that nobody has mapped yet
	Realm          string // Destination-Realm; "" for the default of delivery

	Framed netip.Prefix // what the user held: a host's or a network's; invalid for none

	Start time.Time // of the interval that this record adds
	End   time.Time // of the same
	Event time.Time // Event-Timestamp: when the record was cut

	SessionTime time.Duration // Acct-Session-Time, since the session's start

	Usage     Usage
	Increase  Usage        // of Usage since the session's record before; an EVENT's is all of it
	Classes   []ClassUsage // sums to Usage, or is empty where no classes are configured
	Estimated bool         // some of Usage was scaled from sampled packets
	Layer     Layer        // which of a packet's octets Usage counts

	// Attributes are what the user's binding says beside the address, such as
	// Class, Calling-Station-Id, NAS-Identifier or Operator-Name. They go into
	// the request as they are, in this order.
	Attributes []Attribute

	// Source says which source of bindings told of whom the record is about,
	// such as "radius", and NAS which NAS or access server told it; "" for
	// none. They are not sent.
	Source string
	NAS    string

	// Corrects says which earlier record this one amends; nil for none. An
	// accounting record is never rewritten.
	Corrects *Correction

	// Flow holds the encoded AVPs of the flow that an unmapped EVENT record
	// carries (RFC 5472, Section 3.5.1), as package dict wrote them.
	Flow []byte

	// Received holds the AVPs of a request that is passed on for somebody else:
	// what is sent is they alone. The fields above tell of it what they can. Nil
	// for a record of our own.
	Received []byte

	// Interim is what an answer to an earlier record of the session asked for,
	// in seconds, and is in force: see InterimInterval. 0 if none did. It is
	// not sent.
	Interim uint32

	// Part and Parts count the records that one too large record was split
	// into, from 1; both zero for a record that is whole.
	Part, Parts uint16

	// Shares says which rows of the ledger the record's increment came from.
	// They are booked, never sent, and not part of the frozen content.
	Shares []Share
}

// Increment returns the sum of the record's shares.
func (r *Record) Increment() Count {
	var sum Count
	for _, s := range r.Shares {
		sum = sum.Plus(s.Count)
	}
	return sum
}
