package asm

import (
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A DuplicateTracer is a Tracer that is told of the Data Records that were
// found to be duplicates too.
type DuplicateTracer interface {
	Duplicate(TracedDuplicate)
}

// A TracedDuplicate is a Data Record that counts no more, and why.
type TracedDuplicate struct {
	acct.LedgerKey
	Position  uint64 // of the journal entry that brought it
	Ordinal   int    // of the record in its Data Set, from 0
	Endpoints string // addresses and ports, for people
	End       time.Time
	Count     acct.Count
	Why       string // SameRecord, SameIdentity, SameMessage, Released

	TwinPosition uint64 // of the entry that brought the one that counts; 0 if that is not known
	TwinOrdinal  int    // likewise, in its Data Set
}

// Why a record is a duplicate.
const (
	SameRecord   = "same record"   // as the one at the twin's position, octet by octet
	SameIdentity = "same identity" // of 128 bits; there is nothing to compare it with
	SameMessage  = "same message"  // its whole Message came before
	Released     = "released"      // an operator released it from suspense
)

// traceDuplicate tells the tracer of f, record number i of the chunk.
func (m *Module) traceDuplicate(t DuplicateTracer, set *ipfix.DataSet, p *plan, w *dedup.Window, i int, key acct.LedgerKey) {
	c := &m.decoder
	f := &c.flows[i]
	d := TracedDuplicate{
		LedgerKey: key, Position: c.position, Ordinal: int(c.ordinals[i]), Endpoints: f.String(), End: milliTime(f.end), Count: f.count(),
		Why: SameMessage,
	}
	if p.timed {
		o, ordinal, remembered := w.Origin(c.ids[i], f.end)
		switch {
		case m.released.has(c.ids[i]):
			d.Why = Released
		case remembered && o != 0 && o.Position() >= m.comparison.oldest(m.position+1) && m.twin(o, set, p).known:
			d.Why = SameRecord
		case remembered:
			d.Why = SameIdentity
		}
		d.TwinPosition, d.TwinOrdinal = o.Position(), ordinal
	}
	t.Duplicate(d)
}
