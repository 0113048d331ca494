package ipfix

import (
	"encoding/hex"
	"strings"
)

// Bounds of a list that is shown to people.
const (
	maxListDepth = 8       // lists within lists
	maxListText  = 1 << 16 // octets
)

// FormatList returns a value of structured data (RFC 6313) for people:
//
//	allOf[10.0.0.1, 10.0.0.2]
//	ordered[{sourceIPv4Address=10.0.0.1, octetDeltaCount=7}]
//
// Lists that are malformed or too deep, and records whose Template is not
// known, are shown in hexadecimal. What is very long ends in "...".
func FormatList(t Type, b []byte, templates TemplateFunc) string {
	f := listFormatter{templates: templates}
	f.value(t, b, 0)
	if f.full() {
		return strings.ToValidUTF8(f.String()[:maxListText], "") + "..."
	}
	return f.String()
}

type listFormatter struct {
	strings.Builder
	templates TemplateFunc
}

func (f *listFormatter) full() bool { return f.Len() > maxListText }

func (f *listFormatter) value(t Type, b []byte, depth int) {
	if f.full() {
		return
	}
	if !t.structured() {
		f.WriteString(FormatValue(t, b))
		return
	}
	l, err := ParseList(t, b, f.templates)
	if err != nil || depth == maxListDepth {
		f.WriteString(hex.EncodeToString(b))
		return
	}
	f.WriteString(l.Semantic.String())
	f.WriteByte('[')
	separator := ""
	for v := range l.Values() {
		f.WriteString(separator)
		f.value(l.Field.Element().Type, v, depth+1)
		if separator = ", "; f.full() {
			return
		}
	}
	for p := range l.Parts() {
		if p.Template == nil {
			f.WriteString(separator + hex.EncodeToString(p.Octets()))
			separator = ", "
		}
		for r := range p.Records() {
			f.WriteString(separator)
			f.record(p.Template, r, depth+1)
			if separator = ", "; f.full() {
				return
			}
		}
	}
	f.WriteByte(']')
}

func (f *listFormatter) record(t *Template, r Record, depth int) {
	separator := "{"
	for i, field := range t.Fields {
		if f.full() {
			return
		}
		e := field.Element()
		f.WriteString(separator + e.String() + "=")
		f.value(e.Type, r.Field(i), depth)
		separator = ", "
	}
	f.WriteByte('}')
}
