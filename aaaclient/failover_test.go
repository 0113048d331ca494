package aaaclient

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A network connects a client with rogues by name, in memory, so that a test
// may run in a bubble of its own time.
type network struct {
	mu     sync.Mutex
	rogues map[string]*rogue // by address
	down   map[string]bool
	dials  map[string][]time.Time
	served sync.WaitGroup
	wrote  func(octets []byte) // sees what the client writes; nil for nothing
}

func newNetwork() *network {
	return &network{rogues: map[string]*rogue{}, down: map[string]bool{}, dials: map[string][]time.Time{}}
}

func (n *network) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials[address] = append(n.dials[address], time.Now())
	if n.down[address] {
		return nil, errors.New("no route to host")
	}
	near, far := net.Pipe()
	n.served.Go(func() { n.rogues[address].serve(context.Background(), far) })
	return tapped{near, n}, nil
}

func (n *network) set(address string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[address] = down
}

type tapped struct {
	net.Conn
	network *network
}

func (c tapped) Write(b []byte) (int, error) {
	if c.network.wrote != nil {
		c.network.wrote(b)
	}
	return c.Conn.Write(b)
}

const (
	primaryAddress = "primary.home.example:3868"
	backupAddress  = "backup.home.example:3868"
)

// inBubble runs f with a primary and a backup, and a client of default times
// that is stopped afterwards.
func inBubble(t *testing.T, primary, backup *rogue, f func(t *testing.T, n *network, o *outboxModel, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.rogues[primaryAddress], n.rogues[backupAddress] = primary, backup
		o := newOutbox()
		c, err := New(Config{
			OriginHost: "bridge.visited.example", OriginRealm: "visited.example", DestinationRealm: "home.example",
			Peers: []Peer{{Address: primaryAddress}, {Address: backupAddress}}, Outbox: o, Dial: n.dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := background(t, c.Run)
		synctest.Wait() // both are connected
		f(t, n, o, c)
		stop()
		n.served.Wait()
	})
}

func drained(t *testing.T, o *outboxModel) {
	t.Helper()
	select {
	case <-o.finished:
	case <-time.After(24 * time.Hour):
		t.Fatal("records are still pending after a day")
	}
}

// TestFailover: the primary's connection breaks, the backup takes over; the
// primary comes back and, after three watchdog answers, is used again.
func TestFailover(t *testing.T) {
	primary, backup := &rogue{}, &rogue{host: "backup.home.example"}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		o.add(records(5, 2)...)
		drained(t, o)
		if p, b := len(primary.sendings()), len(backup.sendings()); p != 10 || b != 0 {
			t.Fatalf("the primary got %d and the backup %d", p, b)
		}
		n.set(primaryAddress, true)
		primary.conns[0].nc.Close()
		synctest.Wait()
		o.add(records(5, 1)...)
		drained(t, o)
		if b := len(backup.sendings()); b != 5 {
			t.Fatalf("the backup got %d", b)
		}
		<-time.After(time.Hour)
		n.mu.Lock()
		dials := n.dials[primaryAddress]
		n.mu.Unlock()
		for i := 2; i < len(dials); i++ {
			if d := dials[i].Sub(dials[i-1]); d < DefaultConnect {
				t.Fatalf("attempts to connect %v apart (Tc, RFC 6733, Section 2.1)", d)
			}
		}
		if len(dials) < 100 {
			t.Errorf("%d attempts to connect in an hour", len(dials))
		}
		n.set(primaryAddress, false)
		<-time.After(45 * time.Second) // connected again, in REOPEN
		if s := c.Stats().Peers[0]; s.State != peer.Reopen || s.Ready {
			t.Errorf("the primary: %+v", s)
		}
		o.add(records(5, 1)...)
		drained(t, o)
		if p, b := len(primary.sendings()), len(backup.sendings()); p != 10 || b != 10 {
			t.Errorf("the primary got %d and the backup %d while the primary is in REOPEN", p, b)
		}
		<-time.After(3 * time.Minute)
		if s := c.Stats().Peers[0]; s.State != peer.Okay || !s.Ready {
			t.Errorf("the primary: %+v", s)
		}
		o.add(records(5, 1)...)
		drained(t, o)
		if p, b := len(primary.sendings()), len(backup.sendings()); p != 15 || b != 10 {
			t.Errorf("the primary got %d and the backup %d after failback", p, b)
		}
		if s := c.Stats(); s.Resent != 0 || s.Unmatched != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestDiesWithTheWindowFull: the primary's connection breaks while it owes as
// many answers as it may; the backup gets each of these requests once more, with
// the T flag, and all others without.
func TestDiesWithTheWindowFull(t *testing.T) {
	primary := &rogue{act: func(*rogueConn, rogueRequest) {}}
	backup := &rogue{host: "backup.home.example"}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		const all = 3 * DefaultWindow
		o.add(records(all, 1)...)
		synctest.Wait()
		s := c.Stats().Peers[0]
		owed := int(s.InFlight)
		if owed == 0 || owed != s.Limit || len(primary.sendings()) != owed {
			t.Fatalf("%d requests of at most %d are unanswered, the primary got %d", owed, s.Limit, len(primary.sendings()))
		}
		n.set(primaryAddress, true)
		primary.conns[0].nc.Close()
		drained(t, o)
		sent := map[string]bool{}
		for _, s := range primary.sendings() {
			sent[s.session] = true
		}
		got := backup.sendings()
		if len(got) != all {
			t.Errorf("the backup got %d requests of %d records", len(got), all)
		}
		for _, s := range got {
			if s.retransmit != sent[s.session] {
				t.Errorf("%s: T flag %v, sent before: %v", s.session, s.retransmit, sent[s.session])
			}
		}
		if s := c.Stats(); s.Resent != uint64(owed) || s.Unmatched != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestSuspect: a primary that falls silent altogether is suspected before its
// connection ends, and its unanswered requests go to the backup with the T
// flag. Its late answers settle as well.
func TestSuspect(t *testing.T) {
	var hung chan struct{}
	primary, backup := &rogue{}, &rogue{host: "backup.home.example"}
	primary.act = func(c *rogueConn, r rogueRequest) { <-hung } // reads nothing more, answers no DWR
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		hung = make(chan struct{})
		o.add(records(3, 1)...)
		drained(t, o)
		if got := backup.sendings(); len(got) != 3 || !got[0].retransmit || !got[1].retransmit || !got[2].retransmit {
			t.Errorf("the backup got %+v", got)
		}
		close(hung)
		o.check(t, acct.Acknowledged)
	})
}

// TestSilentToRequests: a peer whose database is down answers watchdogs and no
// request. Each request times out on its own and goes to the backup.
func TestSilentToRequests(t *testing.T) {
	primary := &rogue{act: func(*rogueConn, rogueRequest) {}}
	backup := &rogue{host: "backup.home.example"}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		before := time.Now()
		o.add(records(3, 1)...)
		drained(t, o)
		if d := time.Since(before); d < DefaultTimeout || d > DefaultTimeout+time.Second {
			t.Errorf("settled after %v", d)
		}
		if s := c.Stats(); s.Timeouts != 3 || s.Peers[0].State != peer.Okay || s.Resent != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestLateAnswer: the answer to a sending that was given up settles the record
// (RFC 6733, Section 5.5.4); the other copy's answer is then no answer.
func TestLateAnswer(t *testing.T) {
	var late chan func() // answers late
	var sent chan struct{}
	primary := &rogue{act: func(c *rogueConn, r rogueRequest) {
		late <- func() { c.reply(r, avp.ResultSuccess) }
	}}
	backup := &rogue{host: "backup.home.example", act: func(*rogueConn, rogueRequest) {
		(<-late)()
		close(sent)
	}}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		late, sent = make(chan func(), 1), make(chan struct{})
		o.add(records(1, 1)...)
		<-sent
		drained(t, o)
		o.check(t, acct.Acknowledged)
		if _, s := o.state(1); s[0].Peer != "acct.home.example" {
			t.Errorf("settled by %s", s[0].Peer)
		}
	})
}

