package users

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A told is what a plain model knows of a user session: intervals in a list,
// of which the newest wins.
type told struct {
	id, user, nas      string
	began, seen, until int64 // until 0: for ever
	begun, ended       bool
	swept              bool // ended with all of its NAS
	latest             bool // of its ID
	held               []heldPrefix
}

type heldPrefix struct {
	prefix      netip.Prefix
	from, given int64 // given up; 0 for not
}

// A model is the plainest directory of user sessions of one source.
type model []*told

// end returns when a prefix's interval ends of itself.
func (x *told) end(h heldPrefix) int64 {
	switch {
	case h.given == 0:
		return x.until
	case x.until == 0:
		return h.given
	}
	return min(h.given, x.until)
}

// holder returns whose the newest interval is that began by a moment.
func (m model) holder(p netip.Prefix, at int64) (*told, heldPrefix) {
	var best *told
	var hold heldPrefix
	for _, x := range m {
		for _, h := range x.held {
			if h.prefix != p || h.from > at {
				continue
			}
			if best == nil || precedes(x, h, best, hold) {
				best, hold = x, h
			}
		}
	}
	return best, hold
}

// precedes reports whether interval h of x is newer than g of y.
func precedes(x *told, h heldPrefix, y *told, g heldPrefix) bool {
	return cmp.Or(cmp.Compare(h.from, g.from), cmp.Compare(y.user, x.user), cmp.Compare(y.id, x.id), cmp.Compare(x.began, y.began)) > 0
}

// taken reports whether anybody else began to hold the prefix of h, of x, from
// a moment on but before h.
func (m model) taken(x *told, h heldPrefix, from int64) bool {
	for _, y := range m {
		for _, g := range y.held {
			if g != h && g.prefix == h.prefix && g.from >= from && precedes(x, h, y, g) || y != x && g == h && precedes(x, h, y, g) {
				return true
			}
		}
	}
	return false
}

func (m model) lookup(a netip.Addr, at int64) string {
	x, h := m.holder(netip.PrefixFrom(a, a.BitLen()), at)
	if x == nil {
		return "nobody"
	}
	if end := x.end(h); end != 0 && at >= end {
		return "nobody"
	}
	return x.user
}

func (m *model) apply(e Event) {
	at := toMilli(e.At)
	if e.Kind == EndAll {
		for _, x := range *m {
			if x.latest && x.nas == e.NAS && !x.ended && x.began <= at && x.seen <= at {
				x.stop(at)
				x.swept = true
			}
		}
		return
	}
	from := at
	if since := toMilli(e.Since); since != 0 && e.Kind != Begin {
		from = since
	}
	deadline := int64(0)
	if e.Timeout != 0 {
		deadline = at + e.Timeout.Milliseconds()
	}
	var x *told
	for _, y := range *m {
		if y.id == e.ID && y.latest {
			x = y
		}
	}
	known := e.User != "" && len(e.Prefixes) > 0
	begin := func(ended int64, latest bool) {
		if !known && e.Kind != End {
			return
		}
		n := &told{id: e.ID, user: e.User, nas: e.NAS, began: from, seen: at, until: deadline, begun: e.Kind == Begin, latest: latest}
		if latest && x != nil {
			x.latest = false
			if x.user == "" {
				*m = slices.DeleteFunc(*m, func(y *told) bool { return y == x })
			}
		}
		if e.Kind == End && (ended == 0 || at < ended) {
			ended = at
		}
		if ended != 0 {
			n.ended, n.until = true, max(ended, from)
		}
		if known {
			for _, p := range e.Prefixes {
				n.held = append(n.held, heldPrefix{p, from, 0})
			}
		}
		*m = append(*m, n)
	}
	another := x != nil && (e.User != "" && e.User != x.user || x.ended && e.Kind != End && from >= x.until && from > x.began)
	switch {
	case x == nil:
		begin(0, true)
	case x.user == "" && from <= x.until:
		if e.Kind != End {
			begin(x.until, true)
		}
	case another && from < x.began:
		if old := m.earlier(e, from); old == nil {
			begin(x.began, false)
		} else if e.Kind == End && at < old.until {
			old.stop(at)
		}
	case another:
		if old := m.earlier(e, from); old != nil && old.began == from {
			if e.Kind == End && at < old.until {
				old.stop(at)
			}
			return
		}
		if !x.ended || x.until > from {
			x.stop(from)
		}
		begin(0, true)
	default:
		m.goOn(x, e, from, at, deadline)
	}
}

