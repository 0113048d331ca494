package peer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"tollbridge/dict/avp"
)

// The nodes of these tests: zenith wins elections.
var (
	alpha  = Node{OriginHost: "alpha.example", OriginRealm: "example"}
	zenith = Node{OriginHost: "Zenith.example", OriginRealm: "example"}
)

// called returns a connection of t whose peer has sent its CER.
func called(t *testing.T, table *Table, remote Node) *Conn {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	c, err := newConn(near, Config{Node: table.Node(), Table: table})
	if err != nil {
		t.Fatal(err)
	}
	c.remote = remote.filled(near.RemoteAddr())
	return c
}

// keeper returns a Keeper of table for a peer that does nothing.
func keeper(t *testing.T, table *Table, remote Node) *Keeper {
	t.Helper()
	k := &Keeper{Config: Config{Node: table.Node(), Peer: remote.OriginHost}}
	if err := table.Keep(k); err != nil {
		t.Fatal(err)
	}
	return k
}

// TestTable walks through the states of RFC 6733, Section 5.6 in which the peer
// connects.
func TestTable(t *testing.T) {
	code := func(err error) uint32 {
		var r *Refusal
		errors.As(err, &r)
		if r == nil {
			return 0
		}
		return r.Code
	}
	type party struct {
		table *Table
		other Node
	}
	begin := func(t *testing.T, local, remote Node) (party, *attempt, context.Context) {
		p := party{NewTable(0), remote}
		if err := p.table.Join(local); err != nil {
			t.Fatal(err)
		}
		keeper(t, p.table, remote)
		a, ctx, err := p.table.attempt(t.Context(), remote.OriginHost)
		if err != nil {
			t.Fatal(err)
		}
		return p, a, ctx
	}
	accept := func(t *testing.T, p party) <-chan error {
		c, decided := called(t, p.table, p.other), make(chan error, 1)
		go func() { decided <- p.table.accept(t.Context(), c) }()
		synctest.Wait()
		return decided
	}
	undecided := func(t *testing.T, c <-chan error) {
		t.Helper()
		select {
		case err := <-c:
			t.Fatalf("it is decided already: %v", err)
		default:
		}
	}
	for name, test := range map[string]func(t *testing.T){
		"Wait-Conn-Ack, R-Conn-CER: our transport is given up": func(t *testing.T) {
			p, a, ctx := begin(t, alpha, zenith)
			if err := <-accept(t, p); err != nil {
				t.Error(err)
			}
			if context.Cause(ctx) != errYielded || a.acked() != errYielded || a.failed(ctx.Err()) != errYielded {
				t.Error("the attempt goes on")
			}
			if _, _, err := p.table.attempt(t.Context(), p.other.OriginHost); err != errYielded {
				t.Errorf("a second attempt gets %v", err)
			}
		},
		"Wait-I-CEA, R-Conn-CER, Win-Election: I-Disc, R-Snd-CEA": func(t *testing.T) {
			p, a, ctx := begin(t, zenith, alpha)
			if err := a.acked(); err != nil {
				t.Fatal(err)
			}
			if err := <-accept(t, p); err != nil {
				t.Error(err)
			}
			if context.Cause(ctx) != errYielded || a.opened(called(t, p.table, p.other)) != errYielded {
				t.Error("the winner keeps what it has initiated")
			}
		},
		"Wait-Returns, I-Rcv-CEA: R-Disc": func(t *testing.T) {
			p, a, _ := begin(t, alpha, zenith)
			if err := a.acked(); err != nil {
				t.Fatal(err)
			}
			theirs := accept(t, p)
			undecided(t, theirs)
			if err := a.opened(called(t, p.table, p.other)); err != nil {
				t.Error(err)
			}
			if err := <-theirs; code(err) != avp.ResultElectionLost {
				t.Errorf("the peer's connection ends with %v", err)
			}
			if a.failed(nil) != errYielded {
				t.Error("an attempt can fail that has succeeded")
			}
		},
		"Wait-Returns, I-Peer-Disc: R-Snd-CEA": func(t *testing.T) {
			p, a, _ := begin(t, alpha, zenith)
			if err := a.acked(); err != nil {
				t.Fatal(err)
			}
			theirs := accept(t, p)
			undecided(t, theirs)
			if err := a.failed(errors.New("cut")); err != errYielded {
				t.Errorf("the attempt ends with %v", err)
			}
			if err := <-theirs; err != nil {
				t.Error(err)
			}
		},
		"Wait-Returns, Timeout of R: Wait-I-CEA": func(t *testing.T) {
			p, a, _ := begin(t, alpha, zenith)
			if err := a.acked(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := p.table.accept(ctx, called(t, p.table, p.other)); err != context.DeadlineExceeded {
				t.Errorf("the peer's connection ends with %v", err)
			}
			if err := a.opened(called(t, p.table, p.other)); err != nil {
				t.Error(err)
			}
		},
		"Wait-Returns, R-Conn-CER: R-Reject": func(t *testing.T) {
			p, a, _ := begin(t, alpha, zenith)
			if err := a.acked(); err != nil {
				t.Fatal(err)
			}
			theirs := accept(t, p)
			if err := <-accept(t, p); code(err) != avp.ResultUnableToComply {
				t.Errorf("a second CER gets %v", err)
			}
			undecided(t, theirs)
			if err := a.failed(errors.New("cut")); err != errYielded || <-theirs != nil {
				t.Error("the first one does not take part any more")
			}
		},
		"Closed again after Wait-I-CEA: R-Snd-CEA": func(t *testing.T) {
			p, a, _ := begin(t, alpha, zenith)
			cut := errors.New("cut")
			if err := a.acked(); err != nil || a.failed(cut) != cut {
				t.Fatal("the attempt does not fail")
			}
			c := called(t, p.table, p.other)
			if err := p.table.accept(t.Context(), c); err != nil {
				t.Error(err)
			}
			p.table.release(c)
			if _, _, err := p.table.attempt(t.Context(), p.other.OriginHost); err != nil {
				t.Errorf("an attempt when that is over: %v", err)
			}
		},
		"R-Open, R-Conn-CER: R-Reject": func(t *testing.T) {
			p, _, _ := begin(t, alpha, zenith)
			if err := <-accept(t, p); err != nil {
				t.Fatal(err)
			}
			if err := <-accept(t, p); code(err) != avp.ResultUnableToComply {
				t.Errorf("a second CER gets %v", err)
			}
		},
		"a peer with TLS connects without (13.1)": func(t *testing.T) {
			p, _, _ := begin(t, alpha, zenith)
			p.table.atLocked(p.other.OriginHost).keeper.Proves = (&Destination{Host: p.other.OriginHost, TLS: new(Credentials)}).Proves
			if err := <-accept(t, p); code(err) != avp.ResultNoCommonSecurity {
				t.Errorf("it gets %v", err)
			}
		},
		"a peer without TLS connects from another address": func(t *testing.T) {
			p, _, _ := begin(t, alpha, zenith)
			p.table.atLocked(p.other.OriginHost).keeper.Proves = (&Destination{Host: p.other.OriginHost, Address: "192.0.2.1:3868"}).Proves
			if err := <-accept(t, p); code(err) != avp.ResultUnknownPeer {
				t.Errorf("it gets %v", err)
			}
		},
		"a peer without an application of the Keeper's (5.3)": func(t *testing.T) {
			p, _, _ := begin(t, alpha, zenith)
			p.other.Auth = []uint32{4}
			if err := <-accept(t, p); code(err) != avp.ResultNoCommonApplication {
				t.Errorf("it gets %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}

// A stopping is a context that ends when the Keeper has been given a connection.
type stopping struct {
	context.Context
	end   context.CancelFunc
	given atomic.Pointer[Keeper] // nil: not yet
}

func (s *stopping) Err() error {
	if k := s.given.Load(); k != nil && len(k.given) == 0 {
		s.end()
	}
	return s.Context.Err()
}

// A node that stops takes leave of a peer that has connected to it in that
// moment, and forgets the connection (RFC 6733, Section 5.4).
func TestAConnectionGivenAtTheEnd(t *testing.T) {
	for name, serves := range map[string]bool{"a peer that may ask": true, "one that may not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := NewTable(0)
				if err := table.Join(alpha); err != nil {
					t.Fatal(err)
				}
				if serves {
					table.Serve(func(c *Conn) (Handler, func()) { return nobody{}, func() {} })
				}
				k := keeper(t, table, zenith)
				k.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("nobody listens") }
				k.Pause = func() time.Duration { return time.Hour }
				k.Failed = func(error, bool) {}
				ctx, cancel := context.WithCancel(t.Context())
				end := &stopping{Context: ctx, end: cancel}
				stopped := make(chan struct{})
				go func() { defer close(stopped); k.Run(end) }()
				synctest.Wait()
				near, far := net.Pipe()
				defer far.Close()
				c, err := newConn(near, Config{Node: table.Node(), Table: table})
				if err != nil {
					t.Fatal(err)
				}
				c.remote = zenith.filled(near.RemoteAddr())
				if err := table.accept(ctx, c); err != nil {
					t.Fatal(err)
				}
				end.given.Store(k)
				ended := make(chan error, 1)
				go func() { ended <- table.Run(t.Context(), c) }()
				head := make([]byte, avp.HeaderLen)
				if _, err := io.ReadFull(far, head); err != nil {
					t.Fatalf("no leave is taken: %v", err)
				}
				if h, err := avp.ParseHeader(head); err != nil || h.Command != avp.CommandDisconnectPeer {
					t.Errorf("command %d where a DPR should be: %v", h.Command, err)
				}
				go io.Copy(io.Discard, far) //nolint:errcheck // the rest of it
				<-stopped
				if err := <-ended; err != ErrClosed {
					t.Errorf("the connection ends with %v", err)
				}
				if len(table.entries) != 0 {
					t.Errorf("the table has %d entries", len(table.entries))
				}
			})
		})
	}
}

// While an election is undecided our end says nothing of it: a CEA would.
func TestStopInWaitReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable(0)
		if err := table.Join(alpha); err != nil {
			t.Fatal(err)
		}
		keeper(t, table, zenith)
		a, _, err := table.attempt(t.Context(), zenith.OriginHost)
		if err == nil {
			err = a.acked()
		}
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		heard := &hearing{Conn: near}
		accepted, called := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := Accept(ctx, heard, Config{Node: table.Node(), Table: table})
			accepted <- err
		}()
		go func() {
			_, err := Connect(t.Context(), far, Config{Node: zenith})
			called <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-accepted; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
		if err := <-called; err == nil || heard.writes.Load() != 0 {
			t.Errorf("%d messages are sent, the peer has %v", heard.writes.Load(), err)
		}
	})
}

