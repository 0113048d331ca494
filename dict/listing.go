package dict

import (
	"iter"

	"tollbridge/ipfix"
)

// A Row is one AVP of the dictionary, as a listing shows it.
type Row struct {
	Element    uint16 // number of the Information Element; 0 for an AVP that is none
	Enterprise uint32 // 0, or ipfix.ReversePEN
	Name       string // of the Information Element; of the AVP where there is none
	AVP        string // name of the AVP
	Code       uint32 // AVP code
	Vendor     uint32 // Vendor-Id; 0 for the IETF's AVPs
	Type       Type
	Abstract   string // abstract data type of the element; "" for none
	Mandatory  bool   // the M bit is set
}

// Rows returns the whole dictionary: the IETF's AVPs that a record is made of,
// the vendor's AVPs that are no elements, the elements by number, and the
// reverse elements by number.
func (d *Dictionary) Rows() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, part := range []struct {
			definitions []definition
			vendor      uint32
		}{{base, 0}, {standard, 0}, {structural, d.vendor}} {
			for _, s := range part.definitions {
				name := s.Name
				if part.vendor != 0 {
					name = namePrefix + name
				}
				if !yield(Row{Name: name, AVP: name, Code: s.Code, Vendor: part.vendor, Type: s.Type, Mandatory: s.Mandatory}) {
					return
				}
			}
		}
		for e := range elements() {
			if !yield(Row{
				Element: e.ID, Enterprise: e.Enterprise, Name: e.Name, AVP: elementPrefix + e.Name,
				Code: elementCode(e.Enterprise, e.ID), Vendor: d.vendor, Type: TypeOf(e.Type), Abstract: e.Type.String(),
			}) {
				return
			}
		}
	}
}

// The names of the vendor's AVPs begin with these, since dictionaries often
// have one space of names for all vendors.
const (
	namePrefix    = "Tollbridge-"
	elementPrefix = "IPFIX-"
)

// avpName returns the name of a member of a group: structural members have a
// prefix, the IETF's none.
func avpName(member string) string {
	for _, s := range structural {
		if s.Name == member {
			return namePrefix + member
		}
	}
	return member
}

// elements returns the elements that have an AVP: IANA's by number, then the
// reverse ones.
func elements() iter.Seq[ipfix.InformationElement] {
	return func(yield func(ipfix.InformationElement) bool) {
		for e := range ipfix.Elements() {
			if !yield(e) {
				return
			}
		}
		for e := range ipfix.Elements() {
			if !e.Reversible {
				continue
			}
			if reverse, ok := ipfix.Lookup(ipfix.ReversePEN, e.ID); ok && !yield(reverse) {
				return
			}
		}
	}
}
