package aaaclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// Two operators deliver to each other, and both connect at once: either as two
// Diameter nodes each, of which every pair has one connection, or as one each,
// which elect the one that stays (RFC 6733, Section 5.6.4).
func TestBothConnectAtOnce(t *testing.T) {
	for name, oneNode := range map[string]bool{"two nodes each": false, "one node each": true} {
		t.Run(name, func(t *testing.T) { bothConnect(t, oneNode) })
	}
}

func bothConnect(t *testing.T, oneNode bool) {
	type site struct {
		ln     net.Listener
		server *aaaserver.Server
		outbox *outboxModel
		client *Client
		table  *peer.Table
	}
	sites := map[string]*site{"a": {}, "b": {}}
	clientOf := func(name string) string {
		if oneNode {
			return "aaa." + name + ".example"
		}
		return "bridge." + name + ".example"
	}
	for name, s := range sites {
		var err error
		if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if oneNode {
			s.table = peer.NewTable(0)
		}
		if s.server, err = aaaserver.New(aaaserver.Config{
			OriginHost: "aaa." + name + ".example", OriginRealm: name + ".example", Store: &storeModel{}, Table: s.table,
			Peers: []aaaserver.Peer{{Host: clientOf(map[string]string{"a": "b", "b": "a"}[name])}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	var begin sync.WaitGroup
	begin.Add(1)
	var stops []func()
	for name, s := range sites {
		other, there := sites["b"], "b"
		if name == "b" {
			other, there = sites["a"], "a"
		}
		s.outbox = newOutbox()
		s.outbox.add(records(20, 10)...)
		cfg := client(s.outbox, other.ln.Addr().String())
		cfg.OriginHost, cfg.OriginRealm, cfg.DestinationRealm = clientOf(name), name+".example", there+".example"
		cfg.Peers[0].Host, cfg.Table = "aaa."+there+".example", s.table
		var err error
		if s.client, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		stops = append(stops,
			background(t, func(ctx context.Context) error { begin.Wait(); return s.client.Run(ctx) }),
			background(t, func(ctx context.Context) error { return s.server.Serve(ctx, s.ln) }))
	}
	begin.Done()
	for _, s := range sites {
		settled(t, s.outbox, s.client)
	}
	connections := uint64(0)
	for _, s := range sites {
		connections += s.server.Stats().Connections
	}
	if want := map[bool]uint64{false: 2, true: 1}[oneNode]; connections != want {
		t.Errorf("there were %d connections, want %d", connections, want)
	}
	for _, stop := range stops {
		stop()
	}
	for name, s := range sites {
		s.outbox.check(t, acct.Acknowledged)
		if got := s.server.Stats(); got.Stored != 200 || got.Duplicates != 0 || got.Invalid != 0 {
			t.Errorf("server of %s: %+v", name, got)
		}
	}
}

// What a peer asks on a connection that we have made is judged like what it
// asks on its own: one that may not connect to the server may not ask either.
func TestAskedOnOwnConnection(t *testing.T) {
	const here, elsewhere = "127.0.0.0/8", "192.0.2.0/24"
	home, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	partner := []aaaserver.Peer{{Host: "acct.home.example", Realms: []string{"home.example"}}}
	for name, test := range map[string]struct {
		clients []aaaserver.Peer
		allow   string
		tls     bool
		vouches *certtest.Authority // the server's; nil where it has no TLS
		want    uint32
	}{
		"a client of the server": {partner, here, false, nil, avp.ResultSuccess},
		"for a realm that it may not speak for": {
			[]aaaserver.Peer{{Host: "acct.home.example", Realms: []string{"other.example"}}}, here, false, nil, avp.ResultAuthorizationRejected},
		"none of the server's clients":    {[]aaaserver.Peer{{Host: "other.example"}}, here, false, nil, avp.ResultCommandUnsupported},
		"no clients are configured":       {nil, here, false, nil, avp.ResultCommandUnsupported},
		"without TLS, from elsewhere":     {partner, elsewhere, false, nil, avp.ResultCommandUnsupported},
		"TLS, from elsewhere":             {partner, elsewhere, true, home, avp.ResultSuccess},
		"TLS, no clients are configured":  {nil, here, true, home, avp.ResultCommandUnsupported},
		"TLS, delivery's authority alone": {partner, elsewhere, true, other, avp.ResultCommandUnsupported},
		"TLS, which the server has not":   {partner, elsewhere, true, nil, avp.ResultCommandUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			table, store := peer.NewTable(0), &storeModel{}
			credentials := func(a *certtest.Authority, name string) *peer.Credentials {
				f := a.Write(a.Issue(name))
				c, err := peer.LoadCredentials(f.Certificate, f.Key, f.CA, nil)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			own := aaaserver.Config{
				OriginHost: "bridge.visited.example", OriginRealm: "visited.example", Store: store, Table: table,
				Peers: test.clients, Allow: []netip.Prefix{netip.MustParsePrefix(test.allow)},
			}
			if test.vouches != nil {
				own.Credentials = credentials(test.vouches, own.OriginHost)
			}
			_, err := aaaserver.New(own)
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			answers := make(chan uint32, 1)
			background(t, func(ctx context.Context) error {
				nc, err := ln.Accept()
				if err != nil {
					return err
				}
				if test.tls {
					nc = tls.Server(nc, credentials(home, "acct.home.example").Server())
				}
				asks := &asking{answers: answers}
				conn, err := peer.Accept(ctx, nc, peer.Config{Node: peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}, Handler: asks})
				if err != nil {
					return err
				}
				r := records(1, 1)[0]
				ids := conn.NextIDs()
				b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting, Application: 3, HopByHop: ids[0], EndToEnd: ids[1]})
				b = dict.For(0).AppendRecord(b, &r, dict.Options{OriginHost: "node.home.example", OriginRealm: "home.example", DestinationRealm: "visited.example", Application: 3})
				avp.SetLength(b)
				if err := conn.Send(b); err != nil {
					return err
				}
				conn.RunUntil(ctx) //nolint:errcheck // the client takes leave
				return nil
			})
			cfg := client(newOutbox(), ln.Addr().String())
			cfg.Peers[0].Host, cfg.Table = "acct.home.example", table
			if test.tls {
				cfg.Peers[0].TLS = credentials(home, own.OriginHost)
			}
			runClient(t, cfg)
			if got := <-answers; got != test.want {
				t.Errorf("it is answered with %d, want %d", got, test.want)
			}
		})
	}
}

// asking takes the result of an answer.
type asking struct{ answers chan<- uint32 }

func (a *asking) Receive(m peer.Message) bool {
	if r, ok := avp.Find(m.AVPs(), avp.ResultCodeAVP, 0); ok && !m.Request() {
		code, _ := r.Uint32()
		a.answers <- code
	}
	return true
}
func (*asking) Flush()   {}
func (*asking) Changed() {}

// Who connects to us with the name of a peer that records go to, but is not
// where that is, gets no records, whatever the server lets connect.
func TestNameIsNotEnough(t *testing.T) {
	table := peer.NewTable(0)
	server, err := aaaserver.New(aaaserver.Config{OriginHost: "bridge.visited.example", OriginRealm: "visited.example", Store: &storeModel{}, Table: table})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	outbox := newOutbox()
	outbox.add(records(1, 1)...)
	cfg := client(outbox, "192.0.2.1:3868")
	cfg.Peers[0].Host, cfg.Table = "acct.home.example", table
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }
	runClient(t, cfg)
	background(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = peer.Connect(t.Context(), nc, peer.Config{Node: peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}})
	if refused := (*peer.Refusal)(nil); !errors.As(err, &refused) || refused.Code != avp.ResultUnknownPeer {
		t.Errorf("it gets %v, want DIAMETER_UNKNOWN_PEER", err)
	}
}