// A hearing is a connection that counts what is written to it.
type hearing struct {
	net.Conn
	writes atomic.Int32
}

func (h *hearing) Write(b []byte) (int, error) {
	h.writes.Add(1)
	return h.Conn.Write(b)
}

// Answers that are read are handed on before a request behind them, which may
// take long to store.
func TestAnswersAreNotHeldUp(t *testing.T) {
	var order []string
	a, s := &noting{name: "asks", order: &order, takes: true}, &noting{name: "serves", order: &order}
	b := both{a, s}
	b.Receive(Message{Header: avp.Header{Command: ask}})
	b.Receive(Message{Header: avp.Header{Command: ask, Flags: avp.FlagRequest}})
	b.Flush()
	if got := strings.Join(order, ", "); got != "asks receives, asks flushes, serves receives, asks flushes, serves flushes" {
		t.Errorf("in order: %s", got)
	}
}

// A noting is a Handler that notes its calls.
type noting struct {
	name  string
	order *[]string
	takes bool
}

func (n *noting) note(what string) { *n.order = append(*n.order, n.name+" "+what) }

func (n *noting) Receive(Message) bool {
	n.note("receives")
	return n.takes
}
func (n *noting) Flush()   { n.note("flushes") }
func (n *noting) Changed() {}

// Those that share a Table are one node, which says all that they have.
func TestJoin(t *testing.T) {
	table := NewTable(0)
	for _, n := range []Node{
		{OriginHost: "one.example", OriginRealm: "example", Accounting: []uint32{3}, Vendors: []uint32{10415}},
		{OriginHost: "ONE.example", OriginRealm: "example", Accounting: []uint32{3, 1}, Auth: []uint32{1}},
	} {
		if err := table.Join(n); err != nil {
			t.Error(err)
		}
	}
	if n := table.Node(); len(n.Accounting) != 2 || len(n.Auth) != 1 || len(n.Vendors) != 1 || n.OriginHost != "one.example" {
		t.Errorf("the node is %+v", n)
	}
	for name, n := range map[string]Node{
		"another name":  {OriginHost: "two.example", OriginRealm: "example"},
		"another realm": {OriginHost: "one.example", OriginRealm: "two.example"},
		"no name":       {},
	} {
		if err := table.Join(n); err == nil {
			t.Errorf("%s joins", name)
		}
	}
	k := keeper(t, table, alpha)
	for name, other := range map[string]string{"the same peer": "ALPHA.example", "nobody in particular": ""} {
		if err := table.Keep(&Keeper{Config: Config{Peer: other}}); err == nil {
			t.Errorf("a second Keeper keeps %s", name)
		}
	}
	table.leave(k, nil)
	keeper(t, table, alpha)
}

