package sim

import (
	"time"
)

// A window is what is remembered of an exporter's flows.
type window struct {
	newest int64 // bucket of the newest flow end
	floor  int64 // Unix milliseconds
}

// bucket is how finely the window of identities is divided.
const bucket = int64(time.Minute / time.Millisecond)

// outside reports whether a flow ended before what is remembered of its
// exporter, or ahead of the clock.
func (t *truth) outside(f *flow) bool { return t.ahead(f) || f.end < t.window(f).floor }

func (t *truth) ahead(f *flow) bool {
	return f.end > t.now/int64(time.Millisecond)+t.settings.ClockTolerance.Milliseconds()
}

func (t *truth) window(f *flow) *window {
	w := t.windows[f.exporter]
	if w == nil {
		w = &window{}
		t.windows[f.exporter] = w
	}
	return w
}

// reach moves the window of a flow's exporter to where the flow is in it.
func (t *truth) reach(f *flow) {
	if w, at := t.window(f), f.end/bucket; at > w.newest {
		w.newest = at
		t.raise(w)
	}
}

// raise keeps the window's length before the newest flow end.
func (t *truth) raise(w *window) {
	w.floor = max(w.floor, (w.newest-(t.settings.DedupWindow.Milliseconds()+bucket-1)/bucket)*bucket)
}