// A peer that has connected to us at once, by its own book, and won, says so:
// we come again, and say what it means (RFC 6733, Sections 5.6.4 and 7.1.4).
func TestElectionLost(t *testing.T) {
	store := &storeModel{}
	server, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		_, err = peer.Accept(ctx, nc, peer.Config{
			Node:  peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example"},
			Admit: func(peer.Node) error { return &peer.Refusal{Code: avp.ResultElectionLost} },
		})
		if err == nil {
			t.Error("the loser of an election is taken")
		}
		return server.Serve(ctx, ln)
	})
	outbox := newOutbox()
	outbox.add(records(1, 2)...)
	cfg := client(outbox, ln.Addr().String())
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if !strings.Contains(log.String(), "4003 ELECTION_LOST (the nodes have connected to one another at once") {
		t.Errorf("logged %s", log.String())
	}
}

// Erlang/OTP's diameter as a partner of one node: it connects to us and we to it,
// and one connection carries what both ask, also after it was cut off.
func TestOneNodeErlang(t *testing.T) {
	peertest.Need(t, "escript")
	for name, host := range map[string]string{"we win elections": "aaa.partner.example", "it does": "node.partner.example"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, store, requests := peer.NewTable(0), &storeModel{}, 100
			server, err := aaaserver.New(aaaserver.Config{
				OriginHost: "bridge.visited.example", OriginRealm: "visited.example", Store: store, Table: table,
				Peers: []aaaserver.Peer{{Host: host}},
			})
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			theirs := peertest.FreePorts(t, 1)[0]
			cmd := exec.CommandContext(t.Context(), "escript", "testdata/partner.escript", host,
				theirs, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port), strconv.Itoa(requests))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close(); cmd.Wait() }) //nolint:errcheck // it ends with its input
			done, records := make(chan struct{}), records(20, 10)
			taken := map[string]bool{}
			go func() {
				defer close(done)
				connections, cuts, asked := 0, 0, false
				for lines := bufio.NewScanner(out); (!asked || len(taken) < len(records)) && lines.Scan(); {
					switch line := lines.Text(); {
					case line == "up":
						if connections++; connections > 1 {
							t.Error("it has a second connection")
						}
					case line == "down":
						connections--
					case line == "done":
						asked = true
					case strings.HasPrefix(line, "acr "):
						if taken[line] = true; len(taken) > 30*(cuts+1) && cuts < 4 {
							cuts++
							io.WriteString(in, "cut\n") //nolint:errcheck // it would be seen by what does not come
						}
					default:
						t.Errorf("it says %q", line)
					}
				}
			}()
			outbox := newOutbox()
			outbox.add(records...)
			cfg := client(outbox, "127.0.0.1:"+theirs)
			cfg.Peers[0].Host, cfg.DestinationRealm, cfg.Table, cfg.Window = host, "partner.example", table, 8
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			background(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })
			background(t, c.Run)
			settled(t, outbox, c)
			outbox.check(t, acct.Acknowledged)
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				t.Fatalf("its requests are not answered: %+v", server.Stats())
			}
			if len(taken) != len(records) {
				t.Errorf("it has taken %d records of %d", len(taken), len(records))
			}
			if got := server.Stats(); got.Stored != uint64(requests) {
				t.Errorf("of its %d requests: %+v", requests, got)
			}
			t.Logf("it has made %d connections, we %d of all", server.Stats().Connections, c.Stats().Peers[0].Connects)
		})
	}
}
