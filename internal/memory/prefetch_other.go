//go:build !amd64

package memory

// Prefetch does nothing here.
func Prefetch[T any](*T) {}
