package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// A port that a NAT tells of is of who had the private address, or nobody's,
// whatever a file lists: at once, as long as the NAT's word is remembered, and
// after it is forgotten.
func TestBehindNAT(t *testing.T) {
	private, public := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.1")
	tenant := bind("192.0.2.1", "tenant")
	tenant.Ports = "1024-4095"
	for _, c := range []struct {
		name   string
		listed users.Binding
	}{
		{"of the whole address", bind("192.0.2.1", "landlord")},
		{"of a wider share", tenant},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBridge(t, testSettings)
			s := b.open(ipfix.TCP, "cgn", "198.51.100.1:1000")
			nat := &natEvents{b, ipfix.NewEncoder(7, 0)}
			b.users("file", c.listed)
			nat.send(s, natTemplate, b.clock, 16, private, public, 1024, 1535)
			from := b.flow("192.0.2.1", "203.0.113.9")
			from.fromPort, from.octets = 1200, 1
			to := b.flow("203.0.113.9", "192.0.2.1")
			to.toPort, to.octets = 1200, 2
			free := b.flow("192.0.2.1", "203.0.113.9") // which the NAT does not tell of
			free.fromPort, free.octets = 1600, 4
			b.send(s, from, to, free)
			b.checkpoint()
			b.restart()
			b.clock = b.clock.Add(time.Second)
			nat.send(s, natTemplate, b.clock, 17, private, public, 1024, 1535)
			unheld := func(when string) {
				t.Helper()
				if sum := b.checkpoint(); sum.Suspended.Octets != 3 || b.totals()[c.listed.User].InputOctets != 4 {
					t.Errorf("%s: suspended %+v, accounted %v", when, sum.Suspended, b.totals())
				}
			}
			b.after(2 * time.Minute)
			unheld("the block is given back")
			b.clock = b.clock.Add(testSettings.Late + 2*time.Duration(b.m.sweepEvery()))
			nat.send(s, natTemplate, b.clock, 16, private, public, 5000, 5001) // what is over is forgotten
			b.users("file", c.listed, bind("100.64.0.7", "somebody"))
			if n, _ := b.m.users.Mappings(); n != 1 {
				t.Fatalf("%d mappings are remembered", n)
			}
			unheld("the NAT's word is forgotten")
			b.restart()
			b.users("file", c.listed)
			b.after(time.Minute)
			unheld("after a restart")
			b.users("file", c.listed, bind("100.64.0.1", "ann"))
			b.after(2 * time.Minute)
			if sum := b.checkpoint(); sum.Suspended.Octets != 0 || b.totals()["ann"].InputOctets != 1 || b.totals()["ann"].OutputOctets != 2 {
				t.Errorf("who held the private address: suspended %+v, accounted %v", sum.Suspended, b.totals())
			}
			for k := range b.s.state {
				if k[0] == stateBehind {
					t.Errorf("state %q is left of a flow that is gone", k[1])
				}
			}
		})
	}
}
