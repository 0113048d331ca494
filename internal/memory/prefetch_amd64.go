package memory

import "unsafe"

// Prefetch has the processor fetch what p points to into its caches, and does
// not wait for it, as reading it would sooner or later.
func Prefetch[T any](p *T) { prefetch(unsafe.Pointer(p)) }

//go:noescape
func prefetch(p unsafe.Pointer)
