package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
)

// A bill is what usage is summed by.
type bill struct {
	user, class string
	credit      bool // to be taken away
}

func (b bill) compare(o bill) int {
	return cmp.Or(cmp.Compare(b.user, o.user), cmp.Compare(b.class, o.class), cmp.Compare(fmt.Sprint(b.credit), fmt.Sprint(o.credit)))
}

// charge bills a flow to whoever held its addresses, or to the user whom the
// record names and who held the other one, and returns how many that are. If
// only one is known, and the other address is a user's, that half of it waits.
func (t *truth) charge(f *flow, x *amounts, position uint64) (sides int) {
	var from, to *holder
	if f.half != toEnd {
		from = t.holder(f, false)
	}
	if f.half != fromEnd {
		to = t.holder(f, true)
	}
	if f.half == bothEnds && f.user != "" {
		// The named user has the address that is bound to that name, or else
		// the source.
		switch {
		case from != nil && from.User == f.user:
		case to != nil && to.User == f.user:
		default:
			from = &holder{Binding: users.Binding{User: f.user}}
		}
	}
	internal := from != nil && to != nil || f.half != bothEnds
	if from != nil {
		t.w.log("truth: flow %d from %q: %+v %+v", f.id, from.User, f.forward, f.backward)
		t.chargeSide(f, from, side{f.source(), f.destination(), internal}, f.forward, f.backward)
		sides++
	}
	if to != nil {
		t.w.log("truth: flow %d to %q: %+v %+v", f.id, to.User, f.forward, f.backward)
		t.chargeSide(f, to, side{f.destination(), f.source(), internal}, f.backward, f.forward)
		sides++
	}
	if sides == 1 && f.half == bothEnds {
		rest := *f
		rest.user, rest.half = "", toEnd // whoever the record names has the other half
		other := f.to
		if to != nil {
			rest.half, other = fromEnd, f.from
		}
		if slices.ContainsFunc(t.settings.Networks, func(p netip.Prefix) bool { return p.Contains(other) }) {
			x.mirrored = x.mirrored.Plus(f.count())
			x.suspended = x.suspended.Plus(f.count())
			t.waiting = append(t.waiting, &waiting{position, &rest, x, t.now, 0})
		}
	}
	return sides
}

// A side is what a flow is to one of its two users.
type side struct {
	near, far end
	internal  bool // the other is a user too
}

// chargeSide bills what of a flow went out from an address and came in to h, who
// held it when the flow ended: by time, if it is to be divided, to all who held
// it since the flow began. Time in which nobody did is the next one's.
func (t *truth) chargeSide(f *flow, h *holder, s side, out, in volume) {
	start := f.began()
	if t.settings.Split == asm.SplitProportional && h.Ports == "" && h.Prefix.Contains(s.near.address) {
		moments := []int64{start, f.end}
		all := t.holdersOf(s.near.space, s.near.address)
		for _, o := range all {
			moments = append(moments, unix(o.From), unix(o.Until))
		}
		slices.Sort(moments)
		moments = slices.DeleteFunc(slices.Compact(moments), func(at int64) bool { return at < start || at > f.end })
		left := [2]volume{out, in}
		for i := 1; i < len(moments); i++ {
			o, next := exactly(all, moments[i-1]), h // nobody's time at the end is h's
			for j, at := range moments[i : len(moments)-1] {
				if n := exactly(all, at); n != nil {
					if next = n; j > 0 {
						next = nil // it was nobody's before
					}
					break
				}
			}
			if o == nil || next != nil && next.key() == o.key() {
				continue
			}
			var part [2]volume
			for n, all := range [2]volume{out, in} {
				rest := volume{remaining(all.octets, moments[i]-start, f.end-start), remaining(all.packets, moments[i]-start, f.end-start)}
				part[n] = volume{left[n].octets - rest.octets, left[n].packets - rest.packets}
				left[n] = rest
			}
			t.use(f, o, s, moments[i]-1, true, part[0], part[1])
		}
		out, in = left[0], left[1]
	}
	t.use(f, h, s, f.end, false, out, in)
}

// use bills what of a flow, until a moment, went out from a user and came in to
// him, which may be of two classes. An earlier part of a flow is of who held all of
// the address, whatever its port.
func (t *truth) use(f *flow, h *holder, s side, at int64, earlier bool, out, in volume) {
	for _, u := range []struct {
		direction string
		acct.Usage
	}{
		{classes.Input, acct.Usage{InputOctets: out.octets, InputPackets: out.packets}},
		{classes.Output, acct.Usage{OutputOctets: in.octets, OutputPackets: in.packets}},
	} {
		class, ruled := t.class(f, s, u.direction)
		if !ruled {
			class = t.classOr(h.Class)
		}
		key := bill{user: h.User, class: class}
		t.billed[key] = t.billed[key].Plus(u.Usage)
		t.remember(f, h, charge{at: at, near: s.near, shared: !earlier && t.shares(), class: class, own: !ruled && h.Class != "", usage: u.Usage})
	}
}

// class names the first class whose rule matches what went in a direction, if
// there is one.
func (t *truth) class(f *flow, s side, direction string) (name string, ruled bool) {
	for _, c := range t.settings.Classes {
		if c.Direction != "" && c.Direction != direction || c.Internal && !s.internal {
			continue
		}
		if len(c.DSCP) > 0 && !slices.Contains(c.DSCP, f.dscp) || len(c.Protocols) > 0 && !slices.Contains(c.Protocols, f.protocol) {
			continue
		}
		if len(c.Ports) > 0 && !slices.ContainsFunc(c.Ports, func(r classes.PortRange) bool { return r.First <= s.far.port && s.far.port <= r.Last }) {
			continue
		}
		if len(c.Prefixes) > 0 && !slices.ContainsFunc(c.Prefixes, func(p netip.Prefix) bool { return p.Contains(s.far.address) }) {
			continue
		}
		return c.Name, true
	}
	return "", false
}

// classOr returns the class of a binding, or of what nothing is said of.
func (t *truth) classOr(own string) string { return cmp.Or(own, t.settings.ClassDefault) }

// remaining returns what of v is left after a time: what came so far is rounded
// down. What flows have here times their time is far below 2^63.
func remaining(v uint64, time, all int64) uint64 { return v - v*uint64(time)/uint64(all) }
