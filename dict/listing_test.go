package dict

import (
	"testing"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

func TestRows(t *testing.T) {
	type key struct{ code, vendor uint32 }
	codes, names := make(map[key]bool), make(map[string]bool)
	rows := make(map[string]Row)
	for r := range For(4711).Rows() {
		if k := (key{r.Code, r.Vendor}); codes[k] || names[r.AVP] {
			t.Errorf("AVP %d or name %s occurs twice", r.Code, r.AVP)
		} else {
			codes[k], names[r.AVP] = true, true
		}
		if r.Vendor != 0 && (r.Mandatory || r.Vendor != 4711 || r.Code < 65536) {
			t.Errorf("row %+v", r)
		}
		rows[r.AVP] = r
	}
	for _, want := range []Row{
		{Element: 1, Name: "octetDeltaCount", AVP: "IPFIX-octetDeltaCount", Code: 65537, Vendor: 4711, Type: Unsigned64, Abstract: "unsigned64"},
		{Element: 27, Enterprise: ipfix.ReversePEN, Name: "reverseSourceIPv6Address", AVP: "IPFIX-reverseSourceIPv6Address", Code: 98331, Vendor: 4711, Type: Address, Abstract: "ipv6Address"},
		{Name: "Tollbridge-Flow", AVP: "Tollbridge-Flow", Code: 131073, Vendor: 4711, Type: Grouped},
		{Name: "Accounting-Input-Octets", AVP: "Accounting-Input-Octets", Code: avp.AccountingInputOctets, Type: Unsigned64, Mandatory: true},
		{Name: "Session-Id", AVP: "Session-Id", Code: avp.SessionID, Type: UTF8String, Mandatory: true},
	} {
		if got := rows[want.AVP]; got != want {
			t.Errorf("row %+v\nwant %+v", got, want)
		}
	}
}

// The members that the groups name are AVPs of the dictionary.
func TestMembersAreDefined(t *testing.T) {
	names := make(map[string]bool)
	for r := range For(0).Rows() {
		names[r.AVP] = true
	}
	for _, definitions := range [][]definition{structural, standard} {
		for _, s := range definitions {
			for _, m := range s.Members {
				if !names[avpName(m)] {
					t.Errorf("%s has a member %s that is not defined", s.Name, m)
				}
			}
			if (s.Type == Grouped) != (len(s.Members) > 0) {
				t.Errorf("%s is %v with %d members", s.Name, s.Type, len(s.Members))
			}
		}
	}
}
