package asm

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

var pointTemplate = must(ipfix.NewTemplate(350, field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4),
	field(ipfix.SourceTransportPort, 2), field(ipfix.OctetDeltaCount, 4), field(ipfix.IngressInterface, 4), field(ipfix.EgressInterface, 4), field(ipfix.FlowDirection, 1)))

// A flow that two observation points see is accounted at one of them, and the
// books say what was left to the other.
func TestObservationPoints(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  ExporterSettings
		skipped uint64 // octets, of the flows below
	}{
		{"all", ExporterSettings{Account: AccountAll}, 0},
		{"ingress", ExporterSettings{Account: AccountIngress}, 20},
		{"egress", ExporterSettings{Account: AccountEgress}, 1 + 300},
		{"none", ExporterSettings{Account: AccountNone}, 321},
		{"interface 7", ExporterSettings{Interfaces: []uint32{7}}, 300},
		{"interface 7, ingress", ExporterSettings{Account: AccountIngress, Interfaces: []uint32{9, 7}}, 320},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			c.policy.Name = "router"
			settings.Exporters = []ExporterSettings{c.policy}
			b := mapped(t, settings)
			user := netip.MustParseAddr("192.0.2.1")
			for _, exporter := range []string{"router", "other"} {
				s := b.open(ipfix.TCP, exporter, "198.51.100.1:999")
				for range 2 { // the second time as duplicates
					b.sendRecords(s, pointTemplate,
						[]any{b.clock, user, 1, 1, 7, 8, 0},   // comes in at 7
						[]any{b.clock, user, 2, 20, 8, 7, 1},  // leaves at 7
						[]any{b.clock, user, 3, 300, 8, 7, 0}) // comes in at 8
				}
				old := b.clock.Add(-3 * time.Hour)
				b.sendRecords(s, pointTemplate, []any{old, user, 4, 5000, 8, 7, 0}) // below the floor
			}
			sum := b.checkpoint()
			// What is skipped anyway, as the third flow may be, needs no decision.
			skipped, suspended := c.skipped, uint64(2*5000)
			if skipped >= 300 {
				skipped, suspended = skipped+5000, 5000
			}
			if sum.Skipped.Octets != skipped || sum.Suspended.Octets != suspended || sum.Accounted.Octets != 642-c.skipped {
				t.Errorf("skipped %+v, suspended %+v, accounted %+v; want %d and %d octets skipped and suspended", sum.Skipped, sum.Suspended, sum.Accounted, skipped, suspended)
			}
		})
	}
}

// An exporter that gets another name is still known by the one it had.
func TestAlias(t *testing.T) {
	b := mapped(t, testSettings)
	s := b.open(ipfix.TCP, "old", "198.51.100.1:999")
	msg := b.message(true, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, s, msg)
	settings := testSettings
	settings.Exporters = []ExporterSettings{{Name: "new", Identity: "old"}}
	b.configure(settings)
	s = b.open(ipfix.TCP, "new", "198.51.100.1:1000")
	b.add(acct.EntryMessage, s, msg)
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, msg)
	sum := b.checkpoint()
	if sum.Accounted != count(1, 100, 2) || sum.Duplicate != count(2, 200, 4) {
		t.Errorf("accounted %+v, duplicate %+v", sum.Accounted, sum.Duplicate)
	}
}

// The parts of a split EVENT record have the shares that their usage is of.
func TestTakeShares(t *testing.T) {
	a, c := acct.LedgerKey{Exporter: "a"}, acct.LedgerKey{Exporter: "c"}
	shares := []acct.Share{{LedgerKey: a, Count: count(3, 100, 10)}, {LedgerKey: c, Count: count(2, 50, 7)}}
	taken, rest := takeShares(shares, acct.Usage{InputOctets: 70, OutputOctets: 50, InputPackets: 4})
	want := []acct.Share{{LedgerKey: a, Count: count(3, 100, 4)}, {LedgerKey: c, Count: count(2, 20, 0)}}
	left := []acct.Share{{LedgerKey: a, Count: count(0, 0, 6)}, {LedgerKey: c, Count: count(0, 30, 7)}}
	if !reflect.DeepEqual(taken, want) || !reflect.DeepEqual(rest, left) {
		t.Errorf("taken %+v, rest %+v", taken, rest)
	}
}
