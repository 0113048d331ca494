package sim

import (
	"slices"
)

// totals are what an exporter's connections were reported with, the one used
// longest ago first.
type totals struct {
	list    []*total
	horizon int64 // latest end of those that were forgotten, Unix milliseconds
}

type total struct {
	long    *connection
	forward volume
	end     int64
}

// delta returns what a report adds to the one before. One that comes late, when
// more is known already, adds nothing. Doubt says that the connection may have
// been forgotten.
func (t *truth) delta(f *flow) (added volume, doubt bool) {
	x := t.totals[f.exporter]
	if x == nil {
		x = &totals{}
		t.totals[f.exporter] = x
	}
	e := &total{long: f.long}
	if i := slices.IndexFunc(x.list, func(e *total) bool { return e.long == f.long }); i >= 0 {
		e = x.list[i]
		x.list = slices.Delete(x.list, i, i+1)
	} else {
		doubt = x.horizon != 0 && f.start <= x.horizon
	}
	if f.forward.octets > e.forward.octets {
		added = volume{f.forward.octets - e.forward.octets, f.forward.packets - e.forward.packets}
		e.forward, e.end = f.forward, max(e.end, f.end)
	}
	x.list = append(x.list, e)
	for len(x.list) > t.settings.MaxTotals {
		x.horizon = max(x.horizon, x.list[0].end)
		x.list = x.list[1:]
	}
	return added, doubt
}
