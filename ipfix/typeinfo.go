package ipfix

import (
	"cmp"
	"strings"
)

// Octets of the longest strings that are kept of type information.
const (
	maxElementName        = 255
	maxElementDescription = 1023
)

// maxElementText bounds the octets of what one Session keeps, which is part of
// each of its checkpoints.
const maxElementText = 128 << 10

// A TypeInformation is what an exporter says of an Information Element of an
// enterprise (RFC 5610).
type TypeInformation struct {
	InformationElement
	Description          string
	RangeBegin, RangeEnd uint64 // of its values; both 0 if there is no range
}

// elementUnits are the values of informationElementUnits (RFC 5610, Section
// 3.5) as the registry names them.
var elementUnits = [...]string{
	"", "bits", "octets", "packets", "flows", "seconds", "milliseconds", "microseconds", "nanoseconds",
	"4-octet words", "messages", "hops", "entries", "frames", "ports", "inferred",
}

// isTypeInfo reports whether records of the Template are type information
// (RFC 5610, Section 3.9): they name an element of an enterprise.
func (t *Template) isTypeInfo() bool {
	if t.Scope == 0 {
		return false
	}
	for _, id := range [...]uint16{PrivateEnterpriseNumber, InformationElementId, InformationElementName} {
		if _, ok := t.Index(0, id); !ok {
			return false
		}
	}
	return true
}

// learn takes in the records of type information. What was said of an element
// before no longer holds. IANA's elements are as the registry has them.
func (s *Session) learn(set DataSet) {
	t := set.Template
	number := func(r Record, id uint16) uint64 {
		if a, ok := t.Accessor(0, id); ok {
			return a.Uint64(r)
		}
		return 0
	}
	text := func(r Record, id uint16, most int) string {
		a, ok := t.Accessor(0, id)
		if !ok {
			return ""
		}
		b := a.Bytes(r)
		return strings.TrimRight(strings.ToValidUTF8(string(b[:min(len(b), most)]), ""), "\x00")
	}
	for r, ok := set.Next(); ok; r, ok = set.Next() {
		e := Element{uint32(number(r, PrivateEnterpriseNumber)), uint16(number(r, InformationElementId)) &^ enterpriseBit}
		if !e.told() {
			continue
		}
		if _, known := s.elements[e]; !known && len(s.elements) >= s.Limits.withDefaults().Elements {
			continue
		}
		i := TypeInformation{
			InformationElement: InformationElement{
				Enterprise: e.Enterprise, ID: e.ID,
				Name:      text(r, InformationElementName, maxElementName),
				Type:      Type(atMost(number(r, InformationElementDataType), len(typeNames))),
				Semantics: Semantics(atMost(number(r, InformationElementSemantics), len(semanticsNames))),
				Units:     elementUnits[atMost(number(r, InformationElementUnits), len(elementUnits))],
			},
			Description: text(r, InformationElementDescription, maxElementDescription),
			RangeBegin:  number(r, InformationElementRangeBegin),
			RangeEnd:    number(r, InformationElementRangeEnd),
		}
		if s.text-s.elements[e].text()+i.text() <= maxElementText {
			s.tell(i)
		}
	}
}

// told reports whether an exporter may tell of e: it is no element of IANA's.
func (e Element) told() bool { return e.Enterprise != 0 && e.Enterprise != ReversePEN }

func (e Element) compare(to Element) int {
	return cmp.Or(cmp.Compare(e.Enterprise, to.Enterprise), cmp.Compare(e.ID, to.ID))
}

func (s *Session) tell(i TypeInformation) {
	if s.elements == nil {
		s.elements = make(map[Element]TypeInformation)
	}
	e := Element{i.Enterprise, i.ID}
	s.text += i.text() - s.elements[e].text()
	s.elements[e] = i
}

// text returns the octets of i's name and description.
func (i TypeInformation) text() int { return len(i.Name) + len(i.Description) }

// atMost returns v, or 0, which is always the default, where it is not below n.
func atMost(v uint64, n int) uint8 {
	if v >= uint64(n) {
		return 0
	}
	return uint8(v)
}

// Lookup returns an element of the registry, as the function Lookup does, or
// one of an enterprise that the exporter told of (RFC 5610).
func (s *Session) Lookup(enterprise uint32, id uint16) (InformationElement, bool) {
	if e, ok := Lookup(enterprise, id); ok {
		return e, true
	}
	i, ok := s.elements[Element{enterprise, id}]
	return i.InformationElement, ok
}

// TypeInformation returns all that the exporter told of an element.
func (s *Session) TypeInformation(e Element) (TypeInformation, bool) {
	i, ok := s.elements[e]
	return i, ok
}
