package dict

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

// What can be wrong with a flow.
var (
	// ErrNoFlow says that there is no Flow AVP of the vendor.
	ErrNoFlow = errors.New("no Flow AVP")
	// ErrFlow says that a Flow AVP is not one that AppendFlow wrote.
	ErrFlow = errors.New("invalid Flow AVP")
	// ErrUnknownElement says that a Flow AVP has an element's AVP that this
	// version's registry does not know.
	ErrUnknownElement = errors.New("unknown Information Element")
	// ErrRecord says that a record does not have the octets that its Template
	// describes.
	ErrRecord = errors.New("record does not fit its Template")
)

// The data of a Flow-Template AVP is a header, and an exception of four octets
// for each field whose Field Length is not the one that its AVP implies:
//
//	Template ID (2) | Scope Field Count (2) | Observation Domain ID (4)
//	field number (2), with longPrefix or not | Field Length (2)
//
// Field numbers count from zero and ascend. An element's AVP implies the length
// of its abstract data type, or a variable one where the type has none; an
// Information-Element AVP implies the octets that it has.
const (
	flowTemplateHeader = 8
	longPrefix         = 0x8000 // the value's length was written in three octets though one would do (RFC 7011, Section 7)
)

// AppendFlow appends a Flow AVP that carries the record of Template t: its
// elements in their order, the M bit clear, and a Flow-Template. record is the
// whole record as it was on the wire. The error is ErrRecord, with b unchanged.
func (d *Dictionary) AppendFlow(b []byte, t *ipfix.Template, record []byte) ([]byte, error) {
	var some [32]uint32
	exceptions := some[:0]
	out, group := avp.Begin(b, Flow, d.vendor, 0)
	for i, f := range t.Fields {
		n, prefix := int(f.Length), uint32(0)
		if f.Length == ipfix.VariableLength {
			length, size := variableLength(record)
			if size == 0 {
				return b, fmt.Errorf("dict: field %d of template %d: %w", i, t.ID, ErrRecord)
			}
			if record = record[size:]; size == 3 && length < 255 {
				prefix = longPrefix
			}
			n = length
		}
		if n > len(record) {
			return b, fmt.Errorf("dict: field %d of template %d: %w", i, t.ID, ErrRecord)
		}
		value := record[:n]
		record = record[n:]

		natural, ok := uint16(0), false
		if kind, known := elementType(f.Enterprise, f.ID); known && (f.Length != ipfix.VariableLength || kind.Length() == 0) {
			out, natural, ok = appendValue(out, elementCode(f.Enterprise, f.ID), d.vendor, kind, value)
		}
		if !ok {
			out, natural = d.appendElement(out, f, value), uint16(n)
		}
		if natural != f.Length || prefix != 0 {
			exceptions = append(exceptions, (uint32(i)|prefix)<<16|uint32(f.Length))
		}
	}
	if len(record) != 0 {
		return b, fmt.Errorf("dict: %d octets behind a record of template %d: %w", len(record), t.ID, ErrRecord)
	}
	out, template := avp.Begin(out, FlowTemplate, d.vendor, 0)
	out = binary.BigEndian.AppendUint16(out, t.ID)
	out = binary.BigEndian.AppendUint16(out, uint16(t.Scope))
	out = binary.BigEndian.AppendUint32(out, t.Domain)
	for _, e := range exceptions {
		out = binary.BigEndian.AppendUint32(out, e)
	}
	avp.End(out, template)
	avp.End(out, group)
	return out, nil
}

// appendElement appends an Information-Element AVP.
func (d *Dictionary) appendElement(b []byte, f ipfix.FieldSpecifier, value []byte) []byte {
	b, group := avp.Begin(b, InformationElement, d.vendor, 0)
	if f.Enterprise != 0 {
		b = avp.AppendUint32(b, EnterpriseNumber, d.vendor, 0, f.Enterprise)
	}
	b = avp.AppendUint32(b, ElementID, d.vendor, 0, uint32(f.ID))
	b = avp.Append(b, ElementOctets, d.vendor, 0, value)
	avp.End(b, group)
	return b
}

