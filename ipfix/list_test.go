package ipfix

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// subTemplates are Templates that lists of records refer to.
func subTemplates(tb testing.TB) (fixed, variable *Template, all TemplateFunc) {
	tb.Helper()
	fixed, err := NewTemplate(256, FieldSpecifier{ID: SourceIPv4Address, Length: 4}, FieldSpecifier{ID: OctetDeltaCount, Length: 2})
	if err != nil {
		tb.Fatal(err)
	}
	variable, err = NewTemplate(257, FieldSpecifier{ID: InterfaceName, Length: VariableLength}, FieldSpecifier{ID: BasicList, Length: VariableLength})
	if err != nil {
		tb.Fatal(err)
	}
	return fixed, variable, func(id uint16) *Template {
		switch id {
		case 256:
			return fixed
		case 257:
			return variable
		}
		return nil
	}
}

func TestParseList(t *testing.T) {
	_, _, templates := subTemplates(t)
	for _, test := range []struct {
		name  string
		typ   Type
		value string // hexadecimal
		text  string // "" if it is malformed
	}{
		{"a basicList (4.5.1)", TypeBasicList, "03 000a 0002 0001 0004", "allOf[1, 4]"},
		{"an element of an enterprise (4.5.1)", TypeBasicList, "04 8001 0001 00007279 07", "ordered[7]"},
		{"elements of variable length (4.5.1)", TypeBasicList, "00 0052 ffff 04 65746830 ff0001 61", "noneOf[eth0, a]"},
		{"no elements (4.5.1)", TypeBasicList, "ff 000a 0002", "undefined[]"},
		{"a basicList of basicLists", TypeBasicList, "01 0123 ffff 06 02 0004 0001 06 05 02 0004 0001", "exactlyOneOf[oneOrMoreOf[6], oneOrMoreOf[]]"},
		{"a subTemplateList (4.5.2)", TypeSubTemplateList, "03 0100 0a000001 0007 0a000002 0008",
			"allOf[{sourceIPv4Address=10.0.0.1, octetDeltaCount=7}, {sourceIPv4Address=10.0.0.2, octetDeltaCount=8}]"},
		{"an empty subTemplateList (4.5.2)", TypeSubTemplateList, "03 0100", "allOf[]"},
		{"a list within a record of a list", TypeSubTemplateList, "04 0101 02 6c6f 06 00 0004 0001 11",
			"ordered[{interfaceName=lo, basicList=noneOf[17]}]"},
		{"two Templates in a subTemplateMultiList (4.5.3)", TypeSubTemplateMultiList, "01 0100 000a 0a000001 0007 0101 000c 01 61 05 ff 0004 0001",
			"exactlyOneOf[{sourceIPv4Address=10.0.0.1, octetDeltaCount=7}, {interfaceName=a, basicList=undefined[]}]"},
		{"an empty subTemplateMultiList (4.5.3)", TypeSubTemplateMultiList, "00", "noneOf[]"},
		{"a Template that is not known", TypeSubTemplateMultiList, "00 0999 0006 abcd", "noneOf[abcd]"},

		{"no octets", TypeBasicList, "", ""},
		{"a Field Specifier cut off", TypeBasicList, "03 000a 00", ""},
		{"an Enterprise Number cut off", TypeBasicList, "03 800a 0002 0000", ""},
		{"an element cut off", TypeBasicList, "03 000a 0002 0001 00", ""},
		{"an element of variable length cut off", TypeBasicList, "03 0052 ffff 05 65746830", ""},
		{"its length cut off", TypeBasicList, "03 0052 ffff ff00", ""},
		{"elements of no octets", TypeBasicList, "03 000a 0000 00", ""},
		{"a Template ID cut off", TypeSubTemplateList, "03 01", ""},
		{"no Template ID", TypeSubTemplateList, "03", ""},
		{"a record cut off", TypeSubTemplateList, "03 0100 0a000001 00", ""},
		{"a record of variable length cut off", TypeSubTemplateList, "04 0101 02 6c", ""},
		{"a part shorter than its header", TypeSubTemplateMultiList, "01 0100 0003", ""},
		{"a part longer than the list", TypeSubTemplateMultiList, "01 0100 000b 0a000001 0007", ""},
		{"a part's header cut off", TypeSubTemplateMultiList, "01 0100 00", ""},
		{"a type that is no list", TypeUnsigned8, "01", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := hex.DecodeString(strings.ReplaceAll(test.value, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseList(test.typ, b, templates)
			if test.text == "" {
				if !errors.Is(err, ErrList) {
					t.Errorf("error %v", err)
				}
				if got := FormatList(test.typ, b, templates); test.typ.structured() && got != hex.EncodeToString(b) {
					t.Errorf("shown as %s", got)
				}
				return
			}
			if got := FormatList(test.typ, b, templates); err != nil || got != test.text {
				t.Errorf("%s, %v\nwant %s", got, err, test.text)
			}
		})
	}
}

// Lists nest without end; people are shown a part of it.
func TestListDepth(t *testing.T) {
	field := FieldSpecifier{ID: BasicList, Length: VariableLength}
	value := []byte{3, 0, 4, 0, 1, 6}
	for range 100 {
		var err error
		if value, err = AppendBasicList(nil, AllOf, field, value); err != nil {
			t.Fatal(err)
		}
	}
	if got := FormatValue(TypeBasicList, value); strings.Count(got, "[") != maxListDepth {
		t.Errorf("%s", got)
	}
}

// A short value can't make a very long text.
func TestListText(t *testing.T) {
	fields := make([]FieldSpecifier, 1000)
	for i := range fields {
		fields[i].ID = SourceIPv4Address
	}
	fields[0].Length = 1
	wide, err := NewTemplate(256, fields...)
	if err != nil {
		t.Fatal(err)
	}
	value := append([]byte{3, 1, 0}, make([]byte, 60000)...)
	got := FormatList(TypeSubTemplateList, value, func(uint16) *Template { return wide })
	if len(got) > maxListText+3 || !strings.HasSuffix(got, "...") {
		t.Errorf("%d octets", len(got))
	}
}

// Lists decode to what was encoded.
func TestListRoundTrip(t *testing.T) {
	fixed, variable, templates := subTemplates(t)
	rapid.Check(t, func(t *rapid.T) {
		semantic := ListSemantic(rapid.SampledFrom([]int{0, 1, 2, 3, 4, 255}).Draw(t, "semantic"))
		names := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 20).Draw(t, "names")
		values := make([]any, len(names))
		for i, n := range names {
			values[i] = n
		}
		basic, err := AppendBasicList(nil, semantic, FieldSpecifier{ID: InterfaceName, Length: VariableLength}, values...)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ParseList(TypeBasicList, basic, nil)
		if err != nil || l.Semantic != semantic || !slices.EqualFunc(slices.Collect(l.Values()), names, bytes.Equal) {
			t.Fatalf("%+v, %v", l, err)
		}

		var parts []SubTemplate
		for range rapid.IntRange(0, 4).Draw(t, "parts") {
			p := SubTemplate{Template: rapid.SampledFrom([]*Template{fixed, variable}).Draw(t, "template")}
			for range rapid.IntRange(0, 5).Draw(t, "records") {
				values := []any{netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))), rapid.Uint16().Draw(t, "octets")}
				if p.Template == variable {
					values = []any{"eth0", basic}
				}
				r, err := p.Template.AppendRecord(nil, values...)
				if err != nil {
					t.Fatal(err)
				}
				p.Records = append(p.Records, r)
			}
			parts = append(parts, p)
			one, err := AppendSubTemplateList(nil, semantic, p.Template, p.Records...)
			if err != nil {
				t.Fatal(err)
			}
			checkParts(t, TypeSubTemplateList, one, templates, p)
		}
		multi, err := AppendSubTemplateMultiList(nil, semantic, parts...)
		if err != nil {
			t.Fatal(err)
		}
		checkParts(t, TypeSubTemplateMultiList, multi, templates, parts...)
	})
}

