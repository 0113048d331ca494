package main

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// TestRealtimeRequired: an accounting server demands DELIVER_AND_GRANT in its
// answers (RFC 6733, Section 9.8.7), and goes away. Its NAS, whose sessions then
// have records that can't be delivered, is asked to end them; the records stay
// pending. A restart while the server is away changes none of that.
func TestRealtimeRequired(t *testing.T) {
	t.Parallel()
	server := startDemanding(t)
	nas, asked := startNAS(t, radius.CodeDisconnectACK)
	dir := t.TempDir()
	s := setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", peers: []string{peerAt(server.address, "acct.home.example")}, timeout: "1s",
		sources: strings.Replace(radiusUsers(t, "127.0.0.1:0"), "name: edge,", "name: edge, disconnect: '"+nas+"',", 1),
		extra:   "creditControl: {atZero: disconnect}\n",
	}
	d := start(t, s)
	tellOfCarol(t, d.address("users.radius.listen"), rfc2866.AcctStatusType_Value_Start)
	stream := captureStream(t)
	stream.send(t, d.tcp(), len(stream.messages)/2)
	d.waitLog("peer demands DELIVER_AND_GRANT")
	d.waitMetric(`delivery_peer_realtime_required{peer="`+server.address+`"}`, atLeast(1))
	server.stop()
	stream.send(t, d.tcp(), len(stream.messages))

	for _, life := range []string{"one that heard of it", "the next"} {
		select {
		case p := <-asked:
			if p.Code != radius.CodeDisconnectRequest || rfc2865.UserName_GetString(p) != "carol@roam.example" {
				t.Errorf("the NAS was asked %v: %+v", p.Code, p.Attributes)
			}
		case <-time.After(patience):
			t.Fatalf("the NAS is asked nothing by %s:\n%s", life, d.lines.tail(20))
		}
		d.waitLog(`the NAS has ended a session" .*demands DELIVER_AND_GRANT.*nas=` + nas)
		d.waitMetric("delivery_sessions_withdrawn_total", func(v float64) bool { return v == 1 })
		if b := audit(t, s.data); b.Pending.IsZero() {
			t.Errorf("the books are %+v", b)
		}
		d.stop()
		audit(t, s.data)
		if life != "the next" {
			d = start(t, s)
		}
	}
}

// startNAS takes Disconnect- and CoA-Requests of the tests' secret.
func startNAS(t *testing.T, answer radius.Code) (address string, asked <-chan *radius.Packet) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *radius.Packet, 16)
	server := radius.PacketServer{
		SecretSource: radius.StaticSecretSource([]byte(radiusSecret)),
		Handler: radius.HandlerFunc(func(w radius.ResponseWriter, r *radius.Request) {
			got <- r.Packet
			_ = w.Write(r.Response(answer))
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		<-served
	})
	return conn.LocalAddr().String(), got
}

// A demanding accounting server answers every request with success and
// DELIVER_AND_GRANT.
type demanding struct {
	address string
	stop    func()
}

func startDemanding(t *testing.T) *demanding {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	g.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			g.Go(func() {
				c, err := peer.Accept(ctx, nc, peer.Config{Node: demandingNode})
				if err != nil {
					return
				}
				c.Handle(demandingConn{c})
				c.Run(ctx) //nolint:errcheck // ends with the test
			})
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		ln.Close()
		g.Wait()
	})
	t.Cleanup(stop)
	return &demanding{ln.Addr().String(), stop}
}

var demandingNode = peer.Node{OriginHost: "acct.home.example", OriginRealm: "home.example", Accounting: []uint32{avp.ApplicationAccounting}}

type demandingConn struct{ *peer.Conn }

// Receive implements peer.Handler.
func (c demandingConn) Receive(m peer.Message) bool {
	if m.Command != avp.CommandAccounting || !m.Request() {
		return false
	}
	b := peer.AppendAnswerHeader(nil, m, avp.ResultSuccess)
	for _, code := range []uint32{avp.SessionID, avp.AccountingRecordType, avp.AccountingRecordNumber} {
		if a, ok := avp.Find(m.AVPs(), code, 0); ok {
			b = avp.Append(b, code, 0, avp.FlagMandatory, a.Data)
		}
	}
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, avp.ResultSuccess)
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, demandingNode.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, demandingNode.OriginRealm)
	b = avp.AppendUint32(b, avp.AccountingRealtimeRequired, 0, avp.FlagMandatory, 1)
	avp.SetLength(b)
	return c.Send(b) == nil
}

