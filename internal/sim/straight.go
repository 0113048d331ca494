package sim

import (
	"bytes"
	"maps"
	"slices"

	"tollbridge/asm"
	"tollbridge/asm/acct"
)

// checkStraight reads the whole journal once more with a pipeline that nothing
// happens to: the same journal must have given the same records, to Session-Id,
// number and content, and the same books.
func (w *world) checkStraight(books *sums) {
	m, module := w.straight(w.truth.journal)
	var err error
	for _, e := range w.truth.journal {
		if err == nil {
			err = module.Apply(w.ctx, e)
		}
	}
	if err == nil {
		err = module.Checkpoint(w.ctx)
	}
	if err != nil {
		w.fail("the journal can't be read again: %v", err)
	}
	straight, err := m.books()
	if err != nil {
		w.fail("the books do not balance when the journal is read again:\n%v", err)
	}
	for _, c := range [...]struct {
		what      string
		got, want acct.Count
	}{
		{"received", books.received, straight.received}, {"mirrored", books.mirrored, straight.mirrored},
		{"accounted", books.accounted, straight.accounted}, {"duplicate", books.duplicate, straight.duplicate},
		{"suspended", books.suspended, straight.suspended}, {"rejected", books.rejected, straight.rejected},
	} {
		if c.got != c.want {
			w.fail("%s are %+v; when the journal is read again %+v", c.what, c.got, c.want)
		}
	}
	got, want := w.disk.contents(), m.contents()
	for _, key := range slices.SortedFunc(maps.Keys(want), cdrKey.compare) {
		if !bytes.Equal(got[key], want[key]) {
			w.fail("%s/%d is %x; when the journal is read again %x", key.session, key.number, got[key], want[key])
		}
	}
	if len(got) != len(want) {
		w.fail("there are %d records; when the journal is read again %d", len(got), len(want))
	}
}

// straight returns a new pipeline for entries of the journal, on a disk in memory
// of its own.
func (w *world) straight(journal []acct.Entry) (*memory, *asm.Module) {
	cp, err := w.disk.Load(w.ctx)
	if err != nil {
		w.fail("load: %v", err)
	}
	m := newMemory()
	m.epoch, m.hashKey = cp.Epoch, cp.HashKey
	m.tape.write(journal)
	m.tape.sync()
	module, err := asm.New(w.ctx, asm.Config{Store: m, Journal: m, Weaken: w.mood.weaken()})
	if err != nil {
		w.fail("the journal can't be read again: %v", err)
	}
	return m, module
}
