package users

import "net/netip"

// A Doubt says that who held a prefix, at moments from one until another, is
// told otherwise than it was before.
type Doubt struct {
	VRF    string // the address space; "" is the global one
	Prefix netip.Prefix
	From   int64 // Unix milliseconds
	Until  int64 // the first moment after; 0 for ever
}

// doubts collects what changes about the past.
type doubts struct {
	latest int64 // the last moment of the past, Unix milliseconds; 0 for not watching
	all    []Doubt
}

// Watch lets the Table collect Doubts of moments up to the latest, in Unix
// milliseconds, from now on; 0 collects none, as the zero Table does.
func (t *Table) Watch(latest int64) { t.doubts.latest = latest }

// TakeDoubts calls take for each Doubt since the last call, in order.
func (t *Table) TakeDoubts(take func(Doubt)) {
	for _, d := range t.doubts.all {
		take(d)
	}
	clear(t.doubts.all)
	t.doubts.all = t.doubts.all[:0]
}

// doubt notes that who holds a prefix from one moment until another, 0 for
// ever, has changed. It may change who is the nearest Holder of moments around
// these.
func (t *Table) doubt(vrf string, p netip.Prefix, from, until int64) {
	if from -= t.tolerance; from > t.doubts.latest || t.doubts.latest == 0 {
		return
	}
	if until != 0 {
		until += t.tolerance + 1
	}
	t.doubts.all = append(t.doubts.all, Doubt{vrf, p, from, until})
}

// doubtHolder is doubt for all the time of h.
func (t *Table) doubtHolder(h *Holder) { t.doubt(h.VRF(), h.Prefix(), h.From, h.Until) }

// setUntil makes h end at a moment, 0 for never.
func (t *Table) setUntil(h *Holder, until int64) {
	switch before := h.Until; {
	case before == until:
		return
	case before == 0 || until == 0:
		t.doubt(h.VRF(), h.Prefix(), max(before, until), 0)
	default:
		t.doubt(h.VRF(), h.Prefix(), min(before, until), max(before, until))
	}
	h.Until = until
}
