//go:build !linux

package journal

// Allocate implements file: a full disk is met when it is written.
func (f osFile) Allocate(from, to int64) error { return nil }

// SyncData implements file.
func (f osFile) SyncData() error { return f.Sync() }
