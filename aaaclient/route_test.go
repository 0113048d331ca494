package aaaclient

import (
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
)

// requests takes all requests off what was sent to a peer.
func (d *desk) requests(i int) []peer.Message {
	d.t.Helper()
	var all []peer.Message
	for len(d.conns[i].sent) > 0 {
		all = append(all, d.conns[i].request(d.t))
	}
	return all
}

// succeed answers all requests that a peer has, until it gets no more, and
// returns their Session-Ids.
func (d *desk) succeed(i int) (sessions []string) {
	d.t.Helper()
	for {
		all := d.requests(i)
		if len(all) == 0 {
			return sessions
		}
		for _, m := range all {
			id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
			sessions = append(sessions, string(id.Data))
			d.answer(i, m, avp.ResultSuccess, "", nil)
		}
	}
}

func ofRealm(realm string, records []acct.Record) []acct.Record {
	for i := range records {
		records[i].Realm = realm
		records[i].SessionID = realm + ";" + records[i].SessionID
	}
	return records
}

func threePeers(c *Config) {
	c.Peers = []Peer{
		{Host: "one.home.example", Address: "192.0.2.1:3868"},
		{Host: "two.home.example", Address: "192.0.2.2:3868"},
		{Host: "three.home.example", Address: "192.0.2.3:3868"},
	}
}

// RFC 6733, Section 2.7: a realm's requests go to the realm's peers.
func TestRealmsHaveRoutes(t *testing.T) {
	var all []acct.Record
	for _, realm := range []string{"", "HOME.example", "partner.example", "other.example"} {
		all = append(all, ofRealm(realm, records(2, 2))...)
	}
	d := newDesk(t, all, func(c *Config) {
		threePeers(c)
		c.DestinationRealm = "home.example"
		c.Routes = []Route{
			{Realms: []string{"home.example"}, Peers: []int{0}},
			{Realms: []string{"partner.example"}, Peers: []int{1}},
			{Peers: []int{2}},
		}
	})
	for range 3 {
		for i, want := range []string{";HOME.example;", "partner.example;", "other.example;"} {
			for _, s := range d.succeed(i) {
				if realm, _, _ := strings.Cut(s, ";"); !strings.Contains(want, realm+";") {
					t.Errorf("a record of %s went to peer %d", s, i)
				}
			}
		}
	}
	d.outbox.check(t, acct.Acknowledged)
	for i, r := range d.client.Stats().Routes {
		if want := []uint64{8, 4, 4}[i]; r.Settled != want || r.Sent != want {
			t.Errorf("route %d: %+v, want %d settled", i, r, want)
		}
	}
}

// A realm that stands still, with more records than fit in memory, holds up no
// other.
func TestOneRealmStarvesNoOther(t *testing.T) {
	all := ofRealm("dead.example", records(900, 3))
	all = append(all, ofRealm("", records(40, 5))...)
	d := newDesk(t, all, func(c *Config) {
		c.Buffer, c.Window = 20, 4
		c.Routes = []Route{{Realms: []string{"dead.example"}, Peers: []int{1}}, {Peers: []int{0}}}
	})
	d.s.Closed(1, syscall.ECONNRESET)
	d.work()
	if n := len(d.succeed(0)); n != 200 {
		t.Errorf("%d records of the other realm arrived, want 200", n)
	}
	if held := d.s.d.routes[0].held; held > 20 || len(d.s.d.sessions) > 60 {
		t.Errorf("%d records and %d sessions in memory", held, len(d.s.d.sessions))
	}
	d.open(1)
	d.work()
	d.succeed(1)
	d.outbox.check(t, acct.Acknowledged)
}

