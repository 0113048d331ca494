package entry

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// An event of a binding is shown as its source told of it.
func TestViewOfABinding(t *testing.T) {
	e := users.Event{Source: "radius", Kind: users.Begin, ID: "bng 7", NAS: "bng.isp.example", At: time.Unix(1_800_000_000, 0).UTC(),
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, User: "alice"}
	v := viewEntry(acct.Entry{Position: 7, Kind: acct.EntryBinding, Data: e.AppendBinary(nil)}, "journal")
	if want := `begin by radius at 2027-01-15T08:00:00Z: session "bng 7", NAS "bng.isp.example", user "alice" [192.0.2.1/32]`; v.Bindings.String() != want {
		t.Errorf("%s, want %s", v.Bindings, want)
	}
	if v := viewEntry(acct.Entry{Kind: acct.EntryBinding, Data: []byte("nonsense")}, "journal"); v.Bindings != nil {
		t.Errorf("of nonsense: %v", v.Bindings)
	}
}
