package aaaclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fiorix/go-diameter/v4/diam"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
)

// listenSCTP listens on a loopback address, or skips where there is no SCTP.
func listenSCTP(t *testing.T, at string) net.Listener {
	t.Helper()
	ln, err := peer.ListenSCTP(netip.MustParseAddrPort(at))
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	}
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// RFC 6733, Section 2.1: clients speak SCTP or TCP, servers both. Records of
// many sessions go over all streams, those of one stay in order; some are
// longer than a packet.
func TestSCTP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			ln := listenSCTP(t, at)
			store := &storeModel{}
			server, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: store})
			if err != nil {
				t.Fatal(err)
			}
			stopServer := background(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })
			outbox := newOutbox()
			all := records(50, 10)
			for i := range all {
				if i%7 == 0 {
					all[i].Attributes = []acct.Attribute{{Code: 25, Data: []byte(strings.Repeat("class", 1+i*6))}}
				}
			}
			outbox.add(all...)
			cfg := client(outbox, ln.Addr().String())
			cfg.Peers[0].SCTP, cfg.Timeout = true, 10*time.Second // the other kernel may be an emulated one
			c, stop := runClient(t, cfg)
			settled(t, outbox, c)
			stop()
			stopServer()
			outbox.check(t, acct.Acknowledged)
			next := map[string]uint32{}
			for _, cdr := range store.cdrs {
				if cdr.Number != next[cdr.SessionID] {
					t.Fatalf("session %s: record %d came where %d was due", cdr.SessionID, cdr.Number, next[cdr.SessionID])
				}
				next[cdr.SessionID]++
			}
			if got := server.Stats(); got.Stored != 500 || got.Invalid != 0 || got.Strange != 0 || got.Refused != 0 {
				t.Errorf("server stats %+v", got)
			}
		})
	}
}

// A cut association is made again, and what was in flight is sent with the T
// flag.
func TestSCTPCut(t *testing.T) {
	ln := &cuttingListener{Listener: listenSCTP(t, "127.0.0.1:0")}
	store := &storeModel{}
	server, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: store})
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })
	outbox := newOutbox()
	outbox.add(records(50, 10)...)
	cfg := client(outbox, ln.Addr().String())
	cfg.Peers[0].SCTP, cfg.Window, cfg.Timeout = true, 16, 10*time.Second
	c, stop := runClient(t, cfg)
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if got := len(store.cdrs); got != 500 {
		t.Errorf("%d records are stored, want 500", got)
	}
	if s := c.Stats(); s.Resent == 0 || s.Peers[0].Connects < 3 {
		t.Errorf("nothing was cut: %+v", s)
	}
}

// A cuttingListener closes its first two connections after a while.
type cuttingListener struct {
	net.Listener
	mu sync.Mutex
	n  int
}

func (l *cuttingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; err != nil || l.n > 2 {
		return nc, err
	}
	return &cutConn{Conn: nc, left: 10}, nil
}

// A cutConn closes itself after some writes.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.left--; c.left == 0 {
		c.Conn.Close()
	}
	return c.Conn.Write(b)
}

// Another implementation's server.
func TestSCTPGoDiameter(t *testing.T) {
	listenSCTP(t, "127.0.0.1:0").Close()
	ln, err := diam.MultistreamListen("sctp", "127.0.0.1:3868")
	if err != nil {
		t.Fatal(err)
	}
	goDiameter(t, ln, Peer{Address: "127.0.0.1:3868", SCTP: true})
}
