package asm

import (
	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
)

// A tally is what every flow of a session touches: one line of the processor's
// cache, which is most of what accounting a flow costs among many users. It
// holds the usage of the latest flows until they are folded into the session.
// The tallies lie close together, apart from the rest of their sessions.
type tally struct {
	session *session
	last    int64 // arrival of the latest flow, Unix milliseconds

	sum   acct.Usage    // usage of flows not folded yet
	row   uint32        // of their ledger row's key, as sessions.row numbers it
	flows uint16        // how many they are, at most maxTally
	sumOf classes.Index // their class

	class     classes.Index // of what no rule of the settings matches; classes.None for theirs
	phase     phase
	gone      bool        // removed
	dirty     bool        // listed in sessions.dirty
	changed   bool        // listed in sessions.changed: usage to be cut at the interval's end
	estimated bool        // some of the session's usage is scaled from sampled packets
	layers    acct.Layers // that its octets were counted at
}

// maxTally is how many flows a tally takes: as each has at most acct.MaxOctets
// in each direction, no sum overflows.
const maxTally = 1 << 12

// count adds usage u of a flow to y, of class c and from the ledger's row key.
// n is the same as the books have it.
func (t *sessions) count(y *tally, c classes.Index, u acct.Usage, key acct.LedgerKey, n acct.Count) {
	row := t.row(key)
	if y.flows == maxTally || y.flows > 0 && (y.row != row || y.sumOf != c) {
		t.fold(y.session)
	}
	if n != (acct.Count{Records: 1, Octets: u.InputOctets + u.OutputOctets, Packets: u.InputPackets + u.OutputPackets}) {
		y.session.add(c, u, key, n) // as the usage does not say
		return
	}
	y.row, y.sumOf = row, c
	y.flows++
	y.sum.InputOctets += u.InputOctets
	y.sum.OutputOctets += u.OutputOctets
	y.sum.InputPackets += u.InputPackets
	y.sum.OutputPackets += u.OutputPackets
}

// fold adds to s what its tally holds.
func (t *sessions) fold(s *session) {
	y := s.tally
	if y.flows == 0 {
		return
	}
	n := acct.Count{
		Records: uint64(y.flows),
		Octets:  y.sum.InputOctets + y.sum.OutputOctets,
		Packets: y.sum.InputPackets + y.sum.OutputPackets,
	}
	s.add(y.sumOf, y.sum, t.rows[y.row], n)
	y.sum, y.flows = acct.Usage{}, 0
}

// row returns the number of a ledger row's key, good until the next checkpoint.
func (t *sessions) row(key acct.LedgerKey) uint32 {
	if int(t.lastRow) < len(t.rows) && t.rows[t.lastRow] == key {
		return t.lastRow
	}
	n, ok := t.rowOf[key]
	if !ok {
		n = uint32(len(t.rows))
		t.rows = append(t.rows, key)
		t.rowOf[key] = n
	}
	t.lastRow = n
	return n
}

// forgetRows is called when no tally holds anything.
func (t *sessions) forgetRows() {
	clear(t.rows)
	t.rows = t.rows[:0]
	clear(t.rowOf)
}