// TestAnswerFromAnotherPeer: an answer from a peer that was sent no copy is
// none.
func TestAnswerFromAnotherPeer(t *testing.T) {
	backup := &rogue{host: "backup.home.example"}
	var other *rogueConn
	backup.up = func(c *rogueConn) { other = c }
	primary := &rogue{}
	primary.act = func(c *rogueConn, r rogueRequest) {
		if r.n == 0 {
			other.reply(r, avp.ResultSuccess)
			<-time.After(time.Second)
			c.reply(r, avp.ResultAVPUnsupported)
		}
	}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		o.add(records(1, 1)...)
		drained(t, o)
		if state, _ := o.state(1); state != acct.Quarantined {
			t.Errorf("the answer of a peer that was not asked counts: %v", state)
		}
		if s := c.Stats(); s.Unmatched != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestDisconnectCauses: after REBOOTING a peer is connected again
// periodically; after BUSY and DO_NOT_WANT_TO_TALK_TO_YOU only when records
// wait and nobody else takes them (RFC 6733, Section 5.4).
func TestDisconnectCauses(t *testing.T) {
	for _, cause := range []uint32{avp.Rebooting, avp.Busy, avp.DoNotWantToTalkToYou} {
		t.Run(peer.CauseString(cause), func(t *testing.T) {
			primary, backup := &rogue{}, &rogue{host: "backup.home.example"}
			inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
				o.add(records(1, 1)...)
				drained(t, o)
				primary.conns[0].Disconnect(context.Background(), cause)
				<-time.After(10 * time.Minute)
				if again := len(primary.conns) > 1; again != (cause == avp.Rebooting) {
					t.Errorf("connected again: %v", again)
				}
				o.add(records(1, 1)...)
				drained(t, o)
				n.set(backupAddress, true)
				backup.conns[0].nc.Close()
				synctest.Wait()
				o.add(records(1, 1)...)
				drained(t, o)
				if len(primary.conns) != 2 {
					t.Errorf("%d connections to the primary, when nobody else takes the records", len(primary.conns))
				}
				o.check(t, acct.Acknowledged)
			})
		})
	}
}