// earlier returns the latest session of the same ID and user whose ID has gone to
// another.
func (m model) earlier(e Event, from int64) (best *told) {
	for _, x := range m {
		if !x.latest && x.id == e.ID && x.user == e.User && x.began <= from && (best == nil || x.began > best.began) {
			best = x
		}
	}
	return best
}

// overtaken reports whether what x held until it ended is another's since.
func (m model) overtaken(x *told) bool {
	for _, h := range x.held {
		var next *told
		var taken heldPrefix
		for _, y := range m {
			for _, g := range y.held {
				if g.prefix == h.prefix && precedes(y, g, x, h) && (next == nil || precedes(next, taken, y, g)) {
					next, taken = y, g
				}
			}
		}
		if next != nil && h.given == 0 && taken.from >= x.until {
			return true
		}
	}
	return false
}

// start returns when x began to hold anything.
func (x *told) start() int64 {
	if len(x.held) == 0 {
		return x.began
	}
	return slices.MinFunc(x.held, func(a, b heldPrefix) int { return int(a.from - b.from) }).from
}

// stop ends x.
func (x *told) stop(at int64) {
	x.ended, x.swept, x.seen, x.until = true, false, max(x.seen, at), max(at, x.start())
	for i := range x.held {
		if h := &x.held[i]; h.given > at {
			h.given = max(at, h.from)
		}
	}
}

func (m model) goOn(x *told, e Event, from, at, deadline int64) {
	if e.Kind == Begin || !x.begun && !e.Since.IsZero() {
		start := x.start()
		for i := range x.held {
			h := &x.held[i]
			if h.from != start || from >= start {
				continue
			}
			if m.taken(x, *h, from) {
				continue
			}
			h.from = from
		}
	}
	x.begun = x.begun || e.Kind == Begin
	if x.swept && at > x.seen && from < x.until && !m.overtaken(x) {
		x.ended, x.swept = false, false
	}
	switch {
	case e.Kind == End:
		if !x.ended || at < x.until {
			x.stop(at)
		}
	case at > x.seen && !x.ended:
		x.seen, x.until = at, deadline
		if len(e.Prefixes) == 0 {
			return
		}
		holds := map[netip.Prefix]bool{}
		for i := range x.held {
			h := &x.held[i]
			switch {
			case h.given != 0:
			case !slices.Contains(e.Prefixes, h.prefix):
				h.given = max(at, h.from)
			default: // it goes on holding what nobody took over since
				y, other := m.holder(h.prefix, 1<<60)
				holds[h.prefix] = holds[h.prefix] || y == x && other.from == h.from
			}
		}
		for _, p := range e.Prefixes {
			if !holds[p] {
				x.held = append(x.held, heldPrefix{p, at, 0})
			}
		}
	}
}

