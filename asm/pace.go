package asm

import (
	"time"

	"tollbridge/asm/acct"
)

// A pace says when the next checkpoint is due.
//
// What was applied is safe in the journal anyway: a checkpoint bounds how much
// of it is worked through again after a crash, and hands out the records that
// were cut. Its cost is by what changed since the last, such as each session
// that had a flow, so where much changes all the time, half as many cost half.
// So one is due after CheckpointEvery, or paceShare times as long as the last
// took, up to paceMost; and before, when so much came that it would lengthen a
// restart, or fill memory.
type pace struct {
	cfg     *RunConfig
	entries int       // since the last checkpoint
	octets  int       // of them
	until   time.Time // when one is due for the first of them
	wait    time.Duration
}

const (
	paceShare = 20 // checkpoints take a twentieth of the time, at most
	paceMost  = 30 * time.Second
)

func newPace(cfg *RunConfig) pace { return pace{cfg: cfg, wait: cfg.CheckpointEvery} }

// applied takes note of an entry.
func (p *pace) applied(e *acct.Entry) {
	if p.entries == 0 {
		p.until = time.Now().Add(p.wait)
	}
	p.entries++
	p.octets += len(e.Data)
}

// full reports whether there should be a checkpoint however little time it is
// since the last.
func (p *pace) full(m *Module) bool {
	return p.entries >= p.cfg.CheckpointEntries || p.octets >= p.cfg.CheckpointOctets || m.pending() >= p.cfg.CheckpointRecords
}

// due reports whether it is time for a checkpoint. There are entries.
func (p *pace) due() bool { return !time.Now().Before(p.until) }

// made takes note of a checkpoint that was begun at a moment and is made now.
func (p *pace) made(begun time.Time) {
	every := p.cfg.CheckpointEvery
	p.entries, p.octets = 0, 0
	p.wait = max(every, min(paceShare*time.Since(begun), paceMost))
}
