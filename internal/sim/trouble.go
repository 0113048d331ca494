package sim

import (
	"time"
)

// troubles lets things go wrong now and then while there is traffic.
func (w *world) troubles() {
	sometime := func(do func()) { w.after(w.between(0, w.mood.traffic), do) }
	for range w.mood.fulls {
		sometime(func() {
			w.log("the disk is full")
			w.full = true
			w.after(w.between(time.Second, 40*time.Second), func() {
				w.log("the disk has space")
				w.full = false
			})
		})
	}
	for range w.mood.steps {
		sometime(func() {
			step := w.between(-2*time.Minute, 2*time.Minute)
			switch {
			case w.chance(0.2):
				step *= 15 // half an hour at most
			case w.chance(0.15):
				step = one(&w.scheduler, []time.Duration{-24 * time.Hour, -time.Hour, time.Hour, 24 * time.Hour})
			}
			w.log("the bridge's clock steps by %v", step)
			w.skew += int64(step)
			w.after(w.between(0, 5*time.Second), func() {
				if w.proc != nil {
					w.proc.watchClock()
				}
			})
		})
	}
	for range w.mood.outages {
		sometime(func() {
			s := one(&w.scheduler, w.peers)
			w.log("peer %d is down", s.index)
			s.down = true
			s.hangUp()
			w.after(w.between(time.Second, 3*time.Minute), func() { s.down = false })
		})
	}
	for range w.rng.IntN(4) {
		sometime(func() {
			w.mood = w.mood.vary(w.rng, false)
			if w.proc != nil {
				w.log("settings change: %s", mustEncode(w.mood.settings))
				w.proc.configure()
			}
		})
	}
	if w.mood.refuse {
		for range w.rng.IntN(4) {
			sometime(func() { w.requeue() })
		}
	}
	w.users.changes(w)
	w.nases.changes(w)
	w.operator.begin(w)
	w.client.begin(w)
}

// requeue is what an operator does with records that were refused, and
// reports whether there were any.
func (w *world) requeue() bool {
	ids := w.disk.quarantined()
	if len(ids) == 0 || w.proc == nil {
		return false
	}
	w.log("requeue %v", ids)
	if err := w.disk.requeue(w.ctx, ids); err != nil {
		w.fail("requeue %v: %v", ids, err)
	}
	w.proc.deliver()
	return true
}

// heal ends all trouble. The bridge's clock goes on where the pipeline's is, or
// is put right.
func (w *world) heal() {
	w.log("the world heals")
	w.quiet, w.full = true, false
	for _, s := range w.peers {
		s.down = false
	}
	right := w.chance(0.5)
	if right {
		w.skew = 0
	} else {
		w.skew = max(w.skew, w.truth.now-w.now)
	}
	if w.proc == nil {
		w.start()
	}
	if right {
		w.proc.watchClock()
	}
	w.proc.tick()
}
