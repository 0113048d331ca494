package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// What is found after all comes off the interval that it was lost in, across
// restarts of ours, and a UDP session's of the Collecting Process too.
func TestLossFound(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	record := func(port int) []any { return []any{b.clock, netip.MustParseAddr("192.0.2.1"), port, 100, 1} }
	b.sendRecords(s, plainTemplate, record(1))
	late := [][]byte{b.encodeRecords(plainTemplate, record(2), record(3)), b.encodeRecords(plainTemplate, record(4))}
	b.sendRecords(s, plainTemplate, record(5))
	first := acct.LedgerKey{Exporter: "router", Domain: 1, Interval: b.m.interval}
	b.checkpoint()
	if row := b.s.ledger[first]; row.Lost != 3 || row.LostFound != 0 {
		t.Errorf("lost %d, found %d", row.Lost, row.LostFound)
	}
	b.after(2 * time.Minute)
	b.checkpoint()
	b.restart()
	s = b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.add(acct.EntryMessage, s, late[0])
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, late[1])
	b.add(acct.EntryMessage, s, late[1]) // a duplicate finds nothing
	b.checkpoint()
	if row := b.s.ledger[first]; row.Lost != 3 || row.LostFound != 3 {
		t.Errorf("lost %d, found %d", row.Lost, row.LostFound)
	}
	for key, row := range b.s.ledger {
		if key != first && (row.Lost != 0 || row.LostFound != 0) {
			t.Errorf("%+v: lost %d, found %d", key, row.Lost, row.LostFound)
		}
	}
}

// What is lost where numbers count Messages is an estimate, and that numbers
// began anew is told.
func TestLossConfidence(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	b.sendRecords(s, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 1, 100, 1})
	e := ipfix.NewEncoder(1, 0) // its numbers begin anew
	b.enc[1] = e
	b.after(10 * time.Second)
	for range 3 {
		b.sendRecords(s, plainTemplate, []any{b.clock, netip.MustParseAddr("192.0.2.1"), 2, 100, 1})
	}
	sum := b.checkpoint()
	if sum.Restarts != 1 || sum.Lost != 0 {
		t.Errorf("%d restarts, %d lost", sum.Restarts, sum.Lost)
	}
	// Version 9 counts packets.
	v9 := b.open(ipfix.UDP, "old", "198.51.100.2:999")
	for _, n := range []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17} {
		b.add(acct.EntryMessage, v9, []byte{
			0, 9, 0, 2, 0, 0, 0, 1, 0x6a, 0x73, 0x5a, n, 0, 0, 0, n, 0, 0, 0, 7,
			0, 0, 0, 20, 1, 4, 0, 3, 0, 8, 0, 4, 0, 1, 0, 4, 0, 4, 0, 1, // Template 260: source, octets, protocol
			1, 4, 0, 16, 192, 0, 2, 1, 0, 0, 0, 100, 6, 0, 0, 0,
		})
	}
	sum = b.checkpoint()
	if sum.Lost != 3 || sum.LostEstimated != 3 || sum.LostSuspect != 0 {
		t.Errorf("lost %d, of these estimated %d, suspect %d", sum.Lost, sum.LostEstimated, sum.LostSuspect)
	}
}

// Losses of long ago are not remembered for ever.
func TestLossBound(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
	record := func(port int) []any { return []any{b.clock, netip.MustParseAddr("192.0.2.1"), port, 100, 1} }
	for i := range 2 * maxLosses {
		b.sendRecords(s, plainTemplate, record(i))
		lost := [][]any{record(1), record(2), record(3), record(4)}[:2+i%3]
		b.encodeRecords(plainTemplate, lost...) // never arrives
		b.after(time.Minute)
	}
	if n := len(b.m.transports.open[s].losses[1]); n != maxLosses {
		t.Errorf("%d losses are remembered", n)
	}
	if sum := b.checkpoint(); sum.Lost != 189 { // 2, 3 and 4 in turn, 63 times
		t.Errorf("lost %d", sum.Lost)
	}
}
