package aaaclient

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/aaaserver"
	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// TestElectionFreeDiameter: freeDiameter has sent us its CER, and gets ours
// before we answer. It elects as RFC 6733, Section 5.6.4 has it, and so do we:
// the one connection that is left is the one that the node of the lower name has
// made, and it carries requests.
func TestElectionFreeDiameter(t *testing.T) {
	peertest.Need(t, "freeDiameterd", "openssl")
	for name, test := range map[string]struct {
		host     string
		accepted uint64 // connections that it has made
	}{
		"we win: its connection stays":  {"aaa.relay.example", 1},
		"it wins: our connection stays": {"relay.relay.example", 0},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			table := peer.NewTable(0)
			server, err := aaaserver.New(aaaserver.Config{
				OriginHost: "bridge.visited.example", OriginRealm: "visited.example", Store: &storeModel{}, Table: table,
				Peers: []aaaserver.Peer{{Host: test.host}},
			})
			if err != nil {
				t.Fatal(err)
			}
			both := &crossing{Listener: ln, called: make(chan struct{}), calls: make(chan struct{}), closed: make(chan struct{})}
			outbox := newOutbox()
			outbox.add(records(1, 2)...)
			cfg := client(outbox, "127.0.0.1:"+startFreeDiameter(t, test.host, ln.Addr()))
			cfg.Peers[0].Host, cfg.Table, cfg.Dial, cfg.Timeout = test.host, table, both.dial, 5*time.Second
			c, stop := runClient(t, cfg)
			background(t, func(ctx context.Context) error { return server.Serve(ctx, both) })
			deadline := time.After(30 * time.Second)
			for tick := time.NewTicker(20 * time.Millisecond); c.Stats().Retried == 0; { // it has no route: DIAMETER_UNABLE_TO_DELIVER
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("no request is answered: %+v, %+v", c.Stats(), server.Stats())
				}
			}
			s := server.Stats()
			if p := c.Stats().Peers[0]; p.Connects != 1 || s.Connections != test.accepted || s.Open != 1 {
				t.Errorf("the client has %+v, the server %+v", p, s)
			}
			stop()
		})
	}
}

// startFreeDiameter starts freeDiameter with us as its peer and returns its
// port.
func startFreeDiameter(t *testing.T, host string, us net.Addr) (port string) {
	t.Helper()
	dir := t.TempDir()
	ca := certtest.NewAuthority(t)
	files := ca.Write(ca.Issue(host))
	at := func(name string) string { return filepath.Join(dir, name) }
	if out, err := exec.Command("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", at("dh.pem")).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	port = peertest.FreePorts(t, 1)[0]
	conf := fmt.Sprintf(`Identity = %q;
Realm = "relay.example";
Port = %s;
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "127.0.0.1";
TLS_Cred = %q, %q;
TLS_CA = %q;
TLS_DH_File = %q;
LoadExtension = "/usr/lib/freeDiameter/dict_nasreq.fdx";
ConnectPeer = "bridge.visited.example" { ConnectTo = "127.0.0.1"; No_IPv6; No_SCTP; No_TLS; Port = %d; TcTimer = 1; };
`, host, port, files.Certificate, files.Key, files.CA, at("dh.pem"), us.(*net.TCPAddr).Port)
	if err := os.WriteFile(at("conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("freeDiameterd", "-c", at("conf"))
	log, err := os.Create(at("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
		if b, err := os.ReadFile(at("log")); t.Failed() && err == nil {
			t.Logf("freeDiameter:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return port
}

// A crossing has CERs cross: of the first connection each way, what the peer
// has sent is handed over once ours is sent, which happens once the peer's is
// there.
type crossing struct {
	net.Listener
	called, calls chan struct{} // the peer has sent something; we have
	closed        chan struct{} // and there is nothing more to wait for
	first, once   sync.Once
	end           sync.Once // of closed
}

func (c *crossing) Accept() (nc net.Conn, err error) {
	nc, err = c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.first.Do(func() {
		r := bufio.NewReader(nc)
		_, err = r.Peek(1)
		close(c.called)
		select {
		case <-c.calls:
		case <-c.closed:
		}
		nc = &readConn{nc, r}
	})
	return nc, err
}

func (c *crossing) Close() error {
	c.end.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

func (c *crossing) dial(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case <-c.called:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &writeConn{nc, func() { c.once.Do(func() { close(c.calls) }) }}, nil
}

// A readConn reads from r, a writeConn tells of what it has written.
type (
	readConn struct {
		net.Conn
		r *bufio.Reader
	}
	writeConn struct {
		net.Conn
		written func()
	}
)

func (c *readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

func (c *writeConn) Write(b []byte) (int, error) {
	defer c.written()
	return c.Conn.Write(b)
}