// TestBackoff: a peer that always answers 3004 is asked ever more seldom, and
// for ever.
func TestBackoff(t *testing.T) {
	var at []time.Time
	busy := func(c *rogueConn, r rogueRequest) {
		at = append(at, time.Now())
		if len(at) == 20 {
			c.reply(r, avp.ResultSuccess)
			return
		}
		c.reply(r, avp.ResultTooBusy)
	}
	primary, backup := &rogue{act: busy}, &rogue{host: "backup.home.example", act: busy}
	inBubble(t, primary, backup, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		o.add(records(1, 1)...)
		drained(t, o)
		want := DefaultRetryMin
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d != want {
				t.Errorf("attempt %d after %v, want %v", i, d, want)
			}
			want = min(2*want, DefaultRetryMax)
		}
		if p, b := len(primary.sendings()), len(backup.sendings()); p != 10 || b != 10 {
			t.Errorf("the primary was asked %d times, the backup %d", p, b)
		}
	})
}

// TestWakeWhileReading: records that come while the outbox is being read are
// not overlooked.
func TestWakeWhileReading(t *testing.T) {
	inBubble(t, &rogue{}, &rogue{host: "backup.home.example"}, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		o.add(records(1, 1)...)
		drained(t, o)
		synctest.Wait()
		more := records(1, 3)[1:]
		o.read = func() {
			if len(more) > 0 {
				o.add(more[0])
				more = more[1:]
				synctest.Wait() // the client has heard of it, and hears of no other
			}
		}
		o.add(acct.Record{SessionID: "bridge.visited.example;1;9", Type: acct.Event})
		drained(t, o)
		synctest.Wait() // the client counts after the outbox has settled
		if s := c.Stats(); s.Settled != 4 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestRequeue: a record that an operator requeues is found, though the client
// has read beyond it.
func TestRequeue(t *testing.T) {
	inBubble(t, &rogue{}, &rogue{host: "backup.home.example"}, func(t *testing.T, n *network, o *outboxModel, c *Client) {
		o.add(records(3, 3)...)
		drained(t, o)
		synctest.Wait()
		o.requeue(4)
		drained(t, o)
		o.check(t, acct.Acknowledged)
		if state, got := o.state(10); state != acct.Acknowledged || len(got) != 1 {
			t.Errorf("requeued record is %v: %v", state, got)
		}
	})
}
