package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/aaaclient/credit"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/config"
)

// TestDisconnect exhausts credit of a session that a NAS told of: that NAS is
// asked to end it, by its own words for it, and no other.
func TestDisconnect(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *radius.Packet, 1)
	server := radius.PacketServer{
		SecretSource: radius.StaticSecretSource([]byte("secret of bng-1")),
		Handler: radius.HandlerFunc(func(w radius.ResponseWriter, r *radius.Request) {
			got <- r.Packet
			_ = w.Write(r.Response(radius.CodeDisconnectACK))
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
	}, slog.New(slog.DiscardHandler))
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
	if p.Code != radius.CodeDisconnectRequest || rfc2865.UserName_GetString(p) != "alice" || rfc2866.AcctSessionID_GetString(p) != "0001" || len(rfc2865.Class_Get(p)) != 0 {
		t.Errorf("the NAS was asked %v: %+v", p.Code, p.Attributes)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
