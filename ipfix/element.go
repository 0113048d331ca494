package ipfix

import (
	"cmp"
	"fmt"
	"iter"
	"strings"
	"sync"
)

// An InformationElement is an entry of IANA's registry (RFC 7012), or the
// reverse of one (RFC 5103).
type InformationElement struct {
	Enterprise uint32 // 0, or ReversePEN
	ID         uint16
	Name       string // as registered; "reverse..." for a reverse element
	Type       Type
	Semantics  Semantics
	Units      string // as registered: "octets", "milliseconds"; "" for none
	Status     Status
	Reversible bool // has a reverse element
}

// String returns the element's name: that of the registry, or its
// numbers.
func (e InformationElement) String() string {
	return cmp.Or(e.Name, Element{e.Enterprise, e.ID}.String())
}

// Lookup returns an element of the registry: one of IANA's (enterprise 0) or
// the reverse of one (enterprise ReversePEN; RFC 5103, Section 6.1).
func Lookup(enterprise uint32, id uint16) (InformationElement, bool) {
	if int(id) >= len(elements) || elements[id].Name == "" {
		return InformationElement{}, false
	}
	e := elements[id]
	switch enterprise {
	case 0:
		return e, true
	case ReversePEN:
		return reverse(e), e.Reversible
	}
	return InformationElement{}, false
}

func reverse(e InformationElement) InformationElement {
	if !e.Reversible {
		return InformationElement{}
	}
	e.Enterprise = ReversePEN
	e.Name = "reverse" + strings.ToUpper(e.Name[:1]) + e.Name[1:]
	e.Reversible = false
	return e
}

// LookupName returns the element of that name, which may be a reverse one.
func LookupName(name string) (InformationElement, bool) {
	e, ok := byName()[name]
	return e, ok
}

var byName = sync.OnceValue(func() map[string]InformationElement {
	m := make(map[string]InformationElement, 2*len(elements))
	for e := range Elements() {
		m[e.Name] = e
		if e.Reversible {
			r := reverse(e)
			m[r.Name] = r
		}
	}
	return m
})

// Elements returns IANA's elements by ascending number, without the reverse
// ones.
func Elements() iter.Seq[InformationElement] {
	return func(yield func(InformationElement) bool) {
		for _, e := range elements {
			if e.Name != "" && !yield(e) {
				return
			}
		}
	}
}

// Reversible reports whether IANA's element of that number has a reverse one
// (RFC 5103, Section 6.1).
func Reversible(id uint16) bool {
	return int(id) < len(elements) && elements[id].Reversible
}

// A Type is an abstract data type (RFC 7012, Section 3.1; RFC 6313). The zero
// Type is octetArray, which is also how unknown elements are read.
type Type uint8

const (
	TypeOctetArray Type = iota
	TypeUnsigned8
	TypeUnsigned16
	TypeUnsigned32
	TypeUnsigned64
	TypeSigned8
	TypeSigned16
	TypeSigned32
	TypeSigned64
	TypeFloat32
	TypeFloat64
	TypeBoolean
	TypeMacAddress
	TypeString
	TypeDateTimeSeconds
	TypeDateTimeMilliseconds
	TypeDateTimeMicroseconds
	TypeDateTimeNanoseconds
	TypeIpv4Address
	TypeIpv6Address
	TypeBasicList
	TypeSubTemplateList
	TypeSubTemplateMultiList
	TypeUnsigned256
)

var typeNames = [...]string{
	"octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32",
	"signed64", "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds",
	"dateTimeMilliseconds", "dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address",
	"basicList", "subTemplateList", "subTemplateMultiList", "unsigned256",
}

// String returns the registered name of the type.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Length returns the octets of a value that is not of reduced size, 0 for
// types without a fixed length (RFC 7011, Section 6.1).
func (t Type) Length() int {
	switch t {
	case TypeUnsigned8, TypeSigned8, TypeBoolean:
		return 1
	case TypeUnsigned16, TypeSigned16:
		return 2
	case TypeUnsigned32, TypeSigned32, TypeFloat32, TypeDateTimeSeconds, TypeIpv4Address:
		return 4
	case TypeMacAddress:
		return 6
	case TypeUnsigned64, TypeSigned64, TypeFloat64, TypeDateTimeMilliseconds, TypeDateTimeMicroseconds,
		TypeDateTimeNanoseconds:
		return 8
	case TypeIpv6Address:
		return 16
	case TypeUnsigned256:
		return 32
	}
	return 0
}

// ValidLength reports whether a field of the type may have that length: its
// own, a reduced one where Section 6.2 of RFC 7011 has it, or any for types
// without one.
func (t Type) ValidLength(n uint16) bool {
	own := uint16(t.Length())
	switch t {
	case TypeUnsigned16, TypeUnsigned32, TypeUnsigned64, TypeUnsigned256, TypeSigned16, TypeSigned32, TypeSigned64:
		return n >= 1 && n <= own
	case TypeFloat64:
		return n == 4 || n == 8
	}
	return own == 0 || n == own
}

// structured reports whether values are lists (RFC 6313).
func (t Type) structured() bool { return t >= TypeBasicList && t <= TypeSubTemplateMultiList }

// Semantics say how the values of an element behave (RFC 7012, Section 3.2).
type Semantics uint8

const (
	SemanticsDefault Semantics = iota
	SemanticsQuantity
	SemanticsTotalCounter
	SemanticsDeltaCounter
	SemanticsIdentifier
	SemanticsFlags
	SemanticsList
	SemanticsSnmpCounter
	SemanticsSnmpGauge
)

var semanticsNames = [...]string{
	"default", "quantity", "totalCounter", "deltaCounter", "identifier", "flags", "list", "snmpCounter", "snmpGauge",
}

// String returns the registered name of the semantics.
func (s Semantics) String() string {
	if int(s) < len(semanticsNames) {
		return semanticsNames[s]
	}
	return fmt.Sprintf("Semantics(%d)", uint8(s))
}

// A Status says whether an element should still be used (RFC 7012,
// Section 5.2).
type Status uint8

const (
	StatusCurrent Status = iota
	StatusDeprecated
)

func (s Status) String() string {
	if s == StatusDeprecated {
		return "deprecated"
	}
	return "current"
}
