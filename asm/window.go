package asm

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
)

// A storedWindow is what the store has of an exporter's window of record
// identities.
type storedWindow struct {
	state []byte // nil for none
	floor int64  // Unix seconds
}

// newWindows returns empty windows of the shape that settings s ask for.
func (m *Module) newWindows(s Settings, base int64) *dedup.Windows {
	w := dedup.NewWindows(dedup.Config{
		Length: s.DedupWindow, Ahead: s.ClockTolerance, MaxIdentities: s.MaxIdentities,
	})
	w.Advance(m.millis())
	w.SetBase(base)
	return w
}

// restoreWindows makes the windows of record identities anew, by settings s,
// from their states and the store.
func (m *Module) restoreWindows(ctx context.Context, s Settings, base int64) error {
	m.windows = m.newWindows(s, base)
	for _, exporter := range slices.Sorted(maps.Keys(m.stored)) {
		if err := m.windows.Of(exporter).UnmarshalBinary(m.stored[exporter].state); err != nil {
			return fmt.Errorf("window of %s: %w", exporter, err)
		}
	}
	err := m.store.EachIdentity(ctx, func(i acct.Identities) error {
		if _, ok := m.stored[i.Exporter]; !ok {
			return nil // it was dropped
		}
		return m.windows.Of(i.Exporter).Restore(i.Bucket, i.Data)
	})
	if err != nil {
		return fmt.Errorf("read identities: %w", err)
	}
	m.windows.Trim()
	return nil
}

// reshapeWindows gives the windows the shape of settings s. Their identities
// are read from the store, which is made to have all.
func (m *Module) reshapeWindows(ctx context.Context, s Settings) error {
	if err := m.Checkpoint(ctx); err != nil {
		return err
	}
	return m.restoreWindows(ctx, s, m.windows.Base())
}

// putWindows hands out what of the windows changed.
func (m *Module) putWindows(b *acct.Batch, put func(kind, key string, value []byte)) error {
	m.windows.Delta(func(exporter string, bucket int64, data []byte) {
		b.Identities = append(b.Identities, acct.Identities{Exporter: exporter, Bucket: bucket, Data: data})
	})
	gone := len(m.stored)
	for exporter, w := range m.windows.Exporters() {
		was, known := m.stored[exporter]
		if known {
			gone--
		}
		state, err := w.AppendBinary(nil)
		if err != nil {
			return fmt.Errorf("encode window of %s: %w", exporter, err)
		}
		if bytes.Equal(state, was.state) {
			continue
		}
		if floor := w.Floor(); floor > was.floor {
			b.Floors = append(b.Floors, acct.Floor{Exporter: exporter, Bucket: floor})
		}
		put(stateWindow, exporter, state)
		m.stored[exporter] = storedWindow{state, w.Floor()}
	}
	if gone == 0 {
		return nil
	}
	kept := make(map[string]bool)
	for exporter := range m.windows.Exporters() {
		kept[exporter] = true
	}
	for _, exporter := range slices.Sorted(maps.Keys(m.stored)) {
		if !kept[exporter] {
			b.Floors = append(b.Floors, acct.Floor{Exporter: exporter, Bucket: math.MaxInt64})
			put(stateWindow, exporter, nil)
			delete(m.stored, exporter)
		}
	}
	return nil
}

// oneWindow returns the end of the newest flow, Unix milliseconds, in the
// window that all exporters shared in checkpoints of before. Its identities
// can't be told apart by exporter, so what may be among them is below the
// floor.
func oneWindow(state []byte) int64 {
	r := octets.NewReader(state)
	r.Octet()
	width, _, newest := int64(r.Uvarint()), r.Uvarint(), int64(r.Uvarint())
	if r.Err() != nil || width <= 0 || newest < 0 || newest >= 1<<50/width {
		return 0
	}
	return (newest + 1) * width * 1000
}