// Flush implements peer.Handler.
func (demandingConn) Flush() {}

// Changed implements peer.Handler.
func (demandingConn) Changed() {}

// A session is withdrawn once while no peer of its realm is there, if one
// demanded that and was given time to come back; when all have come back, what
// is withdrawn is forgotten. Where there is no room for one it waits, alone. One
// whose STOP waits too is over.
func TestRealtimeEnds(t *testing.T) {
	routes := fakeRoutes{{Ready: true, Realtime: true}, {Ready: true}}
	outbox := &fakePending{}
	var got []string
	full := "" // the NAS that has no room
	r := &realtime{client: &routes, outbox: outbox, patience: 2 * time.Second, withdraw: func(w withdrawal) bool {
		if w.nas == full {
			return false
		}
		got = append(got, w.sessionID+" "+w.source)
		return true
	}}
	now := time.Unix(1_800_000_000, 0)
	expect := func(what string, after time.Duration, want ...string) {
		t.Helper()
		now, got = now.Add(after), nil
		if err := r.look(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	put := func(realm, session string, kind acct.RecordType) {
		id := uint64(len(*outbox) + 1)
		*outbox = append(*outbox, acct.Delivery{ID: id, Record: acct.Record{SessionID: session, Realm: realm, Type: kind, Source: "radius", NAS: "bng-" + session}})
	}
	put("a.example", "1", acct.Start)
	expect("a peer takes them", 0)
	routes[0].Ready, routes[1].Ready = false, false
	expect("it has just gone", time.Second)
	expect("it may come back yet", time.Second)
	put("b.example", "2", acct.Interim) // where nobody demands it
	put("a.example", "3", acct.Interim)
	put("a.example", "1", acct.Interim)
	put("a.example", "4", acct.Stop)
	put("a.example", "5", acct.Event)
	expect("it has not", time.Second, "1 radius", "3 radius")
	expect("they are asked to end", time.Second)
	put("a.example", "6", acct.Start)
	put("a.example", "3", acct.Interim)
	expect("another begins", time.Second, "6 radius")
	routes[1].Realtime = true
	expect("the other demands it too", time.Second)
	expect("and is given up", 2*time.Second, "2 radius")
	routes[0].Ready, routes[1].Ready = true, true
	expect("all are back", time.Second)
	routes[0].Ready = false
	expect("one goes again", time.Second)
	full = "bng-6"
	expect("for long, and one can't be asked to end yet", 2*time.Second, "1 radius", "3 radius")
	full = "bng-7"
	put("a.example", "7", acct.Start)
	put("a.example", "8", acct.Start)
	expect("it can, and another can't", time.Second, "6 radius", "8 radius")
	put("a.example", "7", acct.Interim)
	expect("nor later", time.Second)
	full = ""
	put("a.example", "10", acct.Start)
	put("a.example", "10", acct.Stop)
	expect("there is again", time.Second, "7 radius")
	full = "bng-11"
	put("a.example", "11", acct.Start)
	expect("nor for another's", time.Second)
	full = ""
	put("a.example", "11", acct.Stop)
	expect("which has ended", time.Second)
	full = "bng-9"
	put("a.example", "9", acct.Start)
	expect("nor for a third", time.Second)
	routes[0].Ready, full = true, ""
	expect("which may go on", time.Second)
	if n := r.count.Load(); n != 9 {
		t.Errorf("%d are counted", n)
	}
}

// fakeRoutes are those of a.example and of all others.
type fakeRoutes []aaaclient.RouteStats

func (f *fakeRoutes) Stats() aaaclient.Stats { return aaaclient.Stats{Routes: *f} }

func (f *fakeRoutes) RouteOf(realm []byte) int {
	if string(realm) == "a.example" {
		return 0
	}
	return 1
}

// fakePending gives one record at a time.
type fakePending []acct.Delivery

func (f *fakePending) PendingOf(_ context.Context, after uint64, _ int, of func([]byte) bool) ([]acct.Delivery, uint64, bool, error) {
	for i, d := range *f {
		if d.ID > after && of([]byte(d.Record.Realm)) {
			return []acct.Delivery{d}, d.ID, i+1 < len(*f), nil
		}
	}
	return nil, max(after, uint64(len(*f))), false, nil
}
