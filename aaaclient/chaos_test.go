package aaaclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A world is two AAA servers with one database, which misbehave at random for
// a number of times, and what is known of it all.
type world struct {
	t      *testing.T
	outbox *outboxModel
	ids    map[storeKey]uint64

	mu             sync.Mutex
	rng            *rand.Rand
	mischief, cuts int             // left
	lost           int             // connections that ended
	written        map[uint32]bool // End-to-End Identifiers that the client has written
	before         map[uint32]bool // those written by an earlier client
	sent           map[storeKey]bool
	books          map[storeKey]bool
	order          map[string][]uint32 // numbers by session as they were first accounted
}

// wrote checks each request as it leaves the client.
func (w *world) wrote(octets []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(octets) > 0 {
		h, err := avp.ParseHeader(octets)
		if err != nil {
			w.t.Errorf("the client writes %x: %v", octets, err)
			return
		}
		avps := octets[avp.HeaderLen:h.Length]
		octets = octets[h.Length:]
		if h.Command != avp.CommandAccounting {
			continue
		}
		session, _ := avp.Find(avps, avp.SessionID, 0)
		a, _ := avp.Find(avps, avp.AccountingRecordNumber, 0)
		number, _ := a.Uint32()
		key := storeKey{string(session.Data), number}
		if !w.outbox.isMarked(w.ids[key]) {
			w.t.Errorf("%v is written before it is marked", key)
		}
		again := w.written[h.EndToEnd] || w.before[h.EndToEnd]
		retransmitted := h.Flags&avp.FlagRetransmitted != 0
		if again && !retransmitted {
			w.t.Errorf("%v is written again without the T flag", key)
		}
		// A sending that was cut off within its connection counts as one,
		// and so does a mark of an earlier client. A request that follows an error
		// answer may be a copy of one that was sent to another peer.
		if !again && !w.sent[key] && retransmitted && w.lost == 0 && len(w.before) == 0 {
			w.t.Errorf("%v carries the T flag at first", key)
		}
		w.written[h.EndToEnd], w.sent[key] = true, true
	}
}

// bad says which records are refused, wherever they are sent.
func bad(r rogueRequest) bool { return len(r.session)%7 == 3 && r.number%5 == 2 }

func (w *world) act(c *rogueConn, r rogueRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := storeKey{r.session, r.number}
	book := func() {
		if !w.books[key] {
			w.books[key] = true
			w.order[r.session] = append(w.order[r.session], r.number)
		}
	}
	account := func(after time.Duration) {
		book()
		if after == 0 {
			c.reply(r, avp.ResultSuccess)
		} else {
			time.AfterFunc(after, func() { c.reply(r, avp.ResultSuccess) })
		}
	}
	kind := -1
	if w.mischief > 0 && w.rng.IntN(3) == 0 {
		w.mischief--
		kind = w.rng.IntN(14)
	}
	if bad(r) && kind < 3 {
		c.reply(r, avp.ResultAVPUnsupported)
		return
	}
	if bad(r) && kind != 6 {
		return // silent: it must not be accounted
	}
	switch kind {
	case 0: // silent
	case 1:
		account(25 * time.Second) // too late
	case 2:
		account(time.Duration(w.rng.IntN(9000)) * time.Millisecond)
	case 3:
		c.reply(r, avp.ResultTooBusy)
	case 4:
		c.reply(r, avp.ResultUnableToDeliver)
	case 5:
		c.reply(r, avp.ResultUnableToComply)
	case 6:
		if w.cuts > 0 {
			w.cuts--
			w.lost++
			c.nc.Close()
		}
	case 7:
		book() // it may pass for the answer to an earlier sending
		c.send(r, avp.ResultSuccess, r.HopByHop+1<<20, r.EndToEnd)
	case 8:
		c.send(r, avp.ResultSuccess, r.HopByHop, r.EndToEnd+1<<20)
	case 9:
		if w.cuts > 0 {
			w.cuts--
			w.lost++
			c.Send([]byte("what is this, and why is it here"))
		}
	case 10:
		if w.cuts > 0 {
			w.cuts--
			w.lost++
			go c.Disconnect(context.Background(), uint32(w.rng.IntN(3)))
		}
		account(0)
	case 11:
		account(0)
		c.reply(r, avp.ResultSuccess) // twice
	case 12:
		c.reply(r, avp.ResultOutOfSpace)
	case 13:
		account(0)
		c.reply(r, avp.ResultTooBusy) // a relay that has two minds
	default:
		account(0)
	}
}

