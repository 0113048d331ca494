package aaaclient

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

func TestNewRefuses(t *testing.T) {
	good := client(newOutbox(), "127.0.0.1:3868")
	for name, spoil := range map[string]func(*Config){
		"Config.Outbox is required":       func(c *Config) { c.Outbox = nil },
		"Origin-Host":                     func(c *Config) { c.OriginHost = "" },
		"Origin-Realm":                    func(c *Config) { c.OriginRealm = "a b" },
		"Config.DestinationRealm":         func(c *Config) { c.DestinationRealm = "-." },
		"Config.Peers has 0":              func(c *Config) { c.Peers = nil },
		"is not host:port":                func(c *Config) { c.Peers = []Peer{{Address: "localhost"}} },
		"Config.Peers[0].Host":            func(c *Config) { c.Peers = []Peer{{Address: "localhost:1", Host: "a b"}} },
		"is below 6s (RFC 3539, Section ": func(c *Config) { c.Watchdog = time.Second },
		"Config.Window is -1":             func(c *Config) { c.Window = -1 },
		"is required over TLS":            func(c *Config) { c.Peers[0].TLS = new(peer.Credentials) },
		"which several Routes want":       func(c *Config) { c.Routes = []Route{{}, {Realms: []string{"a.example"}}}; c.Outbox = plain{c.Outbox} },
		"has a route already": func(c *Config) {
			c.Routes = []Route{{}, {Realms: []string{"a.example"}}, {Realms: []string{"A.Example"}}}
		},
		"no route for other realms": func(c *Config) { c.Routes = []Route{{Realms: []string{"a.example"}}} },
		"as another route's is":     func(c *Config) { c.Routes = []Route{{}, {}} },
		"there is no peer 1":        func(c *Config) { c.Routes = []Route{{Peers: []int{1}}} },
		"means success":             func(c *Config) { c.Fates = map[Code]Fate{{Result: 2001}: Quarantine} },
	} {
		cfg := good
		cfg.Peers = slices.Clone(cfg.Peers)
		spoil(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q in it", err, name)
		}
	}
}

// plain is an Outbox and nothing else.
type plain struct{ Outbox }

