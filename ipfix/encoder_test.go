package ipfix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// What an Encoder builds, a Session decodes to the same Templates and records.
func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := NewEncoder(rapid.Uint32().Draw(t, "domain"), rapid.SampledFrom([]int{0, 4000, 8000}).Draw(t, "maximum"))
		e.Padding = rapid.Bool().Draw(t, "padding")
		s := NewSession(TCP)
		var want, got [][]byte
		var sequence uint32
		flush := func() {
			n := e.Records()
			msg := e.Flush(1784851200)
			if msg == nil {
				return
			}
			if len(msg) > e.max || binary.BigEndian.Uint32(msg[8:]) != sequence {
				t.Fatalf("%d octets, sequence %d, want %d", len(msg), binary.BigEndian.Uint32(msg[8:]), sequence)
			}
			sequence += uint32(n)
			if e.Sequence() != sequence {
				t.Fatalf("next sequence %d", e.Sequence())
			}
			r, err := s.Decode(msg, func(set DataSet) {
				if set.Offset%4 != 0 && e.Padding && set.Template.MinLength() > 3 && len(want) == 0 {
					t.Fatalf("set at octet %d", set.Offset)
				}
				for r, ok := set.Next(); ok; r, ok = set.Next() {
					got = append(got, bytes.Clone(r.Bytes()))
				}
			})
			if err != nil || r.Lost != 0 || r.Restarted || r.Unknown != 0 || r.Records != uint64(n) {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		add := func(f func() error) {
			err := f()
			if errors.Is(err, ErrFull) {
				flush()
				err = f()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		held := map[uint16]*Template{}
		for range rapid.IntRange(1, 8).Draw(t, "templates") {
			template := drawTemplate(t)
			if old := held[template.ID]; old != nil {
				add(func() error { return e.Withdraw(old) })
			}
			held[template.ID] = template
			add(func() error { return e.AddTemplate(template) })
			for range rapid.IntRange(0, 6).Draw(t, "records") {
				record, _ := drawRecord(t, template)
				want = append(want, record)
				add(func() error { return e.AppendRecord(template, record) })
			}
		}
		flush()
		if len(got) != len(want) {
			t.Fatalf("%d records of %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("record %d is %x, want %x", i, got[i], want[i])
			}
		}
		for id, template := range held {
			if d := s.Template(e.domain, id); d.Fingerprint() != template.Fingerprint() || d.Scope != template.Scope {
				t.Fatalf("template %d is %+v", id, d)
			}
		}
		for _, options := range []bool{false, true} {
			add(func() error { return e.WithdrawAll(options) })
		}
		flush()
		if left := s.Templates(); len(left) != 0 {
			t.Fatalf("%d templates are left", len(left))
		}
	})
}

func TestEncoderLimits(t *testing.T) {
	template, err := NewTemplate(256, FieldSpecifier{ID: OctetDeltaCount, Length: 8})
	if err != nil {
		t.Fatal(err)
	}
	const room = HeaderLength + setHeaderLength
	e := NewEncoder(1, room+16)
	if e.Flush(0) != nil || e.Len() != 0 {
		t.Error("a message of nothing")
	}
	for range 2 {
		if err := e.AppendRecord(template, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	for _, add := range []func() error{
		func() error { return e.AppendRecord(template, make([]byte, 8)) },
		func() error { return e.AddRecord(template, 1) },
		func() error { return e.AddTemplate(template) },
		func() error { return e.Withdraw(template) },
		func() error { return e.WithdrawAll(true) },
	} {
		if err := add(); err != ErrFull {
			t.Errorf("a full message: %v", err)
		}
	}
	if msg := e.Flush(0); len(msg) != room+16 {
		t.Errorf("%d octets", len(msg))
	}
	if err := e.AppendRecord(template, make([]byte, 7)); !errors.Is(err, ErrLength) {
		t.Errorf("a record cut off: %v", err)
	}
	if err := e.AddRecord(template, "x"); !errors.Is(err, ErrValue) {
		t.Errorf("a wrong value: %v", err)
	}
	wide, err := NewTemplate(257, FieldSpecifier{ID: InterfaceName, Length: VariableLength})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AddRecord(wide, "more than sixteen octets"); !errors.Is(err, ErrLength) {
		t.Errorf("a record for no message: %v", err)
	}
	if e.Len() != 0 || e.Flush(0) != nil {
		t.Error("errors left something behind")
	}
}

// Padding MUST be shorter than any record of the Set (3.3.1).
func TestPadding(t *testing.T) {
	for _, test := range []struct{ length, records, want int }{{8, 1, 28}, {5, 1, 28}, {5, 2, 32}, {2, 1, 22}, {3, 1, 24}, {1, 1, 21}, {3, 3, 29}} {
		template, err := NewTemplate(256, FieldSpecifier{ID: 32000, Length: uint16(test.length)})
		if err != nil {
			t.Fatal(err)
		}
		e := NewEncoder(1, 0)
		e.Padding = true
		for range test.records {
			if err := e.AppendRecord(template, bytes.Repeat([]byte{0xff}, test.length)); err != nil {
				t.Fatal(err)
			}
		}
		msg := e.Flush(0)
		if len(msg) != test.want {
			t.Errorf("%d records of %d octets: %d octets, want %d", test.records, test.length, len(msg), test.want)
		}
		padding := msg[20+test.records*test.length:]
		if !bytes.Equal(padding, make([]byte, len(padding))) {
			t.Errorf("%d records of %d octets: padded by %x", test.records, test.length, padding)
		}
	}
}

func TestNewTemplateRefuses(t *testing.T) {
	f := FieldSpecifier{ID: OctetDeltaCount, Length: 8}
	for _, test := range []struct {
		name   string
		id     uint16
		scope  int
		fields []FieldSpecifier
		err    error
	}{
		{"Template ID below 256 (3.4.1)", 255, 0, []FieldSpecifier{f}, ErrTemplateID},
		{"no fields", 256, 0, nil, ErrEmpty},
		{"records of no octets", 256, 0, []FieldSpecifier{{ID: 1}}, ErrEmpty},
		{"more fields than a Message holds", 256, 0, make([]FieldSpecifier, 20000), ErrEmpty},
		{"the same with octets", 256, 0, append(make([]FieldSpecifier, 20000), f), ErrLength},
		{"Scope Field Count MUST NOT be zero (3.4.2.2)", 256, -1, []FieldSpecifier{f}, ErrScope},
		{"Scope Field Count above Field Count", 256, 2, []FieldSpecifier{f}, ErrScope},
	} {
		var err error
		if test.scope == 0 {
			_, err = NewTemplate(test.id, test.fields...)
		} else {
			_, err = NewOptionsTemplate(test.id, test.scope, test.fields...)
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestParseTemplate(t *testing.T) {
	for _, options := range []bool{false, true} {
		template, err := NewTemplate(256, FieldSpecifier{1, 0, 8}, FieldSpecifier{2, 637, VariableLength})
		if options {
			template, err = NewOptionsTemplate(256, 1, template.Fields...)
		}
		if err != nil {
			t.Fatal(err)
		}
		b := template.Append(nil)
		got, n, err := ParseTemplate(append(b, 0), options)
		if err != nil || n != len(b) || got.Fingerprint() != template.Fingerprint() || got.Scope != template.Scope || got.Fixed() {
			t.Errorf("%+v of %d octets, %v", got, n, err)
		}
		for n := range b {
			if _, _, err := ParseTemplate(b[:n], options); err == nil {
				t.Errorf("%d octets of %d are a template", n, len(b))
			}
		}
	}
	if _, _, err := ParseTemplate(wire(256, 0), false); !errors.Is(err, ErrEmpty) {
		t.Errorf("a withdrawal: %v", err)
	}
}

// The fingerprint is part of record identities that are stored, so it must
// never change.
func TestFingerprint(t *testing.T) {
	a, _ := NewTemplate(256, FieldSpecifier{1, 0, 8}, FieldSpecifier{2, 0, 8})
	b, _ := NewTemplate(300, a.Fields...)
	scoped, _ := NewOptionsTemplate(256, 1, a.Fields...)
	shorter, _ := NewTemplate(256, FieldSpecifier{1, 0, 8}, FieldSpecifier{2, 0, 4})
	if a.Fingerprint() != b.Fingerprint() || a.Fingerprint() == scoped.Fingerprint() || a.Fingerprint() == shorter.Fingerprint() {
		t.Errorf("%x %x %x %x", a.Fingerprint(), b.Fingerprint(), scoped.Fingerprint(), shorter.Fingerprint())
	}
	if want := uint64(0xcec41ddd1959d6ed); a.Fingerprint() != want {
		t.Errorf("fingerprint %#x, was %#x", a.Fingerprint(), want)
	}
}