// TestChaos runs seeded worlds: at the end every record is settled exactly
// once, each session's records were accounted in order, and every sending
// carried the T flag rightly. TOLLBRIDGE_SEED runs one of them.
func TestChaos(t *testing.T) {
	first, seeds := uint64(1), uint64(150)
	if testing.Short() {
		seeds = 20
	}
	if s := os.Getenv("TOLLBRIDGE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = n, 1
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { chaos(t, seed) }) })
		if t.Failed() {
			return
		}
	}
}

func chaos(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	w := &world{
		t: t, outbox: newOutbox(), ids: map[storeKey]uint64{}, rng: rand.New(rand.NewPCG(seed, 3)), mischief: rng.IntN(120), cuts: rng.IntN(3),
		written: map[uint32]bool{}, before: map[uint32]bool{}, sent: map[storeKey]bool{}, books: map[storeKey]bool{}, order: map[string][]uint32{},
	}
	all := records(1+rng.IntN(12), 1+rng.IntN(20))
	if rng.IntN(4) == 0 {
		all = records(1, 150) // one long session
	}
	for i, r := range all {
		w.ids[storeKey{r.SessionID, r.Number}] = uint64(i + 1)
	}
	if rng.IntN(2) == 0 {
		failures := rng.IntN(10)
		w.outbox.fail = func(string) error {
			if failures > 0 && rand.IntN(5) == 0 {
				failures--
				return errors.New("database is locked")
			}
			return nil
		}
	}
	n := newNetwork()
	n.wrote = w.wrote
	n.rogues[primaryAddress], n.rogues[backupAddress] = &rogue{act: w.act}, &rogue{host: "backup.home.example", act: w.act}
	cfg := Config{
		OriginHost: "bridge.visited.example", OriginRealm: "visited.example", DestinationRealm: "home.example",
		Peers: []Peer{{Address: primaryAddress}, {Address: backupAddress}}, Outbox: w.outbox, Dial: n.dial,
		Window: 1 + rng.IntN(20), Buffer: 1 + rng.IntN(60),
	}
	some := rng.IntN(len(all) + 1)
	w.outbox.add(all[:some]...)

	ctx, cancel := context.WithCancel(t.Context())
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { c.Run(ctx); close(stopped) }()
	if rng.IntN(2) == 0 { // another client takes over
		<-time.After(time.Duration(rng.IntN(30000)) * time.Millisecond)
		cancel()
		<-stopped
		w.mu.Lock()
		w.before, w.written = w.written, map[uint32]bool{}
		w.mu.Unlock()
		if c, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		stopped = make(chan struct{})
		go func() { c.Run(ctx); close(stopped) }()
	}
	<-time.After(time.Duration(rng.IntN(5000)) * time.Millisecond)
	w.outbox.add(all[some:]...)
	for deadline, done := time.Now().Add(1000*time.Hour), false; !done; {
		<-time.After(time.Minute)
		w.outbox.mu.Lock()
		done = w.outbox.pending == 0
		w.outbox.mu.Unlock()
		if !done && time.Now().After(deadline) {
			t.Errorf("seed %d: records are pending for ever: %+v", seed, c.Stats())
			break
		}
	}
	cancel()
	<-stopped
	for _, r := range n.rogues {
		r.mu.Lock()
		for _, conn := range r.conns {
			conn.nc.Close()
		}
		r.mu.Unlock()
	}
	n.served.Wait()

	for _, f := range w.outbox.faults {
		t.Error(f)
	}
	for _, r := range w.outbox.rows {
		key := storeKey{r.Record.SessionID, r.Record.Number}
		want := acct.Acknowledged
		if bad(rogueRequest{sending: sending{session: key.session, number: key.number}}) {
			want = acct.Quarantined
		}
		if r.state != want || w.books[key] != (want == acct.Acknowledged) {
			t.Errorf("seed %d: %v is %v, want %v; accounted: %v; %+v", seed, key, r.state, want, w.books[key], r.settled)
		}
	}
	for session, numbers := range w.order {
		for i := 1; i < len(numbers); i++ {
			if numbers[i] <= numbers[i-1] {
				t.Errorf("seed %d: session %s was accounted in the order %v", seed, session, numbers)
			}
		}
	}
	if s := c.Stats(); s.Peers[0].InFlight != 0 || s.Peers[1].InFlight != 0 {
		t.Errorf("seed %d: stats %+v", seed, s)
	}
}
