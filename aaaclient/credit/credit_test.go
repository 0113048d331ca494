package credit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// A ledger is a credit-control server's book: a balance per user and rating
// group, and what was told about each session, each request once.
type ledger struct {
	mu       sync.Mutex
	quota    uint64
	balance  map[string]uint64 // of a user
	sessions map[string]map[uint32]uint64
	requests map[string][]byte // by Session-Id and CC-Request-Number: the request as it came
	debited  map[string]uint64 // of a user
	errors   []string
	seen     map[uint32]int // requests by type, copies left out
}

func newLedger(quota uint64) *ledger {
	return &ledger{quota: quota, balance: map[string]uint64{}, sessions: map[string]map[uint32]uint64{}, requests: map[string][]byte{}, debited: map[string]uint64{}, seen: map[uint32]int{}}
}

// take answers a request as RFC 8506 has it and returns Result-Code and MSCC
// AVPs.
func (l *ledger) take(m peer.Message) (uint32, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bad := func(format string, args ...any) (uint32, []byte) {
		l.errors = append(l.errors, fmt.Sprintf(format, args...))
		return 5012, nil
	}
	var session, user string
	var kind, number, action uint32
	var services []avp.AVP
	for v, err := range avp.Scan(m.AVPs()) {
		if err != nil {
			return bad("malformed: %v", err)
		}
		switch v.Code {
		case avp.SessionID:
			session = string(v.Data)
		case avp.UserName:
			user = string(v.Data)
		case ccRequestType:
			kind, _ = v.Uint32()
		case ccRequestNumber:
			number, _ = v.Uint32()
		case requestedAction:
			action, _ = v.Uint32()
		case multipleServices:
			services = append(services, v)
		}
	}
	key := fmt.Sprintf("%s/%d", session, number)
	content := slices.Clone(m.AVPs())
	if before, again := l.requests[key]; again {
		if !slices.Equal(before, content) {
			return bad("%s came again with other content", key)
		}
		services = nil // answered, and not counted again
	} else {
		l.seen[kind]++
	}
	l.requests[key] = content
	open := l.sessions[session]
	switch {
	case kind == initial && open == nil:
		open = map[uint32]uint64{}
		l.sessions[session] = open
	case kind == update || kind == termination:
		if open == nil {
			return unknownSession, nil
		}
	}
	var out []byte
	for _, s := range services {
		var group, used, wanted uint32
		var usedOctets, wantedOctets uint64
		for v := range avp.Scan(s.Data) {
			switch v.Code {
			case ratingGroup:
				group, _ = v.Uint32()
			case usedServiceUnit:
				used = 1
				total, _ := avp.Find(v.Data, ccTotalOctets, 0)
				usedOctets, _ = total.Uint64()
			case requestedServiceUnit:
				wanted = 1
				if total, ok := avp.Find(v.Data, ccTotalOctets, 0); ok {
					wantedOctets, _ = total.Uint64()
				}
			}
		}
		if kind == event {
			if action == refundAccount {
				l.debited[user] -= wantedOctets
			} else {
				l.debited[user] += wantedOctets
			}
			continue
		}
		if used == 1 {
			l.debited[user] += usedOctets
		}
		if wanted == 0 {
			continue
		}
		n, final := l.quota, false
		if b, limited := l.balance[user]; limited {
			n = min(n, b-min(b, l.debited[user]))
			final = n < l.quota
		}
		var g int
		out, g = avp.Begin(out, multipleServices, 0, avp.FlagMandatory)
		out = avp.AppendUint32(out, ratingGroup, 0, avp.FlagMandatory, group)
		if n == 0 {
			out = avp.AppendUint32(out, avp.ResultCodeAVP, 0, avp.FlagMandatory, creditLimitReached)
		} else {
			var u int
			out, u = avp.Begin(out, grantedServiceUnit, 0, avp.FlagMandatory)
			out = avp.AppendUint64(out, ccTotalOctets, 0, avp.FlagMandatory, n)
			avp.End(out, u)
		}
		if final && n > 0 {
			out = avp.Append(out, finalUnitIndication, 0, avp.FlagMandatory, nil)
		}
		avp.End(out, g)
	}
	if kind == termination {
		delete(l.sessions, session)
	}
	return 2001, out
}

// A server serves a ledger on a loopback port, and misbehaves.
type server struct {
	t       *testing.T
	ledger  *ledger
	address string
	mood    func() string // "", "silent", "busy", "drop", "lost"; nil for always ""

	mu    sync.Mutex
	conns []*peer.Conn
}