func checkParts(t *rapid.T, typ Type, value []byte, templates TemplateFunc, want ...SubTemplate) {
	l, err := ParseList(typ, value, templates)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for p := range l.Parts() {
		var records [][]byte
		for r := range p.Records() {
			records = append(records, r.Bytes())
		}
		if p.Template != want[n].Template || !slices.EqualFunc(records, want[n].Records, bytes.Equal) {
			t.Fatalf("part %d: %x, want %x", n, records, want[n].Records)
		}
		n++
	}
	if n != len(want) {
		t.Fatalf("%d parts, want %d", n, len(want))
	}
}

func TestAppendListRefuses(t *testing.T) {
	fixed, _, _ := subTemplates(t)
	long := make([]byte, 60000)
	if _, err := AppendBasicList(nil, AllOf, FieldSpecifier{ID: OctetDeltaCount, Length: 8}, "seven"); !errors.Is(err, ErrValue) {
		t.Error(err)
	}
	if _, err := AppendBasicList(nil, AllOf, FieldSpecifier{ID: InterfaceName, Length: VariableLength}, long, long); !errors.Is(err, ErrValue) {
		t.Error(err)
	}
	if _, err := AppendSubTemplateList(nil, AllOf, fixed, []byte{1}); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
	if _, err := AppendSubTemplateMultiList(nil, AllOf, SubTemplate{fixed, [][]byte{{1}}}); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
	record := make([]byte, fixed.MinLength())
	if _, err := AppendSubTemplateMultiList(nil, AllOf, SubTemplate{fixed, slices.Repeat([][]byte{record}, 12000)}); !errors.Is(err, ErrValue) {
		t.Error(err)
	}
}

func FuzzParseList(f *testing.F) {
	_, _, templates := subTemplates(f)
	f.Add(byte(TypeBasicList), []byte{3, 0, 10, 0, 2, 0, 1, 0, 4})
	f.Add(byte(TypeSubTemplateList), []byte{3, 1, 0, 10, 0, 0, 1, 0, 7})
	f.Add(byte(TypeSubTemplateMultiList), []byte{1, 1, 0, 0, 10, 10, 0, 0, 1, 0, 7, 1, 1, 0, 12, 1, 'a', 5, 255, 0, 4, 0, 1})
	f.Fuzz(func(t *testing.T, typ byte, b []byte) {
		FormatList(Type(typ), b, templates)
		l, err := ParseList(Type(typ), b, templates)
		if err != nil {
			return
		}
		octets := 0
		for v := range l.Values() {
			octets += len(v)
		}
		for p := range l.Parts() {
			for r := range p.Records() {
				octets += len(r.Bytes())
			}
		}
		if octets > len(b) {
			t.Errorf("%d octets of %d", octets, len(b))
		}
	})
}
