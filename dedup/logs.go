package dedup

// logs keeps the buffers that record what was added since the last Delta.
// Those handed out by a Delta are used again after the next.
type logs struct {
	lent, free [][]byte
}

// maxFreeLogs bounds the buffers kept: Flows end in a few buckets at a time.
const maxFreeLogs = 4

func (l *logs) get() []byte {
	n := len(l.free)
	if n == 0 {
		return make([]byte, 0, pageSlots*IdentitySize)
	}
	b := l.free[n-1]
	l.free = l.free[:n-1]
	return b
}

// put takes a buffer back that nobody reads any more.
func (l *logs) put(b []byte) {
	if b != nil && len(l.free) < maxFreeLogs {
		l.free = append(l.free, b[:0])
	}
}

// lend notes that the caller reads b until reclaim.
func (l *logs) lend(b []byte) { l.lent = append(l.lent, b) }

func (l *logs) reclaim() {
	for _, b := range l.lent {
		l.put(b)
	}
	clear(l.lent)
	l.lent = l.lent[:0]
}
