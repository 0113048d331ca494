package users

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bind returns a Binding with times in Unix milliseconds, 0 for ever.
func bind(prefix, user string, from, until int64) Binding {
	return Binding{Prefix: netip.MustParsePrefix(prefix), User: user, From: fromMilli(from), Until: fromMilli(until)}
}

func who(h *Holder) string {
	if h == nil {
		return "nobody"
	}
	return h.User()
}

// TestLookupBatchOfNets, where nobody is, in which single users are, and which
// a short prefix has in it, finds what one Lookup after the other finds.
func TestLookupBatchOfNets(t *testing.T) {
	addrs := []netip.Addr{{}}
	for _, a := range []string{
		"0.0.0.0", "10.0.0.1", "10.0.0.2", "10.1.0.1", "11.0.0.1", "255.255.255.255", "::ffff:10.0.0.1",
		"::", "2001:db8::1", "2001:db8:ffff::1", "2001:db9::1", "ffff::1",
	} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	var table Table
	for _, prefix := range []string{"10.0.0.1/32", "2001:db8::/64", "10.0.0.0/15", "11.0.0.0/8", "2001:db8::/31", "0.0.0.0/0", "::/0"} {
		table.Replace(prefix, []Binding{bind(prefix, prefix, 0, 0)}, 1)
		got, ats := make([]*Holder, len(addrs)), make([]int64, len(addrs))
		table.LookupBatch(addrs, ats, got)
		for i, a := range addrs {
			if want := table.Lookup(a, 0); got[i] != want {
				t.Errorf("%v, after %s: %s in a batch, %s alone", a, prefix, who(got[i]), who(want))
			}
		}
	}
	if h := table.Lookup(netip.MustParseAddr("9.9.9.9"), 0); who(h) != "0.0.0.0/0" {
		t.Errorf("9.9.9.9 is %s", who(h))
	}
}

func TestLookup(t *testing.T) {
	var table Table
	table.Replace("a", []Binding{
		bind("192.0.2.1/32", "alice", 1000, 2000),
		bind("192.0.2.1/32", "bob", 2000, 3000),
		bind("192.0.2.0/24", "office", 0, 2500),
		bind("192.0.0.0/16", "region", 2400, 0),
		bind("2001:db8:1::/56", "carol", 0, 0),
		bind("2001:db8:1::7/128", "dave", 1000, 5000),
		bind("2001:db8:1::7/128", "erin", 2000, 3000),
	}, 1)
	for _, c := range []struct {
		addr string
		at   int64
		want string
	}{
		{"192.0.2.1", 999, "office"},
		{"192.0.2.1", 1000, "alice"},
		{"192.0.2.1", 1999, "alice"},
		{"192.0.2.1", 2000, "bob"},
		{"::ffff:192.0.2.1", 2000, "bob"},
		{"192.0.2.1", 3000, "region"},
		{"192.0.2.2", 2400, "office"},
		{"::ffff:192.0.2.2", 2400, "office"},
		{"192.0.2.2", 2500, "region"},
		{"192.0.3.2", 2300, "nobody"},
		{"192.1.0.1", 2600, "nobody"},
		{"2001:db8:1:0:1::", 1, "carol"},
		{"2001:db8:1:100::", 1, "nobody"},
		{"2001:db8:1::7", 1500, "dave"},
		{"2001:db8:1::7", 2000, "erin"},
		{"2001:db8:1::7", 3000, "dave"},
		{"2001:db8:1::7", 5000, "carol"},
		{"2001:db8:1::8%eth0", 5000, "carol"},
	} {
		if got := who(table.Lookup(netip.MustParseAddr(c.addr), c.at)); got != c.want {
			t.Errorf("%s at %d is held by %s, want %s", c.addr, c.at, got, c.want)
		}
	}
	if h := table.Lookup(netip.Addr{}, 1500); h != nil {
		t.Errorf("no address is held by %s", who(h))
	}
}

