package aaaclient

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
)

// A storeModel is an accounting application in memory.
type storeModel struct {
	mu   sync.Mutex
	seen map[storeKey][32]byte
	cdrs []acct.CDR // without duplicates, in order
	dups int
}

type storeKey struct {
	session string
	number  uint32
}

func (s *storeModel) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[storeKey][32]byte{}
	}
	out := make([]acct.Outcome, len(cdrs))
	for i, c := range cdrs {
		k := storeKey{c.SessionID, c.Number}
		switch content, ok := s.seen[k]; {
		case !ok:
			s.seen[k] = c.Content
			c.AVPs = nil
			s.cdrs = append(s.cdrs, c)
		case content == c.Content:
			s.dups++
			out[i] = acct.Duplicate
		default:
			out[i] = acct.Conflict
		}
	}
	return out, nil
}

// serve runs our own AAA server until the test ends and returns its address.
func serve(t testing.TB, store aaaserver.Store) (*aaaserver.Server, string) {
	t.Helper()
	s, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return s.Serve(ctx, ln) })
	return s, ln.Addr().String()
}

// background runs f until the test ends.
func background(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if err := f(ctx); err != nil {
			t.Errorf("%v", err)
		}
	}()
	stop = func() { cancel(); <-gone }
	t.Cleanup(stop)
	return stop
}

// client is a Config for tests, with short times.
func client(outbox Outbox, addresses ...string) Config {
	cfg := Config{
		OriginHost: "bridge.visited.example", OriginRealm: "visited.example", StateID: 7, DestinationRealm: "home.example",
		Outbox: outbox, Connect: 20 * time.Millisecond, Timeout: 200 * time.Millisecond,
		RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
	for _, a := range addresses {
		cfg.Peers = append(cfg.Peers, Peer{Address: a})
	}
	return cfg
}

func runClient(t testing.TB, cfg Config) (*Client, func()) {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, background(t, c.Run)
}

// settled waits until nothing in the outbox is pending.
func settled(t testing.TB, o *outboxModel, c *Client) {
	t.Helper()
	select {
	case <-o.finished:
	case <-time.After(30 * time.Second):
		o.mu.Lock()
		defer o.mu.Unlock()
		t.Fatalf("%d records are still pending; %+v", o.pending, c.Stats())
	}
}

func TestDeliverToOurServer(t *testing.T) {
	store := &storeModel{}
	server, address := serve(t, store)
	outbox := newOutbox()
	outbox.add(records(100, 20)...)
	c, stop := runClient(t, client(outbox, address))
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if got := c.Stats(); got.Sent != 2000 || got.Answered != 2000 || got.Settled != 2000 || got.Resent != 0 || got.Unmatched != 0 {
		t.Errorf("stats %+v", got)
	}
	if got := server.Stats(); got.Stored != 2000 || got.Duplicates != 0 || got.Retransmitted != 0 || got.Invalid != 0 {
		t.Errorf("server stats %+v", got)
	}
	next := map[string]uint32{}
	var octets uint64
	for _, cdr := range store.cdrs {
		if cdr.Number != next[cdr.SessionID] {
			t.Fatalf("session %s: record %d came where %d was due", cdr.SessionID, cdr.Number, next[cdr.SessionID])
		}
		next[cdr.SessionID]++
		octets += cdr.Usage.InputOctets + cdr.Usage.OutputOctets
	}
	if want := uint64(100 * 6000 * 19 * 20 / 2); octets != want {
		t.Errorf("%d octets arrived, want %d", octets, want)
	}
}