func startServer(t *testing.T, l *ledger, mood func() string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, ledger: l, address: ln.Addr().String(), mood: mood}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(ctx, nc) })
		}
	})
	return s
}

func (s *server) serve(ctx context.Context, nc net.Conn) {
	h := &serverHandler{server: s, ready: make(chan struct{})}
	c, err := peer.Accept(ctx, nc, peer.Config{
		Node:    peer.Node{OriginHost: "ocs.home.example", OriginRealm: "home.example", Auth: []uint32{Application}},
		Handler: h,
	})
	if err != nil {
		return
	}
	h.conn = c
	close(h.ready)
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	_ = c.Run(ctx)
}

type serverHandler struct {
	server *server
	ready  chan struct{}
	conn   *peer.Conn
}

func (h *serverHandler) Receive(m peer.Message) bool {
	<-h.ready
	if !m.Request() {
		return true
	}
	if m.Command != command {
		return false
	}
	mood := ""
	if h.server.mood != nil {
		mood = h.server.mood()
	}
	result, services := uint32(tooBusy), []byte(nil)
	switch mood {
	case "silent":
		return true
	case "busy":
	case "drop":
		go h.conn.Disconnect(context.Background(), avp.Rebooting)
		return true
	case "lost":
		h.server.ledger.take(m)
		return true
	default:
		result, services = h.server.ledger.take(m)
	}
	b := peer.AppendAnswerHeader(nil, m, result)
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	b = avp.Append(b, avp.SessionID, 0, avp.FlagMandatory, id.Data)
	b = avp.AppendUint32(b, avp.ResultCodeAVP, 0, avp.FlagMandatory, result)
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, "ocs.home.example")
	b = avp.AppendString(b, avp.OriginRealm, 0, avp.FlagMandatory, "home.example")
	b = append(b, services...)
	avp.SetLength(b)
	_ = h.conn.Send(b)
	return true
}
func (h *serverHandler) Flush()   {}
func (h *serverHandler) Changed() {}

// A memory is a Feed and a Store.
type memory struct {
	mu       sync.Mutex
	records  []acct.Record
	after    uint64
	sessions map[string]Session
	fails    int // the next so many calls of Save
}

func (m *memory) cut(r acct.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = append(m.records, r)
}

func (m *memory) Cut(_ context.Context, after uint64, max int) (out []acct.Delivery, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := after + 1; id <= uint64(len(m.records)) && len(out) < max; id++ {
		out = append(out, acct.Delivery{ID: id, Record: m.records[id-1]})
	}
	return out, nil
}

func (m *memory) Load(context.Context) (uint64, []Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Session
	for _, s := range m.sessions {
		all = append(all, s.clone())
	}
	return m.after, all, nil
}

// clone is what a Store on disk does.
func (s Session) clone() Session {
	s.Services = slices.Clone(s.Services)
	if s.Pending != nil {
		p := *s.Pending
		p.Used, p.Want = slices.Clone(p.Used), slices.Clone(p.Want)
		s.Pending = &p
	}
	return s
}

func (m *memory) Save(_ context.Context, after uint64, sessions []Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails > 0 {
		m.fails--
		return errors.New("disk is full")
	}
	m.after = after
	for _, s := range sessions {
		if s.Over() {
			delete(m.sessions, s.SessionID)
		} else {
			m.sessions[s.SessionID] = s.clone()
		}
	}
	return nil
}

func (m *memory) done() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.after == uint64(len(m.records)) && len(m.sessions) == 0
}

// quiet reports whether all records are read and nothing is unanswered.
func (m *memory) quiet() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if s.Pending != nil {
			return false
		}
	}
	return m.after == uint64(len(m.records))
}

func testConfig(m *memory, peers ...Peer) Config {
	return Config{
		OriginHost: "bridge.isp.example", OriginRealm: "isp.example", DestinationRealm: "home.example",
		ServiceContext: "32251@3gpp.org", Peers: peers, Feed: m, Store: m,
		Rating:  func(class string) (uint32, bool) { return map[string]uint32{"": 1, "voice": 2}[class], class != "free" },
		Timeout: 100 * time.Millisecond, Connect: 20 * time.Millisecond, Poll: 5 * time.Millisecond,
	}
}

// await looks until is says yes.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatal("never: ", what)
		case <-look.C:
		}
	}
}

func usage(in, out uint64) acct.Usage { return acct.Usage{InputOctets: in, OutputOctets: out} }