// Peers of one priority share sessions by their weights; each session stays
// with its peer, and only those of a peer that fails move.
func TestLoadIsShared(t *testing.T) {
	const sessions = 3000
	d := newDesk(t, records(sessions, 2), func(c *Config) {
		threePeers(c)
		c.Peers = append(c.Peers, Peer{Host: "backup.home.example", Address: "192.0.2.4:3868", Priority: 1, Weight: 1})
		c.Peers[0].Weight, c.Peers[1].Weight, c.Peers[2].Weight = 1, 1, 2
	})
	home := map[string]int{}
	count := make([]int, 4)
	for more := true; more; {
		more = false
		for i := range d.conns {
			for _, s := range d.succeed(i) {
				if was, ok := home[s]; ok && was != i {
					t.Fatalf("session %s moved from peer %d to %d", s, was, i)
				}
				home[s], more = i, true
				count[i]++
			}
		}
	}
	d.outbox.check(t, acct.Acknowledged)
	for i, share := range []float64{0.25, 0.25, 0.5, 0} {
		if got := float64(count[i]) / (2 * sessions); math.Abs(got-share) > 0.03 {
			t.Errorf("peer %d got %.3f of the load, want %.2f", i, got, share)
		}
	}
	d.s.Closed(2, syscall.ECONNRESET)
	d.outbox.add(ofRealm("", records(sessions, 1))...)
	for i := range d.outbox.rows[2*sessions:] {
		r := &d.outbox.rows[2*sessions+i].Record
		r.SessionID, r.Number = strings.TrimPrefix(r.SessionID, ";"), 2
	}
	d.s.Woken()
	d.work()
	for more := true; more; {
		more = false
		for _, i := range []int{0, 1, 3} {
			for _, s := range d.succeed(i) {
				if more = true; home[s] != 2 && home[s] != i || i == 3 {
					t.Fatalf("session %s of peer %d went to %d", s, home[s], i)
				}
			}
		}
	}
	d.outbox.check(t, acct.Acknowledged)
}

// A peer that is slow does not hold up one that shares its load.
func TestSlowPeerBlocksNoOther(t *testing.T) {
	d := newDesk(t, records(400, 1), func(c *Config) {
		c.Window, c.Buffer = 4, 50
		c.Peers[0].Weight, c.Peers[1].Weight = 1, 1
	})
	fast := len(d.succeed(1)) // peer 0 answers nothing
	if fast < 360 {
		t.Errorf("the fast peer got %d records, want all of 400 but those that may wait for the slow", fast)
	}
	d.succeed(0)
	d.outbox.check(t, acct.Acknowledged)
}

// A peer that answers its watchdog and no requests: the backup takes them
// without each one waiting for an answer first, and the primary takes them
// again once it answers.
func TestMutePeer(t *testing.T) {
	d := newDesk(t, records(600, 1), func(c *Config) { c.Window = 8 })
	first := len(d.requests(0))
	for range 3 {
		d.now = d.now.Add(d.client.cfg.Timeout)
		d.work()
		d.succeed(1)
	}
	if got := first + len(d.requests(0)); got > 8+3 {
		t.Errorf("the mute peer got %d requests", got)
	}
	d.outbox.check(t, acct.Acknowledged)

	d.outbox.add(records(40, 1)...)
	for i := range 40 {
		d.outbox.rows[600+i].Record.Number = 1
	}
	d.now = d.now.Add(d.client.cfg.Timeout)
	d.s.Woken()
	d.work()
	if got := len(d.succeed(0)); got == 0 || d.s.d.mute != 0 {
		t.Errorf("the peer answers again and got %d requests", got)
	}
	d.succeed(1)
	d.outbox.check(t, acct.Acknowledged)
}

