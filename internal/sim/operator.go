package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
)

// An operator decides about flows in suspense and corrects what was charged.
type operator struct {
	encoded map[string]order // what was put into the journal
}

// An order is a Command, with what the operator saw in suspense.
type order struct {
	asm.Command
	flows []acct.Suspended
}

// begin lets orders come while there is traffic. Identities that collide are
// told apart by the journal, which an operator's word is not held against.
func (o *operator) begin(w *world) {
	if w.rng.IntN(2) == 0 && !w.draws(Orders) || w.mood.weak {
		return
	}
	o.encoded = map[string]order{}
	n := 1 + w.rng.IntN(6)
	if w.draws(Orders) {
		n += 6
	}
	for range n {
		w.after(w.between(0, w.mood.traffic), func() {
			if w.chance(0.3) {
				o.adjust(w)
			} else {
				o.decide(w)
			}
		})
	}
}

// decide releases or rejects some of what is in suspense.
func (o *operator) decide(w *world) {
	c := order{Command: asm.Command{What: asm.ReleaseFlows}}
	if w.chance(0.3) {
		c.What = asm.RejectFlows
	}
	err := w.disk.EachSuspended(w.ctx, 0, func(x acct.Suspended) error {
		if w.chance(0.7) {
			x.Flow = nil
			c.flows = append(c.flows, x)
			c.Flows.IDs = append(c.Flows.IDs, x.ID)
		}
		return nil
	})
	if err != nil {
		w.fail("suspense: %v", err)
	}
	if len(c.flows) == 0 {
		return
	}
	o.put(w, c)
	if !w.chance(0.3) {
		return
	}
	// The exporters send all of it once more, and the operator says the same.
	for _, e := range w.exporters {
		w.after(w.between(0, time.Minute), func() {
			if !w.quiet {
				e.repeat(len(e.recent))
			}
		})
	}
	w.after(w.between(time.Minute, 2*time.Minute), func() { o.decide(w) })
}

// adjust corrects what somebody was charged, up or down.
func (o *operator) adjust(w *world) {
	c := order{Command: asm.Command{What: asm.AdjustUsage}}
	for range 1 + w.rng.IntN(3) {
		c.Adjust = append(c.Adjust, asm.Adjustment{
			SessionID: fmt.Sprint("bridge.visited.example;7;", w.rng.IntN(100)), Number: uint32(w.rng.IntN(5)),
			Credit: w.chance(0.5), Class: corrected[len(c.Adjust)%len(corrected)], User: one(&w.scheduler, people),
			Usage: acct.Usage{InputOctets: 1 + w.rng.Uint64N(1<<30), OutputOctets: w.rng.Uint64N(1 << 30), InputPackets: w.rng.Uint64N(1 << 20)},
		})
	}
	o.put(w, c)
}

// corrected are classes that operators correct usage of.
var corrected = []string{"", "dns", "a price that was forgotten"}

func (o *operator) put(w *world, c order) {
	if w.proc == nil || o.encoded == nil {
		return
	}
	c.By, c.Reason = "operator", fmt.Sprint("order ", len(o.encoded))
	data, err := c.AppendBinary(nil)
	if err != nil {
		w.fail("command: %v", err)
	}
	o.encoded[string(data)] = c
	w.log("operator: %s %v %+v", c.What, c.Flows.IDs, c.Adjust)
	w.proc.append(acct.EntryCommand, 0, data)
}

// A suspect is a flow in suspense for another reason than that nobody held its
// addresses.
type suspect struct {
	position uint64 // in the journal
	flow     *flow
	row      *amounts
	proven   bool // nothing says that it may have come before, but that it was forgotten
	ahead    bool // of the clock
	events   bool // suspended as what goes to the AAA server as it is
}

// is reports whether what the operator saw is a flow that came at a position.
func is(x *acct.Suspended, position uint64, f *flow) bool {
	return x.Position == position && x.FlowEnd == f.end && x.Count == f.count() &&
		x.Source == fmt.Sprint(netip.AddrPortFrom(f.from, f.fromPort), " > ", netip.AddrPortFrom(f.to, f.toPort))
}

// carryOut does what an operator orders.
func (t *truth) carryOut(o order) {
	for i := range o.flows {
		x := &o.flows[i]
		if x.Reason == "unmapped" {
			t.decideWaiting(x, o.What == asm.ReleaseFlows)
		} else {
			t.decide(x, o.What == asm.ReleaseFlows)
		}
	}
	for _, a := range o.Adjust {
		key := acct.LedgerKey{Exporter: acct.DebitBook, Interval: t.interval()}
		if a.Credit {
			key.Exporter = acct.CreditBook
		}
		n := acct.Count{Records: 1, Octets: a.Usage.InputOctets + a.Usage.OutputOctets, Packets: a.Usage.InputPackets + a.Usage.OutputPackets}
		row, b := t.row(key), bill{a.User, a.Class, a.Credit}
		row.received, row.accounted = row.received.Plus(n), row.accounted.Plus(n)
		t.billed[b] = t.billed[b].Plus(a.Usage)
	}
}

// decideWaiting decides about a flow without a user, which may have got one
// meanwhile. A half of it that waits since then is not what the operator saw.
func (t *truth) decideWaiting(x *acct.Suspended, release bool) {
	i := slices.IndexFunc(t.waiting, func(y *waiting) bool {
		return is(x, y.position, y.flow) && (y.flow.half == bothEnds || x.Since >= y.since)
	})
	if i < 0 {
		return
	}
	y := t.waiting[i]
	if release {
		if t.settings.Mode != asm.ModeASM {
			return
		}
		sides := t.charge(y.flow, y.row, y.position)
		if sides == 0 {
			return
		}
		y.leave(sides)
	} else {
		n := y.flow.count()
		y.row.suspended, y.row.rejected = y.row.suspended.Minus(n), y.row.rejected.Plus(n)
	}
	t.waiting = slices.Delete(t.waiting, i, i+1)
}

// decide decides about another: one that is released counts, unless the same
// did already. What an order before this one has decided is passed over, though
// the operator still saw it in suspense: a copy of it out of the same Message,
// which only the ID tells apart, stays.
func (t *truth) decide(x *acct.Suspended, release bool) {
	if t.decided[x.ID] {
		return
	}
	i := slices.IndexFunc(t.suspects, func(s *suspect) bool { return is(x, s.position, s.flow) })
	if i < 0 {
		t.w.fail("in suspense is what never should be: %+v", *x)
	}
	s, f := t.suspects[i], t.suspects[i].flow
	if release && t.settings.Mode == asm.ModeAAAClient && !s.events {
		return // it can't be sent as it is
	}
	n := f.count()
	t.suspects, t.decided[x.ID] = slices.Delete(t.suspects, i, i+1), true
	if s.proven {
		s.row.suspended = s.row.suspended.Minus(n)
	}
	switch {
	case !release:
		s.row.rejected = s.row.rejected.Plus(n)
	case !s.proven && !t.isNew(s):
		s.row.duplicate = s.row.duplicate.Plus(n)
	default:
		t.accept(f, s.row, s.position)
	}
}

// isNew reports whether nothing says that a suspect counted before, and takes
// note that it does.
func (t *truth) isNew(s *suspect) bool {
	f := s.flow
	if s.ahead && f.long != nil {
		return false // the next report says it all
	}
	outside := t.outside(f)
	if t.released[f.id] || !outside && t.seen[f.id] {
		return false
	}
	t.released[f.id] = true
	if !outside {
		t.seen[f.id] = true
		t.reach(f)
	}
	return true
}