// variableLength reads the length before a value of variable length, and its
// own size in octets: 1 or 3, or 0 where it is cut off (RFC 7011, Section 7).
func variableLength(b []byte) (length, size int) {
	switch {
	case len(b) == 0:
		return 0, 0
	case b[0] < 255:
		return int(b[0]), 1
	case len(b) < 3:
		return 0, 0
	}
	return int(binary.BigEndian.Uint16(b[1:])), 3
}

// AppendExporter appends an Exporter-Name AVP, the M bit clear.
func (d *Dictionary) AppendExporter(b []byte, name string) []byte {
	return avp.AppendString(b, ExporterName, d.vendor, 0, name)
}

// ParseExporter returns the exporter that the first Exporter-Name AVP in flow
// names, "" if there is none.
func (d *Dictionary) ParseExporter(flow []byte) string {
	a, _ := avp.Find(flow, ExporterName, d.vendor)
	return string(a.Data)
}

// ParseFlow returns the Template and the record of the first Flow AVP in flow,
// which holds AVPs that AppendFlow and AppendClassifier wrote, or that Join put
// together. Both equal what AppendFlow was given. An error matches ErrNoFlow,
// ErrFlow, ErrUnknownElement or one of package avp.
func (d *Dictionary) ParseFlow(flow []byte) (*ipfix.Template, []byte, error) {
	for a, err := range avp.Scan(flow) {
		if err != nil {
			return nil, nil, fmt.Errorf("dict: parse flow: %w", err)
		}
		if a.Is(Flow, d.vendor) {
			return d.parseFlow(a.Data)
		}
	}
	return nil, nil, fmt.Errorf("dict: parse flow: %w", ErrNoFlow)
}

// CheckFlow returns why ParseFlow would not give a record of usage: its error,
// or ErrFlow for a record of an Options Template.
func (d *Dictionary) CheckFlow(flow []byte) error {
	t, _, err := d.ParseFlow(flow)
	if err == nil && t.Scope > 0 {
		return fmt.Errorf("dict: flow of an options template: %w", ErrFlow)
	}
	return err
}

func (d *Dictionary) parseFlow(group []byte) (*ipfix.Template, []byte, error) {
	var template []byte
	count := 0
	for a, err := range avp.Scan(group) {
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("dict: parse flow: %w", err)
		case !a.Is(FlowTemplate, d.vendor):
			count++
		case template != nil:
			return nil, nil, fmt.Errorf("dict: parse flow: a second Flow-Template: %w", ErrFlow)
		default:
			template = a.Data
		}
	}
	if len(template) < flowTemplateHeader || len(template)%4 != 0 {
		return nil, nil, fmt.Errorf("dict: parse flow: Flow-Template of %d octets: %w", len(template), ErrFlow)
	}
	if count >= longPrefix {
		return nil, nil, fmt.Errorf("dict: parse flow: %d elements: %w", count, ErrFlow)
	}
	exceptions := template[flowTemplateHeader:]
	fields := make([]ipfix.FieldSpecifier, 0, count)
	record := make([]byte, 0, len(group)/2)
	for a := range avp.Scan(group) {
		if a.Is(FlowTemplate, d.vendor) {
			continue
		}
		length, long := -1, false
		if len(exceptions) > 0 && int(binary.BigEndian.Uint16(exceptions)&^longPrefix) == len(fields) {
			long = exceptions[0]&(longPrefix>>8) != 0
			length = int(binary.BigEndian.Uint16(exceptions[2:]))
			exceptions = exceptions[4:]
		}
		f, r, err := d.parseElement(record, a, length, long)
		if err != nil {
			return nil, nil, fmt.Errorf("dict: parse flow: element %d: %w", len(fields), err)
		}
		fields, record = append(fields, f), r
	}
	if len(exceptions) > 0 {
		return nil, nil, fmt.Errorf("dict: parse flow: exception for no element: %w", ErrFlow)
	}
	if len(record) > math.MaxUint16 {
		return nil, nil, fmt.Errorf("dict: parse flow: record of %d octets: %w", len(record), ErrFlow)
	}
	t, err := newTemplate(binary.BigEndian.Uint16(template), int(binary.BigEndian.Uint16(template[2:])), fields)
	if err != nil {
		return nil, nil, fmt.Errorf("dict: parse flow: %w: %w", ErrFlow, err)
	}
	t.Domain = binary.BigEndian.Uint32(template[4:])
	return t, record, nil
}

