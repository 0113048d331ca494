package ipfix

import "fmt"

// A Unit is what an exporter's sequence numbers count.
type Unit uint8

const (
	UnitRecords  Unit = iota // Data Records, those of options included (RFC 7011, Section 3.1); NetFlow 5 has no options
	UnitFlows                // Data Records, but not those of options
	UnitAll                  // Data Records and Template Records
	UnitMessages             // Messages (RFC 3954, Section 5.1)
	UnitNone                 // nothing: the number stays the same

	// UnitFlowsSent counts Data Records, but not those of options, up to the end
	// of the Message, not to its beginning (softflowd).
	UnitFlowsSent
	units
)

func (u Unit) String() string {
	switch u {
	case UnitRecords:
		return "records"
	case UnitFlows:
		return "flows"
	case UnitAll:
		return "records and templates"
	case UnitMessages:
		return "messages"
	case UnitNone:
		return "nothing"
	case UnitFlowsSent:
		return "flows, the message's own included"
	}
	return fmt.Sprintf("Unit(%d)", uint8(u))
}

// A Confidence says what Lost and Found of a Result are worth.
type Confidence uint8

const (
	// Exact: the numbers count Data Records and agree with what came.
	Exact Confidence = iota

	// Estimated: the numbers count something else, or several Observation
	// Domains share them. Lost is what the lost Messages probably held.
	Estimated

	// Suspect: the numbers lately disagreed with what came in a way that
	// loss explains no better than another Unit does. Lost is given as for
	// the present one, and is Found again should it prove wrong.
	Suspect

	// Unknown: the numbers began anew with this Message, or say nothing.
	Unknown
)

func (c Confidence) String() string {
	switch c {
	case Exact:
		return "exact"
	case Estimated:
		return "estimated"
	case Suspect:
		return "suspect"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("Confidence(%d)", uint8(c))
}

// A tally is what a Message advances the numbers by, for each Unit; for
// UnitFlowsSent it is what it is for UnitFlows.
type tally [UnitFlowsSent]uint32

// of returns what the Message advances the numbers of a Unit by.
func (n *tally) of(u Unit) uint32 {
	if u == UnitFlowsSent {
		u = UnitFlows
	}
	return n[u]
}

// A Counting is what is known of an exporter's way of numbering Messages.
type Counting struct {
	Unit       Unit
	Shared     bool // one series of numbers for all Observation Domains of the Transport Session
	Confidence Confidence
}
