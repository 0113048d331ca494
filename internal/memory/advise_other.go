//go:build !linux

package memory

// Advise does nothing here.
func Advise[T any]([]T) {}
