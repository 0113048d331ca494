package ipfix

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawTemplate draws a Template of a few known elements, of any length that
// the wire allows.
func drawTemplate(t *rapid.T) *Template {
	field := rapid.Custom(func(t *rapid.T) FieldSpecifier {
		f := FieldSpecifier{ID: rapid.SampledFrom([]uint16{
			OctetDeltaCount, PacketDeltaCount, ProtocolIdentifier, SourceIPv4Address, SourceIPv6Address, InterfaceName,
			FlowStartSeconds, FlowStartMilliseconds, FlowStartMicroseconds, FlowStartNanoseconds, 32000,
		}).Draw(t, "id")}
		f.Enterprise = rapid.SampledFrom([]uint32{0, 0, 0, ReversePEN, 637}).Draw(t, "enterprise")
		f.Length = uint16(elements[min(int(f.ID), len(elements)-1)].Type.Length())
		if f.Length == 0 || rapid.Bool().Draw(t, "odd") {
			f.Length = rapid.SampledFrom([]uint16{1, 2, 3, 4, 7, 8, 9, 16, VariableLength, 0}).Draw(t, "length")
		}
		return f
	})
	fields := rapid.SliceOfN(field, 1, 12).Filter(func(fields []FieldSpecifier) bool {
		return slices.ContainsFunc(fields, func(f FieldSpecifier) bool { return f.Length > 0 })
	}).Draw(t, "fields")
	id := rapid.Uint16Range(minTemplateID, minTemplateID+20).Draw(t, "template")
	if scope := rapid.IntRange(0, len(fields)).Draw(t, "scope"); scope > 0 {
		template, err := NewOptionsTemplate(id, scope, fields...)
		if err != nil {
			t.Fatal(err)
		}
		return template
	}
	template, err := NewTemplate(id, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// drawRecord draws a record of a Template, and its values.
func drawRecord(t *rapid.T, template *Template) (record []byte, values [][]byte) {
	for _, f := range template.Fields {
		n := int(f.Length)
		if n == VariableLength {
			n = rapid.SampledFrom([]int{0, 1, 4, 8, 9, 16, 254, 255, 300}).Draw(t, "variable")
		}
		v := rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "value")
		values = append(values, v)
		switch {
		case f.Length != VariableLength:
			record = append(record, v...)
		case n < 255 && rapid.Bool().Draw(t, "long form"):
			record = append(append(record, 255, 0, byte(n)), v...)
		default:
			record = AppendVariable(record, v)
		}
	}
	return record, values
}

// A Plan reads what the plainest reading of the fields gives, wherever they
// are.
func TestPlanModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		template := drawTemplate(t)
		octets, values := drawRecord(t, template)
		r, err := template.Record(octets)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			if !bytes.Equal(r.Field(i), v) {
				t.Fatalf("field %d is %x, want %x", i, r.Field(i), v)
			}
			a := template.AccessorAt(i)
			if a.Uint64(r) != unsigned(v) || !bytes.Equal(a.Bytes(r), v) || a.Index() != i {
				t.Fatalf("field %d: %d, want %d", i, a.Uint64(r), unsigned(v))
			}
		}
		var columns []Column
		slot := 0
		for _, f := range template.Fields {
			e := []Element{{f.Enterprise, f.ID}}
			columns = append(columns, Column{slot, Number, e}, Column{slot + 1, UnixMilli, e}, Column{slot + 2, Address, e})
			slot += 4
		}
		plan := template.Plan(columns...)
		row := make([]uint64, plan.Width())
		plan.Read(r, row)
		for c, column := range columns {
			i, _ := template.Index(column.Elements[0].Enterprise, column.Elements[0].ID)
			got, ok := plan.Field(c)
			if ok && got != i {
				t.Fatalf("column %d reads field %d, want %d", c, got, i)
			}
			v, length := values[i], template.Fields[i].Length
			var want [2]uint64
			var wantOK bool
			switch column.Form {
			case Number:
				want[0], wantOK = unsigned(v), length >= 1 && length <= 8 || length == VariableLength
			case UnixMilli:
				ms, _ := unixMilli(template.Fields[i].Element().Type, v)
				want[0] = uint64(ms)
				wantOK = template.Fields[i].Element().Type.isTime(int(length))
			case Address:
				wantOK = length == 4 || length == 16 || length == VariableLength
				if a, ok := netip.AddrFromSlice(v); ok {
					b := a.As16()
					want[0], want[1] = unsigned(b[:8]), unsigned(b[8:])
				}
			}
			if ok != wantOK {
				t.Fatalf("column %d of form %d and length %d: %t", c, column.Form, length, ok)
			}
			if !ok {
				want = [2]uint64{}
			}
			if row[column.Slot] != want[0] || column.Form == Address && row[column.Slot+1] != want[1] {
				t.Fatalf("column %d of form %d, value %x: %x, want %x", c, column.Form, v, row[column.Slot:], want)
			}
			if a, valid := netip.AddrFromSlice(v); ok && valid && column.Form == Address && Addr(want[0], want[1]) != a.Unmap() {
				t.Fatalf("address %v", Addr(want[0], want[1]))
			}
		}
	})
}

