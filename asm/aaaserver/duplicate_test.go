package aaaserver

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A deafConn can be made to lose all that is written to it and all that comes,
// as a network does that is gone.
type deafConn struct {
	net.Conn
	mu   sync.Mutex
	deaf bool
}

func (c *deafConn) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deaf
}

func (c *deafConn) Write(b []byte) (int, error) {
	if c.lost() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.lost() {
			return n, err
		}
	}
}

// over connects the caller of the tests over a connection that can go deaf.
func over(t *testing.T, address string) (*caller, *deafConn) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	first := &deafConn{Conn: nc}
	c := &caller{answers: make(chan peer.Message, 10), end: make(chan error, 1)}
	node := peer.Node{OriginHost: "bridge.visited.example", OriginRealm: "visited.example"}
	if c.conn, err = peer.Connect(t.Context(), first, peer.Config{Node: node, Handler: c}); err != nil {
		t.Fatal(err)
	}
	go func() { c.end <- c.conn.Run(context.Background()) }()
	return c, first
}

// asks has a request stored.
func asks(t *testing.T, c *caller) {
	t.Helper()
	if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, record(1), options))); err != nil {
		t.Fatal(err)
	}
	if got := u32(<-c.answers, avp.ResultCodeAVP); got != avp.ResultSuccess {
		t.Fatalf("result %d", got)
	}
}

// A peer has one connection (RFC 6733, Section 2.1): a second one is refused
// while the first is good (Section 5.6: R-Open, R-Conn-CER, R-Reject).
func TestASecondConnection(t *testing.T) {
	t.Parallel()
	server, address, _ := start(t, Config{Store: storeFunc(stored), Probe: time.Minute})
	c := mustDial(t, address)
	asks(t, c)
	for _, host := range []string{"bridge.visited.example", "Bridge.Visited.EXAMPLE"} {
		var refused *peer.Refusal
		if _, err := dial(t, address, host); !errors.As(err, &refused) || refused.Code != avp.ResultUnableToComply || refused.Message == "" {
			t.Errorf("%s connects twice: %v", host, err)
		}
	}
	asks(t, c) // the first is as good as before
	if _, err := dial(t, address, "other.visited.example"); err != nil {
		t.Errorf("another peer: %v", err)
	}
	until(t, func() bool { s := server.Stats(); return s.Refused == 2 && s.Connections == 2 })
}

// A second connection takes the place of one that is dead without our
// knowledge.
func TestASecondConnectionAfterADeadOne(t *testing.T) {
	t.Parallel()
	server, address, _ := start(t, Config{Store: storeFunc(stored), Probe: 10 * time.Millisecond})
	c, first := over(t, address)
	asks(t, c)
	first.mu.Lock()
	first.deaf = true
	first.mu.Unlock()
	asks(t, mustDial(t, address))
	if s := server.Stats(); s.Refused != 0 || s.Connections != 2 {
		t.Errorf("stats %+v", s)
	}
	<-c.end // the server has closed it
}

// A peer that has closed its connection may come back while the store is still
// busy with what came over it.
func TestASecondConnectionAfterAClosedOne(t *testing.T) {
	t.Parallel()
	begun, hold := make(chan struct{}, 10), make(chan struct{})
	server, address, _ := start(t, Config{Batch: 1, Patience: time.Minute, Probe: time.Minute, Store: storeFunc(func(cdrs []acct.CDR) ([]acct.Outcome, error) {
		begun <- struct{}{}
		<-hold
		return stored(cdrs)
	})})
	defer close(hold)
	c, first := over(t, address)
	for range 2 { // one is being stored, one waits
		if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, record(1), options))); err != nil {
			t.Fatal(err)
		}
	}
	<-begun
	until(t, func() bool { return server.Stats().Requests == 2 })
	first.Close()
	if _, err := dial(t, address, "bridge.visited.example"); err != nil {
		t.Errorf("the peer comes back: %v", err)
	}
}

// A first connection that is not read because the store is slow is no dead one.
func TestASecondConnectionWhileStoring(t *testing.T) {
	t.Parallel()
	begun, hold := make(chan struct{}, 10), make(chan struct{})
	server, address, _ := start(t, Config{Batch: 1, Patience: time.Minute, Probe: 10 * time.Millisecond, Store: storeFunc(func(cdrs []acct.CDR) ([]acct.Outcome, error) {
		begun <- struct{}{}
		<-hold
		return stored(cdrs)
	})})
	c := mustDial(t, address)
	const n = 5
	for range n {
		if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, record(1), options))); err != nil {
			t.Fatal(err)
		}
	}
	<-begun
	until(t, func() bool { return server.Stats().Requests >= 3 }) // one is being stored, one waits, one is read
	if _, err := dial(t, address, "bridge.visited.example"); err == nil {
		t.Error("a second connection is taken")
	}
	close(hold)
	for range n {
		if got := u32(<-c.answers, avp.ResultCodeAVP); got != avp.ResultSuccess {
			t.Fatalf("result %d", got)
		}
	}
}
