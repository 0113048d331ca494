package users

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the order in which they come, and how often, what NAT events say
// counts by when it happened.
func TestMappingsInAnyOrder(t *testing.T) {
	private := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}
	rapid.Check(t, func(t *rapid.T) {
		type event struct {
			at int64
			m  Mapping
			on bool
		}
		public := netip.MustParseAddr("203.0.113.1")
		var events []event
		has := map[int64]string{} // from a moment on, until the next
		at, last := int64(0), ""
		for range rapid.IntRange(1, 8).Draw(t, "events") {
			at += int64(rapid.IntRange(1, 5).Draw(t, "later"))
			on := last == "" || rapid.Bool().Draw(t, "the end is not told")
			if on {
				last = rapid.SampledFrom(private).Draw(t, "private")
			}
			events = append(events, event{at, Mapping{Public: public, First: 1024, Last: 2047, Private: netip.MustParseAddr(last)}, on})
			if !on {
				last = ""
			}
			has[at] = last
		}
		var table Table
		var list []Binding
		for _, a := range private {
			list = append(list, Binding{Prefix: netip.MustParsePrefix(a + "/32"), User: a})
		}
		table.Replace("file", list, 0)
		order := rapid.Permutation(append(events, events[:rapid.IntRange(0, len(events)).Draw(t, "twice")]...)).Draw(t, "order")
		for _, e := range order {
			if e.on {
				table.Map(e.m, e.at)
			} else {
				table.Unmap(e.m, e.at)
			}
		}
		want := ""
		for moment := int64(0); moment <= at+1; moment++ {
			if user, ok := has[moment]; ok {
				want = user
			}
			got := ""
			if h := table.LookupPort("", public, 1500, 6, netip.AddrPort{}, moment); h != nil {
				got = h.User()
			}
			if got != want {
				t.Fatalf("at %d: %q, want %q; events %+v", moment, got, want, order)
			}
		}
	})
}

// Who gives a block back earlier than another gets it is known no worse for it:
// that he gets it himself at that very moment is news.
func TestMappingAfterAnothersBegan(t *testing.T) {
	public, port := netip.MustParseAddr("203.0.113.1"), uint16(1500)
	of := func(private string) Mapping {
		return Mapping{Public: public, First: 1024, Last: 2047, Private: netip.MustParseAddr(private)}
	}
	var table Table
	table.Replace("file", []Binding{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), User: "ann"}}, 0)
	table.Map(of("10.0.0.2"), 20)
	table.Unmap(of("10.0.0.2"), 30)
	table.Map(of("10.0.0.1"), 10)
	table.Unmap(of("10.0.0.1"), 15)
	table.Map(of("10.0.0.1"), 20)
	for at, want := range map[int64]string{9: "", 10: "ann", 14: "ann", 15: "", 40: "ann"} {
		got := ""
		if h := table.LookupPort("", public, port, 6, netip.AddrPort{}, at); h != nil {
			got = h.User()
		}
		if got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
}
