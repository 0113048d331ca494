package aaaclient

// A fifo is a queue. The zero fifo is empty.
type fifo[T any] struct {
	items []T
	first int
}

func (f *fifo[T]) len() int { return len(f.items) - f.first }

func (f *fifo[T]) push(v T) {
	if f.first > 64 && f.first > len(f.items)/2 {
		n := copy(f.items, f.items[f.first:])
		clear(f.items[n:])
		f.items, f.first = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) pop() T {
	var none T
	v := f.items[f.first]
	f.items[f.first] = none
	if f.first++; f.first == len(f.items) {
		f.items, f.first = f.items[:0], 0
	}
	return v
}