// TestFaults has processes that are stopped again and again deal with two
// servers that share a ledger and misbehave in every way. What the ledger
// debits in the end is what was accounted.
func TestFaults(t *testing.T) {
	random, moods := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(8, 8))
	var mu sync.Mutex
	well := false
	mood := func() string {
		mu.Lock()
		defer mu.Unlock()
		if well {
			return ""
		}
		return []string{"", "", "", "", "silent", "busy", "drop", "lost"}[moods.IntN(8)]
	}
	l := newLedger(1000)
	a, b := startServer(t, l, mood), startServer(t, l, mood)
	m := &memory{sessions: map[string]Session{}}
	truth := map[string]uint64{}
	total := map[string]acct.Usage{}
	add := func(session string, n uint32, typ acct.RecordType, in, out uint64) {
		u := total[session].Plus(usage(in, out))
		total[session] = u
		user := "user of " + session
		truth[user] += in + out
		m.cut(acct.Record{SessionID: session, Number: n, Type: typ, User: user, Usage: u})
	}
	run := func(until func() bool) {
		cfg := testConfig(m, Peer{Address: a.address}, Peer{Address: b.address})
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- p.Run(ctx) }()
		await(t, "requests", func() bool { return until() || p.Stats().Requests > 20 })
		cancel()
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
	}
	const sessions = 8
	for i := range sessions {
		add(fmt.Sprint("s;", i), 0, acct.Start, 0, 0)
	}
	for round := range uint32(6) {
		for i := range sessions {
			add(fmt.Sprint("s;", i), round+1, acct.Interim, uint64(random.IntN(700)), uint64(random.IntN(700)))
		}
		m.mu.Lock()
		m.fails = random.IntN(3)
		m.mu.Unlock()
		run(m.quiet)
	}
	for i := range sessions {
		add(fmt.Sprint("s;", i), 7, acct.Stop, 10, 20)
		add(fmt.Sprint("late;", i), 0, acct.Event, 5, 6)
	}
	mu.Lock()
	well = true
	mu.Unlock()
	for !m.done() {
		run(m.done)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) > 0 {
		t.Error(l.errors)
	}
	if !maps.Equal(l.debited, truth) {
		t.Errorf("debited %v\naccounted %v", l.debited, truth)
	}
	if len(l.sessions) != 0 {
		t.Errorf("%d sessions stay open at the server", len(l.sessions))
	}
}

// TestExhausted uses up a balance: the last units are announced, used up, and
// said so once; what is used beyond is charged all the same.
func TestExhausted(t *testing.T) {
	l := newLedger(1000)
	l.balance["alice"] = 1500
	s := startServer(t, l, nil)
	m := &memory{sessions: map[string]Session{}}
	var mu sync.Mutex
	var got []Exhausted
	cfg := testConfig(m, Peer{Address: s.address, Host: "ocs.home.example"})
	cfg.Exhausted = func(e Exhausted) bool { mu.Lock(); got = append(got, e); mu.Unlock(); return true }
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- p.Run(ctx) }()
	debited := func(n uint64) func() bool {
		return func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.debited["alice"] == n
		}
	}
	cut := func(n uint32, typ acct.RecordType, octets uint64) {
		m.cut(acct.Record{SessionID: "s;1", Number: n, Type: typ, User: "alice", Usage: usage(octets, 0)})
	}
	cut(0, acct.Start, 0)
	cut(1, acct.Interim, 700) // below the threshold of 80%
	cut(2, acct.Interim, 900)
	await(t, "900 octets are debited", debited(900))
	cut(3, acct.Interim, 1400)
	cut(4, acct.Interim, 1600)
	await(t, "credit is exhausted", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 1 })
	cut(5, acct.Interim, 2000)
	cut(6, acct.Stop, 2100)
	await(t, "all is over", m.done)
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if !debited(2100)() {
		t.Errorf("debited %v", l.debited)
	}
	if e := got[0]; len(got) != 1 || e.User != "alice" || e.RatingGroup != 1 || e.Limit != 1500 || e.Used < 1500 {
		t.Errorf("exhausted: %+v", got)
	}
	if l.seen[initial] != 1 || l.seen[termination] != 1 {
		t.Errorf("requests by type: %v", l.seen)
	}
}