// TestMisbehaviour has one peer that misbehaves in one way, for a while: all
// records are acknowledged in the end.
func TestMisbehaviour(t *testing.T) {
	lose := func(when func(r rogueRequest) bool, how func(c *rogueConn, r rogueRequest)) func(*rogueConn, rogueRequest) {
		return func(c *rogueConn, r rogueRequest) {
			if when(r) {
				how(c, r)
			} else {
				c.reply(r, avp.ResultSuccess)
			}
		}
	}
	first := func(n int) func(rogueRequest) bool { return func(r rogueRequest) bool { return r.n < n } }
	every := func(n int) func(rogueRequest) bool {
		return func(r rogueRequest) bool { return r.n%n == 0 && r.n < 100 }
	}
	result := func(code uint32) func(*rogueConn, rogueRequest) {
		return func(c *rogueConn, r rogueRequest) { c.reply(r, code) }
	}
	for name, test := range map[string]struct {
		act     func(*rogueConn, rogueRequest)
		resent  bool // records go again with the T flag
		retried bool // records go again as new requests
		strange bool // answers match nothing
	}{
		"silent":                        {resent: true, act: lose(first(5), func(*rogueConn, rogueRequest) {})},
		"answers are lost":              {resent: true, act: lose(every(7), func(*rogueConn, rogueRequest) {})},
		"another Hop-by-Hop Identifier": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) { c.send(r, 2001, r.HopByHop^0x40000000, r.EndToEnd) })},
		"another End-to-End Identifier": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) { c.send(r, 2001, r.HopByHop, r.EndToEnd^0x40000000) })},
		"another Session-Id": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) {
			r.session = "x;1"
			c.reply(r, 2001)
		})},
		"another Accounting-Record-Number": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) {
			r.number += 7
			c.reply(r, 2001)
		})},
		"two answers to each": {strange: true, act: func(c *rogueConn, r rogueRequest) {
			c.reply(r, 2001)
			c.reply(r, 2001)
		}},
		"3002 twice for one request, as relays do": {strange: true, retried: true, act: lose(first(5), func(c *rogueConn, r rogueRequest) {
			c.reply(r, 3002)
			c.reply(r, 3002)
		})},
		"another command's answer": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) {
			r.Command = 272
			c.reply(r, 2001)
		})},
		"an answer that is cut off within": {resent: true, strange: true, act: lose(every(7), func(c *rogueConn, r rogueRequest) {
			b := peer.AppendAnswerHeader(nil, r.Message, 2001)
			b = append(b, 0, 0, 1, 12, 0x40, 0, 0, 99)
			avp.SetLength(b)
			c.Send(b)
		})},
		"no Result-Code":           {retried: true, act: lose(every(7), result(0))},
		"3002 for a while":         {retried: true, act: lose(first(20), result(3002))},
		"3004 for a while":         {retried: true, act: lose(first(20), result(3004))},
		"4002 for a while":         {retried: true, act: lose(every(3), result(4002))},
		"5012 for a while":         {retried: true, act: lose(every(3), result(5012))},
		"garbage":                  {resent: true, act: lose(every(30), func(c *rogueConn, r rogueRequest) { c.Send([]byte("Diameter is a protocol to be spoken")) })},
		"Message Length of 8":      {resent: true, act: lose(every(30), func(c *rogueConn, r rogueRequest) { c.Send([]byte("\x01\x00\x00\x08aaaabbbbccccddddeeee")) })},
		"Message Length of 16 MiB": {resent: true, act: lose(every(30), func(c *rogueConn, r rogueRequest) { c.Send([]byte("\x01\xff\xff\xfcaaaabbbbccccddddeeee")) })},
		"closes with the window full": {resent: true, act: func(c *rogueConn, r rogueRequest) {
			if r.conn > 1 {
				c.reply(r, 2001)
			} else if r.n == 15 || r.n == 31 {
				c.nc.Close()
			}
		}},
		"an unknown request of its own": {act: func(c *rogueConn, r rogueRequest) {
			b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest, Command: avp.CommandAbortSession, Application: 3, HopByHop: 1})
			avp.SetLength(b)
			c.Send(b)
			c.reply(r, 2001)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outbox := newOutbox()
			outbox.add(records(16, 6)...)
			server := &rogue{act: test.act}
			cfg := client(outbox, server.listen(t))
			cfg.Window = 16
			c, stop := runClient(t, cfg)
			settled(t, outbox, c)
			stop()
			outbox.check(t, acct.Acknowledged)
			s := c.Stats()
			if s.Resent > 0 != test.resent || s.Retried > 0 != test.retried || s.Unmatched > 0 != test.strange || s.Quarantined != 0 || s.Settled != 96 {
				t.Errorf("stats %+v", s)
			}
			checkSendings(t, server.sendings())
		})
	}
}

// checkSendings reports a T flag that is wrong among the sendings of one
// server: clear though a copy with the same End-to-End Identifier came before.
func checkSendings(t *testing.T, got []sending) {
	t.Helper()
	seen, hops := map[uint32]sending{}, map[[2]uint32]bool{}
	for i, s := range got {
		before, again := seen[s.endToEnd]
		if again && (before.session != s.session || before.number != s.number) {
			t.Errorf("sending %d: End-to-End Identifier %#x of %s/%d is that of %s/%d", i, s.endToEnd, s.session, s.number, before.session, before.number)
		}
		if again && !s.retransmit {
			t.Errorf("sending %d: %s/%d goes again without the T flag", i, s.session, s.number)
		}
		seen[s.endToEnd] = s
		hop := [2]uint32{uint32(s.conn), s.hopByHop}
		if hops[hop] {
			t.Errorf("sending %d: Hop-by-Hop Identifier %#x is used twice", i, s.hopByHop)
		}
		hops[hop] = true
	}
}

