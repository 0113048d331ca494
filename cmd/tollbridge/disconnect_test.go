package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/aaaclient/credit"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/asm/users/radius"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
)

// TestDisconnect exhausts credit of a session that a NAS told of: that NAS is
// asked to end it, by its own words for it, and no other.
func TestDisconnect(t *testing.T) {
	atZero(t, "disconnect", "", layeh.CodeDisconnectRequest, layeh.CodeDisconnectACK)
}

// TestChangeAtZero has the NAS give the session another filter instead (RFC
// 5176, Section 3.2: CoA).
func TestChangeAtZero(t *testing.T) {
	atZero(t, "change", "portal", layeh.CodeCoARequest, layeh.CodeCoAACK)
}

func atZero(t *testing.T, action config.AtZero, filter string, asked, answer layeh.Code) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *layeh.Packet, 1)
	server := layeh.PacketServer{
		SecretSource: layeh.StaticSecretSource([]byte("secret of bng-1")),
		Handler: layeh.HandlerFunc(func(w layeh.ResponseWriter, r *layeh.Request) {
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
	}, action, filter, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- d.run(ctx) }()
	session := func(nas byte, id string) credit.Exhausted {
		return credit.Exhausted{User: "alice", Source: "radius", Why: "used up", Attributes: []acct.Attribute{
			{Code: avp.NASIPAddress, Data: []byte{192, 0, 2, nas}}, {Code: avp.AcctSessionID, Data: []byte(id)},
			{Code: 25, Data: []byte("class")}, {Code: avp.AcctSessionID, Vendor: 9, Data: []byte("another's")},
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

// A session that an access server told of is that server's to end or change,
// whatever it is called; what looks like one but came from elsewhere is not.
func TestAccessServersAtZero(t *testing.T) {
	session := acct.Attribute{Code: avp.AcctSessionID, Data: []byte("bng.isp.example;1;7")}
	address := acct.Attribute{Code: avp.NASIPAddress, Data: []byte{192, 0, 2, 1}}
	for _, tt := range []struct {
		name        string
		source, nas string
		attributes  []acct.Attribute
		change      bool
		want        string // what is asked; "" for nothing
	}{
		{"its end", "diameter", "BNG.isp.example", []acct.Attribute{session}, false, "abort bng.isp.example bng.isp.example;1;7"},
		{"less than before", "diameter", "bng.isp.example", []acct.Attribute{session}, true, "reauthorize bng.isp.example bng.isp.example;1;7"},
		{"with the address of a NAS", "diameter", "bng.isp.example", []acct.Attribute{address, session}, false, "abort bng.isp.example bng.isp.example;1;7"},
		{"of one that is configured no more", "diameter", "old.isp.example", []acct.Attribute{session}, false, ""},
		{"without a name", "diameter", "bng.isp.example", nil, false, ""},
		{"of a RADIUS NAS that calls it so", "radius", "lns", []acct.Attribute{session}, false, ""},
		{"of a users file that calls it so", "files", "", []acct.Attribute{session}, false, ""},
		{"of before sources were noted", "", "", []acct.Attribute{session}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := new(askedAccess)
			d := &disconnector{log: slog.New(slog.DiscardHandler), change: tt.change}
			d.addAccessServers(asked, []string{"bng.isp.example"})
			w := &withdrawal{user: "alice", source: tt.source, nas: tt.nas, attributes: tt.attributes}
			if who := d.whose(w); who != nil {
				d.disconnect(t.Context(), who, w, true)
			}
			if asked.what != tt.want {
				t.Errorf("asked %q, want %q", asked.what, tt.want)
			}
		})
	}
}

// askedAccess notes what access servers are asked.
type askedAccess struct{ what string }

func (a *askedAccess) Abort(_ context.Context, host, id string) error {
	a.what += "abort " + host + " " + id
	return nil
}

func (a *askedAccess) Reauthorize(_ context.Context, host, id string) error {
	a.what += "reauthorize " + host + " " + id
	return nil
}

// Sessions of a NAS or access server that does not answer hold up no others',
// neither the end of these nor the room to wait for it.
func TestSilentNASHoldsUpItsOwn(t *testing.T) {
	for _, source := range []string{"radius", "diameter"} {
		t.Run(source, func(t *testing.T) {
			begun, answered := make(chan bool), make(chan string, 1)
			silent := func(ctx context.Context, _ *withdrawal) error {
				select {
				case begun <- true:
				case <-ctx.Done():
				}
				<-ctx.Done()
				return ctx.Err()
			}
			well := func(_ context.Context, w *withdrawal) error { answered <- w.sessionID; return nil }
			d := &disconnector{log: slog.New(slog.DiscardHandler)}
			if source == "radius" {
				d.nas = []*controlledNAS{{newControlled("silent", silent), "silent", nil}, {newControlled("well", well), "well", nil}}
			} else {
				d.access = []*controlled{newControlled("silent", silent), newControlled("well", well)}
			}
			session := func(nas, id string) credit.Exhausted {
				return credit.Exhausted{SessionID: id, Source: source, NAS: nas, Attributes: []acct.Attribute{{Code: avp.AcctSessionID, Data: []byte(id)}}}
			}
			ctx, cancel := context.WithCancel(t.Context())
			stopped := make(chan error)
			go func() { stopped <- d.run(ctx) }()
			d.exhausted(session("silent", "asked about"))
			<-begun
			for range maxDisconnects + 1 {
				d.exhausted(session("silent", "waits"))
			}
			if d.withdraw(withdrawal{source: source, nas: "silent", attributes: session("", "too many").Attributes}) {
				t.Error("there is room among the sessions of one that is silent")
			}
			d.exhausted(session("well", "1"))
			if id := <-answered; id != "1" {
				t.Errorf("the other is asked about session %q", id)
			}
			if !d.withdraw(withdrawal{sessionID: "2", source: source, nas: "well", attributes: session("", "2").Attributes}) {
				t.Error("there is no room among the sessions of the other")
			}
			if id := <-answered; id != "2" {
				t.Errorf("the other is asked about session %q", id)
			}
			cancel()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}

// Who does not answer is asked about the same sessions again, behind others, for a
// while, and at once when it answers another time.
func TestSilentNASIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var asked []string
		bng := newControlled("bng", func(ctx context.Context, w *withdrawal) error {
			asked = append(asked, fmt.Sprint(w.sessionID, " ", time.Since(begun)))
			if w.sessionID == "poison" || time.Since(begun) < 70*time.Second {
				return fmt.Errorf("%w: for the test", radius.ErrUnanswered)
			}
			return nil
		})
		var log bytes.Buffer
		d := &disconnector{nas: []*controlledNAS{{bng, "bng", nil}}, log: slog.New(slog.NewTextHandler(&log, nil))}
		for _, id := range []string{"1", "2"} {
			d.exhausted(credit.Exhausted{SessionID: id, Source: "radius", NAS: "bng"})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(45*time.Second, func() { d.exhausted(credit.Exhausted{SessionID: "3", Source: "radius", NAS: "bng"}) })
		time.AfterFunc(10*time.Minute, func() { d.exhausted(credit.Exhausted{SessionID: "poison", Source: "radius", NAS: "bng"}) })
		if err := d.run(ctx); err != nil {
			t.Error(err)
		}
		if want := []string{"1 0s", "2 0s", "1 30s", "3 45s", "2 1m15s", "1 1m15s", "3 1m15s"}; len(asked) < 7 || !slices.Equal(asked[:7], want) {
			t.Errorf("asked about %q, want %q", asked, want)
		}
		if last := asked[len(asked)-1]; last != "poison 25m0s" || strings.Count(log.String(), "level=ERROR") != 1 {
			t.Errorf("asked last about %s", last)
		}
	})
}

// A RADIUS session is ended by the NAS that has it, if that takes requests, else
// by the client that told of it.
func TestFindNAS(t *testing.T) {
	of := func(client, prefix string) *controlledNAS {
		return &controlledNAS{client: client, prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
	}
	d := &disconnector{nas: []*controlledNAS{of("proxy", "192.0.2.1/32"), of("proxy/b", "192.0.2.2/32"), of("bng-1", "192.0.2.16/28")}}
	for _, tt := range []struct{ address, told, want string }{
		{"192.0.2.17", "bng-1/192.0.2.17", "bng-1"},
		{"192.0.2.17", "proxy/192.0.2.17", "bng-1"},
		{"198.51.100.1", "proxy/lns/198.51.100.1", "proxy"},
		{"", "proxy/lns", "proxy"},
		{"", "proxy", "proxy"},
		{"", "proxy/b/lns", "proxy/b"},
		{"", "proxy-2", ""},
		{"198.51.100.1", "", ""},
	} {
		address, _ := netip.ParseAddr(tt.address) // "" is none
		got := ""
		if n := d.find(address, tt.told); n != nil {
			got = n.client
		}
		if got != tt.want {
			t.Errorf("NAS %s, told by %s: %q is asked, want %q", tt.address, tt.told, got, tt.want)
		}
	}
}

// TestAccessServerAtZero has a real access server tell of its sessions over
// Diameter, and a real credit-control server give their users less than they
// use: the access server is asked over the same connection, by its own names for
// them, to end them (RFC 6733, Section 8.5) or to have them authorized anew
// (Section 8.3), and tshark finds nothing wrong with what it is asked.
func TestAccessServerAtZero(t *testing.T) {
	env := peertest.Dictionaries(t, peertest.NASREQ, peertest.CreditControl)
	for _, c := range []struct {
		action, asked, done string
		command             int
	}{
		{"disconnect", "asr bng.isp.example;1;[1-6]", "the NAS has ended a session\" .*credit is exhausted.*nas=bng.isp.example", avp.CommandAbortSession},
		{"change", "rar bng.isp.example;1;[1-6] 0", "the NAS changes what a session may do\" .*credit is exhausted.*nas=bng.isp.example", avp.CommandReAuth},
	} {
		t.Run(c.action, func(t *testing.T) {
			t.Parallel()
			ocs := startOCS(t, env, "100000", "50000")
			dir := t.TempDir()
			capture, _ := files(t, dir)
			d := start(t, setup{
				data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0", serving: ", accessServers: [bng.isp.example]",
				extra: fmt.Sprintf("creditControl: {peers: [{address: %q, host: ocs.home.example}], destinationRealm: home.example, atZero: %s}\n", ocs.address, c.action),
			})
			_, port, err := net.SplitHostPort(d.server())
			if err != nil {
				t.Fatal(err)
			}
			stopCapture := captureTraffic(t, []string{port})
			bng := startAccessServer(t, env, port)
			bng.await(t, "aca 2001", 6)
			if out, errOut, status := cli(t, "meter", "-r", capture, "--to", d.tcp()); status != 0 {
				t.Fatalf("meter: %s%s", out, errOut)
			}
			bng.await(t, c.asked, 1)
			d.waitLog(c.done)
			audit(t, d.data)
			d.stop()
			if n := bng.count("refused|Error"); n > 0 {
				t.Errorf("the access server takes %d requests for wrong:\n%s", n, bng.tail(20))
			}
			if stopCapture == nil {
				peertest.Missing(t, "tshark does not judge it, since capturing packets needs root")
			}
			file := stopCapture()
			judge(t, file, []string{port})
			out, err := exec.CommandContext(t.Context(), "tshark", "-r", file, "-d", "tcp.port=="+port+",diameter",
				"-Y", fmt.Sprintf("diameter.cmd.code == %d && diameter.flags.request == 1 && diameter.answer_in", c.command),
				"-T", "fields", "-e", "diameter.Session-Id", "-e", "diameter.Auth-Application-Id", "-2").Output()
			if err != nil || !regexp.MustCompile(`^bng\.isp\.example;1;[1-6]\t1\n`).Match(out) {
				t.Errorf("tshark finds %q (%v)", out, err)
			}
		})
	}
}

// An accessServerPeer is an access server on Erlang/OTP's diameter, with its
// dictionary of RFC 4005, by what it prints.
type accessServerPeer struct{ lines }

// startAccessServer has an access server tell of the bindings of the bundled
// users file, each as a session. It finds its dictionary by env.
func startAccessServer(t *testing.T, env []string, port string) *accessServerPeer {
	t.Helper()
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"testdata/nas.escript", port, fmt.Sprint(sessionSeconds())}
	for _, b := range list.Bindings {
		data := b.Prefix.Addr().AsSlice()
		if b.Prefix.Addr().Is6() {
			data = append([]byte{0, byte(b.Prefix.Bits())}, data[:b.Prefix.Bits()/8]...)
		}
		args = append(args, fmt.Sprintf("%s=%x", b.User, data))
	}
	cmd := exec.Command("escript", args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := new(accessServerPeer)
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(out)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return p
}

// await waits for so many lines that match.
func (p *accessServerPeer) await(t *testing.T, line string, n int) {
	t.Helper()
	if !until(t, func() bool { return p.count("^"+line+"$") >= n }) {
		t.Fatalf("the access server does not say %q %d times:\n%s", line, n, p.tail(20))
	}
}