// A network is two nodes, whose transports take their time.
type network struct {
	sites   [2]*site
	running sync.WaitGroup

	mu    sync.Mutex
	rand  *rand.Rand
	wires map[net.Conn]*wire // by either end
}

// A wire is a transport connection between them.
type wire struct{ ends, relays [2]net.Conn }

func (w *wire) cut() {
	for _, c := range w.relays {
		c.Close()
	}
}

// A site is one of the nodes. It asks the other one thing after the other, each
// until it is answered.
type site struct {
	network *network
	table   *Table
	keeper  *Keeper
	other   *site

	mu      sync.Mutex
	open    *Conn // what it asks on
	opened  int   // times
	serving *Conn // what it is asked on
	asked   uint32
	answers uint32
	served  uint32
	refused map[uint32]int
	faults  []string
}

func (n *network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.rand.IntN(4)) * time.Millisecond
}

// connect returns the ends of a new wire.
func (n *network) connect() (near, far net.Conn) {
	near, left := net.Pipe()
	far, right := net.Pipe()
	w := &wire{ends: [2]net.Conn{near, far}, relays: [2]net.Conn{left, right}}
	n.mu.Lock()
	n.wires[near], n.wires[far] = w, w
	n.mu.Unlock()
	relay := func(from, to net.Conn) {
		b := make([]byte, 4096)
		for {
			k, err := from.Read(b)
			time.Sleep(n.delay()) // of a bubble, where it takes no time
			if err == nil {
				_, err = to.Write(b[:k])
			}
			if err != nil {
				from.Close()
				to.Close()
				return
			}
		}
	}
	n.running.Go(func() { relay(left, right) })
	n.running.Go(func() { relay(right, left) })
	return near, far
}

