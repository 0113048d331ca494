package ipfix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// wire builds octets from numbers of 16 bits.
func wire(numbers ...int) []byte {
	var b []byte
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return b
}

// wireSet builds a Set around its content.
func wireSet(id int, content ...[]byte) []byte {
	b := bytes.Join(content, nil)
	return append(wire(id, len(b)+setHeaderLength), b...)
}

// wireMessage builds a Message of Observation Domain 1 around its Sets.
func wireMessage(sequence uint32, sets ...[]byte) []byte {
	b := bytes.Join(sets, nil)
	h := Header{Length: uint16(len(b) + HeaderLength), ExportTime: 1784851200, Sequence: sequence, Domain: 1}
	return append(h.Append(nil), b...)
}

func TestHeader(t *testing.T) {
	want := Header{Length: 16, ExportTime: 1784851200, Sequence: 1<<32 - 1, Domain: 7, Version: Version}
	b := want.Append(nil)
	got, err := ParseHeader(b)
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := Validate(b); err != nil {
		t.Errorf("a message without sets: %v", err)
	}
}

// malformed are Messages that can't be interpreted whatever Templates are
// known (RFC 7011).
var malformed = []struct {
	name   string
	msg    []byte
	offset int
	err    error
}{
	{"a Message shorter than a Message Header (9.1)", wireMessage(0)[:15], 0, ErrLength},
	{"no octets", nil, 0, ErrLength},
	{"a reserved Version value (9.1)", append(wire(8, 16), make([]byte, 12)...), 0, ErrVersion},
	{"Length below that of a Message Header (3.1)", append(wire(10, 15), make([]byte, 12)...), 2, ErrLength},
	{"Length above the octets (3.1)", append(wire(10, 17), make([]byte, 12)...), 2, ErrLength},
	{"Length below the octets (3.1)", append(wire(10, 16), make([]byte, 13)...), 2, ErrLength},
	{"a Set Header cut off (3.3.2)", wireMessage(0, []byte{0, 2, 0}), 16, ErrLength},
	{"Set Length below 4 (3.3.2)", wireMessage(0, wire(256, 3)), 18, ErrLength},
	{"Set Length 0 (3.3.2)", wireMessage(0, wire(256, 0)), 18, ErrLength},
	{"a Set longer than its enclosing Message (9.1)", wireMessage(0, wire(256, 5)), 18, ErrLength},
	{"zeros with something behind them (3.3.2)", wireMessage(0, wire(0, 0, 0, 1)), 18, ErrLength},
	{"Template ID below 256 (3.4.1)", wireMessage(0, wireSet(2, wire(255, 1, 1, 4))), 20, ErrTemplateID},
	{"Template ID of the other Set withdrawn (8.1)", wireMessage(0, wireSet(2, wire(3, 0))), 20, ErrTemplateID},
	{"Options Template ID below 256 (3.4.2.2)", wireMessage(0, wireSet(3, wire(2, 2, 1, 1, 4, 2, 4))), 20, ErrTemplateID},
	{"withdrawal of an ID below 256 (8.1)", wireMessage(0, wireSet(3, wire(255, 0))), 20, ErrTemplateID},
	{"fewer Field Specifiers than Field Count (3.4.1)", wireMessage(0, wireSet(2, wire(256, 2, 1, 4))), 20, ErrLength},
	{"a Field Specifier cut off (3.2)", wireMessage(0, wireSet(2, wire(256, 1, 1))), 20, ErrLength},
	{"an Enterprise Number cut off (3.2)", wireMessage(0, wireSet(2, wire(256, 1, 0x8001, 4, 0))), 20, ErrLength},
	{"Scope Field Count MUST NOT be zero (3.4.2.2)", wireMessage(0, wireSet(3, wire(256, 1, 0, 1, 4))), 20, ErrScope},
	{"Scope Field Count above Field Count (3.4.2.2)", wireMessage(0, wireSet(3, wire(256, 1, 2, 1, 4))), 20, ErrScope},
	{"an Options Template Record without Scope Field Count (3.4.2.2)", wireMessage(0, wireSet(3, wire(256, 1))), 20, ErrLength},
	{"a Template of no octets", wireMessage(0, wireSet(2, wire(256, 2, 82, 0, 83, 0))), 20, ErrEmpty},
	{"the second of two Templates", wireMessage(0, wireSet(2, wire(256, 1, 1, 4, 257, 2, 1, 4))), 28, ErrLength},
	{"a Set after a good one", wireMessage(0, wireSet(256, wire(1)), wire(2, 3)), 24, ErrLength},
}

func TestMalformed(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(TCP)
			before, _ := s.AppendBinary(nil)
			_, decodeErr := s.Decode(test.msg, func(DataSet) { t.Error("a set was visited") })
			for _, err := range []error{Validate(test.msg), decodeErr} {
				var d *DecodeError
				if !errors.As(err, &d) || !errors.Is(err, test.err) || d.Offset != test.offset {
					t.Errorf("%v, want %v at octet %d", err, test.err, test.offset)
				}
			}
			if after, _ := s.AppendBinary(nil); !bytes.Equal(before, after) {
				t.Errorf("the session is changed: %x", after)
			}
		})
	}
}

// Messages that look odd and are none the less well formed.
func TestWellFormed(t *testing.T) {
	for _, test := range []struct {
		name string
		msg  []byte
	}{
		{"a Set of no content", wireMessage(0, wireSet(256))},
		{"a Template Set of no records", wireMessage(0, wireSet(2))},
		{"padding of a Template Set (3.3.1)", wireMessage(0, wireSet(2, wire(256, 1, 1, 4), []byte{0, 0, 0}))},
		{"padding need not be zero (9.1)", wireMessage(0, wireSet(3, wire(256, 1, 1, 1, 4), []byte{1, 2}))},
		{"several Templates in a Set (3.4.1)", wireMessage(0, wireSet(2, wire(300, 1, 1, 4, 256, 1, 2, 4)))},
		{"Set IDs 0 and 1 are not used (3.3.2)", wireMessage(0, wireSet(0, wire(1)), wireSet(1, wire(1)))},
		{"Set IDs 4 to 255 are reserved (3.3.2)", wireMessage(0, wireSet(4, wire(1)), wireSet(255, wire(1)))},
		{"zeros up to the end of the Message", wireMessage(0, wireSet(2, wire(256, 1, 1, 4)), make([]byte, 1000))},
		{"nothing but zeros", wireMessage(0, make([]byte, 8))},
		{"fewer zeros than a Set Header has octets", wireMessage(0, wireSet(2, wire(256, 1, 1, 4)), make([]byte, 3))},
		{"a Field Length of 0 beside others", wireMessage(0, wireSet(2, wire(256, 2, 82, 0, 1, 4)))},
		{"a Message of 65535 octets (3.1)", wireMessage(0, wireSet(256, make([]byte, MaxMessage-HeaderLength-4)))},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := Validate(test.msg); err != nil {
				t.Error(err)
			}
			if _, err := NewSession(UDP).Decode(test.msg, func(DataSet) {}); err != nil {
				t.Error(err)
			}
		})
	}
}
