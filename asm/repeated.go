package asm

import (
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// cameBefore reports whether record number i of the chunk, one of set, is known
// otherwise than by the window to have come before. The identity of a record
// says more than that of its Data Set.
func (m *Module) cameBefore(set *ipfix.DataSet, p *plan, i int) bool {
	c := &m.decoder
	outside := c.verdicts[i] == dedup.BelowFloor || c.verdicts[i] == dedup.AheadOfClock
	// What was released while it was ahead of the clock is not in the window.
	return p.timed && m.released.has(c.ids[i]) || (outside || !p.timed) && m.repeated(set)
}

// repeated reports whether set, the one at hand, was decoded before in a Message
// equal to this one, at a time when that was asked too: for the same Templates
// it always is. A copy that was never decoded is none: where its Template did
// not come, nothing of it was counted.
//
// What came before an upgrade from an early version was remembered by its whole
// Message, and is asked for like that: a copy is one of all that was in it.
func (m *Module) repeated(set *ipfix.DataSet) bool {
	c := &m.decoder
	if c.identified.novelty == resent {
		return true
	}
	if !c.compared {
		c.compared = true
		whole := c.messageHash()
		c.scratch = whole.Append(c.scratch[:0])
		id := c.domain.messages.Uint64(uint64(set.Offset)).Sum(c.scratch)
		c.duplicate = m.messages.Has(whole) || m.messages.Add(id, m.millis()) == dedup.Duplicate
		if c.duplicate {
			m.stats.DuplicateSets++
		}
	}
	return c.duplicate
}

// messageHash returns what tells the Message at hand from others.
func (c *decoder) messageHash() dedup.Identity {
	if !c.hashed {
		c.hash, c.hashed = c.domain.messages.Sum(c.message), true
	}
	return c.hash
}