const ask = 271 // the command: any that is no one's of the base protocol

// asker takes the answers of a site, server the requests.
type (
	asker  struct{ *site }
	server struct{ *site }
)

func (a asker) Receive(m Message) bool {
	if m.Command != ask {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.EndToEnd == a.answers {
		a.answers++
		a.askLocked()
	}
	return true
}
func (asker) Flush() {}
func (a asker) Changed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.open; c != nil && a.answers == 0 {
		a.askLocked()
	}
}

// askLocked asks what is not answered.
func (s *site) askLocked() {
	if s.open != nil {
		s.asked++
		s.open.Send(message(avp.Header{Flags: avp.FlagRequest, Command: ask, EndToEnd: s.answers})) //nolint:errcheck // asked again on the next
	}
}

func (s server) Receive(m Message) bool {
	if !m.Request() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served++
	s.serving.Send(answer(m, avp.ResultSuccess)) //nolint:errcheck // asked again on the next
	return true
}
func (server) Flush()   {}
func (server) Changed() {}

func (n *network) site(t *testing.T, node, other Node, i int) {
	s := &site{network: n, table: NewTable(0), refused: map[uint32]int{}}
	n.sites[i] = s
	if err := s.table.Join(node); err != nil {
		t.Fatal(err)
	}
	s.table.Serve(func(c *Conn) (Handler, func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.serving = c
		return server{s}, func() {}
	})
	s.keeper = &Keeper{
		Config: Config{Node: node, Peer: other.OriginHost},
		Dial: func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(n.delay()):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			near, far := n.connect()
			n.running.Go(func() { s.other.accept(t, far) })
			return near, nil
		},
		Pause: func() time.Duration { return n.delay() },
		Opened: func(c *Conn) Handler {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.open != nil {
				s.faults = append(s.faults, "a second connection is opened")
			}
			s.open = c
			s.opened++
			s.askLocked()
			return asker{s}
		},
		Closed: func(error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open = nil
		},
		Failed: func(error, bool) {},
		Wanted: make(chan struct{}, 1),
	}
	if err := s.table.Keep(s.keeper); err != nil {
		t.Fatal(err)
	}
}

