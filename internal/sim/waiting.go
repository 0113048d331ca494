package sim

import (
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/users"
)

// A waiting flow has no user.
type waiting struct {
	position uint64 // in the journal
	flow     *flow
	row      *amounts
	since    int64
	back     int64 // to when the clock was set back farthest, while it waited; 0 for never
}

// fallBack bills the fallback user what has waited for long enough.
func (t *truth) fallBack() {
	t.waiting = slices.DeleteFunc(t.waiting, func(x *waiting) bool {
		since := x.since
		if x.back != 0 {
			since = min(since, x.back)
		}
		if since > t.boundary-int64(t.settings.Wait) {
			return false
		}
		f := x.flow
		if nobody := (&holder{Binding: users.Binding{User: t.settings.Fallback}}); f.half == toEnd {
			t.use(f, nobody, side{far: f.source()}, f.end, false, f.backward, f.forward)
		} else {
			t.use(f, nobody, side{far: f.destination()}, f.end, false, f.forward, f.backward)
		}
		x.leave(1)
		return true
	})
}

// leave books a flow that waited.
func (w *waiting) leave(sides int) {
	n := w.flow.count()
	w.row.suspended = w.row.suspended.Minus(n)
	w.row.account(n, sides)
}

// again maps the flows that wait for a user.
func (t *truth) again() {
	t.remap = 0
	if t.settings.Mode != asm.ModeASM {
		return
	}
	all := t.waiting
	t.waiting = nil // what waits then, that is charge puts there
	all = slices.DeleteFunc(all, func(x *waiting) bool {
		sides := t.charge(x.flow, x.row, x.position)
		if sides > 0 {
			x.leave(sides)
		}
		return sides > 0
	})
	t.waiting = append(all, t.waiting...)
}

// mapSoon maps what waits for a user again in a while, if who holds what has
// changed.
func (t *truth) mapSoon(changed bool) {
	if changed && t.remap == 0 && len(t.waiting) > 0 && t.settings.Mode == asm.ModeASM {
		t.remap = t.now + int64(time.Second) + int64(len(t.waiting))*int64(50*time.Microsecond)
	}
}
