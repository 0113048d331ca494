package ipfix

import "testing"

func TestLookup(t *testing.T) {
	e, ok := Lookup(0, OctetDeltaCount)
	want := InformationElement{0, 1, "octetDeltaCount", TypeUnsigned64, SemanticsDeltaCounter, "octets", StatusCurrent, true}
	if !ok || e != want {
		t.Errorf("got %+v", e)
	}
	r, ok := Lookup(ReversePEN, OctetDeltaCount)
	want.Enterprise, want.Name, want.Reversible = ReversePEN, "reverseOctetDeltaCount", false
	if !ok || r != want {
		t.Errorf("got %+v", r)
	}
	if e, ok := LookupName("reverseOctetDeltaCount"); !ok || e != want {
		t.Errorf("got %+v", e)
	}
	for _, no := range []struct {
		enterprise uint32
		id         uint16
	}{{0, 0}, {0, 32767}, {0, 65535}, {9, 1}, {ReversePEN, 0}, {ReversePEN, FlowId}} {
		if e, ok := Lookup(no.enterprise, no.id); ok || e != (InformationElement{}) {
			t.Errorf("%d/%d is %+v", no.enterprise, no.id, e)
		}
	}
	if _, ok := LookupName("noSuchElement"); ok {
		t.Error("noSuchElement is registered")
	}
}

// The registry of 2026-07-22 has 485 current elements, and 25 without a
// reverse (RFC 5103, Section 6.1).
func TestElements(t *testing.T) {
	current, oneWay, last := 0, 0, uint16(0)
	for e := range Elements() {
		if e.ID <= last || e.Enterprise != 0 {
			t.Errorf("%d/%d after %d", e.Enterprise, e.ID, last)
		}
		last = e.ID
		if e.Status == StatusCurrent {
			current++
		}
		if !e.Reversible {
			oneWay++
		}
		if Reversible(e.ID) != e.Reversible {
			t.Errorf("Reversible(%d)", e.ID)
		}
		if byName, ok := LookupName(e.Name); !ok || byName != e {
			t.Errorf("by the name %q: %+v", e.Name, byName)
		}
	}
	if current != 485 || oneWay != 25 {
		t.Errorf("%d current elements, %d without a reverse", current, oneWay)
	}
	for range Elements() {
		break // an early end is fine
	}
	if Reversible(0) || Reversible(65535) {
		t.Error("what is not registered has a reverse")
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{TypeOctetArray.String(), "octetArray"}, {TypeUnsigned256.String(), "unsigned256"}, {Type(99).String(), "Type(99)"},
		{SemanticsDefault.String(), "default"}, {SemanticsSnmpGauge.String(), "snmpGauge"}, {Semantics(99).String(), "Semantics(99)"},
		{StatusCurrent.String(), "current"}, {StatusDeprecated.String(), "deprecated"},
		{UDP.String(), "udp"}, {TCP.String(), "tcp"}, {SCTP.String(), "sctp"}, {TLS.String(), "tls"}, {DTLS.String(), "dtls"},
		{Transport(0).String(), "Transport(0)"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}

// RFC 7011, Section 6.2: integers may have any shorter length, a float64 that
// of a float32, and nothing else another than its own.
func TestValidLength(t *testing.T) {
	for _, test := range []struct {
		typ  Type
		n    uint16
		want bool
	}{
		{TypeUnsigned64, 8, true}, {TypeUnsigned64, 3, true}, {TypeUnsigned64, 0, false}, {TypeUnsigned64, 9, false},
		{TypeUnsigned64, VariableLength, false}, {TypeUnsigned8, 1, true}, {TypeUnsigned8, 2, false},
		{TypeSigned32, 3, true}, {TypeSigned8, 0, false}, {TypeFloat64, 4, true}, {TypeFloat64, 6, false}, {TypeFloat32, 4, true},
		{TypeFloat32, 2, false}, {TypeDateTimeMilliseconds, 4, false}, {TypeDateTimeSeconds, 4, true}, {TypeIpv4Address, 3, false},
		{TypeIpv6Address, 16, true}, {TypeMacAddress, 6, true}, {TypeBoolean, 1, true}, {TypeString, 0, true},
		{TypeOctetArray, VariableLength, true}, {TypeBasicList, VariableLength, true}, {TypeUnsigned256, 20, true},
	} {
		if got := test.typ.ValidLength(test.n); got != test.want {
			t.Errorf("%v of %d octets: %t", test.typ, test.n, got)
		}
	}
}