// TestRefused has records that are refused for good: they are quarantined with
// the reason, and hold up nobody.
func TestRefused(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(3, 3)...)
	server := &rogue{act: func(c *rogueConn, r rogueRequest) {
		if r.session != "bridge.visited.example;1;2" || r.number != 1 {
			c.reply(r, avp.ResultSuccess)
			return
		}
		bad := avp.AppendString(nil, 9999, 32473, avp.FlagMandatory, "\xff")
		c.reply(r, avp.ResultAVPUnsupported, avp.AppendString(nil, avp.ErrorMessage, 0, 0, "not\nhere"), avp.Append(nil, avp.FailedAVP, 0, avp.FlagMandatory, bad))
	}}
	c, stop := runClient(t, client(outbox, server.listen(t)))
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged, 5)
	state, settlements := outbox.state(5)
	want := acct.Settlement{ID: 5, State: acct.Quarantined, Result: 5001, Peer: "acct.home.example", Reason: "not here; Failed-AVP code 9999 vendor 32473 data ff"}
	if len(settlements) != 1 {
		t.Fatalf("%v: %+v", state, settlements)
	}
	got := settlements[0]
	if got.At.IsZero() {
		t.Error("a settlement has no time")
	}
	if got.At = (time.Time{}); got != want {
		t.Errorf("settled as %+v, want %+v", got, want)
	}
}

// TestRestart has records that an earlier process may have sent: those alone
// carry the T flag.
func TestRestart(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(10, 1)...)
	outbox.rows[3].MaySent, outbox.rows[6].marked = true, true
	server := &rogue{}
	c, stop := runClient(t, client(outbox, server.listen(t)))
	settled(t, outbox, c)
	stop()
	outbox.faults = nil // MaySent stands for the mark of an earlier process
	outbox.check(t, acct.Acknowledged)
	for _, s := range server.sendings() {
		if want := s.endToEnd == 4 || s.endToEnd == 7; s.retransmit != want {
			t.Errorf("record %d: T flag %v", s.endToEnd, s.retransmit)
		}
	}
}

// TestRoutes: 3003, 3005 and 3006 ask every peer once, then quarantine.
func TestRoutes(t *testing.T) {
	for _, code := range []uint32{3003, 3005, 3006} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			outbox := newOutbox()
			primary := &rogue{act: func(c *rogueConn, r rogueRequest) { c.reply(r, code) }}
			backup := &rogue{host: "backup.home.example", act: func(c *rogueConn, r rogueRequest) {
				if r.session == "bridge.visited.example;1;1" {
					c.reply(r, avp.ResultSuccess)
				} else {
					c.reply(r, code)
				}
			}}
			c, stop := runClient(t, client(outbox, primary.listen(t), backup.listen(t)))
			await(t, func() bool { // or a peer is asked twice, while it is the only one
				peers := c.Stats().Peers
				return peers[0].Ready && peers[1].Ready
			})
			outbox.add(records(2, 2)...)
			settled(t, outbox, c)
			stop()
			outbox.check(t, acct.Acknowledged, 2, 4)
			for _, id := range []uint64{2, 4} {
				if state, s := outbox.state(id); state != acct.Quarantined || len(s) != 2 || s[0].State != acct.Pending || s[1].Result != code {
					t.Errorf("record %d: %v %+v", id, state, s)
				}
			}
			for _, s := range append(primary.sendings(), backup.sendings()...) {
				if s.retransmit {
					t.Errorf("%s/%d carries the T flag, though every copy was answered", s.session, s.number)
				}
			}
		})
	}
}

// TestPoison has a record at which the peer cuts the connection off.
func TestPoison(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(20, 3)...)
	server := &rogue{act: func(c *rogueConn, r rogueRequest) {
		if r.session == "bridge.visited.example;1;7" && r.number == 1 {
			c.nc.Close()
			return
		}
		c.reply(r, avp.ResultSuccess)
	}}
	cfg := client(outbox, server.listen(t))
	cfg.Connect = time.Millisecond
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged, 27)
	state, settlements := outbox.state(27)
	if state != acct.Quarantined || len(settlements) != 1 || !strings.Contains(settlements[0].Reason, "cut off 4 times") {
		t.Errorf("the poison record is %v: %+v", state, settlements)
	}
	var alone int
	for _, s := range server.sendings() {
		if s.endToEnd == 27 {
			alone++
		}
	}
	if alone != 4 {
		t.Errorf("the poison record was sent %d times, want 4", alone)
	}
}

