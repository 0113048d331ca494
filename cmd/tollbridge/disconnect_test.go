package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/aaaclient/credit"
	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict/avp"
)

// TestDisconnect exhausts credit of a session that a NAS told of: that NAS is
// asked to end it, by its own words for it, and no other.
func TestDisconnect(t *testing.T) {
	atZero(t, "", radius.CodeDisconnectRequest, radius.CodeDisconnectACK)
}

// TestChangeAtZero has the NAS give the session another filter instead (RFC
// 5176, Section 3.2: CoA).
func TestChangeAtZero(t *testing.T) { atZero(t, "portal", radius.CodeCoARequest, radius.CodeCoAACK) }

func atZero(t *testing.T, filter string, asked, answer radius.Code) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *radius.Packet, 1)
	server := radius.PacketServer{
		SecretSource: radius.StaticSecretSource([]byte("secret of bng-1")),
		Handler: radius.HandlerFunc(func(w radius.ResponseWriter, r *radius.Request) {
			got <- r.Packet
			_ = w.Write(r.Response(answer))
		}),
	}
	served := make(chan error)
	go func() { served <- server.Serve(conn) }()
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		<-served
	})

	t.Setenv("BNG_SECRET", "secret of bng-1")
	d, err := newDisconnector([]config.RADIUSClient{
		{Name: "proxy", Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}, Secret: config.Secret{Env: "BNG_SECRET"}},
		{Name: "bng-1", Prefixes: []config.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}, Secret: config.Secret{Env: "BNG_SECRET"},
			Disconnect: netip.MustParseAddrPort(conn.LocalAddr().String())},
	}, filter, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- d.run(ctx) }()
	session := func(nas byte, id string) credit.Exhausted {
		return credit.Exhausted{User: "alice", Attributes: []acct.Attribute{
			{Code: nasIPAddress, Data: []byte{192, 0, 2, nas}}, {Code: acctSessionID, Data: []byte(id)},
			{Code: 25, Data: []byte("class")}, {Code: acctSessionID, Vendor: 9, Data: []byte("another's")},
		}}
	}
	d.exhausted(session(2, "of a NAS that takes none"))
	d.exhausted(session(1, "0001"))
	p := <-got
	if p.Code != asked || rfc2865.FilterID_GetString(p) != filter || rfc2865.UserName_GetString(p) != "alice" || rfc2866.AcctSessionID_GetString(p) != "0001" || len(rfc2865.Class_Get(p)) != 0 {
		t.Errorf("the NAS was asked %v: %+v", p.Code, p.Attributes)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestAbortsOnlyOfAccessServers asks an access server to end its own sessions,
// and none that a NAS told of by RADIUS.
func TestAbortsOnlyOfAccessServers(t *testing.T) {
	for _, tt := range []struct {
		name       string
		attributes []acct.Attribute
		want       string // host and Session-Id; "" for nothing asked
	}{
		{"an access server's", []acct.Attribute{{Code: acctSessionID, Data: []byte("BNG.isp.example;1;7")}}, "bng.isp.example BNG.isp.example;1;7"},
		{"a name with a semicolon", []acct.Attribute{{Code: nasIdentifier, Data: []byte("lns-1")}, {Code: acctSessionID, Data: []byte("lns-1;7")}}, ""},
		{"a node that is no access server", []acct.Attribute{{Code: acctSessionID, Data: []byte("aaa.isp.example;1;7")}}, ""},
		{"a name without a semicolon", []acct.Attribute{{Code: acctSessionID, Data: []byte("7")}}, ""},
		{"of a NAS by its address", []acct.Attribute{{Code: acctSessionID, Data: []byte("bng.isp.example;1;7")}, {Code: nasIPAddress, Data: []byte{192, 0, 2, 1}}}, ""},
		{"of an address that is none", []acct.Attribute{{Code: acctSessionID, Data: []byte("bng.isp.example;1;7")}, {Code: nasIPAddress, Data: []byte("x;1;8")}}, "bng.isp.example bng.isp.example;1;7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			d := &disconnector{log: slog.New(slog.DiscardHandler), access: []string{"bng.isp.example"}, abort: func(_ context.Context, host, id string) error {
				got = host + " " + id
				return nil
			}}
			d.disconnect(t.Context(), credit.Exhausted{User: "alice", Attributes: tt.attributes})
			if got != tt.want {
				t.Errorf("asked %q, want %q", got, tt.want)
			}
		})
	}
}

// A servingBNG is an access server that ends sessions when it is asked to.
type servingBNG struct {
	conn     *peer.Conn
	answered chan uint32
	aborted  chan string // Session-Ids
}

func (b *servingBNG) Receive(m peer.Message) bool {
	if !m.Request() {
		code, _ := avp.Find(m.AVPs(), avp.ResultCodeAVP, 0)
		v, _ := code.Uint32()
		b.answered <- v
		return true
	}
	if m.Command != avp.CommandAbortSession {
		return false
	}
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	answer := peer.AppendAnswerHeader(nil, m, avp.ResultSuccess)
	answer = avp.Append(answer, avp.SessionID, 0, avp.FlagMandatory, id.Data)
	answer = avp.AppendUint32(answer, avp.ResultCodeAVP, 0, avp.FlagMandatory, avp.ResultSuccess)
	avp.SetLength(answer)
	_ = b.conn.Send(answer)
	b.aborted <- string(id.Data)
	return true
}

func (b *servingBNG) Flush()   {}
func (b *servingBNG) Changed() {}

// TestAbortAtZero has an access server tell of its sessions over Diameter, and a
// real credit-control server give their users less than they use: the access
// server is asked over the same connection to end them (RFC 6733, Section 8.5),
// by its own names for them.
func TestAbortAtZero(t *testing.T) {
	t.Parallel()
	need(t, "escript")
	ocs := startOCS(t, "100000", "50000")
	dir := t.TempDir()
	capture, _ := files(t, dir)
	d := start(t, setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0", serving: ", accessServers: [bng.isp.example]",
		extra: fmt.Sprintf("creditControl: {peers: [{address: %q, host: ocs.home.example}], destinationRealm: home.example, atZero: disconnect}\n", ocs.address),
	})
	nc, err := net.Dial("tcp", d.server())
	if err != nil {
		t.Fatal(err)
	}
	requests := residents(t)
	bng := &servingBNG{answered: make(chan uint32, len(requests)), aborted: make(chan string, 100)}
	bng.conn, err = peer.Connect(t.Context(), nc, peer.Config{
		Node: peer.Node{OriginHost: "bng.isp.example", OriginRealm: "isp.example",
			Accounting: []uint32{avp.ApplicationNASREQ}, Auth: []uint32{avp.ApplicationNASREQ}},
		Handler: bng,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- bng.conn.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := bng.conn.Send(slices.Concat(requests...)); err != nil {
		t.Fatal(err)
	}
	for range requests {
		if code := <-bng.answered; code != avp.ResultSuccess {
			t.Fatalf("a session is answered %d", code)
		}
	}
	if out, errOut, status := cli(t, "meter", "-r", capture, "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	select {
	case id := <-bng.aborted:
		if !strings.HasPrefix(id, "bng.isp.example;1;") {
			t.Errorf("asked to end %q", id)
		}
	case <-time.After(2 * patience):
		t.Fatal("the access server is not asked to end a session")
	}
	d.waitLog("the NAS has ended a session whose credit is exhausted.*nas=bng.isp.example")
	audit(t, d.data)
	d.stop()
}