// Records read together are as each is by itself, however many rows there is
// room for, and nothing beyond the rows of their columns is written.
func TestReadRowsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		template := drawTemplate(t)
		var octets []byte
		var sizes []int
		for range rapid.IntRange(0, 10).Draw(t, "records") {
			r, _ := drawRecord(t, template)
			octets, sizes = append(octets, r...), append(sizes, len(r))
		}
		var columns []Column
		for i, f := range template.Fields {
			form := rapid.SampledFrom([]Form{Number, UnixMilli, Address}).Draw(t, "form")
			columns = append(columns, Column{2 * i, form, []Element{{f.Enterprise, f.ID}}})
		}
		plan := template.Plan(columns...)
		set, err := NewDataSet(Header{}, template, octets)
		if err != nil {
			t.Fatal(err)
		}
		stride := 2*len(columns) + rapid.IntRange(0, 2).Draw(t, "beside")
		rows := make([]uint64, rapid.IntRange(0, 4).Draw(t, "rows")*stride+rapid.IntRange(0, stride-1).Draw(t, "part of one"))
		together := template.Fixed() && len(plan.scans) == 0
		for from := 0; ; {
			for i := range rows {
				rows[i] = 0xabcdef
			}
			n := plan.ReadRows(&set, from, rows, stride)
			want := 0
			if together {
				want = min(len(sizes)-from, len(rows)/stride)
			}
			if n != want {
				t.Fatalf("%d records read from %d on, want %d", n, from, want)
			}
			for i := range len(rows) / stride {
				each := make([]uint64, stride)
				for j := range each {
					each[j] = 0xabcdef
				}
				if i < n {
					size := template.MinLength()
					r, err := template.Record(octets[(from+i)*size:][:size])
					if err != nil {
						t.Fatal(err)
					}
					plan.Read(r, each)
				}
				if got := rows[i*stride:][:stride]; !slices.Equal(got, each) {
					t.Fatalf("record %d: %x, want %x", from+i, got, each)
				}
			}
			if n == 0 {
				break
			}
			from += n
		}
	})
}

func TestPlanTakesTheFirstElementThatSuits(t *testing.T) {
	template, err := NewTemplate(256,
		FieldSpecifier{ID: FlowStartSeconds, Length: 4},
		FieldSpecifier{ID: FlowStartMilliseconds, Length: 4}, // no length for it
		FieldSpecifier{ID: OctetDeltaCount, Length: 8},
		FieldSpecifier{ID: OctetDeltaCount, Length: 4})
	if err != nil {
		t.Fatal(err)
	}
	plan := template.Plan(
		Column{0, UnixMilli, []Element{{0, FlowStartMilliseconds}, {0, FlowStartSeconds}}},
		Column{1, Number, []Element{{0, OctetTotalCount}, {0, OctetDeltaCount}}},
		Column{2, Number, []Element{{0, OctetTotalCount}}},
		Column{Form: Number})
	want := []struct {
		field int
		ok    bool
	}{{0, true}, {2, true}, {-1, false}, {-1, false}}
	for i, w := range want {
		if field, ok := plan.Field(i); field != w.field || ok != w.ok {
			t.Errorf("column %d reads field %d, %t", i, field, ok)
		}
	}
	if plan.Width() != 3 {
		t.Errorf("width %d", plan.Width())
	}
	defer func() {
		if recover() == nil {
			t.Error("a negative slot was taken")
		}
	}()
	template.Plan(Column{Slot: -1})
}
