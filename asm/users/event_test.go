package users

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func someEvent() Event {
	return Event{
		Source: "radius", Kind: Update, ID: "nas1 0A1B", NAS: "nas1", VRF: "red", User: "alice@isp.example",
		At: fromMilli(1_800_000_000_123), Since: fromMilli(1_799_999_000_000), Timeout: 90 * time.Second,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/56")},
		Options: Options{
			Realm: "isp.example", Class: "gold", TimeZone: "Europe/Berlin", Ports: "1024-2047",
			Attributes: NewAttributes(Attribute{Code: 25, Data: "c"}, Attribute{Code: 1, Vendor: 10415, Data: "\x00\xff"}),
		},
	}
}

func TestEventEncoding(t *testing.T) {
	want := someEvent()
	data := want.AppendBinary(nil)
	const golden = "010206726164697573096e61733120304131420" + "46e6173310372656411616c696365406973702e6578616d706c65"
	if got := hex.EncodeToString(data); !strings.HasPrefix(got, golden) {
		t.Errorf("encoded as %s", got)
	}
	got, err := ParseEvent(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("decoded %+v, %v; want %+v", got, err, want)
	}
	for n := range data {
		if _, err := ParseEvent(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the first %d octets: %v", n, err)
		}
	}
}

func TestEventNormalize(t *testing.T) {
	for name, change := range map[string]func(*Event){
		"source is missing":                     func(e *Event) { e.Source = "" },
		"id is missing":                         func(e *Event) { e.ID = "" },
		"at is missing":                         func(e *Event) { e.At = time.Time{} },
		"user is missing":                       func(e *Event) { e.Kind, e.User = Begin, "" },
		"prefixes is missing":                   func(e *Event) { e.Kind, e.Prefixes = Begin, nil },
		"nas is missing":                        func(e *Event) { e.Kind, e.NAS = EndAll, "" },
		"kind is unknown":                       func(e *Event) { e.Kind = 9 },
		"user has a control character":          func(e *Event) { e.User = "a\n" },
		"id has 300 octets":                     func(e *Event) { e.ID = strings.Repeat("x", 300) },
		"timeZone \"Nowhere\" is no time zone":  func(e *Event) { e.TimeZone = "Nowhere" },
		"ports are no ports":                    func(e *Event) { e.Ports = "7-3" },
		"attributes are no encoded attributes":  func(e *Event) { e.Attributes = "\xff" },
		"timeout is -1s":                        func(e *Event) { e.Timeout = -time.Second },
		"prefix is missing: an address such as": func(e *Event) { e.Prefixes = []netip.Prefix{{}} },
	} {
		e := someEvent()
		change(&e)
		if _, err := e.Normalize(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := someEvent()
	e.Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:1::5/64"), netip.MustParsePrefix("::ffff:192.0.2.1/128"), netip.MustParsePrefix("192.0.2.1/32")}
	got, err := e.Normalize()
	if want := someEvent().Prefixes[:2]; err != nil || !slices.Equal(got.Prefixes, want) {
		t.Errorf("prefixes %v, %v; want %v", got.Prefixes, err, want)
	}
}

func TestParsePorts(t *testing.T) {
	for in, want := range map[string]Ports{
		"53": "53", "4096-5119 1024-2047": "1024-2047 4096-5119", "1-2;3-4": "1-4", "0-65535": "0-65535", "5-9 7": "5-9",
		// RFC 7597, Appendix B, Example 1: PSID 0x34 with 6 bits of offset and 8 of PSID.
		"psid:6/8/52": "",
		"psid:0/4/15": "61440-65535",
	} {
		got, err := ParsePorts(in)
		if in == "psid:6/8/52" {
			want = got
			if !strings.HasPrefix(string(got), "1232-1235 2256-2259 ") || !strings.HasSuffix(string(got), " 64720-64723") || len(got.Ranges()) != 63 {
				t.Errorf("%s: %s", in, got)
			}
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"x", "9-5", "65536", "psid:6/8", "psid:8/9/1", "psid:6/8/256", "-5"} {
		if got, err := ParsePorts(bad); err == nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// What is over is forgotten, from the memory and from the state.
func TestTrimSessions(t *testing.T) {
	var table Table
	stored := map[string][]byte{}
	put := func(kind EventKind, id, user string, at int64, prefixes ...string) {
		e := Event{Source: "s", Kind: kind, ID: id, User: user, At: fromMilli(at)}
		for _, p := range prefixes {
			e.Prefixes = append(e.Prefixes, netip.MustParsePrefix(p))
		}
		e, err := e.Normalize()
		if err != nil {
			t.Fatal(err)
		}
		table.Apply(e)
	}
	delta := func() {
		keep := func(key string, value []byte) {
			if stored[key] = value; value == nil {
				delete(stored, key)
			}
		}
		table.Delta(keep)
		table.DeltaPorts(keep)
	}
	put(Begin, "1", "ann", 100, "192.0.2.1/32", "2001:db8::/64")
	put(Begin, "2", "bob", 100, "192.0.2.2/32")
	put(End, "3", "", 150) // of a session that nobody knows
	m := Mapping{Public: netip.MustParseAddr("203.0.113.1"), First: 1, Last: 2000, Private: netip.MustParseAddr("192.0.2.2")}
	table.Map(m, 100)
	put(Update, "2", "", 200, "192.0.2.3/32")
	put(End, "1", "", 300)
	table.Unmap(m, 300)
	delta()
	if len(stored) != 4 {
		t.Errorf("%d states", len(stored))
	}
	table.TrimSessions(250) // the unknown, and the address that bob gave up
	delta()
	if len(stored) != 3 || table.Lookup(netip.MustParseAddr("192.0.2.2"), 150) != nil || table.Lookup(netip.MustParseAddr("192.0.2.1"), 150) == nil {
		t.Errorf("%d states", len(stored))
	}
	table.TrimSessions(300)
	delta()
	if len(stored) != 1 || len(table.lengths) != 1 || table.lengths[0].n != 1 || table.Shared() {
		t.Errorf("%d states, %v", len(stored), table.lengths)
	}
	put(End, "2", "", 400)
	table.TrimSessions(400)
	delta()
	if len(stored) != 0 || len(table.Sources()) != 0 {
		t.Errorf("left: %d states, sources %v", len(stored), table.Sources())
	}
}

// A session of one address takes at most 250 octets, with all that is known of
// it and the way to it.
func TestSessionMemory(t *testing.T) {
	const n = 1 << 17
	before := heap()
	table := someSessions(t, n, func(string, []byte) {})
	each := float64(heap()-before) / n
	t.Logf("%.0f octets per session", each)
	if each > 250 {
		t.Errorf("%.0f octets per session, want at most 250", each)
	}
	runtime.KeepAlive(table)
}

// someSessions returns a Table of user sessions of one address each, as they come
// out of the journal, and stores them.
func someSessions(tb testing.TB, n int, store func(key string, value []byte)) *Table {
	tb.Helper()
	table := new(Table)
	e := Event{Source: "radius", Kind: Begin, At: fromMilli(1_800_000_000_000), NAS: "bng-1", Timeout: time.Hour}
	var data []byte
	for i := range n {
		e.ID, e.User = fmt.Sprintf("bng-1 %08X", i), fmt.Sprintf("user%07d@example", i)
		e.Prefixes = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
		data = e.AppendBinary(data[:0])
		parsed, err := ParseEvent(data)
		if err != nil {
			tb.Fatal(err)
		}
		table.Apply(parsed)
		if i%1024 == 0 {
			table.Delta(store)
		}
	}
	table.Delta(store)
	return table
}

func FuzzParseEvent(f *testing.F) {
	f.Add(someEvent().AppendBinary(nil))
	f.Add(Event{Source: "s", Kind: EndAll, NAS: "n", At: fromMilli(1)}.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEvent(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not match ErrCorrupt", err)
			}
			return
		}
		var table Table
		table.Apply(e)
		table.Delta(func(_ string, value []byte) {
			if err := new(Table).RestoreClaim(value); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
		})
	})
}

func FuzzRestoreClaim(f *testing.F) {
	var table Table
	table.Apply(someEvent())
	table.Delta(func(_ string, value []byte) { f.Add(value) })
	f.Fuzz(func(t *testing.T, data []byte) {
		var table Table
		if err := table.RestoreClaim(data); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error %v does not match ErrCorrupt", err)
		}
		table.TrimSessions(1 << 50)
	})
}

func FuzzRestorePorts(f *testing.F) {
	var table Table
	table.Map(Mapping{Public: netip.MustParseAddr("203.0.113.1"), First: 1, Last: 2000, Private: netip.MustParseAddr("192.0.2.2"), Remote: netip.MustParseAddrPort("[2001:db8::1]:443")}, 100)
	table.DeltaPorts(func(_ string, value []byte) { f.Add(value) })
	f.Fuzz(func(t *testing.T, data []byte) {
		var table Table
		if err := table.RestorePorts(data); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("error %v does not match ErrCorrupt", err)
		}
		table.TrimSessions(1 << 50)
	})
}
