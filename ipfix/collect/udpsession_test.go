package collect

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The session table against a list in order of use.
func TestUDPSessionsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		journal := newMemory()
		p, err := New(Config{Journal: journal, MaxSessions: 5, MaxExporterSessions: 3, IdleTimeout: 10})
		if err != nil {
			t.Fatal(err)
		}
		table := newUDPSessions(p, netip.AddrPort{})
		type used struct {
			peer udpPeer
			at   time.Time
		}
		var model []used // the least recently used first
		now := time.Unix(0, 0)
		drop := func(i int) { model = slices.Delete(model, i, i+1) }

		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "wait")))
			if rapid.Bool().Draw(t, "expire") {
				if err := table.expire(now); err != nil {
					t.Fatal(err)
				}
				model = slices.DeleteFunc(model, func(u used) bool { return now.Sub(u.at) >= 10 })
			}
			host := byte(rapid.IntRange(0, 2).Draw(t, "host"))
			port := uint16(rapid.IntRange(0, 4).Draw(t, "port"))
			peer := udpPeer{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, host}), port)}

			i := slices.IndexFunc(model, func(u used) bool { return u.peer == peer })
			s := table.find(peer)
			if (s != nil) != (i >= 0) {
				t.Fatalf("%v is found: %v, want %v", peer, s != nil, i >= 0)
			}
			if s != nil {
				table.touch(s, now)
				drop(i)
			} else {
				own := func(u used) bool { return u.peer.addr.Addr() == peer.addr.Addr() }
				n := 0
				for _, u := range model {
					if own(u) {
						n++
					}
				}
				switch {
				case n == 3:
					drop(slices.IndexFunc(model, own))
				case len(model) == 5:
					drop(0)
				}
				if _, err := table.begin(now, peer, p.exporters.acquire(peer.addr.Addr())); err != nil {
					t.Fatal(err)
				}
			}
			model = append(model, used{peer, now})
		}
		if len(journal.open) != len(model) {
			t.Fatalf("%d sessions are open, want %d", len(journal.open), len(model))
		}
		for _, u := range model {
			if table.find(u.peer) == nil {
				t.Fatalf("%v is missing", u.peer)
			}
		}
		table.release()
		for _, e := range p.exporters.remembered {
			if e.refs != 0 {
				t.Fatalf("%s is held %d times after release", e.name, e.refs)
			}
		}
	})
}
