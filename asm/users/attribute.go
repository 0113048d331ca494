package users

import (
	"encoding/binary"
	"errors"
	"iter"
)

// An Attribute is an AVP that a session brings along into its accounting
// records. RADIUS attributes 1 to 255 are AVPs of the same code without a
// vendor (RFC 6733, Section 4.1).
type Attribute struct {
	Code   uint32
	Vendor uint32
	Data   string // octets of the AVP's data
}

// Attributes is a list of Attribute in its encoding, so that lists compare and
// take little memory. "" is the empty list.
type Attributes string

// maxAttributes is the most octets of encoded Attributes: they go into every
// record of their session.
const maxAttributes = 4096

var errAttributes = errors.New("are no encoded attributes, or more than 4096 octets of them")

// NewAttributes returns a list.
func NewAttributes(list ...Attribute) Attributes {
	var b []byte
	for _, a := range list {
		b = binary.AppendUvarint(b, uint64(a.Code))
		b = binary.AppendUvarint(b, uint64(a.Vendor))
		b = appendString(b, a.Data)
	}
	return Attributes(b)
}

// All returns the Attributes in their order.
func (l Attributes) All() iter.Seq[Attribute] {
	return func(yield func(Attribute) bool) {
		d := decoder{rest: string(l)}
		for d.rest != "" {
			a := d.attribute()
			if d.failed || !yield(a) {
				return
			}
		}
	}
}

func (d *decoder) attribute() Attribute {
	code, vendor := d.uvarint(), d.uvarint()
	if code > 1<<32-1 || vendor > 1<<32-1 {
		d.fail()
	}
	return Attribute{Code: uint32(code), Vendor: uint32(vendor), Data: d.string()}
}

func (l Attributes) check() error {
	if len(l) > maxAttributes {
		return errAttributes
	}
	d := decoder{rest: string(l)}
	var again []byte
	for d.rest != "" && !d.failed {
		a := d.attribute()
		again = append(again, NewAttributes(a)...)
	}
	if d.failed || string(again) != string(l) {
		return errAttributes
	}
	return nil
}
