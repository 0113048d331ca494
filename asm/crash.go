package asm

import (
	"errors"

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
	err := errors.New("asm: the pipeline crashed at it")
	if e.Kind != acct.EntryMessage {
		m.broken(e, err)
		return
	}
	key := acct.LedgerKey{}
	session, _ := e.Stream()
	if t := m.transports.open[session]; t != nil {
		key.Exporter = t.info.Exporter
	}
	m.undecodable(e, key, err)
}
