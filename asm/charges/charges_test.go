package charges_test

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/asm/charges"
	"tollbridge/asm/users"
)

const (
	window = 1000 // milliseconds
	now    = 500
)

func drawCharge(t *rapid.T) charges.Charge {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	c := charges.Charge{
		Session: rapid.Uint64Range(0, 3).Draw(t, "session"),
		End:     rapid.Int64Range(1, 400).Draw(t, "end"),
		Addr:    rapid.SampledFrom(addrs).Draw(t, "address"),
		VRF:     rapid.SampledFrom([]string{"", "red"}).Draw(t, "vrf"),
		Shared:  rapid.Bool().Draw(t, "shared"),
		Class:   rapid.SampledFrom([]string{"", "dns", "web"}).Draw(t, "class"),
		Usage:   acct.Usage{InputOctets: rapid.Uint64().Draw(t, "octets"), OutputPackets: 1},
		Layers:  rapid.SampledFrom([]acct.Layers{0, acct.AtNetwork, acct.AtLink, acct.AtNetwork | acct.AtLink}).Draw(t, "layers"),
	}
	c.OfBinding, c.Estimated, c.Moved = rapid.Bool().Draw(t, "of binding"), rapid.Bool().Draw(t, "estimated"), rapid.Bool().Draw(t, "moved")
	if c.Shared {
		c.Port, c.Protocol, c.Remote = 53, 17, netip.MustParseAddrPort("198.51.100.1:4000")
	}
	return c
}

// states are what a store has of a Memory.
type states map[string][]byte

func (s states) put(key string, value []byte) {
	if value == nil {
		delete(s, key)
	} else {
		s[key] = slices.Clone(value)
	}
}

func (s states) list() (list []acct.State) {
	for _, key := range slices.Sorted(maps.Keys(s)) {
		list = append(list, acct.State{Key: key, Value: s[key]})
	}
	return list
}

// What is charged and in a record is found by whoever doubts it, also after a
// restart, once and as it was charged; what is in no record yet is found when
// it is.
func TestContradictedAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x charges.Memory
		x.Configure(window, 1<<20)
		stored := make(states)
		type place struct {
			id     string
			number uint32
		}
		want := make(map[place][]charges.Charge)
		var open []charges.Charge
		for n := range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			default:
				c := drawCharge(t)
				x.Add(&c, now)
				open = append(open, c)
			case 0, 1:
				session, moved := rapid.Uint64Range(0, 3).Draw(t, "session"), rapid.Bool().Draw(t, "moved")
				r := acct.Record{SessionID: "x;1;" + string(rune('0'+session)), Number: uint32(n)}
				x.MarkAll(session, moved, []acct.Record{r}, now)
				open = slices.DeleteFunc(open, func(c charges.Charge) bool {
					in := c.Session == session && c.Moved == moved
					if in {
						want[place{r.SessionID, r.Number}] = append(want[place{r.SessionID, r.Number}], c)
					}
					return in
				})
			case 2:
				x.EndSegment(now)
			case 3:
				x.Delta(stored.put)
			case 4:
				x.Delta(stored.put)
				var again charges.Memory
				again.Configure(window, 1<<20)
				if damaged := again.Restore(stored.list(), now); damaged != nil {
					t.Fatal(damaged)
				}
				if again.Size() != x.Size() || again.Newest() != x.Newest() {
					t.Fatalf("%d octets until %d, were %d until %d", again.Size(), again.Newest(), x.Size(), x.Newest())
				}
				x = again
			}
		}
		x.Doubt(users.Doubt{})
		moves, err := x.Contradicted(0, func(*charges.Charge) (uint64, bool) { return 9, true })
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[place][]charges.Charge)
		for _, v := range moves {
			if v.To != 9 || v.From != v.Record.Session {
				t.Errorf("from %d to %d", v.From, v.To)
			}
			at := place{v.Record.SessionID, v.Record.Number}
			got[at] = append(got[at], v.Charges...)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if x.InDoubt() != (len(open) > 0) {
			t.Errorf("in doubt %t with %d charges in no record", x.InDoubt(), len(open))
		}
	})
}

// FuzzRestore restores anything: it is damaged, or can be looked through.
func FuzzRestore(f *testing.F) {
	var x charges.Memory
	x.Configure(window, 1<<20)
	stored := make(states)
	x.Add(&charges.Charge{Session: 1, End: now, Addr: netip.MustParseAddr("192.0.2.1"), Class: "dns", Usage: acct.Usage{InputOctets: 100}}, now)
	x.Add(&charges.Charge{Session: 2, Addr: netip.MustParseAddr("2001:db8::1"), VRF: "red", Shared: true, Port: 53, Remote: netip.MustParseAddrPort("192.0.2.2:53"), Layers: acct.AtOther, Moved: true}, now)
	x.MarkAll(1, false, []acct.Record{{SessionID: "x;1;2", Number: 3, Classes: []acct.ClassUsage{{Class: "dns"}}}, {SessionID: "x;1;2", Number: 4}}, now)
	x.MarkAll(2, true, []acct.Record{{SessionID: "x;1;4"}}, now)
	x.Doubt(users.Doubt{Prefix: netip.MustParsePrefix("192.0.2.1/32"), From: 1})
	x.Delta(stored.put)
	for key, value := range stored {
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		var x charges.Memory
		x.Configure(window, 1<<20)
		x.Restore([]acct.State{{Key: key, Value: value}}, now)
		x.Doubt(users.Doubt{})
		if _, err := x.Contradicted(0, func(*charges.Charge) (uint64, bool) { return 1, true }); err != nil {
			t.Error("what was taken in can't be read:", err)
		}
	})
}
