package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// A scheduler does one thing after the other, by time; of those that are due
// at the same time, in the order that the seed gives.
type scheduler struct {
	now   int64 // Unix nanoseconds, by the world's own clock
	rng   *rand.Rand
	queue events
	count uint64
}

type event struct {
	at    int64
	lot   uint32 // decides among equals
	count uint64
	do    func()
}

// after lets do happen in a while.
func (s *scheduler) after(d time.Duration, do func()) {
	s.count++
	heap.Push(&s.queue, event{s.now + max(0, int64(d)), s.rng.Uint32(), s.count, do})
}

// next returns what is due next and moves the clock there.
func (s *scheduler) next() func() {
	e := heap.Pop(&s.queue).(event)
	s.now = max(s.now, e.at)
	return e.do
}

// chance is true with probability p.
func (s *scheduler) chance(p float64) bool { return s.rng.Float64() < p }

// between returns a time from low to high.
func (s *scheduler) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)+1))
}

// one returns one of list.
func one[T any](s *scheduler, list []T) T { return list[s.rng.IntN(len(list))] }

// events is a heap (container/heap).
type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.lot != b.lot {
		return a.lot < b.lot
	}
	return a.count < b.count
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	n := len(*q) - 1
	e := (*q)[n]
	(*q)[n] = event{}
	*q = (*q)[:n]
	return e
}
