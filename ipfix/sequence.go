package ipfix

// Bounds of what sequence numbers are believed (see Session.Decode).
const (
	maxRate        = 1 << 20 // Data Records an exporter may send in a second
	maxMessageRate = 1 << 16 // Messages
	maxSilence     = 1 << 10 // seconds between Messages that are counted for maxRate
	maxBehind      = 1 << 20 // Data Records that a Message may come late
	maxGaps        = 32      // gaps remembered

	enoughVotes = 5   // that another Unit explains what the present one does not
	calm        = 100 // Messages after which a vote is no reason for suspicion any more
)

// A gap is a run of sequence numbers that went missing: first up to, but not
// including, end, modulo 2^32.
type gap struct {
	first, end uint32
	each       uint32 // Data Records that one number stands for
	rivals     uint8  // Units, and shared, that would explain it without a loss
	domain     uint32 // that was told of the loss; only kept for shared numbers
}

// A loss is what was Lost, or is Found.
type loss struct{ records, messages uint64 }

func (l *loss) add(m loss) {
	l.records += m.records
	l.messages += m.messages
}

// loss returns what n missing numbers of the gap stand for.
func (q *sequence) loss(g gap, n uint32) loss {
	l := loss{records: uint64(n) * uint64(g.each)}
	if q.unit == UnitMessages {
		l.messages = uint64(n)
	}
	return l
}

// sharedRival stands among Units for numbers that Observation Domains share.
const sharedRival = 1 << units

// A sequence is the sequence accounting of one series of numbers. Zero knows
// nothing yet, and takes it that they count Data Records.
//
// What they count is found out so: where a number is not the expected one, but
// is what another Unit would have expected from the Message that arrived
// before, that Unit has a vote, if the present one does not explain that too. A number that is as expected, where the other
// Unit would have another, takes all its votes away. With enoughVotes the Unit
// changes, and what was called lost for want of knowing better is taken back.
// An exporter that counts right gives no such votes but by chance, when what
// was lost happens to be just as much, several times and never otherwise.
type sequence struct {
	unit    Unit
	started bool   // a Message has been seen
	open    bool   // the latest Message held a Data Set that could not be counted, so next may be too low
	next    uint32 // the number that the next Message should have
	latest  uint32 // Export Time of the latest Message in sequence
	mean    uint32 // Data Records of a Message, of late, in 256ths; only kept for UnitMessages
	gaps    []gap  // oldest first

	last     uint32 // the number of the Message that arrived before
	advance  tally  // of that Message
	lastOpen bool   // as open, of that Message
	votes    votes
	quiet    uint8 // Messages since the last vote, up to calm
	owed     loss  // to be taken back with the next Message

	// Of shared numbers.
	domain  uint32          // of the Message at hand
	credits map[uint32]loss // found with it that other domains were told of
}

// votes are the votes of each Unit; there is room for eight, to be compared as
// one word.
type votes [8]uint8

// account compares the number of a Message with what was expected, and notes
// in r what that means. n is what the Message advances numbers by, and rivals
// are those that explain its number, beyond the Units.
func (q *sequence) account(h *Header, n *tally, rivals uint8, r *Result) {
	if q.owed != (loss{}) {
		q.settle(r)
	}
	if q.first(h, n) != q.next || q.votes != (votes{}) {
		rivals |= q.weigh(h, n, r)
	}
	q.follow(h, n, rivals, r)
	q.last, q.advance, q.lastOpen = h.Sequence, *n, r.Unknown > 0
	r.Counting.Unit = q.unit
	switch {
	case r.Restarted || q.unit == UnitNone:
		r.Counting.Confidence = Unknown
	case q.suspect():
		r.Counting.Confidence = Suspect
	case q.unit != UnitRecords:
		r.Counting.Confidence = Estimated
	}
}

// first returns the number that a Message begins with, as the present Unit has
// it.
func (q *sequence) first(h *Header, n *tally) uint32 {
	if q.unit == UnitFlowsSent {
		return h.Sequence - n.of(q.unit)
	}
	return h.Sequence
}

// expected returns the number that a Message has by a Unit, after the Message
// that arrived before.
func (q *sequence) expected(u Unit, n *tally) uint32 {
	if u == UnitFlowsSent {
		return q.last + n.of(u)
	}
	return q.last + q.advance[u]
}

// settle takes back what is owed.
func (q *sequence) settle(r *Result) {
	r.Found += q.owed.records
	r.FoundMessages += q.owed.messages
	q.owed = loss{}
}

// find notes what is found of a gap.
func (q *sequence) find(g gap, n uint32, r *Result) {
	l := q.loss(g, n)
	if g.domain != q.domain {
		if q.credits == nil {
			q.credits = make(map[uint32]loss)
		}
		all := q.credits[g.domain]
		all.add(l)
		q.credits[g.domain] = all
		return
	}
	r.Found += l.records
	r.FoundMessages += l.messages
}

// suspect reports whether another Unit has had a vote of late.
func (q *sequence) suspect() bool { return q.quiet < calm && q.votes != (votes{}) }