// TestEventsAgainstIntervals lets sessions begin, change and end, twice, late
// and in any order, and asks who holds what when.
func TestEventsAgainstIntervals(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := rapid.SampledFrom(addrs).Draw(t, "addr")
		return netip.PrefixFrom(a, a.BitLen())
	})
	event := rapid.Custom(func(t *rapid.T) Event {
		e := Event{
			Source: "radius", Kind: rapid.SampledFrom([]EventKind{Begin, Begin, Update, Update, End, EndAll}).Draw(t, "kind"),
			NAS: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "nas"), At: fromMilli(rapid.Int64Range(1, 20).Draw(t, "at")),
		}
		if e.Kind == EndAll {
			return e
		}
		e.ID = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id")
		if e.Kind == Begin || rapid.Bool().Draw(t, "full") {
			e.User = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user")
			e.Prefixes = rapid.SliceOfN(prefix, 1, 3).Draw(t, "prefixes")
		}
		if rapid.Bool().Draw(t, "has since") {
			e.Since = fromMilli(rapid.Int64Range(1, 20).Draw(t, "since"))
		}
		if rapid.IntRange(0, 2).Draw(t, "times out") == 0 {
			e.Timeout = time.Duration(rapid.IntRange(1, 8).Draw(t, "timeout")) * time.Millisecond
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		table, plain := new(Table), model{}
		var before []Event
		put := func(t *rapid.T, e Event) {
			e, err := e.Normalize()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseEvent(e.AppendBinary(nil)); err != nil || !again.At.Equal(e.At) || again.ID != e.ID || !slices.Equal(again.Prefixes, e.Prefixes) {
				t.Fatalf("%+v is decoded as %+v, %v", e, again, err)
			}
			before = append(before, e)
			table.Apply(e)
			plain.apply(e)
		}
		stored := map[string][]byte{}
		t.Repeat(map[string]func(*rapid.T){
			"Event": func(t *rapid.T) { put(t, event.Draw(t, "event")) },
			"Again": func(t *rapid.T) {
				if len(before) > 0 {
					put(t, rapid.SampledFrom(before).Draw(t, "event"))
				}
			},
			"Restore": func(t *rapid.T) {
				table.Delta(func(key string, value []byte) {
					if value == nil {
						delete(stored, key)
						return
					}
					stored[key] = value
				})
				table = new(Table)
				for _, value := range stored {
					if err := table.RestoreClaim(value); err != nil {
						t.Fatal(err)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, a := range addrs {
					for at := int64(1); at < 30; at++ {
						got := "nobody"
						if h := table.Lookup(a, at); h != nil {
							got = h.User()
						}
						if want := plain.lookup(a, at); got != want {
							t.Fatalf("%s at %d is held by %s, want %s", a, at, got, want)
						}
					}
				}
			},
		})
	})
}

// A new session beyond MaxSessions is not known, but ends what others held of its
// addresses all the same; it is known once there is room and it is heard of again.
func TestMaxSessions(t *testing.T) {
	table := Table{maxSessions: 2}
	event := func(kind EventKind, user, prefix string, at int64) {
		t.Helper()
		e, err := Event{Source: "radius", Kind: kind, ID: user + "'s", NAS: "bng", User: user,
			Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}, At: fromMilli(at), Since: fromMilli(10_000)}.Normalize()
		if err != nil {
			t.Fatal(err)
		}
		table.Apply(e)
	}
	want := func(refused uint64, holders map[string]string) {
		t.Helper()
		if _, n := table.Sessions(); n != refused {
			t.Errorf("%d are refused, want %d", n, refused)
		}
		for address, user := range holders {
			got := ""
			if h := table.Lookup(netip.MustParseAddr(address), 50_000); h != nil {
				got = h.User()
			}
			if got != user {
				t.Errorf("%s is held by %q, want %q", address, got, user)
			}
		}
	}
	event(Begin, "ann", "192.0.2.1/32", 10_000)
	event(Begin, "bob", "192.0.2.2/32", 10_000)
	want(0, map[string]string{"192.0.2.1": "ann", "192.0.2.2": "bob"})
	event(Begin, "cid", "192.0.2.1/32", 20_000)
	want(1, map[string]string{"192.0.2.1": "", "192.0.2.2": "bob"})
	event(Update, "bob", "192.0.2.3/32", 20_000) // those that are known go on
	want(1, map[string]string{"192.0.2.2": "", "192.0.2.3": "bob"})
	event(End, "ann", "192.0.2.1/32", 20_000)
	table.TrimSessions(30_000)
	event(Update, "cid", "192.0.2.1/32", 40_000)
	want(1, map[string]string{"192.0.2.1": "cid", "192.0.2.3": "bob"})
	if n, _ := table.Sessions(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}
