package ipfix

import "encoding/binary"

// VariableLength as a Field Length says that each value carries its own
// length (RFC 7011, Section 7).
const VariableLength = 65535

// ReversePEN is the Enterprise Number of reverse Information Elements
// (RFC 5103, Section 6.1).
const ReversePEN = 29305

// enterpriseBit in an Information Element identifier says that an Enterprise
// Number follows the Field Length.
const enterpriseBit = 0x8000

// A FieldSpecifier is one field of a Template (RFC 7011, Section 3.2).
type FieldSpecifier struct {
	ID         uint16 // Information Element identifier, 15 bits
	Enterprise uint32 // Enterprise Number; 0 for IANA's elements
	Length     uint16 // octets; VariableLength if each value carries its own
}

// Append appends the Field Specifier in wire form.
func (f FieldSpecifier) Append(b []byte) []byte {
	id := f.ID &^ enterpriseBit
	if f.Enterprise != 0 {
		id |= enterpriseBit
	}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, f.Length)
	if f.Enterprise != 0 {
		b = binary.BigEndian.AppendUint32(b, f.Enterprise)
	}
	return b
}

// Element returns what the registry knows of the field's Information Element.
// Where it knows nothing the element has no Name and is an octetArray.
func (f FieldSpecifier) Element() InformationElement {
	if e, ok := Lookup(f.Enterprise, f.ID); ok {
		return e
	}
	return InformationElement{Enterprise: f.Enterprise, ID: f.ID}
}

// minLength returns the least octets that a value takes in a record.
func (f FieldSpecifier) minLength() int {
	if f.Length == VariableLength {
		return 1
	}
	return int(f.Length)
}

// fieldLength returns the octets of the Field Specifier at the start of b, 0
// if it is cut off.
func fieldLength(b []byte) int {
	n := 4
	if len(b) > 0 && b[0]&0x80 != 0 {
		n = 8
	}
	if len(b) < n {
		return 0
	}
	return n
}

// parseField reads the whole Field Specifier at the start of b and returns
// what follows it.
func parseField(b []byte) (FieldSpecifier, []byte) {
	f := FieldSpecifier{ID: binary.BigEndian.Uint16(b), Length: binary.BigEndian.Uint16(b[2:])}
	if f.ID&enterpriseBit == 0 {
		return f, b[4:]
	}
	f.ID &^= enterpriseBit
	f.Enterprise = binary.BigEndian.Uint32(b[4:])
	return f, b[8:]
}
