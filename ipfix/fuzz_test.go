package ipfix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
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
	f.Add(wireNetFlow9(0, wireSet(1, wire(256, 0, 8, 34, 1, 35, 1)), wireSet(256, []byte{1, 2})))
	f.Add(wireNetFlow5(0, 1, netFlow5Record(1, 2)))
	f.Add(wireNetFlow5(0, 1, netFlow5Record(1, 2), netFlow5Record(3, 4))[:netFlow5HeaderLength+netFlow5RecordLength+1])
	f.Fuzz(func(t *testing.T, msg []byte) {
		invalid := Validate(msg)
		_, err := NewSession(UDP).Decode(msg, func(s DataSet) {
			for _, ok := s.Next(); ok; _, ok = s.Next() {
			}
		})
		if invalid != nil && err == nil {
			t.Errorf("Decode takes what Validate refuses: %v", invalid)
		}
		salvage := NewSession(UDP)
		salvage.Salvage = true
		r, fault := salvage.Decode(msg, func(s DataSet) {
			for _, ok := s.Next(); ok; _, ok = s.Next() {
			}
		})
		if (fault == nil) != (err == nil) || fault != nil && r.Records > 0 && !errors.Is(fault, ErrCount) {
			t.Errorf("%d records are salvaged, with %v for %v", r.Records, fault, err)
		}
	})
}

// FuzzSession decodes a run of Messages of any version, each behind two octets:
// its length, and in the highest two bits an SCTP stream.
func FuzzSession(f *testing.F) {
	var mixed []byte
	for _, all := range seeds(f) {
		var run []byte
		for _, msg := range all {
			run = append(binary.BigEndian.AppendUint16(run, uint16(len(msg))), msg...)
		}
		f.Add(uint8(UDP), uint8(0), run)
		f.Add(uint8(TCP), uint8(0), run)
		mixed = append(mixed, run...)
	}
	for transport := UDP; transport <= DTLS; transport++ {
		f.Add(uint8(transport), uint8(1), mixed)
	}
	f.Fuzz(func(t *testing.T, transport, lifetime uint8, run []byte) {
		s := NewSession(Transport(transport))
		s.TemplateLifetime = time.Duration(lifetime) * time.Second
		lost := make(map[domainKey]uint64) // and not found
		for len(run) >= 2 {
			head := binary.BigEndian.Uint16(run)
			n := min(int(head&0x3fff), len(run)-2)
			r := fuzzMessage(t, s, run[2:2+n], head>>14)
			run = run[2+n:]
			key := r.Header.domainKey()
			lost[key] += r.Lost
			if r.Found > lost[key] {
				t.Errorf("found %d of %d lost", r.Found, lost[key])
			}
			lost[key] -= r.Found
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

func fuzzMessage(t *testing.T, s *Session, msg []byte, stream uint16) Result {
	before, _ := s.AppendBinary(nil)
	var records, octets int
	var sets []DataSet
	var contents [][]byte
	r, err := s.DecodeStream(msg, stream, func(set DataSet) {
		sets = append(sets, set)
		contents = append(contents, bytes.Clone(set.Octets()))
		template := set.Template
		if template == nil {
			return
		}
		var columns []Column
		var first []Accessor // by field: of the same element
		for i, f := range template.Fields {
			a, _ := template.Accessor(f.Enterprise, f.ID)
			first = append(first, a)
			columns = append(columns, Column{i, Number, []Element{{f.Enterprise, f.ID}}})
		}
		plan := template.Plan(columns...)
		row := make([]uint64, plan.Width())
		for r, ok := set.Next(); ok; r, ok = set.Next() {
			records++
			octets += len(r.Bytes())
			if template.sent != nil {
				octets -= template.minLength - template.sent.minLength // the stamp
			}
			plan.Read(r, row)
			for i, f := range template.Fields {
				FormatList(f.Element().Type, r.Field(i), s.TemplatesOf(set.Header.Domain))
				if _, ok := plan.Field(i); ok && row[i] != first[i].Uint64(r) {
					t.Errorf("field %d is %d by plan", i, row[i])
				}
			}
		}
	})
	if err != nil {
		if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) || len(sets) > 0 {
			t.Errorf("a malformed message changed the session: %v", err)
		}
		return r
	}
	if uint64(records) != r.Records || octets > len(msg) {
		t.Errorf("%d records of %d, %d octets of %d", records, r.Records, octets, len(msg))
	}
	for i, set := range sets {
		again, err := s.DataSetAt(msg, set.Offset)
		if err == nil && again.Template == set.Template && (again.ID != set.ID || !bytes.Equal(again.Octets(), contents[i])) {
			t.Errorf("set at octet %d is %+v", set.Offset, again)
		}
	}
	for _, template := range s.Templates() {
		again, _, err := ParseTemplate(template.Append(nil), template.Scope > 0)
		if err != nil || again.Fingerprint() != template.Fingerprint() {
			t.Errorf("template %d encodes to another: %v", template.ID, err)
		}
	}
	return r
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
	s := NewSession(UDP)
	s.tell(TypeInformation{InformationElement{32473, 7, "billedOctets", TypeUnsigned64, SemanticsDeltaCounter, "octets", StatusCurrent, false}, "what was billed", 1, 1000})
	b, _ := s.AppendBinary(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSession(UDP)
		if s.UnmarshalBinary(b) != nil || b[0] != checkpointVersion {
			return
		}
		if again, _ := s.AppendBinary(nil); !bytes.Equal(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
