package peer

import (
	"iter"
	"math/rand/v2"
)

// A Window holds the requests that are unanswered on one connection, by
// Hop-by-Hop Identifier (RFC 6733, Section 3). Finding one takes no search: the
// identifier's low bits are the request's place, its high bits count how often
// the place was used, so an identifier that was forgotten comes back only after
// many others. One goroutine at a time.
type Window[T any] struct {
	slots []slot[T]
	free  []uint32 // places, used as a stack
	bits  uint
}

type slot[T any] struct {
	used       bool
	generation uint32
	endToEnd   uint32
	value      T
}

// maxWindow leaves 12 bits of the identifier to count with.
const maxWindow = 1 << 20

// NewWindow returns a Window for up to size requests, at least 1 and at most
// 2^20. Its identifiers start at random.
func NewWindow[T any](size int) *Window[T] {
	size = min(max(size, 1), maxWindow)
	w := &Window[T]{slots: make([]slot[T], size), free: make([]uint32, size)}
	for 1<<w.bits < size {
		w.bits++
	}
	first := rand.Uint32() >> w.bits
	for i := range w.slots {
		w.slots[i].generation = first
		w.free[i] = uint32(size - 1 - i)
	}
	return w
}

// Len returns the number of unanswered requests.
func (w *Window[T]) Len() int { return len(w.slots) - len(w.free) }

// Free returns how many more requests fit.
func (w *Window[T]) Free() int { return len(w.free) }

// Add notes a request and returns the Hop-by-Hop Identifier that it must be
// sent with. Adding to a full Window panics.
func (w *Window[T]) Add(endToEnd uint32, value T) (hopByHop uint32) {
	i := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	s := &w.slots[i]
	s.used, s.endToEnd, s.value = true, endToEnd, value
	s.generation = (s.generation + 1) & (1<<(32-w.bits) - 1)
	return s.generation<<w.bits | i
}

// Get returns the request with both identifiers, which an answer must repeat.
func (w *Window[T]) Get(hopByHop, endToEnd uint32) (value T, ok bool) {
	if s := w.at(hopByHop); s != nil && s.endToEnd == endToEnd {
		return s.value, true
	}
	return value, false
}

// Remove forgets a request and reports whether it was there.
func (w *Window[T]) Remove(hopByHop uint32) bool {
	s := w.at(hopByHop)
	if s == nil {
		return false
	}
	var none T
	s.used, s.value = false, none
	w.free = append(w.free, hopByHop&(1<<w.bits-1))
	return true
}

// All returns the unanswered requests in no order. The current one may be
// removed.
func (w *Window[T]) All() iter.Seq2[uint32, T] {
	return func(yield func(uint32, T) bool) {
		for i := range w.slots {
			if s := &w.slots[i]; s.used && !yield(s.generation<<w.bits|uint32(i), s.value) {
				return
			}
		}
	}
}

func (w *Window[T]) at(hopByHop uint32) *slot[T] {
	i := hopByHop & (1<<w.bits - 1)
	if int(i) >= len(w.slots) {
		return nil
	}
	if s := &w.slots[i]; s.used && s.generation == hopByHop>>w.bits {
		return s
	}
	return nil
}
