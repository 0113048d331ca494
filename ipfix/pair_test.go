package ipfix

import (
	"bytes"
	"syscall"
	"testing"
)

// FuzzPlan reads records of any Template by a Plan of any columns, and by a
// plain walk over the octets, which must agree. A record lies once right before
// memory that can't be read, and once right behind it, and what surrounds the
// row must not change: readPairs checks no index itself.
func FuzzPlan(f *testing.F) {
	add := func(columns string, record []byte, fields ...FieldSpecifier) {
		template, err := NewTemplate(256, fields...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(template.Append(nil), []byte(columns), record)
	}
	flow := []FieldSpecifier{
		{ID: SourceIPv4Address, Length: 4}, {ID: DestinationIPv4Address, Length: 4}, {ID: OctetDeltaCount, Length: 8},
		{ID: PacketDeltaCount, Length: 3}, {ID: ProtocolIdentifier, Length: 1}, {ID: FlowEndMilliseconds, Length: 8},
	}
	add("\x00\x02\x01\x02\x02\x00\x03\x00\x04\x00\x05\x01", bytes.Repeat([]byte{1, 2, 3, 250}, 14), flow...)
	add("\x04\x00\x03\x00", bytes.Repeat([]byte{200}, 28), flow...) // an odd number of loads
	add("\x00\x00", []byte{7}, FieldSpecifier{ID: ProtocolIdentifier, Length: 1})
	add("\x00\x00\x01\x00\x02\x02\x02\x00\x03\x01", append([]byte("\x03lo0"), make([]byte, 32)...),
		FieldSpecifier{ID: InterfaceName, Length: VariableLength}, FieldSpecifier{ID: OctetDeltaCount, Length: 4},
		FieldSpecifier{ID: SourceIPv6Address, Length: 16}, FieldSpecifier{ID: FlowStartNanoseconds, Length: 8})
	add("\x00\x00\x00\x02", []byte("\xff\x00\x04\x0a\x00\x00\x01"), FieldSpecifier{ID: SourceIPv4Address, Length: VariableLength})
	// An IPv4 address too near to both ends of its record for a load of eight octets.
	add("\x00\x01", []byte{192, 0, 2, 1}, FieldSpecifier{ID: SourceIPv4Address, Length: 4})

	before, after := guarded(f)
	f.Fuzz(func(t *testing.T, definition, columns, octets []byte) {
		template, _, err := ParseTemplate(definition, false)
		if err != nil || len(template.Fields) > 100 {
			return
		}
		var wanted []Column
		slot := 1 // one before them is nobody's
		for i := 0; i+1 < len(columns) && len(wanted) < 100; i += 2 {
			field := int(columns[i]) % len(template.Fields)
			s := template.Fields[field]
			c := Column{slot, Form(columns[i+1] % 3), []Element{{s.Enterprise, s.ID}}}
			wanted = append(wanted, c)
			if slot++; c.Form == Address {
				slot++
			}
		}
		plan := template.Plan(wanted...)
		const canary = 0xfeedfacecafebeef
		row := make([]uint64, plan.Width()+2)
		for len(octets) > 0 {
			values, n := walk(template.Fields, octets)
			if values == nil || n == 0 || n > len(before) {
				return
			}
			at := before[len(before)-n:]
			for _, memory := range [][]byte{at, after[:n:n]} {
				copy(memory, octets[:n])
				r, err := template.Record(memory)
				if err != nil {
					t.Fatalf("%x is no record of %+v: %v", memory, template.Fields, err)
				}
				for i := range row {
					row[i] = canary
				}
				plan.Read(r, row[:plan.Width()])
				written := map[int]uint64{}
				for i, c := range wanted {
					if field, ok := plan.Field(i); ok {
						plainly(c, template.Fields[field], values[field], written)
					}
				}
				for i, got := range row {
					want, ok := written[i]
					if !ok {
						want = canary
					}
					if want == leftOrZero && (got == canary || got == 0) {
						continue
					}
					if got != want {
						t.Fatalf("slot %d is %x, want %x: columns %+v of %x as %+v", i, got, want, wanted, memory, template.Fields)
					}
				}
			}
			octets = octets[n:]
		}
	})
}

// walk returns the values in the record at the start of b, and its length; nil
// if it is cut off.
func walk(fields []FieldSpecifier, b []byte) (values [][]byte, length int) {
	at := 0
	for _, f := range fields {
		n := int(f.Length)
		if f.Length == VariableLength {
			if at >= len(b) {
				return nil, 0
			}
			n, at = int(b[at]), at+1
			if n == 255 {
				if at+2 > len(b) {
					return nil, 0
				}
				n, at = int(b[at])<<8|int(b[at+1]), at+2
			}
		}
		if at+n > len(b) {
			return nil, 0
		}
		values, at = append(values, b[at:at+n]), at+n
	}
	return values, at
}

// leftOrZero stands for the high half of an IPv4 address, which a Plan leaves as
// it was, or clears where the value can't be loaded as a word.
const leftOrZero = 0xfadedfadedfaded1

// plainly writes what a column is to have of a value.
func plainly(c Column, f FieldSpecifier, value []byte, row map[int]uint64) {
	number := func(b []byte) (v uint64) {
		for i, o := range b {
			if i < len(b)-8 && o != 0 {
				return 1<<64 - 1
			}
			v = v<<8 | uint64(o)
		}
		return v
	}
	switch c.Form {
	case Number:
		row[c.Slot] = number(value)
	case UnixMilli:
		at, _ := timeOf(f.Element().Type, value)
		row[c.Slot] = uint64(at.UnixMilli())
		if f.Element().Type == TypeDateTimeMilliseconds {
			row[c.Slot] = number(value) & milliMask
		}
	case Address:
		switch {
		case len(value) == 16:
			row[c.Slot], row[c.Slot+1] = number(value[:8]), number(value[8:])
		case len(value) == 4:
			row[c.Slot] = leftOrZero
			if f.Length == VariableLength { // the record before may have had an IPv6 address
				row[c.Slot] = 0
			}
			row[c.Slot+1] = 0xffff<<32 | number(value)
		default:
			row[c.Slot], row[c.Slot+1] = 0, 0
		}
	}
}

// guarded returns memory with nothing readable behind it, and memory with
// nothing readable before it.
func guarded(tb testing.TB) (before, after []byte) {
	tb.Helper()
	page := syscall.Getpagesize()
	m, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err == nil {
		err = syscall.Mprotect(m[page:2*page], syscall.PROT_NONE)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { syscall.Munmap(m) })
	return m[:page:page], m[2*page:]
}
