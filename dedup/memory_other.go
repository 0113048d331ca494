//go:build !linux

package dedup

// newIndex returns an index of 1<<bits slots.
func newIndex(bits uint8) index { return make(index, 1<<bits) }
