package asm

import (
	"tollbridge/asm/acct"
)

// maxCrashes is how often the pipeline may crash at an entry before it passes
// it over.
const maxCrashes = 2

// noteCrash notes, for the next checkpoint, that the pipeline crashed at an
// entry.
func (m *Module) noteCrash(position uint64) { m.crashes[position]++ }

// setAside passes an entry over that the pipeline crashed at before. A Message
// is booked as undecoded.
func (m *Module) setAside(e acct.Entry) {
	m.stats.SetAside++
	key := acct.LedgerKey{Interval: m.interval}
	if t := m.transports.open[e.Session]; t != nil && e.Kind == acct.EntryMessage {
		key.Exporter = t.info.Exporter
		row := m.ledger.row(key)
		row.UndecodedMessages++
		row.UndecodedOctets += uint64(len(e.Data))
	}
	m.logs.warn(m.log, "journal entry is set aside: the pipeline crashed at it", key, uint64(e.Kind), "position", e.Position, "kind", e.Kind)
}
