package ipfix

import "fmt"

// Reverse returns the field for the same Information Element in the other
// direction of a biflow (RFC 5103, Section 6.1): of IANA's elements the
// reverse one, and of that IANA's again. It is false for elements that have
// none, as they are the same in both directions, and for those of other
// enterprises, whose reverses are in no registry.
func (f FieldSpecifier) Reverse() (FieldSpecifier, bool) {
	switch f.Enterprise {
	case 0:
		f.Enterprise = ReversePEN
	case ReversePEN:
		f.Enterprise = 0
	default:
		return f, false
	}
	return f, Reversible(f.ID)
}

// A Direction is the value of a biflowDirection (RFC 5103, Section 6.3): how
// the source of a biflow was chosen.
type Direction uint8

const (
	DirectionArbitrary        Direction = 0
	DirectionInitiator        Direction = 1 // the source began the flow
	DirectionReverseInitiator Direction = 2 // the destination did
	DirectionPerimeter        Direction = 3 // the source is outside of a perimeter
)

func (d Direction) String() string {
	switch d {
	case DirectionArbitrary:
		return "arbitrary"
	case DirectionInitiator:
		return "initiator"
	case DirectionReverseInitiator:
		return "reverseInitiator"
	case DirectionPerimeter:
		return "perimeter"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}