// accept serves a transport that the other site has made.
func (s *site) accept(t *testing.T, nc net.Conn) {
	time.Sleep(s.network.delay())
	c, err := Accept(t.Context(), nc, Config{Node: s.table.Node(), Table: s.table})
	if r := (*Refusal)(nil); errors.As(err, &r) {
		s.mu.Lock()
		s.refused[r.Code]++
		s.mu.Unlock()
	}
	if err == nil {
		s.table.Run(t.Context(), c) //nolint:errcheck // why is told to the Keeper
	}
}

// wire returns what a site asks on, nil for none.
func (s *site) wire() *wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	return s.network.wires[s.open.nc]
}

// TestTwoNodes: two nodes connect to each other at moments, and over transports
// with delays, of all kinds; connections are cut. The plain model: both ask and
// answer over the one connection that there is, and each question is answered.
func TestTwoNodes(t *testing.T) {
	elections := 0
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		cuts := rapid.IntRange(0, 3).Draw(rt, "cuts")
		var failure string
		synctest.Test(t, func(t *testing.T) {
			n := &network{rand: rand.New(rand.NewPCG(seed, 0)), wires: map[net.Conn]*wire{}}
			n.site(t, alpha, zenith, 0)
			n.site(t, zenith, alpha, 1)
			a, z := n.sites[0], n.sites[1]
			a.other, z.other = z, a
			ctx, cancel := context.WithCancel(t.Context())
			var keepers sync.WaitGroup
			for _, s := range n.sites {
				keepers.Go(func() {
					time.Sleep(n.delay())
					s.keeper.Run(ctx)
				})
			}
			for range cuts + 1 {
				before := [2]uint32{a.answered(), z.answered()}
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				w := a.wire()
				if w == nil || w != z.wire() {
					failure = "the nodes have no connection, or not the same"
					break
				}
				if a.answered() == before[0] || z.answered() == before[1] {
					failure = "a node's questions are not answered"
					break
				}
				w.cut()
			}
			cancel()
			keepers.Wait()
			n.mu.Lock()
			for _, w := range n.wires {
				w.cut()
				w.ends[0].Close()
				w.ends[1].Close()
			}
			n.mu.Unlock()
			n.running.Wait()
			for _, s := range n.sites {
				elections += s.refused[avp.ResultElectionLost]
				if s.opened > cuts+2 { // another may follow the last cut
					s.faults = append(s.faults, "a connection ends that nobody has cut")
				}
				if o := s.other; o.served > s.asked || s.answers > o.served {
					s.faults = append(s.faults, "something is served or answered twice")
				}
				if len(s.faults) > 0 {
					failure = s.faults[0]
				}
			}
		})
		if failure != "" {
			rt.Fatalf("%s", failure)
		}
	})
	if t.Logf("%d connections were refused with ELECTION_LOST", elections); elections == 0 {
		t.Error("there was no election")
	}
}

func (s *site) answered() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}
