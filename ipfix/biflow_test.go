package ipfix

import "testing"

func TestReverse(t *testing.T) {
	for _, test := range []struct {
		name string
		f    FieldSpecifier
		want FieldSpecifier
		ok   bool
	}{
		{"a counter (6.1)", FieldSpecifier{1, 0, 4}, FieldSpecifier{1, ReversePEN, 4}, true},
		{"and back (6.1)", FieldSpecifier{1, ReversePEN, 4}, FieldSpecifier{1, 0, 4}, true},
		{"biflowDirection is of both (6.1)", FieldSpecifier{BiflowDirection, 0, 1}, FieldSpecifier{}, false},
		{"identifiers (6.1)", FieldSpecifier{FlowId, 0, 8}, FieldSpecifier{}, false},
		{"an enterprise's (6.2)", FieldSpecifier{1, 32473, 4}, FieldSpecifier{}, false},
	} {
		got, ok := test.f.Reverse()
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%s: %+v, %t", test.name, got, ok)
		}
	}
}

func TestDirection(t *testing.T) {
	if d := DirectionReverseInitiator; d.String() != "reverseInitiator" || Direction(9).String() != "Direction(9)" {
		t.Error(d)
	}
}
