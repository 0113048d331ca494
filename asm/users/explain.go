package users

import (
	"fmt"
	"net/netip"
	"time"
)

// A Candidate is a Holder that an address could be of at a moment, and why it
// is, or not.
type Candidate struct {
	*Holder
	Holds bool   // it is the one
	Why   string // for people
}

// Explain returns all that the Table knows of who holds a port of an address
// at a moment: who does comes first, if anybody does. Port and remote matter
// where the address is shared.
func (t *Table) Explain(vrf string, a netip.Addr, port uint16, protocol uint8, remote netip.AddrPort, at int64) []Candidate {
	s := t.in(vrf)
	if s == nil || !a.IsValid() {
		return nil
	}
	a = a.Unmap().WithZone("")
	var all []Candidate
	holder, via := t.LookupPort(vrf, a, port, protocol, remote, at), ""
	x := t.share(vrf, a, port, protocol, remote, at)
	switch {
	case holder == nil:
	case x != nil && x.holder == nil:
		via = fmt.Sprintf("held %s, to which a NAT maps ports %d-%d since %s", x.Private, x.First, x.Last, when(x.from))
	case x != nil:
		via = fmt.Sprintf("has port %d of the address", port)
	case holder.Holds(at):
		via = "held it: nobody has a longer prefix or began later"
	default:
		via = fmt.Sprintf("held it within the tolerance of %s: nobody held it at that moment", milliseconds(t.tolerance))
	}
	if holder != nil {
		all = append(all, Candidate{holder, true, via})
	}
	add := func(h *Holder) {
		for ; h != nil; h = h.next {
			switch {
			case h == holder:
			case x != nil && x.holder == nil && h.Holds(at):
				all = append(all, Candidate{h, false, fmt.Sprintf("is listed, but a NAT maps port %d to %s", port, x.Private)})
			default:
				all = append(all, Candidate{h, false, t.whyNot(h, holder, at)})
			}
		}
	}
	add(s.partners[a])
	for _, chain := range s.chains(a) {
		add(chain)
	}
	return all
}

// whyNot says why h is not who holds an address at a moment, holder being who
// does, or nil.
func (t *Table) whyNot(h, holder *Holder, at int64) string {
	rival := (*Holder)(nil)
	if h.ID() != "" {
		rival = t.rival(h)
	}
	switch {
	case h.Holds(at) && h.ports() != "":
		return "has other ports"
	case h.Holds(at) && holder != nil && holder.bits > h.bits:
		return "holds a shorter prefix"
	case h.Holds(at):
		return "began before"
	case at < h.From:
		return "began " + milliseconds(h.From-at) + " later"
	case rival != nil && h.Until == max(rival.From, h.From):
		return fmt.Sprintf("was taken over by session %q", rival.ID())
	case h.flags&holderGiven != 0:
		return "gave it up " + milliseconds(at-h.Until) + " before, in a session that went on"
	case h.Removed():
		return "is listed no more since " + milliseconds(at-h.Until) + " before"
	case h.ID() != "" && !h.Ended():
		return "was not heard of any more: supposed to have ended " + milliseconds(at-h.Until) + " before"
	}
	return "ended " + milliseconds(at-h.Until) + " before"
}

func milliseconds(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func when(ms int64) string { return fromMilli(ms).Format(time.RFC3339Nano) }

// All returns the Holders of all sources, of lists first, in order.
func (t *Table) All(yield func(*Holder) bool) {
	for _, s := range t.sources {
		for _, list := range [...][]*Holder{s.holders, s.removed} {
			for _, h := range list {
				if !yield(h) {
					return
				}
			}
		}
		for _, c := range t.Claims(s.name) {
			for h := range c.Holders() {
				if !yield(h) {
					return
				}
			}
		}
	}
}