// The window of a peer halves when it has too much to do, and grows again as
// it answers.
func TestWindowAdapts(t *testing.T) {
	const window = 64
	d := newDesk(t, records(2000, 1), func(c *Config) { c.Window, c.Buffer = window, 4000 })
	limit := func() int { d.work(); return d.client.Stats().Peers[0].Limit }
	if got := len(d.requests(0)); got != window || limit() != window {
		t.Fatalf("%d requests at first, limit %d, want %d", got, limit(), window)
	}
	d.now = d.now.Add(time.Hour) // all time out
	d.work()
	if got := limit(); got != window/2 {
		t.Errorf("limit after silence is %d, want %d", got, window/2)
	}
	busy := func() {
		d.now = d.now.Add(time.Minute)
		d.work()
		for _, m := range d.requests(0) {
			d.answer(0, m, avp.ResultTooBusy, "", nil)
			d.answer(0, m, avp.ResultTooBusy, "", nil) // unmatched
			return
		}
		t.Fatal("nothing was sent")
	}
	for range 12 {
		busy()
	}
	if got := limit(); got != 1 {
		t.Errorf("limit of a peer that is always busy is %d, want 1", got)
	}
	for i := range d.conns {
		d.requests(i)
		d.s.Closed(i, &peer.DisconnectError{Cause: avp.Rebooting})
		d.open(i)
	}
	p := pace{most: window, now: 1}
	answers := 0
	for ; p.limit() < window; answers++ {
		p.fast()
	}
	if want := window * window / 2; answers < want*9/10 || answers > want*11/10 {
		t.Errorf("%d answers widened the window, want about %d", answers, want)
	}
}

// Route.Rate bounds the records a second.
func TestRate(t *testing.T) {
	d := newDesk(t, records(100, 1), func(c *Config) { c.Routes = []Route{{Rate: 10}} })
	for second := range 9 {
		if got, want := len(d.succeed(0)), 10; got != want {
			t.Fatalf("%d records in second %d, want %d", got, second, want)
		}
		next := d.s.Round(d.now)
		if wait := next.Sub(d.now); wait <= 0 || wait > 101*time.Millisecond {
			t.Fatalf("the next round is due in %v", wait)
		}
		d.now = d.now.Add(time.Second)
		d.work()
	}
	d.succeed(0)
	d.outbox.check(t, acct.Acknowledged)
}

// Once the node behind a relay is known that answers for a session, the later
// records of the session name it as Destination-Host; it is forgotten when it
// can't be reached.
func TestDestinationHostOnceKnown(t *testing.T) {
	d := newDesk(t, records(1, 5), func(c *Config) { c.Routes = []Route{{LearnHost: true}} })
	host := func(m peer.Message) string {
		a, _ := avp.Find(m.AVPs(), avp.DestinationHost, 0)
		return string(a.Data)
	}
	server := peer.Node{OriginHost: "server-7.home.example", OriginRealm: "home.example"}
	answer := func(m peer.Message, result uint32) {
		d.receive(0, server.AppendError(nil, m, result, "", nil))
		if result != avp.ResultSuccess {
			d.now = d.now.Add(10 * time.Millisecond)
			d.work()
		}
	}
	for i, step := range []struct {
		host   string
		result uint32
	}{
		{"", avp.ResultSuccess},
		{"server-7.home.example", avp.ResultSuccess},
		{"server-7.home.example", avp.ResultUnableToDeliver},
		{"", avp.ResultSuccess}, // on the other peer
	} {
		if i == 3 {
			m := d.conns[1].request(t)
			if got := host(m); got != "" {
				t.Errorf("request %d names %q", i, got)
			}
			d.receive(1, server.AppendError(nil, m, avp.ResultSuccess, "", nil))
			break
		}
		m := d.conns[0].request(t)
		if got := host(m); got != step.host {
			t.Errorf("request %d names Destination-Host %q, want %q", i, got, step.host)
		}
		answer(m, step.result)
	}
	d.succeed(0)
	d.outbox.check(t, acct.Acknowledged)
	if n := len(d.s.d.routes[0].hosts); n != 0 {
		t.Errorf("%d hosts are known of sessions that ended", n)
	}
}

