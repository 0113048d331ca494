//go:build !linux

package spool

// fileSystemOf can't tell.
func fileSystemOf(string) string { return "" }
