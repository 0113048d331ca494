package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/users"
)

// A directory is who holds which address, as the operator's files say it.
type directory struct {
	sources []string
	lists   map[string][]users.Binding
	encoded map[string]listing // what was put into the journal
}

// A listing is the content of an entry of users.
type listing struct {
	source   string
	bindings []users.Binding
}

var people = []string{"ann", "bob", "cid", "dan", "eve", "fay"}

// begin fills the files.
func (d *directory) begin(w *world) {
	d.sources = []string{"files"}
	if w.rng.IntN(2) == 0 {
		d.sources = append(d.sources, "radius")
	}
	d.lists, d.encoded = map[string][]users.Binding{}, map[string]listing{}
	for range 3 + w.rng.IntN(8) {
		d.add(w)
	}
	if w.mood.shared && (w.rng.IntN(2) == 0 || w.draws(SharedAddresses)) { // whoever the NAT has its ports for
		d.lists[d.sources[0]] = append(d.lists[d.sources[0]], users.Binding{Prefix: netip.PrefixFrom(translated, 32), User: one(&w.scheduler, people)})
	}
}

// add puts another binding into a file. Those of another user who holds the
// address end at times.
func (d *directory) add(w *world) {
	source := one(&w.scheduler, d.sources)
	var p netip.Prefix
	switch w.rng.IntN(8) {
	case 0:
		p = netip.MustParsePrefix("10.0.1.0/24")
	case 1:
		p = netip.MustParsePrefix("2001:db8:1::/48")
	case 2, 3:
		a := one(&w.scheduler, inside6)
		p = netip.PrefixFrom(a, 128)
	default:
		a := one(&w.scheduler, insiders)
		p = netip.PrefixFrom(a, 32)
	}
	b := users.Binding{Prefix: p, User: one(&w.scheduler, people)}
	now := time.UnixMilli(w.wall() / int64(time.Millisecond)).UTC()
	switch w.rng.IntN(4) {
	case 0:
	case 1:
		b.From = now.Add(-w.between(0, 10*time.Minute).Round(time.Millisecond))
	default:
		b.From = now
	}
	if w.chance(0.2) {
		b.Until = now.Add(w.between(time.Second, 10*time.Minute).Round(time.Millisecond))
	}
	if w.chance(0.2) {
		b.Class = "gold"
	}
	if w.chance(0.1) {
		b.Realm = "elsewhere.example"
	}
	if w.chance(0.1) {
		b.MultiSession = "line " + b.User
	}
	if w.mood.shared && p.Addr().Is4() {
		d.share(w, &b)
	}
	list := d.lists[source]
	if w.chance(0.5) && !b.From.IsZero() {
		for i := range list {
			if o := &list[i]; o.Prefix == b.Prefix && o.VRF == b.VRF && o.Ports == b.Ports && o.Until.IsZero() && o.From.Before(b.From) {
				o.Until = b.From
			}
		}
	}
	d.lists[source] = append(list, b)
	w.log("%s: %v %q %q is %s from %v until %v, class %q", source, b.Prefix, b.VRF, b.Ports, b.User, b.From, b.Until, b.Class)
}

// share makes b one of ports, or of another address space, or of a whole address
// that others have ports of.
func (d *directory) share(w *world, b *users.Binding) {
	block := func() string { x := one(&w.scheduler, portBlocks); return fmt.Sprintf("%d-%d", x[0], x[1]) }
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	switch w.rng.IntN(8) {
	case 0, 1:
		ports, err := users.ParsePorts(block() + " " + block())
		if err != nil {
			w.fail("ports: %v", err)
		}
		b.Prefix, b.Ports = host(one(&w.scheduler, []netip.Addr{divided, divided, translated})), ports
	case 2:
		b.Prefix = host(one(&w.scheduler, []netip.Addr{divided, translated}))
	case 3, 4:
		b.VRF = one(&w.scheduler, []string{"red", "6"})
	}
}

// remove takes a binding out of a file, or ends it.
func (d *directory) remove(w *world) {
	source := one(&w.scheduler, d.sources)
	list := d.lists[source]
	if len(list) == 0 {
		return
	}
	i := w.rng.IntN(len(list))
	w.log("%s: %v is %s no more", source, list[i].Prefix, list[i].User)
	now := time.UnixMilli(w.wall() / int64(time.Millisecond)).UTC()
	if w.chance(0.3) && list[i].From.Before(now) {
		list[i].Until = now
		return
	}
	d.lists[source] = slices.Delete(list, i, i+1)
}

// changes lets the files change while there is traffic.
func (d *directory) changes(w *world) {
	for range w.rng.IntN(12) {
		w.after(w.between(0, w.mood.traffic), func() {
			if w.chance(0.6) {
				d.add(w)
			} else {
				d.remove(w)
			}
			if w.proc != nil {
				w.proc.bindings()
			}
		})
	}
}

// end leaves nobody, so that all sessions stop.
func (d *directory) end(w *world) {
	w.log("nobody holds anything any more")
	clear(d.lists)
	w.proc.bindings()
}

// encode returns the content of a journal entry.
func (d *directory) encode(w *world, source string) []byte {
	list := slices.Clone(d.lists[source])
	told := list
	if w.bug == OneSpace {
		told = slices.Clone(list)
		for i := range told {
			told[i].VRF = ""
		}
	}
	data := users.AppendList(nil, source, told)
	d.encoded[string(data)] = listing{source, list}
	return data
}