// A server that hangs up whatever it is sent is no proof against a record:
// none is quarantined, and all arrive once it has recovered.
func TestPoisonedServer(t *testing.T) {
	d := newDesk(t, records(30, 2), func(c *Config) { c.Peers = c.Peers[:1] })
	for range 60 {
		d.requests(0)
		d.s.Closed(0, syscall.ECONNRESET)
		d.now = d.now.Add(d.client.cfg.RetryMax)
		d.open(0)
		d.work()
	}
	s := d.client.Stats()
	if !s.Peers[0].Cutting || s.Unproven == 0 || d.client.links[0].pause() != d.client.cfg.Connect<<maxPause {
		t.Errorf("stats %+v, pause %v", s, d.client.links[0].pause())
	}
	for range 100 {
		d.succeed(0)
		d.now = d.now.Add(d.client.cfg.RetryMax)
		d.work()
	}
	d.outbox.check(t, acct.Acknowledged)
	if s := d.client.Stats(); s.Peers[0].Cutting || s.Quarantined != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A poison record at a server that answers others is quarantined, though the
// server hung up on all of them before.
func TestPoisonAfterPoisonedServer(t *testing.T) {
	d := newDesk(t, records(10, 1), func(c *Config) { c.Peers = c.Peers[:1] })
	poison := records(10, 1)[3].SessionID
	recovered := false
	for i := range 120 {
		recovered = recovered || i == 20
		cut := false
		for _, m := range d.requests(0) {
			id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
			if cut = !recovered || string(id.Data) == poison; cut {
				break
			}
			d.answer(0, m, avp.ResultSuccess, "", nil)
		}
		if cut {
			d.s.Closed(0, syscall.ECONNRESET)
			d.open(0)
		}
		d.now = d.now.Add(d.client.cfg.RetryMax)
		d.work()
	}
	d.outbox.check(t, acct.Acknowledged, 4)
	if state, got := d.outbox.state(4); state != acct.Quarantined {
		t.Errorf("the poison record is %v: %+v", state, got)
	}
}

// Over TLS, a peer is taken for its certificate's identity and no other.
func TestTLS(t *testing.T) {
	ca := certtest.NewAuthority(t)
	stranger := certtest.NewAuthority(t)
	load := func(c certtest.Files) *peer.Credentials {
		cr, err := peer.LoadCredentials(c.Certificate, c.Key, c.CA, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cr
	}
	ours := load(ca.Write(ca.Issue("bridge.visited.example")))
	for _, test := range []struct {
		name   string
		server certtest.Files
		want   string // why it is not connected
	}{
		{"its own", ca.Write(ca.Issue("acct.home.example")), ""},
		{"one of the wrong realm", ca.Write(ca.Issue("acct.other.example")), "TLS: peer: the certificate is for acct.other.example, not for acct.home.example"},
		{"one of a stranger", stranger.Write(stranger.Issue("acct.home.example")), "is not to be trusted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			outbox := newOutbox()
			outbox.add(records(20, 3)...)
			server := &rogue{secure: load(test.server)}
			cfg := client(outbox)
			cfg.Peers = []Peer{{Host: "acct.home.example", Address: server.listen(t), TLS: ours}}
			c, stop := runClient(t, cfg)
			defer stop()
			if test.want == "" {
				settled(t, outbox, c)
				outbox.check(t, acct.Acknowledged)
				return
			}
			await(t, func() bool { return c.Stats().Peers[0].Reason != "" })
			if got := c.Stats(); !strings.Contains(got.Peers[0].Reason, test.want) || got.Sent != 0 {
				t.Errorf("reason %q, want %q; sent %d", got.Peers[0].Reason, test.want, got.Sent)
			}
		})
	}
	t.Run("a server without TLS", func(t *testing.T) {
		outbox := newOutbox()
		outbox.add(records(1, 1)...)
		cfg := client(outbox)
		cfg.Peers = []Peer{{Host: "acct.home.example", Address: (&rogue{}).listen(t), TLS: ours}}
		c, stop := runClient(t, cfg)
		defer stop()
		await(t, func() bool { return c.Stats().Peers[0].Reason != "" })
		if got := c.Stats(); got.Sent != 0 || got.Peers[0].Connects != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

// await waits until what is true.
func await(t *testing.T, what func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-deadline:
			t.Fatal("it did not come to that")
		case <-tick.C:
		}
	}
}
