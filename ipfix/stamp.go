package ipfix

import (
	"encoding/binary"
	"slices"
)

// Records of NetFlow tell times by the exporter's up time, whose start, and of
// version 5 the sampling, is in the header of their packet. A Template for
// such records has fields for that after those which the exporter sends, and
// a Data Set of it is rewritten to hold them: it is stamped.

// stampFields come after the fields of every Template with a stamp.
var stampFields = []FieldSpecifier{{ID: SystemInitTimeMilliseconds, Length: 8}}

// stampFields returns how many fields the Template's stamp has.
func (d *definition) stampFields() int {
	if !d.stamped {
		return 0
	}
	return len(stampFields) + len(d.stamp)
}

// stamped returns the Template for sent with the stamp's fields after its own.
func (sent *Template) stamped(more []FieldSpecifier) *Template {
	d := definition{id: sent.ID, scope: sent.Scope, count: len(sent.Fields), fields: sent.wire, minLength: sent.minLength}
	d.fields = d.fields[:len(d.fields):len(d.fields)]
	for _, fields := range [][]FieldSpecifier{stampFields, more} {
		for _, f := range fields {
			d.fields = f.Append(d.fields)
			d.minLength += f.minLength()
			d.count++
		}
	}
	t := d.template(sent.Domain)
	t.sent = sent
	return t
}

// stamp appends the records of a Data Set as the exporter sent them, each with
// its stamp.
func (t *Template) stamp(b, content []byte, h *Header, scratch *layout) []byte {
	up, ok := t.sent.Accessor(0, FlowEndSysUpTime)
	if !ok {
		up, _ = t.sent.Accessor(0, FlowStartSysUpTime)
	}
	_, known := h.InitTime()
	exported, sampled := h.exportMilli(), h.sampled()
	sent := DataSet{Template: t.sent, octets: content, layout: t.sent.layout(scratch)}
	b = slices.Grow(b, len(content)/t.sent.minLength*(t.minLength-t.sent.minLength)+len(content))
	for r, ok := sent.Next(); ok; r, ok = sent.Next() {
		b = append(b, r.octets...)
		var init uint64
		if known {
			init = initTime(exported, h.UpTime, uint32(up.Uint64(r)))
		}
		b = binary.BigEndian.AppendUint64(b, init)
		if sampled {
			b = binary.BigEndian.AppendUint16(b, h.sampling&samplingInterval)
			b = append(b, byte(h.sampling>>samplingModeShift))
		}
	}
	return b
}