func TestReplace(t *testing.T) {
	var table Table
	alice, bob := bind("192.0.2.1/32", "alice", 0, 0), bind("2001:db8::/64", "bob", 1000, 0)
	carol := bind("192.0.2.3/32", "carol", 9000, 0)
	first := table.Replace("a", []Binding{alice, bob, carol}, 100)
	if len(first.Added) != 3 || len(first.Changed)+len(first.Removed) != 0 {
		t.Fatalf("%+v", first)
	}
	holder := first.Added[0]
	holder.Session = "mine"

	if c := table.Replace("a", []Binding{carol, bob, alice}, 200); len(c.Added)+len(c.Changed)+len(c.Removed) != 0 {
		t.Errorf("the same list in another order: %+v", c)
	}

	ended := alice
	ended.Until = fromMilli(5000)
	c := table.Replace("a", []Binding{ended}, 3000)
	if len(c.Changed) != 1 || c.Changed[0].Holder != holder || c.Changed[0].Before != alice || holder.Until != 5000 {
		t.Errorf("changed %+v, until %d", c.Changed, holder.Until)
	}
	if len(c.Removed) != 2 || c.Removed[0].User() != "carol" || c.Removed[1].User() != "bob" || len(c.Added) != 0 {
		t.Errorf("%+v", c)
	}
	if h := table.Lookup(alice.Prefix.Addr(), 4000); h != holder || h.Session != "mine" {
		t.Errorf("the Holder is another: %+v", h)
	}
	for _, l := range []struct {
		addr string
		at   int64
		want string
	}{
		{"2001:db8::1", 2999, "bob"}, // a late flow
		{"2001:db8::1", 3000, "nobody"},
		{"192.0.2.3", 9500, "nobody"}, // would only have begun
		{"192.0.2.1", 5000, "nobody"},
	} {
		if got := who(table.Lookup(netip.MustParseAddr(l.addr), l.at)); got != l.want {
			t.Errorf("%s at %d is held by %s, want %s", l.addr, l.at, got, l.want)
		}
	}

	// A line that is back is the Holder it was.
	c = table.Replace("a", []Binding{ended, bob}, 4000)
	if len(c.Changed) != 1 || c.Changed[0].Holder != first.Added[1] || len(c.Added) != 0 || c.Changed[0].Removed() {
		t.Errorf("%+v", c)
	}
	// A correction counts from the start of the binding that it corrects.
	robert := bind("2001:db8::/64", "robert", 1000, 0)
	table.Replace("a", []Binding{ended, robert}, 4500)
	if got := who(table.Lookup(netip.MustParseAddr("2001:db8::1"), 1500)); got != "robert" {
		t.Errorf("held by %s after the correction", got)
	}

	if got := len(table.Holders("a")); got != 3 {
		t.Errorf("%d Holders, want the listed two and the removed one", got)
	}
	table.Trim(4500)
	if got := len(table.Holders("a")); got != 2 {
		t.Errorf("%d Holders after Trim, want 2", got)
	}
	table.Replace("a", nil, 6000)
	table.Trim(6000)
	if s := table.Sources(); len(s) != 0 || len(table.lengths) != 0 {
		t.Errorf("something is left: %q, %v", s, table.lengths)
	}
}

func TestReplacePassesOverInvalid(t *testing.T) {
	var table Table
	c := table.Replace("a", []Binding{{}, {User: "x"}, bind("192.0.2.1/24", "x", 0, 0), bind("192.0.2.1/32", "x", 2, 1)}, 1)
	if len(c.Added) != 0 || len(table.Sources()) != 0 {
		t.Errorf("%+v", c)
	}
}

// A plain is the plainest table: a list that is searched from end to end.
type plain []entry

type entry struct {
	Binding
	source  string
	removed bool
}

func (p *plain) replace(source string, bs []Binding, at int64) {
	same := func(a, b Binding) bool { return a.Prefix == b.Prefix && a.From.Equal(b.From) && a.User == b.User }
	var kept plain
	for _, e := range *p {
		if e.source == source {
			if slices.ContainsFunc(bs, func(b Binding) bool { return same(e.Binding, b) }) {
				continue
			}
			if !e.removed {
				e.removed = true
				if e.Until.IsZero() || toMilli(e.Until) > at {
					e.Until = fromMilli(at)
				}
				if toMilli(e.Until) <= toMilli(e.From) {
					continue
				}
			}
		}
		kept = append(kept, e)
	}
	for i, b := range bs {
		if !slices.ContainsFunc(bs[:i], func(a Binding) bool { return same(a, b) }) {
			kept = append(kept, entry{b, source, false})
		}
	}
	*p = kept
}

func (p plain) lookup(a netip.Addr, at int64) string {
	a = a.Unmap()
	best := -1
	for i, e := range p {
		if !e.Prefix.Contains(a) || at < toMilli(e.From) || !e.Until.IsZero() && at >= toMilli(e.Until) {
			continue
		}
		if best < 0 || e.wins(p[best]) {
			best = i
		}
	}
	if best < 0 {
		return "nobody"
	}
	return p[best].User + " of " + p[best].source
}

func (e entry) wins(f entry) bool {
	switch {
	case e.Prefix.Bits() != f.Prefix.Bits():
		return e.Prefix.Bits() > f.Prefix.Bits()
	case !e.From.Equal(f.From):
		return e.From.After(f.From)
	case e.removed != f.removed:
		return f.removed
	case e.source != f.source:
		return e.source < f.source
	}
	return e.User < f.User
}

func TestTableAgainstScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			low := byte(rapid.IntRange(0, 7).Draw(t, "low"))
			switch rapid.IntRange(0, 2).Draw(t, "family") {
			case 0:
				return netip.AddrFrom4([4]byte{192, 0, 2, low})
			case 1:
				return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: low})
			}
			return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: low})
		})
		binding := rapid.Custom(func(t *rapid.T) Binding {
			a := addr.Draw(t, "addr").Unmap()
			short := rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 30, 64, 100}).Draw(t, "shorter by")
			p, _ := a.Prefix(max(a.BitLen()-short, 0))
			from := rapid.Int64Range(0, 5).Draw(t, "from")
			until := rapid.Int64Range(0, 9).Draw(t, "until")
			if until <= from {
				until = 0
			}
			b := Binding{Prefix: p, User: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user"), From: fromMilli(from), Until: fromMilli(until)}
			b.Realm = rapid.SampledFrom([]string{"", "example.net"}).Draw(t, "realm")
			return b
		})
		source := rapid.SampledFrom([]string{"x", "y"})
		table, model := new(Table), plain{}
		t.Repeat(map[string]func(*rapid.T){
			"Replace": func(t *rapid.T) {
				name, bs := source.Draw(t, "source"), rapid.SliceOfN(binding, 0, 12).Draw(t, "bindings")
				at := rapid.Int64Range(0, 9).Draw(t, "at")
				before := map[*Holder]bool{}
				for _, h := range table.Holders(name) {
					before[h] = !h.Removed()
				}
				c := table.Replace(name, bs, at)
				for _, h := range c.Added {
					if _, had := before[h]; had {
						t.Fatalf("added %+v was there", h)
					}
					before[h] = true
				}
				for _, h := range c.Changed {
					before[h.Holder] = true
				}
				for _, h := range c.Removed {
					before[h] = false
				}
				for _, h := range table.Holders(name) {
					if before[h] == h.Removed() {
						t.Fatalf("the change says otherwise of %+v", h)
					}
				}
				model.replace(name, bs, at)
			},
			"Trim": func(t *rapid.T) {
				at := rapid.Int64Range(0, 9).Draw(t, "at")
				table.Trim(at)
				model = slices.DeleteFunc(model, func(e entry) bool { return e.removed && toMilli(e.Until) <= at })
			},
			"Restore": func(t *rapid.T) {
				restored := new(Table)
				for _, name := range table.Sources() {
					data := table.AppendSource(nil, name)
					if err := restored.RestoreSource(data); err != nil {
						t.Fatal(err)
					}
					if again := restored.AppendSource(nil, name); !slices.Equal(again, data) {
						t.Fatalf("%q is %x, restored %x", name, data, again)
					}
				}
				table = restored
			},
			"": func(t *rapid.T) {
				n := rapid.IntRange(0, 40).Draw(t, "batch")
				addrs := rapid.SliceOfN(addr, n, n).Draw(t, "addrs")
				ats := rapid.SliceOfN(rapid.Int64Range(0, 10), n, n).Draw(t, "ats")
				holders := make([]*Holder, n)
				table.Tolerate(rapid.Int64Range(0, 2).Draw(t, "tolerance"))
				table.LookupBatch(addrs, ats, holders)
				for i, h := range holders {
					if want := table.Lookup(addrs[i], ats[i]); h != want {
						t.Fatalf("%s at %d in a batch is held by %s, want %s", addrs[i], ats[i], who(h), who(want))
					}
				}
				table.Tolerate(0)
				for range 10 {
					a, at := addr.Draw(t, "addr"), rapid.Int64Range(0, 10).Draw(t, "at")
					got := "nobody"
					if h := table.Lookup(a, at); h != nil {
						got = h.User() + " of " + h.Source()
					}
					if want := model.lookup(a, at); got != want {
						t.Fatalf("%s at %d is held by %s, want %s", a, at, got, want)
					}
				}
			},
		})
	})
}

