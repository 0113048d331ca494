package ipfix

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// typeInformation is an Options Template for type information (RFC 5610,
// Section 3.9).
func typeInformation(tb testing.TB) *Template {
	tb.Helper()
	t, err := NewOptionsTemplate(300, 2,
		FieldSpecifier{ID: PrivateEnterpriseNumber, Length: 4},
		FieldSpecifier{ID: InformationElementId, Length: 2},
		FieldSpecifier{ID: InformationElementDataType, Length: 1},
		FieldSpecifier{ID: InformationElementSemantics, Length: 1},
		FieldSpecifier{ID: InformationElementUnits, Length: 2},
		FieldSpecifier{ID: InformationElementRangeBegin, Length: 8},
		FieldSpecifier{ID: InformationElementRangeEnd, Length: 8},
		FieldSpecifier{ID: InformationElementName, Length: VariableLength},
		FieldSpecifier{ID: InformationElementDescription, Length: VariableLength},
	)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// However much an exporter tells of its elements, a checkpoint has a bounded
// part of it. What was told before can still be told anew.
func TestTypeInformationBounds(t *testing.T) {
	s := NewSession(TCP)
	info := typeInformation(t)
	tell := func(id, octets int) {
		t.Helper()
		e := NewEncoder(1, 0)
		if err := e.AddTemplate(info); err != nil {
			t.Fatal(err)
		}
		if err := e.AddRecord(info, 32473, id, int(TypeUnsigned64), 0, 0, 0, 0, "element", strings.Repeat("x", octets)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Decode(e.Flush(1), nil); err != nil {
			t.Fatal(err)
		}
	}
	for id := range 300 {
		tell(id+1, 1000)
	}
	b, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b); n > maxElementText+16<<10 || n < maxElementText-1<<10 {
		t.Errorf("the checkpoint has %d octets", n)
	}
	restored := NewSession(TCP)
	if err := restored.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	s = restored
	tell(200, 1000) // no room
	tell(1, 10)     // makes some
	tell(201, 900)
	for id, want := range map[uint16]int{1: 10, 2: 1000, 200: 0, 201: 900} {
		if i, _ := s.TypeInformation(Element{32473, id}); len(i.Description) != want {
			t.Errorf("element %d has a description of %d octets, want %d", id, len(i.Description), want)
		}
	}
}

func TestTypeInformation(t *testing.T) {
	s := NewSession(TCP)
	s.Limits.Elements = 2
	info := typeInformation(t)
	e := NewEncoder(1, 0)
	if err := e.AddTemplate(info); err != nil {
		t.Fatal(err)
	}
	for _, values := range [][]any{
		{32473, 7, TypeUnsigned64, SemanticsDeltaCounter, 2, 1, 1000, "billedOctets", "what was billed"},
		{0, OctetDeltaCount, TypeString, 0, 0, 0, 0, "mine", ""},                              // IANA's stay
		{ReversePEN, OctetDeltaCount, TypeString, 0, 0, 0, 0, "mine", ""},                     // those too
		{32473, 0x8008, 99, 99, 99, 0, 0, []byte("a\xffb\x00"), ""},                           // enterprise bit, values not registered, no UTF-8
		{32473, 9, TypeUnsigned8, 0, 0, 0, 0, "one too many", ""},                             // Limits
		{32473, 7, TypeUnsigned32, SemanticsDeltaCounter, 2, 1, 1000, "billedKilooctets", ""}, // holds now
	} {
		for i, v := range values {
			switch v := v.(type) {
			case Type:
				values[i] = int(v)
			case Semantics:
				values[i] = int(v)
			}
		}
		if err := e.AddRecord(info, values...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Decode(e.Flush(1), nil); err != nil {
		t.Fatal(err)
	}
	got, ok := s.TypeInformation(Element{32473, 7})
	want := TypeInformation{InformationElement{32473, 7, "billedKilooctets", TypeUnsigned32, SemanticsDeltaCounter, "octets", StatusCurrent, false}, "", 1, 1000}
	if !ok || got != want {
		t.Errorf("%+v", got)
	}
	if got, ok := s.Lookup(32473, 8); !ok || got.Name != "ab" || got.Type != TypeOctetArray || got.Units != "" {
		t.Errorf("%+v", got)
	}
	if got, ok := s.Lookup(0, OctetDeltaCount); !ok || got.Name != "octetDeltaCount" {
		t.Errorf("%+v", got)
	}
	if _, ok := s.Lookup(ReversePEN, OctetDeltaCount); !ok {
		t.Error("reverse elements are not known")
	}
	if got, ok := s.Lookup(32473, 9); ok || got.String() != "0" {
		t.Errorf("%+v", got)
	}

	// A checkpoint keeps all of it; one of version 2 had none.
	b, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	again := NewSession(TCP)
	if err := again.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if got, ok := again.TypeInformation(Element{32473, 7}); !ok || got != want || len(again.elements) != 2 {
		t.Errorf("after a checkpoint %+v", again.elements)
	}
	if b2, _ := again.AppendBinary(nil); !bytes.Equal(b, b2) {
		t.Errorf("%x, then %x", b, b2)
	}
	for n := range b {
		if err := again.UnmarshalBinary(b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%d octets of %d: %v", n, len(b), err)
		}
	}
	clear(s.elements)
	old, _ := s.AppendBinary(nil)
	old = old[:len(old)-1]
	old[0] = checkpointOldVersion
	if err := again.UnmarshalBinary(old); err != nil || len(again.elements) != 0 || len(again.Templates()) != 1 {
		t.Errorf("version 2: %v, %+v", err, again.elements)
	}
}

// YAF tells of hundreds of elements.
func TestTypeInformationOfYAF(t *testing.T) {
	skipWithoutCorpus(t)
	s := NewSession(TCP)
	decodeCorpus(t, s, "generated", "yaf3-biflow-dpi_dns.ipfix")
	if len(s.elements) < 400 {
		t.Errorf("%d elements", len(s.elements))
	}
	if e, ok := s.Lookup(6871, 18); !ok || e.Name != "payload" || e.Type != TypeOctetArray {
		t.Errorf("%+v", e)
	}
}
