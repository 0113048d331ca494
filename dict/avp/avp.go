package avp

import (
	"encoding/binary"
	"iter"
)

// AVP flags (RFC 6733, Section 4.1).
const (
	FlagVendor    = 0x80 // V: the header has a Vendor-ID
	FlagMandatory = 0x40 // M: a receiver that does not know the AVP must refuse the message
	FlagProtected = 0x20 // P: reserved for end-to-end security; never set
)

// An AVP is one attribute-value pair in place: Data aliases the message.
type AVP struct {
	Code   uint32
	Vendor uint32 // 0 for the AVPs of the IETF
	Flags  uint8
	Data   []byte // without padding
}

// Is reports whether a is the AVP of that code and vendor.
func (a AVP) Is(code, vendor uint32) bool { return a.Code == code && a.Vendor == vendor }

// Mandatory reports whether the M bit is set.
func (a AVP) Mandatory() bool { return a.Flags&FlagMandatory != 0 }

// Append appends a, as it was read, to b.
func (a AVP) Append(b []byte) []byte { return Append(b, a.Code, a.Vendor, a.Flags, a.Data) }

// Next reads the AVP at the front of b, which must not be empty, and returns
// the octets behind it and its padding. It refuses an AVP Length that does not
// cover the AVP's own header or reaches beyond b, and missing padding; what the
// padding holds is ignored. With an error, the AVP carries as much as could be
// read of its header, for a Failed-AVP (Section 7.5). Errors are of type
// *DecodeError with offsets from the start of b.
func Next(b []byte) (a AVP, rest []byte, err error) {
	if len(b) < 8 {
		if len(b) >= 4 {
			a.Code = binary.BigEndian.Uint32(b)
		}
		return a, nil, &DecodeError{0, "AVP Header", ErrTruncated}
	}
	a.Code = binary.BigEndian.Uint32(b)
	a.Flags = b[4]
	length, header := int(uint24(b[5:])), 8
	if a.Flags&FlagVendor != 0 {
		if header = 12; len(b) < 12 {
			return a, nil, &DecodeError{0, "AVP Header", ErrTruncated}
		}
		a.Vendor = binary.BigEndian.Uint32(b[8:])
	}
	end := (length + 3) &^ 3
	if length < header {
		return a, nil, &DecodeError{5, "AVP Length", ErrLength}
	}
	if end > len(b) {
		if length <= len(b) {
			return a, nil, &DecodeError{length, "AVP padding", ErrTruncated}
		}
		return a, nil, &DecodeError{5, "AVP Length", ErrLength}
	}
	a.Data = b[header:length:length]
	return a, b[end:], nil
}

// Scan returns the AVPs in b in order: those of a message, or those of a
// Grouped AVP's data. It does not descend into groups. The first malformed
// AVP ends it, yielding what Next returned; offsets in the error count from
// the start of b.
//
// A range over it does not allocate.
func Scan(b []byte) iter.Seq2[AVP, error] {
	return func(yield func(AVP, error) bool) {
		for rest := b; len(rest) > 0; {
			a, after, err := Next(rest)
			if err != nil {
				yield(a, at(len(b)-len(rest), err))
				return
			}
			if !yield(a, nil) {
				return
			}
			rest = after
		}
	}
}

// Check reads all AVPs in b, as Scan does, and returns the first error.
func Check(b []byte) error {
	for rest := b; len(rest) > 0; {
		_, after, err := Next(rest)
		if err != nil {
			return at(len(b)-len(rest), err)
		}
		rest = after
	}
	return nil
}

// Find returns the first AVP of that code and vendor at the top level of b. It
// stops at a malformed AVP as if b ended there.
func Find(b []byte, code, vendor uint32) (AVP, bool) {
	for len(b) > 0 {
		a, rest, err := Next(b)
		if err != nil {
			break
		}
		if a.Is(code, vendor) {
			return a, true
		}
		b = rest
	}
	return AVP{}, false
}

// at moves the offset of an error of Next by offset.
func at(offset int, err error) error {
	if d, ok := err.(*DecodeError); ok {
		d.Offset += offset
	}
	return err
}
