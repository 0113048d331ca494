package export

// A message waits to be sent. Its export time and sequence number are set
// when it is: both belong to the connection that carries it.
type message struct {
	octets    []byte
	records   int
	templates int // how many of Process.templates its records may be of
	skipped   int // records dropped before it
}

// A queue holds Messages until they were handed to the kernel, in order.
type queue struct {
	messages []message
	octets   int
	records  int
	pushed   uint64 // Messages ever
	popped   uint64 // of these

	free [][]byte // buffers of Messages that have left
}

// maxFree bounds the buffers that are kept: a burst should not stay in memory.
const maxFree = 2 * batchMessages

// push adds a copy of a Message.
func (q *queue) push(octets []byte, records, templates, skipped int) {
	var b []byte
	if n := len(q.free); n > 0 {
		b, q.free = q.free[n-1], q.free[:n-1]
	}
	q.messages = append(q.messages, message{append(b[:0], octets...), records, templates, skipped})
	q.octets += len(octets)
	q.records += records
	q.pushed++
}

// head appends the first Messages of the queue to batch, up to its capacity.
// They stay in the queue, and belong to the caller until they are popped.
func (q *queue) head(batch []message) []message {
	n := min(cap(batch)-len(batch), len(q.messages))
	return append(batch, q.messages[:n]...)
}

// pop removes the first n Messages.
func (q *queue) pop(n int) {
	for _, m := range q.messages[:n] {
		q.octets -= len(m.octets)
		q.records -= m.records
		if len(q.free) < maxFree {
			q.free = append(q.free, m.octets)
		}
	}
	rest := copy(q.messages, q.messages[n:])
	clear(q.messages[rest:])
	q.messages = q.messages[:rest]
	q.popped += uint64(n)
}