// A peer that may ask ends connections by what it asks, too: records in flight
// are not to blame.
func TestARequestIsNoPoison(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(20, 3)...)
	ends := 0
	server := &rogue{act: func(c *rogueConn, r rogueRequest) {
		if r.session != "bridge.visited.example;1;7" || r.number != 1 || ends == 6 {
			c.reply(r, avp.ResultSuccess)
			return
		}
		ends++
		c.Send(avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest, Command: avp.CommandAccounting, Application: 3, Length: 2 << 20})) //nolint:errcheck // the client closes
	}}
	cfg := client(outbox, server.listen(t))
	cfg.Connect, cfg.Peers[0].Host, cfg.Table = time.Millisecond, "acct.home.example", peer.NewTable(0)
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	server.mu.Lock()
	defer server.mu.Unlock()
	if n := c.Stats().Peers[0].Connects; ends != 6 || n < 7 {
		t.Errorf("%d connections ended at an oversize request, %d were made", ends, n)
	}
}

// An answer to what nobody asks is counted, also where a server could have asked
// it but there is none.
func TestForeignAnswer(t *testing.T) {
	for name, table := range map[string]*peer.Table{"a client alone": nil, "a table without a server": peer.NewTable(0)} {
		t.Run(name, func(t *testing.T) {
			outbox := newOutbox()
			outbox.add(records(1, 1)...)
			server := &rogue{act: func(c *rogueConn, r rogueRequest) {
				c.Send(avp.AppendHeader(nil, avp.Header{Command: avp.CommandAbortSession, Length: avp.HeaderLen})) //nolint:errcheck // the records would not be settled
				c.reply(r, avp.ResultSuccess)
			}}
			cfg := client(outbox, server.listen(t))
			cfg.Peers[0].Host, cfg.Table, cfg.Timeout = "acct.home.example", table, time.Minute
			c, _ := runClient(t, cfg)
			settled(t, outbox, c)
			if n := c.Stats().Unmatched; n != 1 {
				t.Errorf("%d answers are unmatched, want 1", n)
			}
		})
	}
}

// TestOutboxFails has an outbox that fails now and then.
func TestOutboxFails(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(5, 4)...)
	calls := 0
	failed := map[string]bool{}
	outbox.fail = func(call string) error {
		if calls++; !failed[call] {
			failed[call] = true
			return errors.New("disk is full")
		}
		return nil
	}
	c, stop := runClient(t, client(outbox, (&rogue{}).listen(t)))
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if s := c.Stats(); s.OutboxFails != 3 || s.Settled != 20 {
		t.Errorf("stats %+v", s)
	}
}

// TestStopWaitsForAnswers: what is answered within Config.Grace is settled.
func TestStopWaitsForAnswers(t *testing.T) {
	outbox := newOutbox()
	outbox.add(records(8, 2)...)
	arrived, release := make(chan struct{}), make(chan struct{})
	server := &rogue{act: func(c *rogueConn, r rogueRequest) {
		if r.n == 7 {
			close(arrived)
			<-release
		}
		c.reply(r, avp.ResultSuccess)
	}}
	cfg := client(outbox, server.listen(t))
	cfg.Timeout = 10 * time.Second
	c, stop := runClient(t, cfg)
	<-arrived
	go close(release)
	stop()
	s := c.Stats()
	if s.Sent < 8 || s.Settled != s.Sent {
		t.Errorf("stats %+v", s)
	}
	// A record may have been marked and not sent any more, never the reverse.
	acknowledged := uint64(0)
	for i := range outbox.rows {
		r := outbox.rows[i]
		if r.state == acct.Acknowledged {
			acknowledged++
		}
		if r.state == acct.Acknowledged && !r.marked {
			t.Errorf("record %d was acknowledged and not marked", r.ID)
		}
	}
	if acknowledged != s.Sent {
		t.Errorf("%d records are acknowledged, %d were sent", acknowledged, s.Sent)
	}
}

// TestUnreachable: a peer that refuses capabilities, or is not there, is tried
// again, and the reason is shown.
func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	outbox := newOutbox()
	outbox.add(records(1, 1)...)
	refusals := make(chan struct{}, 100)
	server := &rogue{cea: func(peer.Node) error {
		if refusals <- struct{}{}; len(refusals) < 3 {
			return errors.New("not today")
		}
		return nil
	}}
	cfg := client(outbox, ln.Addr().String(), server.listen(t))
	cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	s := c.Stats()
	stop()
	if len(refusals) < 3 || !strings.Contains(s.Peers[0].Reason, "connection refused") || s.Peers[1].Reason != "" || s.Peers[1].Host != "acct.home.example" || s.Peers[0].State != peer.Initial {
		t.Errorf("%d attempts; %+v", len(refusals), s.Peers)
	}
}