func newTemplate(id uint16, scope int, fields []ipfix.FieldSpecifier) (*ipfix.Template, error) {
	if scope == 0 {
		return ipfix.NewTemplate(id, fields...)
	}
	return ipfix.NewOptionsTemplate(id, scope, fields...)
}

// parseElement appends the value of the element in a to record. length is the
// Field Length by Flow-Template, or negative for what the AVP implies.
func (d *Dictionary) parseElement(record []byte, a avp.AVP, length int, long bool) (ipfix.FieldSpecifier, []byte, error) {
	var f ipfix.FieldSpecifier
	var kind ipfix.Type // octetArray for an Information-Element
	octets := a.Data
	switch enterprise, id, ok := CodeElement(a.Code); {
	case a.Vendor != d.vendor:
		return f, nil, fmt.Errorf("AVP %d of vendor %d: %w", a.Code, a.Vendor, ErrUnknownElement)
	case a.Code == InformationElement:
		var err error
		if f, octets, err = d.parseInformationElement(a.Data); err != nil {
			return f, nil, err
		}
		if length < 0 {
			length = len(octets)
		}
	case ok:
		f.Enterprise, f.ID = enterprise, id
		kind, _ = elementType(enterprise, id)
		if length < 0 {
			length = int(naturalLength(kind, len(octets)))
		}
	default:
		return f, nil, fmt.Errorf("AVP %d: %w", a.Code, ErrUnknownElement)
	}
	if length > math.MaxUint16 {
		return f, nil, fmt.Errorf("value of %d octets: %w", length, ErrFlow)
	}
	f.Length = uint16(length)
	if f.Length == ipfix.VariableLength {
		switch n := len(octets); {
		case n > math.MaxUint16 || kind.Length() != 0 || long && n >= 255:
			return f, nil, fmt.Errorf("variable length of AVP %d: %w", a.Code, ErrFlow)
		case n < 255 && !long:
			record = append(record, byte(n))
		default:
			record = append(record, 255, byte(n>>8), byte(n))
		}
	} else if long {
		return f, nil, fmt.Errorf("fixed length of AVP %d: %w", a.Code, ErrFlow)
	}
	record, ok := parseValue(record, kind, octets, f.Length)
	if !ok {
		return f, nil, fmt.Errorf("AVP %d does not have %d octets: %w", a.Code, f.Length, ErrFlow)
	}
	return f, record, nil
}

// parseInformationElement reads the data of an Information-Element AVP.
func (d *Dictionary) parseInformationElement(group []byte) (f ipfix.FieldSpecifier, octets []byte, err error) {
	var id, value bool
	for a, err := range avp.Scan(group) {
		if err != nil {
			return f, nil, err
		}
		switch {
		case a.Is(EnterpriseNumber, d.vendor):
			if f.Enterprise, err = a.Uint32(); err != nil {
				return f, nil, err
			}
		case a.Is(ElementID, d.vendor):
			n, err := a.Uint32()
			if err != nil {
				return f, nil, err
			}
			if n > math.MaxInt16 {
				return f, nil, fmt.Errorf("Element-Id %d: %w", n, ErrFlow)
			}
			f.ID, id = uint16(n), true
		case a.Is(ElementOctets, d.vendor):
			octets, value = a.Data, true
		default:
			return f, nil, fmt.Errorf("AVP %d in Information-Element: %w", a.Code, ErrFlow)
		}
	}
	if !id || !value {
		return f, nil, fmt.Errorf("Information-Element without Element-Id or Element-Octets: %w", ErrFlow)
	}
	return f, octets, nil
}