// Whoever is told that credit is exhausted may be killed before it acts on that, or
// have no room: it is told again, while the session goes on.
func TestExhaustedIsToldAgain(t *testing.T) {
	l := newLedger(1000)
	l.balance["alice"] = 1500
	server := startServer(t, l, nil)
	m := &memory{sessions: map[string]Session{}}
	life := func(full int) (told func(n int) func() bool, kill func()) {
		var mu sync.Mutex
		calls := 0
		cfg := testConfig(m, Peer{Address: server.address, Host: "ocs.home.example"})
		cfg.Exhausted = func(e Exhausted) bool {
			mu.Lock()
			defer mu.Unlock()
			calls++
			if e.SessionID != "s;1" || e.RatingGroup != 1 || e.Limit != 1500 || e.Used < 1500 {
				t.Errorf("told of %+v", e)
			}
			return calls > full
		}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- p.Run(ctx) }()
		return func(n int) func() bool {
				return func() bool { mu.Lock(); defer mu.Unlock(); return calls == n }
			}, func() {
				cancel()
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			}
	}
	cut := func(n uint32, typ acct.RecordType, octets uint64) {
		m.cut(acct.Record{SessionID: "s;1", Number: n, Type: typ, User: "alice", Usage: usage(octets, 0)})
	}
	cut(0, acct.Start, 0)
	cut(1, acct.Interim, 900)
	told, kill := life(2)
	await(t, "asked", m.quiet)
	cut(2, acct.Interim, 1400)
	cut(3, acct.Interim, 1600)
	await(t, "there is room at the third time", told(3))
	await(t, "stored", m.quiet)
	kill()

	told, kill = life(0)
	await(t, "told after a restart", told(1))
	cut(4, acct.Interim, 4000)
	await(t, "read", m.quiet)
	kill()
	if !told(1)() {
		t.Error("told again without need")
	}

	cut(5, acct.Stop, 4100)
	told, kill = life(0)
	await(t, "all is over", m.done)
	kill()
	if !told(0)() {
		t.Error("told of a session that is over")
	}
}

// What was told to be exhausted is told again after a restart only where it still
// holds.
func TestStanding(t *testing.T) {
	for _, tt := range []struct {
		name    string
		session Session
		all, is bool
	}{
		{"something is granted", Session{Services: []Service{{Granted: true, Limit: 5}}}, false, false},
		{"a quota is used up", Session{Services: []Service{{RatingGroup: 1}, {RatingGroup: 2, Exhausted: true}}}, false, true},
		{"it is free since", Session{Services: []Service{{Exhausted: true, Free: true}}}, false, false},
		{"the server refused all of it", answered(creditLimitReached), true, true},
		{"the server controls no credit of the user", answered(creditNotApplicable), false, false},
		{"the server wants it ended", Session{Aborted: true, Closed: true}, true, true},
		{"it has ended", Session{Ended: true, Services: []Service{{Exhausted: true}}}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if e, is := tt.session.standing(); is != tt.is || e.All != tt.all || is && e.Why == "" {
				t.Errorf("%+v, %v", e, is)
			}
		})
	}
}

// answered is a session with an exhausted quota after an answer to an update.
func answered(result uint32) Session {
	s := Session{Services: []Service{{Exhausted: true}}, Pending: &Request{Type: update, Used: make([]acct.Usage, 1)}}
	s.answer(answer{result: result}, time.Time{})
	return s
}

// TestServerAsks has the server ask for news of a session, lose another, and
// abort a third.
func TestServerAsks(t *testing.T) {
	l := newLedger(1 << 30)
	s := startServer(t, l, nil)
	m := &memory{sessions: map[string]Session{}}
	var mu sync.Mutex
	var got []Exhausted
	cfg := testConfig(m, Peer{Address: s.address})
	cfg.Exhausted = func(e Exhausted) bool { mu.Lock(); got = append(got, e); mu.Unlock(); return true }
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- p.Run(ctx) }()
	all := []string{"s;1", "s;2", "s;3"}
	for _, id := range all {
		m.cut(acct.Record{SessionID: id, Type: acct.Start, User: id})
	}
	open := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.sessions) }
	await(t, "three sessions are open", func() bool { return open() == 3 })
	for _, id := range all {
		m.cut(acct.Record{SessionID: id, Number: 1, Type: acct.Interim, User: id, Usage: usage(100, 11)})
	}
	await(t, "the records are read", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.after == 6 })
	ask := func(command uint32, session string) {
		b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: command, Application: Application, HopByHop: 1, EndToEnd: 1})
		b = avp.AppendString(b, avp.SessionID, 0, avp.FlagMandatory, session)
		avp.SetLength(b)
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = s.conns[0].Send(b)
	}
	debited := func(user string) uint64 { l.mu.Lock(); defer l.mu.Unlock(); return l.debited[user] }
	if debited("s;1") != 0 {
		t.Fatal("the usage was told before it was asked for")
	}
	ask(avp.CommandReAuth, "s;1;credit")
	await(t, "the server hears of s;1", func() bool { return debited("s;1") == 111 })
	ask(avp.CommandAbortSession, "s;2;credit")
	await(t, "s;2 is terminated", func() bool { return open() == 2 && debited("s;2") == 111 })
	l.mu.Lock()
	delete(l.sessions, "s;3;credit")
	l.mu.Unlock()
	m.cut(acct.Record{SessionID: "s;3", Number: 2, Type: acct.Stop, User: "s;3", Usage: usage(200, 22)})
	await(t, "s;3 is debited by a session of its own", func() bool { return debited("s;3") == 222 })
	for _, id := range []string{"s;1", "s;2"} {
		m.cut(acct.Record{SessionID: id, Number: 2, Type: acct.Stop, User: id, Usage: usage(100, 11)})
	}
	await(t, "all is over", m.done)
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].SessionID != "s;2" || !got[0].All {
		t.Errorf("exhausted: %+v", got)
	}
}

