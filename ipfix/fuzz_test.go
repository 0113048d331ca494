package ipfix

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func FuzzValidate(f *testing.F) {
	for _, all := range seeds(f) {
		for _, msg := range all {
			f.Add(msg)
		}
	}
	for _, test := range malformed {
		f.Add(test.msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		invalid := Validate(msg)
		_, err := NewSession(UDP).Decode(msg, func(s DataSet) {
			for _, ok := s.Next(); ok; _, ok = s.Next() {
			}
		})
		if invalid != nil && err == nil {
			t.Errorf("Decode takes what Validate refuses: %v", invalid)
		}
	})
}

// FuzzSession decodes a run of Messages, each behind its length in two octets.
func FuzzSession(f *testing.F) {
	for _, all := range seeds(f) {
		var run []byte
		for _, msg := range all {
			run = append(binary.BigEndian.AppendUint16(run, uint16(len(msg))), msg...)
		}
		f.Add(true, run)
		f.Add(false, run)
	}
	f.Fuzz(func(t *testing.T, reliable bool, run []byte) {
		s := NewSession(UDP)
		if reliable {
			s = NewSession(TCP)
		}
		for len(run) >= 2 {
			n := min(int(binary.BigEndian.Uint16(run)), len(run)-2)
			fuzzMessage(t, s, run[2:2+n])
			run = run[2+n:]
		}
		b, _ := s.AppendBinary(nil)
		again := NewSession(UDP)
		if err := again.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if b2, _ := again.AppendBinary(nil); !bytes.Equal(b, b2) {
			t.Errorf("the state changed in a checkpoint: %x, %x", b, b2)
		}
	})
}

func fuzzMessage(t *testing.T, s *Session, msg []byte) {
	before, _ := s.AppendBinary(nil)
	var records, octets int
	var sets []DataSet
	r, err := s.Decode(msg, func(set DataSet) {
		sets = append(sets, set)
		template := set.Template
		if template == nil {
			return
		}
		var columns []Column
		for i, f := range template.Fields {
			columns = append(columns, Column{i, Number, []Element{{f.Enterprise, f.ID}}})
		}
		plan := template.Plan(columns...)
		row := make([]uint64, plan.Width())
		for r, ok := set.Next(); ok; r, ok = set.Next() {
			records++
			octets += len(r.Bytes())
			plan.Read(r, row)
			for i, f := range template.Fields {
				FormatValue(f.Element().Type, r.Field(i))
				first, _ := template.Index(f.Enterprise, f.ID)
				if _, ok := plan.Field(i); ok && row[i] != template.AccessorAt(first).Uint64(r) {
					t.Errorf("field %d is %d by plan", i, row[i])
				}
			}
		}
	})
	if err != nil {
		if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) || len(sets) > 0 {
			t.Errorf("a malformed message changed the session: %v", err)
		}
		return
	}
	if uint64(records) != r.Records || octets > len(msg) {
		t.Errorf("%d records of %d, %d octets of %d", records, r.Records, octets, len(msg))
	}
	for _, set := range sets {
		again, err := s.DataSetAt(msg, set.Offset)
		if err == nil && (again.ID != set.ID || !bytes.Equal(again.Octets(), set.Octets())) {
			t.Errorf("set at octet %d is %+v", set.Offset, again)
		}
	}
	for _, template := range s.Templates() {
		again, _, err := ParseTemplate(template.Append(nil), template.Scope > 0)
		if err != nil || again.Fingerprint() != template.Fingerprint() {
			t.Errorf("template %d encodes to another: %v", template.ID, err)
		}
	}
}

func FuzzUnmarshalBinary(f *testing.F) {
	for _, all := range seeds(f) {
		s := NewSession(UDP)
		for _, msg := range all {
			if _, err := s.Decode(msg, nil); err != nil {
				f.Fatal(err)
			}
		}
		b, _ := s.AppendBinary(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSession(UDP)
		if s.UnmarshalBinary(b) != nil {
			return
		}
		if again, _ := s.AppendBinary(nil); !bytes.Equal(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