// weigh gives and takes votes, changes the Unit once there are enough, and
// returns the Units that a vote went to.
func (q *sequence) weigh(h *Header, n *tally, r *Result) uint8 {
	next := q.next + h.Sequence - q.first(h, n)
	own := q.expected(q.unit, n) // which is next, but after a late Message
	hit := h.Sequence == next || h.Sequence == own
	if q.quiet < calm {
		q.quiet++
	}
	if !q.started || q.open && !hit {
		return 0
	}
	var rivals uint8
	for u := range units {
		expected := q.expected(u, n)
		switch {
		case expected == next || expected == own: // it says the same
		case q.lastOpen && u != UnitMessages && u != UnitNone:
		case hit:
			q.acquit(u)
		case u == UnitNone && (h.Sequence != expected || int32(h.ExportTime-q.latest) <= 0):
		case h.Sequence == expected:
			q.votes[u]++
			q.quiet = 0
			rivals |= 1 << u
			if q.votes[u] == enoughVotes {
				q.change(u, h, n, r)
				return 0
			}
		}
	}
	return rivals
}

// acquit takes the votes of u away.
func (q *sequence) acquit(u Unit) {
	q.votes[u] = 0
	for i := range q.gaps {
		q.gaps[i].rivals &^= 1 << u
	}
}

// change makes u the Unit, for which the number of the Message is right.
func (q *sequence) change(u Unit, h *Header, n *tally, r *Result) {
	for _, g := range q.gaps {
		if g.rivals&(1<<u) != 0 {
			q.find(g, g.end-g.first, r)
		}
	}
	*q = sequence{unit: u, started: true, latest: q.latest, mean: n[UnitRecords] << 8, domain: q.domain, credits: q.credits}
	q.next = q.first(h, n)
}

// follow compares the number with the next one.
func (q *sequence) follow(h *Header, n *tally, rivals uint8, r *Result) {
	first := q.first(h, n)
	end := first + n.of(q.unit)
	ahead := int32(first - q.next)
	passed := int32(h.ExportTime - q.latest)
	switch {
	case !q.started || ahead == 0 || q.unit == UnitNone:
	case ahead > 0 && int64(ahead) <= q.rate()*(1+int64(min(max(passed, 0), maxSilence))):
		if q.open {
			break
		}
		q.lose(first, rivals, r)
	case ahead < 0 && ahead >= -maxBehind && q.fill(first, end, r):
		return
	case ahead < 0 && ahead >= -maxBehind && passed <= 0:
		return // seen before
	case n[UnitRecords] == 0 && r.Unknown == 0 && q.unit != UnitMessages:
		return // some exporters number Messages of Templates alone as they like
	default:
		r.Restarted = true
		if rivals == 0 { // else it may have been the Unit
			q.gaps = q.gaps[:0]
		}
	}
	q.started, q.open = true, r.Unknown > 0 && q.unit != UnitMessages
	q.next, q.latest = end, h.ExportTime
	if q.unit == UnitMessages && r.Records > 0 {
		if q.mean == 0 {
			q.mean = n[UnitRecords] << 8
		}
		q.mean = uint32(int64(q.mean) + (int64(n[UnitRecords])<<8-int64(q.mean))/8)
	}
}

// rate returns the numbers that an exporter may use up in a second.
func (q *sequence) rate() int64 {
	if q.unit == UnitMessages {
		return maxMessageRate
	}
	return maxRate
}

// lose notes that the numbers from next up to first are missing.
func (q *sequence) lose(first uint32, rivals uint8, r *Result) {
	g := gap{q.next, first, 1, rivals, q.domain}
	if q.unit == UnitMessages {
		g.each = (q.mean + 128) >> 8
	}
	l := q.loss(g, g.end-g.first)
	r.Lost += l.records
	r.LostMessages += l.messages
	if len(q.gaps) == maxGaps {
		q.gaps = append(q.gaps[:0], q.gaps[1:]...)
	}
	q.gaps = append(q.gaps, g)
}

// fill takes the numbers from first up to end out of the gaps, and reports
// whether any was in one.
func (q *sequence) fill(first, end uint32, r *Result) bool {
	filled := false
	for i, g := range q.gaps {
		// Distances from the gap's first number, which is the lowest.
		size := g.end - g.first
		from, to := int32(first-g.first), int32(end-g.first)
		lo, hi := uint32(max(from, 0)), min(uint32(max(to, 0)), size)
		if lo >= hi {
			continue
		}
		filled = true
		q.find(g, hi-lo, r)
		q.gaps[i].end = g.first + lo
		if hi < size && len(q.gaps) < maxGaps {
			q.gaps = append(q.gaps, gap{g.first + hi, g.end, g.each, g.rivals, g.domain})
		}
	}
	kept := q.gaps[:0]
	for _, g := range q.gaps {
		if g.first != g.end {
			kept = append(kept, g)
		}
	}
	q.gaps = kept
	return filled
}
