//go:build !linux

// Package hugepage asks the kernel for large pages, where it is Linux.
package hugepage

// Advise does nothing here.
func Advise[T any]([]T) {}