// TestPrefixesAgainstMap sets and deletes prefixes of a length in a table that
// is nearly full, of both families, among them IPv6 prefixes with the same
// hash, and asks for addresses of theirs.
func TestPrefixesAgainstMap(t *testing.T) {
	for _, bits := range []uint8{128, 120, 112} {
		rng := rand.New(rand.NewPCG(1, 2))
		table := prefixes{bits: bits}
		model := map[netip.Addr]*Holder{}
		var addrs []netip.Addr
		for n := range uint32(350) {
			addrs = append(addrs, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n<<(128-bits)))))
		}
		for n := range uint64(350) {
			hi := 0x20010db800000000 | n%2
			b := binary.BigEndian.AppendUint64(nil, hi)
			lo := hi * 0xff51afd7ed558ccd >> (128 - bits) << (128 - bits)
			addrs = append(addrs, netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(b, lo^n/2<<(128-bits)))))
		}
		if a, b := addressOf(addrs[350]), addressOf(addrs[351]); a == b || bits == 128 && a.key != b.key {
			t.Fatalf("%v and %v should have the same hash", a, b)
		}
		// An address of the prefix, with some bits behind the prefix.
		inside := func(a netip.Addr) address {
			k := addressOf(a)
			rest := rng.Uint64() & (1<<(128-bits) - 1)
			if k.key&hashed == 0 {
				return address{key: k.key | key(rest)}
			}
			return address6(k.hi, k.lo|rest)
		}
		pick := func() netip.Addr { return addrs[rng.Uint64N(700)] }
		for range 50_000 {
			a := pick()
			if rng.Uint64N(3) == 0 {
				table.set(addressOf(a), nil)
				delete(model, a)
			} else {
				h := &Holder{}
				h.setPrefix(netip.PrefixFrom(a, a.BitLen()))
				table.set(addressOf(a), h)
				model[a] = h
			}
			if a := pick(); table.get(inside(a)) != model[a] {
				t.Fatalf("/%d: %v is %p, want %p", bits, a, table.get(inside(a)), model[a])
			}
		}
		for _, a := range addrs {
			if table.get(inside(a)) != model[a] {
				t.Errorf("/%d: %v is %p, want %p", bits, a, table.get(inside(a)), model[a])
			}
		}
		if table.n != len(model) {
			t.Errorf("/%d: %d prefixes, want %d", bits, table.n, len(model))
		}
	}
}

func TestRestoreSourceRefuses(t *testing.T) {
	a := bind("192.0.2.1/32", "a", 0, 0)
	var table Table
	table.Replace("here", []Binding{a}, 1)
	for name, data := range map[string][]byte{
		"a binding twice":       AppendList(nil, "s", []Binding{a, a}),
		"a source that is here": AppendList(nil, "here", []Binding{a}),
		"no list":               nil,
	} {
		if err := table.RestoreSource(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := table.Sources(); !slices.Equal(s, []string{"here"}) {
		t.Errorf("sources %q", s)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	var table Table
	table.Replace("a", []Binding{bind("192.0.2.1/32", "alice", 0, 0), bind("2001:db8::/56", "bob", 0, 0)}, 1)
	host, prefix, none := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.1")
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup(host, 1)
		table.Lookup(prefix, 1)
		table.Lookup(none, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// someBindings returns n bindings of one kind.
func someBindings(kind string, n int) []Binding {
	bs := make([]Binding, n)
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range bs {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 16), byte(i >> 8), byte(i)}
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		switch kind {
		case "IPv6 hosts":
			a[15] = 1
			p = netip.PrefixFrom(netip.AddrFrom16(a), 128)
		case "IPv6 56":
			p = netip.PrefixFrom(netip.AddrFrom16(a), 56)
		}
		bs[i] = Binding{Prefix: p, User: fmt.Sprintf("user%07d@example", i), From: from}
	}
	return bs
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTableMemory(t *testing.T) {
	const n = 1 << 18
	for _, kind := range []string{"IPv4 hosts", "IPv6 hosts", "IPv6 56"} {
		before := heap()
		table := someList(t, kind, n)
		each := float64(heap()-before) / float64(n)
		t.Logf("%s: %.0f octets per binding", kind, each)
		if each > 250 {
			t.Errorf("%s: %.0f octets per binding, want at most 250", kind, each)
		}
		runtime.KeepAlive(table)
	}
}

// someList returns a Table of someBindings, as they come out of the journal.
func someList(tb testing.TB, kind string, n int) *Table {
	tb.Helper()
	_, bs, err := ParseList(AppendList(nil, "file", someBindings(kind, n)))
	if err != nil {
		tb.Fatal(err)
	}
	table := new(Table)
	table.Replace("file", bs, 1)
	return table
}

// BenchmarkReplace replaces a list of a million by one that differs in one.
func BenchmarkReplace(b *testing.B) {
	var table Table
	bs := someBindings("IPv4 hosts", 1<<20)
	table.Replace("a", bs, 1)
	at := toMilli(bs[0].From)
	b.ReportAllocs()
	for b.Loop() {
		at++
		bs[7].Until = fromMilli(at + 1)
		if c := table.Replace("a", bs, at); len(c.Changed) != 1 {
			b.Fatalf("%d changed", len(c.Changed))
		}
	}
}
