package asm

import (
	"encoding/binary"

	"tollbridge/asm/acct"
	"tollbridge/asm/positions"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// A novelty says what the Identity of the Message at hand makes of it.
type novelty uint8

const (
	unidentified novelty = iota // nothing is known: records go by their own identities
	fresh                       // this Message is new; its records may have come in another
	resent                      // its records were here
)

// An identified is the Message at hand, while it is one of acknowledged
// export.
type identified struct {
	novelty  novelty
	spool    *positions.Spool // nil where its position is none of its own
	position uint64
	digest   uint64
	records  uint64 // Data Records so far, the Identity among them
}

// acknowledgement takes in the records of acknowledged export in set.
func (m *Module) acknowledgement(l *ack.Layout, set *ipfix.DataSet, d *domain) {
	for n := 0; ; n++ {
		r, ok := set.Next()
		if !ok {
			return
		}
		switch {
		case l.Kind == ack.KindIdentity && n == 0 && set.Offset == ipfix.HeaderLength:
			m.identify(l.Identity(r), d)
		case l.Kind == ack.KindForwarded:
			m.forwarded(l.Forwarded(r), d)
		case l.Kind == ack.KindGivenUp && m.decoder.identified.novelty == fresh:
			m.giveUp(l.GivenUp(r), d)
		}
	}
}

// identify finds out whether the Message at hand was here.
func (m *Module) identify(id ack.Identity, d *domain) {
	c := &m.decoder
	s := m.spools.Of(d.key.Exporter, id.Instance, c.position)
	c.passing = id.Instance
	c.hash, c.hashed = d.messages.Sum(ack.Body(c.message)), true // the same in every sending
	c.scratch = c.hash.Append(c.scratch[:0])
	digest := binary.LittleEndian.Uint64(c.scratch)
	c.identified = identified{novelty: fresh, spool: s, position: id.Position, digest: digest, records: c.identified.records}
	switch seen, _ := s.Look(id.Position, digest); seen {
	case positions.Never, positions.GivenUp:
	case positions.Same:
		c.identified.novelty = resent
		m.stats.ResentMessages++
	case positions.Forgotten: // it may have been here; its records are asked
		c.identified.novelty = unidentified
		m.stats.ForgottenPositions++
	case positions.Other: // a spool that was copied or restored, or an exporter that is wrong
		c.identified.novelty, c.identified.spool = unidentified, nil
		m.stats.PositionConflicts++
		m.logs.warn(m.log, "two different messages have one position of one spool; their records are told apart by themselves", d.key, 0,
			"instance", id.Instance, "position", id.Position)
	}
}

// identifiedDone notes the Message at hand, all of which was decoded.
func (m *Module) identifiedDone(d *domain) {
	c := &m.decoder.identified
	if c.novelty == resent || c.spool == nil {
		return
	}
	if seen, interval := c.spool.Look(c.position, c.digest); seen == positions.GivenUp {
		key := d.key
		key.Interval = interval
		m.ledger.row(key).LostFound += c.records - 1
	}
	m.spools.Came(c.spool, c.position, c.digest)
}

// giveUp books what an exporter had no room to keep.
func (m *Module) giveUp(g ack.GivenUp, d *domain) {
	if g.Last < g.First || g.Records > acct.MaxOctets {
		return
	}
	row := m.row(d)
	if g.First == g.Last { // it may have come, or been told before
		news, known := m.spools.GiveUp(m.decoder.identified.spool, g.First, row.Interval)
		if !news {
			return
		}
		if !known {
			row.LostSuspect += g.Records
		}
	}
	row.Lost += g.Records
	m.stats.GivenUpRecords += g.Records
}
