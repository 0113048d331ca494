package ipfix

// Bounds of what sequence numbers are believed (see Session.Decode).
const (
	maxRate    = 1 << 20 // Data Records an exporter may send in a second
	maxSilence = 1 << 10 // seconds between Messages that are counted for maxRate
	maxBehind  = 1 << 20 // Data Records that a Message may come late
	maxGaps    = 32      // gaps remembered
)

// A gap is a run of sequence numbers that went missing: first up to, but not
// including, end, modulo 2^32.
type gap struct{ first, end uint32 }

// A sequence is the sequence accounting of one Observation Domain. Zero knows
// nothing yet.
type sequence struct {
	started bool   // a Message has been seen
	open    bool   // the latest Message held a Data Set that could not be counted, so next may be too low
	next    uint32 // the number that the next Message should have
	latest  uint32 // Export Time of the latest Message in sequence
	gaps    []gap  // oldest first
}

// account compares the header of a Message with what was expected, and notes
// in r what that means.
func (q *sequence) account(h Header, r *Result) {
	end := h.Sequence + uint32(r.Records)
	ahead := int32(h.Sequence - q.next)
	passed := int32(h.ExportTime - q.latest)
	switch {
	case !q.started || ahead == 0:
	case ahead > 0 && int64(ahead) <= maxRate*(1+int64(min(max(passed, 0), maxSilence))):
		if q.open {
			break
		}
		r.Lost = uint64(ahead)
		if len(q.gaps) == maxGaps {
			q.gaps = append(q.gaps[:0], q.gaps[1:]...)
		}
		q.gaps = append(q.gaps, gap{q.next, h.Sequence})
	case ahead < 0 && ahead >= -maxBehind && q.fill(h.Sequence, end, r):
		return
	case ahead < 0 && ahead >= -maxBehind && passed <= 0:
		return // seen before
	case r.Records == 0 && r.Unknown == 0:
		return // some exporters number Messages of Templates alone as they like
	default:
		r.Restarted = true
		q.gaps = q.gaps[:0]
	}
	q.started, q.open = true, r.Unknown > 0
	q.next, q.latest = end, h.ExportTime
}

// fill takes the numbers from first up to end out of the gaps, and reports
// whether any was in one.
func (q *sequence) fill(first, end uint32, r *Result) bool {
	for i, g := range q.gaps {
		// Distances from the gap's first number, which is the lowest.
		size := g.end - g.first
		from, to := int32(first-g.first), int32(end-g.first)
		lo, hi := uint32(max(from, 0)), min(uint32(max(to, 0)), size)
		if lo >= hi {
			continue
		}
		r.Found += uint64(hi - lo)
		q.gaps[i].end = g.first + lo
		if hi < size && len(q.gaps) < maxGaps {
			q.gaps = append(q.gaps, gap{g.first + hi, g.end})
		}
	}
	kept := q.gaps[:0]
	for _, g := range q.gaps {
		if g.first != g.end {
			kept = append(kept, g)
		}
	}
	q.gaps = kept
	return r.Found > 0
}
