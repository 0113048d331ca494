// Package dict maps IPFIX to Diameter: an AVP for every Information Element
// of IANA's registry, forward and reverse, the AVPs of an accounting record,
// and the dictionary that describes them to other Diameter nodes.
//
// A flow record becomes a Grouped Flow AVP, from which ParseFlow makes the same
// Template and the same octets again (RFC 5472, Section 3.5.1). An accounting
// record becomes the AVPs of an Accounting-Request (RFC 6733, Section 9.7.1),
// from which ParseRecord makes the same record again. How AVP codes are given
// out is decided in docs/adr/0003-avp-numbering.md.
//
// All functions are pure and may be called by many goroutines at once.
package dict

import (
	"tollbridge/ipfix"
)

// DefaultVendor is the Vendor-Id of the AVPs where none is configured: the
// Private Enterprise Number for documentation (RFC 5612).
const DefaultVendor = 32473

// A Dictionary holds the AVPs under one Vendor-Id. The zero Dictionary is not
// usable; For makes one.
type Dictionary struct{ vendor uint32 }

// For returns the dictionary of a Vendor-Id; 0 means DefaultVendor.
func For(vendor uint32) *Dictionary {
	if vendor == 0 {
		vendor = DefaultVendor
	}
	return &Dictionary{vendor}
}

// Vendor returns the Vendor-Id of the dictionary's AVPs.
func (d *Dictionary) Vendor() uint32 { return d.vendor }

// The parts of the vendor's AVP codes. They lie above every code that the IETF
// or 3GPP has given out, for a receiver that looks an unknown vendor's AVP up
// by its code alone would otherwise read it as one of those.
const (
	elementBase    = 1 << 16         // IANA's element n is AVP 65536 + n
	reverseBit     = 1 << 15         // its reverse is AVP 98304 + n
	structuralBase = 2 << 16         // AVPs that are no element
	codeMask       = elementBase - 1 // the part and the element number
)

// AVP codes of the vendor that are no Information Elements.
const (
	Flow               = structuralBase + 1 // Grouped: one flow record
	FlowTemplate       = structuralBase + 2 // OctetString: the Template of the record, as far as its elements don't tell
	FlowFragment       = structuralBase + 3 // OctetString: a piece of AVPs that were too large for one message
	InformationElement = structuralBase + 4 // Grouped: an element that has no AVP of its own
	EnterpriseNumber   = structuralBase + 5 // Unsigned32; absent for IANA's elements
	ElementID          = structuralBase + 6 // Unsigned32
	ElementOctets      = structuralBase + 7 // OctetString: the value as on the wire

	ClassUsage      = structuralBase + 16 // Grouped: Class-Name and Accounting-Input-Octets ... -Output-Packets
	ClassName       = structuralBase + 17 // UTF8String
	IntervalStart   = structuralBase + 18 // Unsigned64: milliseconds since 1970
	IntervalEnd     = structuralBase + 19 // Unsigned64: milliseconds since 1970
	EventTime       = structuralBase + 20 // Unsigned64: Event-Timestamp in milliseconds since 1970
	SessionDuration = structuralBase + 21 // Unsigned64: Acct-Session-Time in milliseconds
	OctetLayer      = structuralBase + 22 // Enumerated: what the octets count
	UsageEstimated  = structuralBase + 23 // Enumerated: whether some of the usage was scaled from samples
	RecordPart      = structuralBase + 24 // Unsigned32: which of Record-Parts this is, from 1
	RecordParts     = structuralBase + 25 // Unsigned32
	ExporterName    = structuralBase + 26 // UTF8String: whose flow record it is, as the node's books have it

	Correction          = structuralBase + 32 // Grouped: which record this one corrects, and how
	CorrectedSession    = structuralBase + 33 // UTF8String: the Session-Id of that
	CorrectedNumber     = structuralBase + 34 // Unsigned32: its Accounting-Record-Number
	CorrectionDirection = structuralBase + 35 // Enumerated: whether the usage is to be added or taken away
	CorrectionReason    = structuralBase + 36 // UTF8String: why, for people
)

// Values of Correction-Direction.
const (
	Debit  = 0 // the usage is to be added to what the user was charged
	Credit = 1 // it is to be taken away
)

// AVP codes of the vendor that say what usage costs.
const (
	RoamingAgreement = structuralBase + 40 // UTF8String: name of the agreement that a record is made under
	ZeroRated        = structuralBase + 41 // Enumerated: whether the usage of a class is to cost nothing
)

// Values of Octet-Layer. An absent AVP means that nobody knows.
const (
	LayerLink = 2 // the frame's header too
	LayerIP   = 3 // IP header and payload
)

// Values of Zero-Rated. An absent AVP means Charged.
const (
	Charged = 0
	Free    = 1
)

// Values of Usage-Estimated. An absent AVP means Measured.
const (
	Measured  = 0
	Estimated = 1
)

// CodeElement returns the Information Element of an AVP code: one of IANA's
// registry (enterprise 0), or a reverse one (enterprise ipfix.ReversePEN). It
// reports false for the code of no element that the registry knows.
func CodeElement(code uint32) (enterprise uint32, id uint16, ok bool) {
	if code&^codeMask != elementBase {
		return 0, 0, false
	}
	if code&reverseBit != 0 {
		enterprise = ipfix.ReversePEN
	}
	id = uint16(code & (reverseBit - 1))
	_, ok = elementType(enterprise, id)
	return enterprise, id, ok
}

func elementCode(enterprise uint32, id uint16) uint32 {
	if enterprise == ipfix.ReversePEN {
		return elementBase | reverseBit | uint32(id)
	}
	return elementBase | uint32(id)
}

// elementTypes holds the abstract data types by element number, so that a
// record is encoded without a copy of each registry entry.
var elementTypes = func() (types []elementKind) {
	for e := range ipfix.Elements() {
		for len(types) <= int(e.ID) {
			types = append(types, elementKind{})
		}
		types[e.ID] = elementKind{e.Type, true, e.Reversible}
	}
	return types
}()

type elementKind struct {
	abstract          ipfix.Type
	known, reversible bool
}

// elementType returns the abstract data type of an element that has an AVP.
func elementType(enterprise uint32, id uint16) (ipfix.Type, bool) {
	if int(id) >= len(elementTypes) {
		return 0, false
	}
	e := elementTypes[id]
	switch enterprise {
	case 0:
		return e.abstract, e.known
	case ipfix.ReversePEN:
		return e.abstract, e.reversible
	}
	return 0, false
}
