package users

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/internal/wiretest"
)

func TestListEncoding(t *testing.T) {
	carol := bind("198.51.100.7/32", "carol", 1, 0)
	carol.Options = Options{Realm: "r", MultiSession: "m", Class: "c"}
	want := []Binding{bind("192.0.2.1/32", "alice", 0, 0), bind("2001:db8::/56", "bob", 1000, 1<<40), carol}
	data := wiretest.Hex(t)["list"]
	if got := AppendList(nil, "users.csv", want); !slices.Equal(got, data) {
		t.Errorf("encoded as\n%x, want\n%x", got, data)
	}
	source, got, err := ParseList(data)
	if err != nil || source != "users.csv" || !slices.Equal(got, want) {
		t.Errorf("decoded %q %v, %v", source, got, err)
	}
	for n := range data {
		if _, _, err := ParseList(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the first %d octets: %v", n, err)
		}
	}
}

func TestParseListRefuses(t *testing.T) {
	for name, data := range wiretest.Hex(t) {
		if refused := strings.HasPrefix(name, "bad-"); refused {
			if _, b, err := ParseList(data); !errors.Is(err, ErrCorrupt) || b != nil {
				t.Errorf("%s: %v, %v", name, b, err)
			}
		}
	}
}

func TestListRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[a-zA-Z0-9@.äöü]{1,20}`)
	rapid.Check(t, func(t *rapid.T) {
		bindings := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Binding {
			kind := rapid.SampledFrom([]string{"IPv4 hosts", "IPv6 hosts", "IPv6 /56"}).Draw(t, "kind")
			b := someBindings(kind, 1)[0]
			b.User = name.Draw(t, "user")
			b.From = fromMilli(rapid.Int64Range(0, 1<<40).Draw(t, "from"))
			if length := rapid.Int64Range(0, 1<<40).Draw(t, "length"); length > 0 {
				b.Until = fromMilli(toMilli(b.From) + length)
			}
			if rapid.Bool().Draw(t, "options") {
				b.Options = Options{Realm: name.Draw(t, "realm"), MultiSession: name.Draw(t, "multi"), Class: name.Draw(t, "class")}
			}
			if rapid.Bool().Draw(t, "more") {
				b.VRF, b.TimeZone = name.Draw(t, "vrf"), rapid.SampledFrom([]string{"", "Europe/Berlin"}).Draw(t, "zone")
				b.Attributes = NewAttributes(Attribute{Code: 25, Data: name.Draw(t, "attribute")})
				if kind == "IPv4 hosts" {
					b.Ports = "1024-2047 53000"
				}
			}
			return b
		})).Draw(t, "bindings")
		source := rapid.String().Draw(t, "source")
		data := AppendList(nil, source, bindings)
		gotSource, got, err := ParseList(data)
		if err != nil || gotSource != source || !slices.Equal(got, bindings) {
			t.Fatalf("%q %v, %v", gotSource, got, err)
		}
	})
}

func FuzzParseList(f *testing.F) {
	for _, data := range wiretest.Hex(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var table Table
		if err := table.RestoreSource(data); err == nil {
			for _, name := range table.Sources() {
				state := table.AppendSource(nil, name)
				var again Table
				if err := again.RestoreSource(state); err != nil {
					t.Fatalf("what was restored does not restore: %v", err)
				}
			}
		} else if table.Sources() != nil && len(table.Sources()) != 0 {
			t.Fatalf("%v, and yet %q", err, table.Sources())
		}
		source, bindings, err := ParseList(data)
		if err != nil {
			return
		}
		again, same, err := ParseList(AppendList(nil, source, bindings))
		if err != nil || again != source || !slices.Equal(same, bindings) {
			t.Fatalf("%q %v came back as %q %v, %v", source, bindings, again, same, err)
		}
	})
}
