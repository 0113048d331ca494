package asm

import (
	"encoding/binary"
	"strconv"

	"tollbridge/ipfix"
)

// VRFSettings say which element divides the addresses that an exporter sees
// into address spaces, and how those are called where users are bound to them.
type VRFSettings struct {
	Element string            `json:"element"`         // such as ingressVRFID, VRFname or ingressInterface; see ParseElement
	Names   map[string]string `json:"names,omitempty"` // by value; a value that is not there is the name
}

// A vrfReader names the address spaces of an exporter's records.
type vrfReader struct {
	in, out ipfix.Element // of the source and, where a Template has it, of the destination
	names   map[string]string
	known   map[string]string // by a value's octets
}

// maxVRFs bounds the values that are remembered of one exporter.
const maxVRFs = 1 << 16

// newVRFReader returns the reader of settings that are valid.
func newVRFReader(s *VRFSettings) *vrfReader {
	e, err := ParseElement(s.Element)
	if err != nil {
		return nil
	}
	r := &vrfReader{in: e, out: e, names: s.Names, known: make(map[string]string)}
	// What tells where a flow came in has a sibling for where it left.
	switch e {
	case ipfix.Element{ID: ipfix.IngressVRFID}:
		r.out.ID = ipfix.EgressVRFID
	case ipfix.Element{ID: ipfix.IngressInterface}:
		r.out.ID = ipfix.EgressInterface
	}
	return r
}

// name returns the address space that a value names: a number in decimal, or
// text.
func (r *vrfReader) name(value []byte, number bool) string {
	if name, ok := r.known[string(value)]; ok {
		return name
	}
	name := string(trimName(value))
	if number {
		var b [8]byte
		copy(b[max(0, 8-len(value)):], value[max(0, len(value)-8):])
		name = strconv.FormatUint(binary.BigEndian.Uint64(b[:]), 10)
	}
	if given, ok := r.names[name]; ok {
		name = given
	}
	if len(r.known) < maxVRFs {
		r.known[string(value)] = name
	}
	return name
}

// A vrfPlan reads the address spaces of the records of one Template.
type vrfPlan struct {
	reader         *vrfReader // nil for none
	in, out        ipfix.Accessor
	number, hasOut bool
}

// newVRFPlan returns the plan of a Template; one that lacks the element is of
// the global address space.
func newVRFPlan(r *vrfReader, t *ipfix.Template) (p vrfPlan) {
	var ok bool
	if r == nil {
		return p
	}
	if p.in, ok = t.Accessor(r.in.Enterprise, r.in.ID); !ok {
		return vrfPlan{}
	}
	p.reader = r
	if p.out, p.hasOut = t.Accessor(r.out.Enterprise, r.out.ID); !p.hasOut {
		p.out = p.in
	}
	e, known := ipfix.Lookup(r.in.Enterprise, r.in.ID)
	p.number = known && e.Type != ipfix.TypeString
	return p
}

// read gives f the address spaces of record d.
func (p *vrfPlan) read(d ipfix.Record, f *flow) {
	f.vrf = p.reader.name(p.in.Bytes(d), p.number)
	f.vrfTo = f.vrf
	if p.hasOut {
		f.vrfTo = p.reader.name(p.out.Bytes(d), p.number)
	}
}