// TestSession checks one session against a plain sum: whatever the server
// grants, what is reported in the end is what was used.
func TestSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Session{SessionID: "s", User: "alice"}
		rating := func(class string) (uint32, bool) { return uint32(len(class)), class != "free" }
		now := time.Unix(1e9, 0)
		reported := map[uint32]uint64{}
		classes := map[string]acct.Usage{"": {}, "a": {}, "free": {}}
		names := []string{"", "a", "free"}
		next := uint32(0)
		id := func() uint32 { next++; return next }
		var number uint32
		talk := func() {
			for s.request(now, 80, id) {
				p := s.Pending
				if p.Number != number {
					t.Fatalf("CC-Request-Number %d, want %d", p.Number, number)
				}
				number++
				for i, v := range s.Services {
					reported[v.RatingGroup] += octets(minus(p.Used[i], v.Reported))
				}
				a := answer{result: 2001}
				for i, v := range s.Services {
					if p.Want[i] {
						g := grant{ratingGroup: v.RatingGroup, hasGroup: true}
						switch rapid.IntRange(0, 5).Draw(t, "grant") {
						case 0:
							g.result = creditLimitReached
						case 1:
							g.hasOctets, g.octets, g.final = true, rapid.Uint64Range(0, 2000).Draw(t, "octets"), true
						case 2:
							g.hasOctets, g.octets, g.validity = true, rapid.Uint64Range(1, 2000).Draw(t, "octets"), 10
						default:
							g.hasOctets, g.octets = true, rapid.Uint64Range(1, 2000).Draw(t, "octets")
						}
						a.services = append(a.services, g)
					}
				}
				if what, _ := s.answer(a, now); what != goOn {
					t.Fatalf("fate %d", what)
				}
				if p.Type == update && p.Number > 10000 {
					t.Fatal("it never stops asking")
				}
			}
		}
		record := func(typ acct.RecordType) {
			r := acct.Record{SessionID: "s", Type: typ, User: "alice"}
			for _, name := range names {
				classes[name] = classes[name].Plus(usage(rapid.Uint64Range(0, 1500).Draw(t, "in"), rapid.Uint64Range(0, 1500).Draw(t, "out")))
				r.Classes = append(r.Classes, acct.ClassUsage{Class: name, Usage: classes[name]})
			}
			s.apply(&r, rating)
		}
		for range rapid.IntRange(0, 12).Draw(t, "interims") {
			record(acct.Interim)
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
			talk()
		}
		record(acct.Stop)
		talk()
		if !s.Over() {
			t.Fatalf("the session is not over: %+v", s)
		}
		for _, name := range []string{"", "a"} {
			if got, want := reported[uint32(len(name))], octets(classes[name]); got != want {
				t.Errorf("%q: reported %d octets, used %d", name, got, want)
			}
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	l := newLedger(100)
	cfg := testConfig(&memory{}, Peer{})
	s := &Session{SessionID: "s;1", User: "alice", Services: []Service{{RatingGroup: 1}}}
	s.request(time.Unix(1e9, 0), 80, func() uint32 { return 1 })
	b := cfg.appendRequest(nil, s, true)
	h, err := avp.ParseHeader(b)
	if err != nil {
		f.Fatal(err)
	}
	result, services := l.take(peer.Message{Header: h, Octets: b})
	f.Add(avp.AppendUint32(services, avp.ResultCodeAVP, 0, avp.FlagMandatory, result))
	f.Add(b[avp.HeaderLen:])
	f.Fuzz(func(t *testing.T, b []byte) {
		m := peer.Message{Octets: append(make([]byte, avp.HeaderLen), b...)}
		a, err := parseAnswer(m)
		if err != nil {
			return
		}
		s := s.clone()
		s.answer(a, time.Unix(1e9, 0))
		if s.Pending != nil && a.result/1000 == 2 {
			t.Fatal("a success settles nothing")
		}
	})
}
