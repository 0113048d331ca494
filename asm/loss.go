package asm

import (
	"encoding/binary"
	"maps"
	"slices"

	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// A loss is what the books of one interval say that an Observation Domain
// lost, as far as it may still be found.
type loss struct {
	interval int64 // of the ledger's row, Unix seconds
	records  uint64
}

// maxLosses bounds the losses that an Observation Domain of a Transport
// Session remembers.
const maxLosses = 32

// lose books what the sequence numbers of a Message of Observation Domain d
// say. What is found after all comes off the row that it was lost in, the
// latest first; what was lost too long ago stays lost.
func (m *Module) lose(t *transport, d *domain, r *ipfix.Result) {
	if r.Lost == 0 && r.Found == 0 && !r.Restarted {
		return
	}
	losses := t.losses[d.key.Domain]
	for found := r.Found; found > 0 && len(losses) > 0; {
		last := &losses[len(losses)-1]
		n := min(found, last.records)
		key := d.key
		key.Interval = last.interval
		m.ledger.row(key).LostFound += n
		found -= n
		if last.records -= n; last.records == 0 {
			losses = losses[:len(losses)-1]
		}
	}
	row := m.row(d)
	if r.Restarted {
		row.Restarts++
	}
	if r.Lost > 0 {
		row.Lost += r.Lost
		switch r.Counting.Confidence {
		case ipfix.Exact:
		case ipfix.Suspect, ipfix.Unknown:
			row.LostSuspect += r.Lost
		case ipfix.Estimated:
			row.LostEstimated += r.Lost
		}
		if n := len(losses); n > 0 && losses[n-1].interval == row.Interval {
			losses[n-1].records += r.Lost
		} else {
			if n == maxLosses {
				losses = append(losses[:0], losses[1:]...)
			}
			losses = append(losses, loss{row.Interval, r.Lost})
		}
	}
	if t.losses == nil {
		t.losses = make(map[uint32][]loss)
	}
	if t.losses[d.key.Domain] = losses; len(losses) == 0 {
		delete(t.losses, d.key.Domain)
	}
}

// appendLosses appends what restoreLosses reads.
func (t *transport) appendLosses(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.losses)))
	for _, id := range slices.Sorted(maps.Keys(t.losses)) {
		b = binary.AppendUvarint(b, uint64(id))
		b = binary.AppendUvarint(b, uint64(len(t.losses[id])))
		for _, l := range t.losses[id] {
			b = binary.AppendVarint(b, l.interval)
			b = binary.AppendUvarint(b, l.records)
		}
	}
	return b
}

func (t *transport) restoreLosses(r *octets.Reader) {
	for range r.Count() {
		id := uint32(r.Uvarint())
		losses := make([]loss, r.Count())
		for i := range losses {
			losses[i] = loss{r.Varint(), r.Uvarint()}
		}
		if t.losses == nil {
			t.losses = make(map[uint32][]loss)
		}
		t.losses[id] = losses
	}
}
