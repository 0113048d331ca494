package sim

import (
	"time"
)

// A crashed is what a step panics with when the bridge dies in it.
type crashed string

// mayCrash kills the bridge, perhaps.
func (w *world) mayCrash(where string) {
	if w.quiet || w.proc == nil || w.report.Crashes >= w.mood.crashes || !w.chance(w.mood.crash) {
		return
	}
	panic(crashed(where))
}

// crash is what a crash leaves.
func (w *world) crash(where string) {
	w.report.Crashes++
	w.log("CRASH: %s", where)
	w.proc = nil
	w.disk.crash()
	for _, e := range w.exporters {
		e.lose()
	}
	for _, s := range w.peers {
		s.lose()
	}
	w.after(w.between(10*time.Millisecond, 20*time.Second), w.start)
}

// start begins a new life of the bridge.
func (w *world) start() {
	if w.proc != nil {
		return
	}
	w.lives++
	w.proc = newProcess(w)
	w.proc.begin()
}
