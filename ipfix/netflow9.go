package ipfix

import "encoding/binary"

const netFlow9HeaderLength = 20

// FlowSet IDs (RFC 3954, Sections 5.2 and 6.1).
const (
	templateFlowSet        = 0
	optionsTemplateFlowSet = 1
)

// netFlow9Scopes are the elements that the scope field types of NetFlow
// version 9 (RFC 3954, Section 6.1) stand for: System, Interface, Line Card,
// Cache, Template. Other types are taken for the elements of their number.
var netFlow9Scopes = [...]uint16{
	1: ExportingProcessId,
	2: IngressInterface,
	3: LineCardId,
	4: MeteringProcessId,
	5: TemplateId,
}

// parseNetFlow9 reads the header of a packet that must be all of msg. What it
// counts is not looked at, as too many exporters count otherwise.
func parseNetFlow9(msg []byte) (Header, error) {
	if len(msg) < netFlow9HeaderLength || len(msg) > MaxMessage {
		return Header{}, &DecodeError{0, "NetFlow 9 header", ErrLength}
	}
	return Header{
		Length:     uint16(len(msg)),
		ExportTime: binary.BigEndian.Uint32(msg[8:]),
		Sequence:   binary.BigEndian.Uint32(msg[12:]),
		Domain:     binary.BigEndian.Uint32(msg[16:]),
		Version:    NetFlow9,
		UpTime:     binary.BigEndian.Uint32(msg[4:]),
	}, nil
}

// netFlow9Length returns the octets of the packet at the start of b; see
// MessageLength.
func netFlow9Length(b []byte) (int, error) {
	if _, err := parseNetFlow9(b[:min(len(b), MaxMessage)]); err != nil {
		return 0, err
	}
	for at := netFlow9HeaderLength; at < len(b); {
		if len(b)-at >= 2 {
			switch binary.BigEndian.Uint16(b[at:]) {
			case Version, NetFlow9, NetFlow5:
				return at, nil
			}
		}
		if len(b)-at > setHeaderLength && zeros(b[at:at+setHeaderLength]) {
			at += setHeaderLength // padding of the packet
			continue
		}
		s, err := (&Header{Version: NetFlow9}).set(b, at)
		if err != nil {
			return 0, err
		}
		at = s.end
	}
	return len(b), nil
}

// flowSetID returns the Set ID of IPFIX for a FlowSet ID.
func flowSetID(id uint16) uint16 {
	switch id {
	case templateFlowSet:
		return templateSet
	case optionsTemplateFlowSet:
		return optionsTemplateSet
	case templateSet, optionsTemplateSet:
		return templateFlowSet // reserved in NetFlow
	}
	return id
}

// parseNetFlow9Definition reads the Template Record or Options Template Record
// at the start of b, and returns its length. Its fields are written as Field
// Specifiers of IPFIX into scratch, which may be too small.
func parseNetFlow9Definition(b []byte, options bool, scratch []byte) (d definition, n int, err error) {
	n = templateHeaderLength
	scopes := 0
	if options {
		n = optionsTemplateHeaderLength
	}
	if len(b) < n {
		return d, 0, ErrLength
	}
	d.id, d.fields = binary.BigEndian.Uint16(b), scratch[:0]
	d.count = int(binary.BigEndian.Uint16(b[2:]))
	if options {
		// Lengths in octets, of the scope fields and of the others.
		scope, option := d.count, int(binary.BigEndian.Uint16(b[4:]))
		if scope%4 != 0 || option%4 != 0 {
			return d, 0, ErrLength
		}
		scopes, d.count = scope/4, (scope+option)/4
	}
	switch {
	case d.id < minTemplateID:
		return d, 0, ErrTemplateID
	case d.count == 0:
		return d, 0, ErrEmpty
	case len(b)-n < 4*d.count:
		return d, 0, ErrLength
	}
	for i := range d.count {
		typ := binary.BigEndian.Uint16(b[n:])
		f := FieldSpecifier{ID: typ, Length: binary.BigEndian.Uint16(b[n+2:])}
		n += 4
		switch {
		case i < scopes && int(typ) < len(netFlow9Scopes) && typ > 0:
			f.ID = netFlow9Scopes[typ]
		case typ&enterpriseBit != 0:
			f.ID, f.Enterprise = typ&^enterpriseBit, NetFlowPEN
		}
		d.fields = f.Append(d.fields)
		d.minLength += f.minLength()
	}
	if d.minLength == 0 {
		return d, 0, ErrEmpty
	}
	if options {
		if scopes == 0 {
			// All that the exporter has to do with: the System, in no octets.
			system := FieldSpecifier{ID: ExportingProcessId}.Append(nil)
			d.fields = append(d.fields, system...)
			copy(d.fields[len(system):], d.fields)
			copy(d.fields, system)
			scopes = 1
			d.count++
		}
		d.scope = scopes
	}
	d.stamped = d.wantsStamp()
	return d, n, nil
}

// wantsStamp reports whether records tell times by the exporter's up time, but
// not its start.
func (d *definition) wantsStamp() bool {
	up := false
	for rest := d.fields; len(rest) > 0; {
		var f FieldSpecifier
		f, rest = parseField(rest)
		switch (Element{f.Enterprise, f.ID}) {
		case Element{0, SystemInitTimeMilliseconds}:
			return false
		case Element{0, FlowStartSysUpTime}, Element{0, FlowEndSysUpTime}:
			up = true
		}
	}
	return up && d.scope == 0
}
