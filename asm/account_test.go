package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// A flow between two users counts for the one that is known, and for the other
// once it is, if the other's address is in a network of users.
func TestOtherHalfWaits(t *testing.T) {
	for _, c := range []struct {
		name      string
		networks  []netip.Prefix
		fallback  string
		bind      string // who holds the other address, bound late
		accounted uint64
		suspended uint64
		want      map[string]acct.Usage // the last record of each user
	}{
		{"without networks it counts once", nil, "", "bob", 1, 0, map[string]acct.Usage{"ann": {InputOctets: 100, InputPackets: 2}}},
		{"with the address in none, too", prefixList("198.51.100.0/24"), "", "bob", 1, 0, map[string]acct.Usage{"ann": {InputOctets: 100, InputPackets: 2}}},
		{"the late user is accounted the other half", prefixList("192.0.2.0/24"), "", "bob", 2, 0,
			map[string]acct.Usage{"ann": {InputOctets: 100, InputPackets: 2}, "bob": {OutputOctets: 100, OutputPackets: 2}}},
		{"nobody comes", prefixList("192.0.2.0/24"), "", "", 1, 1, map[string]acct.Usage{"ann": {InputOctets: 100, InputPackets: 2}}},
		{"the fallback user has what came in", prefixList("192.0.2.0/24"), "nobody", "", 2, 0,
			map[string]acct.Usage{"ann": {InputOctets: 100, InputPackets: 2}, "nobody": {OutputOctets: 100, OutputPackets: 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			settings.Networks, settings.Fallback, settings.Wait = c.networks, c.fallback, time.Minute
			b := mapped(t, settings)
			s := b.open(ipfix.TCP, "router", "198.51.100.1:999")
			b.send(s, b.flow("192.0.2.1", "192.0.2.2"))
			b.checkpoint()
			b.restart()
			if c.bind != "" {
				b.users("late", bind("192.0.2.2", c.bind))
			}
			b.after(3 * time.Minute)
			b.after(time.Minute)
			n := c.accounted
			sum := b.checkpoint()
			if sum.Accounted != count(n, 100*n, 2*n) || sum.Mirrored != count(n+c.suspended-1, 100*(n+c.suspended-1), 2*(n+c.suspended-1)) ||
				sum.Suspended.Records != c.suspended {
				t.Errorf("accounted %+v, mirrored %+v, suspended %+v", sum.Accounted, sum.Mirrored, sum.Suspended)
			}
			got := map[string]acct.Usage{}
			for _, r := range b.s.records {
				got[r.User] = r.Usage
			}
			for _, user := range []string{"ann", "bob", "nobody"} {
				if got[user] != c.want[user] {
					t.Errorf("%s has %+v, want %+v", user, got[user], c.want[user])
				}
			}
		})
	}
}

func prefixList(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
