package asm

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"tollbridge/asm/acct"
)

// Checkpoint stores all that changed since the last one. After an error the
// Module has failed.
func (m *Module) Checkpoint(ctx context.Context) error {
	if m.failed != nil {
		return m.failed
	}
	b, err := m.batch()
	if err != nil {
		return m.fail(fmt.Errorf("asm: encode checkpoint %d: %w", m.position, err))
	}
	if err := m.store.Commit(ctx, b); err != nil {
		return m.fail(fmt.Errorf("asm: commit checkpoint %d: %w", m.position, err))
	}
	m.stats.Checkpoints++
	m.stats.AccountingRecords += uint64(len(m.records))
	m.committed()
	return nil
}

// Needed returns the oldest journal entry that the Module may still read: as
// of the last Checkpoint, entries before it can be dropped.
func (m *Module) Needed() uint64 { return m.transports.oldest(m.comparison.oldest(m.position + 1)) }

// pending returns how many things the next checkpoint holds that each take
// memory of their own.
func (m *Module) pending() int {
	return len(m.records) + len(m.suspense.added) + len(m.suspense.released)
}

// batch collects what changed.
func (m *Module) batch() (acct.Batch, error) {
	b := acct.Batch{
		Position: m.position, Needed: m.Needed(), Time: m.now,
		Records: m.records, Ledger: m.ledger.take(),
		Suspended: m.suspense.added, Released: m.suspense.released,
		Decisions: m.decisions,
	}
	b.Sessions = m.sessions.take(m.classNames)
	put := func(kind, key string, value []byte) {
		b.State = append(b.State, acct.State{Kind: kind, Key: key, Value: value})
	}
	pipeline, err := m.appendPipeline(nil)
	if err != nil {
		return b, err
	}
	put(statePipeline, "", pipeline)
	if err := m.putWindows(&b, put); err != nil {
		return b, err
	}
	m.suspense.backstage.put(put)
	m.released.put(put)
	if m.state.settings {
		value, err := m.settings.AppendBinary(nil)
		if err != nil {
			return b, err
		}
		put(stateSettings, "", value)
	}
	slices.Sort(m.state.users)
	for _, source := range slices.Compact(m.state.users) {
		var value []byte // nil deletes a source of which nothing is left
		if slices.Contains(m.users.Sources(), source) {
			value = m.users.AppendSource(nil, source)
		}
		put(stateUsers, source, value)
	}
	m.users.Delta(func(key string, value []byte) { put(stateClaim, key, value) })
	m.users.DeltaPorts(func(key string, value []byte) { put(statePorts, key, value) })
	m.samplers.Delta(func(key string, value []byte) { put(stateSampling, key, value) })
	m.totals.Delta(func(key string, value []byte) { put(stateTotals, key, value) })
	m.spools.Delta(func(key string, value []byte) { put(statePositions, key, value) })
	m.parts.put(put)
	m.charges.Delta(func(key string, value []byte) { put(stateCharge, key, value) })
	for position, times := range m.crashes {
		if position > m.position {
			put(stateCrash, strconv.FormatUint(position, 10), []byte{byte(min(times, 255))})
			continue
		}
		put(stateCrash, strconv.FormatUint(position, 10), nil)
		delete(m.crashes, position)
	}
	for _, t := range m.transports.dirty {
		t.dirty = false
		if m.transports.open[t.number] != t {
			continue
		}
		value, err := t.appendState(nil)
		if err != nil {
			return b, err
		}
		put(stateTransport, strconv.FormatUint(t.number, 10), value)
	}
	for _, number := range m.transports.gone {
		put(stateTransport, strconv.FormatUint(number, 10), nil)
	}
	m.messages.Delta(func(generation int64, data []byte) {
		p := piece{generation, fmt.Sprintf("%d/%d", generation, m.position)}
		put(stateMessages, p.key, data)
		m.pieces = append(m.pieces, p)
	})
	m.pieces = slices.DeleteFunc(m.pieces, func(p piece) bool {
		if p.generation >= m.messages.Floor() {
			return false
		}
		put(stateMessages, p.key, nil)
		return true
	})
	return b, nil
}

// committed forgets what the store has now.
func (m *Module) committed() {
	clear(m.records)
	m.records = m.records[:0]
	clear(m.suspense.added)
	m.suspense.added = m.suspense.added[:0]
	m.suspense.released = m.suspense.released[:0]
	clear(m.decisions)
	m.decisions = m.decisions[:0]
	m.state = stateChanges{}
	m.transports.dirty = m.transports.dirty[:0]
	m.transports.gone = m.transports.gone[:0]
	m.sessions.gone = m.sessions.gone[:0]
}
