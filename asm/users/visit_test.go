package users

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// States of a checkpoint that are visited have the Holders of the Table that
// they bring back, and those of one address explain who held it as all do.
func TestStatesOfOneAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			low := byte(rapid.IntRange(0, 3).Draw(t, "low"))
			if rapid.Bool().Draw(t, "IPv6") {
				return netip.AddrFrom16([16]byte{0x20, 0x01, 15: low})
			}
			return netip.AddrFrom4([4]byte{192, 0, 2, low})
		})
		prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := addr.Draw(t, "addr")
			p, _ := a.Prefix(a.BitLen() - rapid.SampledFrom([]int{0, 0, 1, 8}).Draw(t, "shorter by"))
			return p
		})
		name := rapid.SampledFrom([]string{"x", "y"})
		moment := rapid.Int64Range(1, 9)
		table := new(Table)
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			switch at := moment.Draw(t, "at"); rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				var list []Binding
				for range rapid.IntRange(0, 3).Draw(t, "bindings") {
					list = append(list, Binding{Prefix: prefix.Draw(t, "prefix"), User: name.Draw(t, "user"), From: fromMilli(moment.Draw(t, "from"))})
				}
				table.Replace("list "+name.Draw(t, "source"), list, at)
			case 1:
				kind := rapid.SampledFrom([]EventKind{Begin, Update, End}).Draw(t, "kind")
				e, err := Event{Source: "sessions", Kind: kind, ID: name.Draw(t, "ID"), User: name.Draw(t, "user"), NAS: "nas", At: fromMilli(at),
					Prefixes: []netip.Prefix{prefix.Draw(t, "prefix")}}.Normalize()
				if err != nil {
					t.Fatal(err)
				}
				table.Apply(e)
			default:
				m := Mapping{Public: addr.Draw(t, "public"), First: 1, Last: 9, Private: addr.Draw(t, "private")}
				if m.Public.Is4() {
					table.Map(m, at)
				}
			}
		}

		var lists, sessions, ports [][]byte
		for _, s := range table.Sources() {
			if len(table.Holders(s)) > 0 {
				lists = append(lists, table.AppendSource(nil, s))
			}
		}
		table.Delta(func(_ string, state []byte) { sessions = append(sessions, state) })
		table.DeltaPorts(func(_ string, state []byte) { ports = append(ports, state) })

		user := rapid.OneOf(rapid.Just(""), name).Draw(t, "user visited")
		count := map[string]int{} // of each Holder in the Table, less those that were visited
		for h := range table.All {
			if user == "" || h.User() == user {
				count[text(h)]++
			}
		}
		visit := func(h *Holder) error { count[text(h)]--; return nil }
		for _, state := range lists {
			check(t, VisitSource(state, user, visit))
		}
		for _, state := range sessions {
			if state != nil {
				check(t, VisitClaim(state, user, visit))
			}
		}
		for h, n := range count {
			if n != 0 {
				t.Errorf("%s: %d times in the Table beyond the visits", h, n)
			}
		}

		a := addr.Draw(t, "asked")
		one, addrs := new(Table), []netip.Addr{a}
		for _, state := range ports {
			private, err := one.RestorePortsOf(state, a)
			check(t, err)
			addrs = append(addrs, private...)
		}
		for _, state := range lists {
			check(t, one.RestoreSourceOf(state, addrs))
		}
		for _, state := range sessions {
			if state != nil {
				check(t, one.RestoreClaimOf(state, addrs))
			}
		}
		at, port := moment.Draw(t, "moment"), uint16(rapid.IntRange(0, 10).Draw(t, "port"))
		want, got := table.Explain("", a, port, 6, netip.AddrPort{}, at), one.Explain("", a, port, 6, netip.AddrPort{}, at)
		if explained(got) != explained(want) {
			t.Errorf("%s port %d at %d:\n%s\nwant\n%s", a, port, at, explained(got), explained(want))
		}
	})
}

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func text(h *Holder) string {
	return fmt.Sprintf("%s of %s, session %q, removed %v, ended %v: %+v", h.User(), h.Source(), h.ID(), h.Removed(), h.Ended(), h.Binding())
}

func explained(all []Candidate) (s string) {
	for _, c := range all {
		s += fmt.Sprintf("%s: holds %v, %s\n", text(c.Holder), c.Holds, c.Why)
	}
	return s
}
