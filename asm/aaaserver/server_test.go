package aaaserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// storeFunc is a Store.
type storeFunc func([]acct.CDR) ([]acct.Outcome, error)

func (f storeFunc) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) { return f(cdrs) }

func stored(cdrs []acct.CDR) ([]acct.Outcome, error) { return make([]acct.Outcome, len(cdrs)), nil }

// start runs a server until the test ends.
func start(t testing.TB, cfg Config) (*Server, string, func()) {
	t.Helper()
	cfg.OriginHost, cfg.OriginRealm = "acct.home.example", "home.example"
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return s, ln.Addr().String(), stop
}

// until waits for what a connection's own goroutine does.
func until(t *testing.T, done func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	late := time.After(time.Minute)
	for !done() {
		select {
		case <-look.C:
		case <-late:
			t.Fatal("waited for a minute")
		}
	}
}

// A caller is a client that hands over each answer.
type caller struct {
	conn    *peer.Conn
	answers chan peer.Message
	end     chan error
}

func (c *caller) Receive(m peer.Message) bool {
	m.Octets = slices.Clone(m.Octets)
	c.answers <- m
	return true
}
func (c *caller) Flush()   {}
func (c *caller) Changed() {}

func dial(t testing.TB, address, host string) (*caller, error) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{answers: make(chan peer.Message, 2000), end: make(chan error, 1)}
	c.conn, err = peer.Connect(context.Background(), nc, peer.Config{Node: peer.Node{OriginHost: host, OriginRealm: "visited.example"}, Handler: c})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { c.end <- c.conn.Run(ctx) }()
	t.Cleanup(cancel)
	return c, nil
}

func mustDial(t testing.TB, address string) *caller {
	t.Helper()
	c, err := dial(t, address, "bridge.visited.example")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var request0 = avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting, Application: 3, HopByHop: 5, EndToEnd: 6}

var options = dict.Options{OriginHost: "bridge.visited.example", OriginRealm: "visited.example", DestinationRealm: "home.example"}

func record(number uint32) *acct.Record {
	return &acct.Record{
		SessionID: "bridge.visited.example;1;1", Number: number, Type: acct.Interim, User: "ann", MultiSessionID: "m;1",
		Event: time.Unix(1_800_000_000, 0), SessionTime: time.Minute, Usage: acct.Usage{InputOctets: 1, OutputOctets: 2, InputPackets: 3, OutputPackets: 4},
	}
}

func build(h avp.Header, avps []byte) []byte {
	b := append(avp.AppendHeader(nil, h), avps...)
	avp.SetLength(b)
	return b
}

func u32(m peer.Message, code uint32) uint32 {
	a, ok := avp.Find(m.AVPs(), code, 0)
	if !ok {
		return 0
	}
	v, _ := a.Uint32()
	return v
}

// without returns avps less those of that code.
func without(avps []byte, code uint32) []byte {
	var b []byte
	for a := range avp.Scan(avps) {
		if !a.Is(code, 0) {
			b = a.Append(b)
		}
	}
	return b
}

func TestAnswers(t *testing.T) {
	good := dict.For(0).AppendRecord(nil, record(1), options)
	const m = avp.FlagMandatory
	for name, test := range map[string]struct {
		header avp.Header // zero for the usual
		avps   []byte
		result uint32
		failed uint32 // code of the AVP in Failed-AVP
	}{
		"a good request": {avps: good, result: 2001},
		"no Session-Id (7.1.5: 5005 with Failed-AVP)":        {avps: without(good, avp.SessionID), result: 5005, failed: avp.SessionID},
		"no Accounting-Record-Type":                          {avps: without(good, avp.AccountingRecordType), result: 5005, failed: avp.AccountingRecordType},
		"no Accounting-Record-Number":                        {avps: without(good, avp.AccountingRecordNumber), result: 5005, failed: avp.AccountingRecordNumber},
		"no Origin-Host":                                     {avps: without(good, avp.OriginHost), result: 5005, failed: avp.OriginHost},
		"no Destination-Realm":                               {avps: without(good, avp.DestinationRealm), result: 5005, failed: avp.DestinationRealm},
		"Accounting-Record-Type 9 (5004)":                    {avps: avp.AppendUint32(without(good, avp.AccountingRecordType), avp.AccountingRecordType, 0, m, 9), result: 5004, failed: avp.AccountingRecordType},
		"a counter of four octets (5014)":                    {avps: avp.AppendUint32(without(good, avp.AccountingInputOctets), avp.AccountingInputOctets, 0, m, 9), result: 5014, failed: avp.AccountingInputOctets},
		"two Session-Ids (5009)":                             {avps: avp.AppendString(slices.Clone(good), avp.SessionID, 0, m, "x"), result: 5009, failed: avp.SessionID},
		"an unknown AVP with the M bit (5001)":               {avps: avp.AppendUint32(slices.Clone(good), 9999, 0, m, 9), result: 5001, failed: 9999},
		"an unknown AVP of a vendor with the M bit":          {avps: avp.AppendUint32(slices.Clone(good), 9999, 10415, m, 9), result: 5001, failed: 9999},
		"an unknown AVP without the M bit is ignored (4.1)":  {avps: avp.AppendUint32(slices.Clone(good), 9999, 0, 0, 9), result: 2001},
		"an AVP that is longer than the message":             {avps: append(slices.Clone(good), 0, 0, 1, 7, 0x40, 0, 1, 0), result: 5014, failed: avp.OriginHost - 1},
		"another application (3007)":                         {header: avp.Header{Flags: request0.Flags, Command: 271, Application: 4}, avps: good, result: 3007},
		"another command (3001)":                             {header: avp.Header{Flags: request0.Flags, Command: 272, Application: 3}, avps: good, result: 3001},
		"another realm (3003)":                               {avps: avp.AppendString(without(good, avp.DestinationRealm), avp.DestinationRealm, 0, m, "else.example"), result: 3003},
		"Session-Id is not the first AVP, which many accept": {avps: append(without(good, avp.SessionID), avp.AppendString(nil, avp.SessionID, 0, m, "s;1")...), result: 2001},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address, _ := start(t, Config{Store: storeFunc(stored), Realms: []string{"HOME.example"}})
			c := mustDial(t, address)
			h := test.header
			if h == (avp.Header{}) {
				h = request0
			}
			h.HopByHop, h.EndToEnd = 7, 8
			proxy := avp.Append(nil, avp.ProxyInfo, 0, m, avp.AppendString(nil, avp.ProxyHost, 0, m, "relay.example"))
			if err := c.conn.Send(build(h, append(proxy, test.avps...))); err != nil {
				t.Fatal(err)
			}
			a := <-c.answers
			if a.Command != h.Command || a.Application != h.Application || a.HopByHop != 7 || a.EndToEnd != 8 || a.Request() || a.Flags&avp.FlagProxiable == 0 {
				t.Errorf("header %+v", a.Header)
			}
			if got := u32(a, avp.ResultCodeAVP); got != test.result || a.Flags&avp.FlagError != 0 != (test.result/1000 == 3) {
				t.Errorf("Result-Code %d with flags %#x, want %d", got, a.Flags, test.result)
			}
			if first, _, err := avp.Next(a.AVPs()); err != nil || first.Code != avp.SessionID && !strings.HasPrefix(name, "no Session-Id") {
				t.Errorf("the first AVP is %d", first.Code)
			}
			if p, ok := avp.Find(a.AVPs(), avp.ProxyInfo, 0); !ok || !slices.Equal(p.Append(nil), proxy) {
				t.Errorf("Proxy-Info %x", p.Data)
			}
			for _, code := range []uint32{avp.OriginHost, avp.OriginRealm} {
				if _, ok := avp.Find(a.AVPs(), code, 0); !ok {
					t.Errorf("no AVP %d", code)
				}
			}
			if test.result == 2001 && (u32(a, avp.AccountingRecordType) != 3 || u32(a, avp.AccountingRecordNumber) != 1 || u32(a, avp.AcctApplicationID) != 3) {
				t.Errorf("answer %x", a.Octets)
			}
			group, ok := avp.Find(a.AVPs(), avp.FailedAVP, 0)
			if ok != (test.failed != 0) {
				t.Errorf("Failed-AVP: %v", ok)
			}
			if inner, _, _ := avp.Next(append(group.Data, make([]byte, 8)...)); ok && inner.Code != test.failed {
				t.Errorf("AVP %d in Failed-AVP, want %d", inner.Code, test.failed)
			}
		})
	}
}

// Acct-Interim-Interval is for sessions that go on (RFC 6733, Section 9.8.2).
func TestInterimInterval(t *testing.T) {
	const none = 0
	_, address, _ := start(t, Config{Store: storeFunc(stored), InterimInterval: 5 * time.Minute})
	c := mustDial(t, address)
	for _, test := range []struct {
		kind acct.RecordType
		want uint32
	}{{acct.Start, 300}, {acct.Interim, 300}, {acct.Stop, none}, {acct.Event, none}} {
		r := record(1)
		r.Type = test.kind
		if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, r, options))); err != nil {
			t.Fatal(err)
		}
		if got := u32(<-c.answers, avp.AcctInterimInterval); got != test.want {
			t.Errorf("%v: interval %d, want %d", test.kind, got, test.want)
		}
	}
	for _, wrong := range []time.Duration{-time.Second, time.Millisecond, 1 << 32 * time.Second} {
		if _, err := New(Config{OriginHost: "a.example", OriginRealm: "example", Store: storeFunc(stored), InterimInterval: wrong}); err == nil {
			t.Errorf("an interval of %v is taken", wrong)
		}
	}
}

// TestStoresThenAnswers: the CDR is what was sent, and nothing is answered
// before Store has returned.
func TestStoresThenAnswers(t *testing.T) {
	got, release := make(chan acct.CDR, 1), make(chan struct{})
	s, address, stop := start(t, Config{Store: storeFunc(func(cdrs []acct.CDR) ([]acct.Outcome, error) {
		cdr := cdrs[0]
		cdr.AVPs = slices.Clone(cdr.AVPs)
		got <- cdr
		<-release
		return stored(cdrs)
	})})
	c := mustDial(t, address)
	h := request0
	h.Flags |= avp.FlagRetransmitted
	avps := dict.For(0).AppendRecord(nil, record(4), options)
	if err := c.conn.Send(build(h, avps)); err != nil {
		t.Fatal(err)
	}
	cdr := <-got
	select {
	case a := <-c.answers:
		t.Fatalf("answered %+v before it is stored", a.Header)
	default:
	}
	close(release)
	<-c.answers
	if cdr.At.IsZero() || cdr.Content != dict.ContentDigest(avps) || !slices.Equal(cdr.AVPs, avps) {
		t.Errorf("CDR %+v", cdr)
	}
	r := record(4)
	want := acct.CDR{
		OriginHost: "bridge.visited.example", OriginRealm: "visited.example", SessionID: r.SessionID, Number: 4, Type: acct.Interim,
		MultiSessionID: "m;1", User: "ann", SessionTime: time.Minute, Usage: r.Usage, Retransmitted: true,
	}
	if !cdr.Event.Equal(r.Event) {
		t.Errorf("Event-Timestamp %v", cdr.Event)
	}
	cdr.Event, cdr.At, cdr.AVPs, cdr.Content = time.Time{}, time.Time{}, nil, [32]byte{}
	if cdr.OriginHost != want.OriginHost || cdr.SessionID != want.SessionID || cdr.Usage != want.Usage || cdr.User != want.User ||
		cdr.Number != 4 || cdr.Type != want.Type || !cdr.Retransmitted || cdr.SessionTime != want.SessionTime || cdr.MultiSessionID != "m;1" || cdr.OriginRealm != want.OriginRealm {
		t.Errorf("CDR %+v, want %+v", cdr, want)
	}
	stop()
	var left *peer.DisconnectError
	if err := <-c.end; !errors.As(err, &left) || left.Cause != avp.Rebooting {
		t.Errorf("the server leaves with %v", err)
	}
	if got := s.Stats(); got.Requests != 1 || got.Stored != 1 || got.Answered != 1 || got.Retransmitted != 1 || got.Connections != 1 || got.Open != 0 {
		t.Errorf("stats %+v", got)
	}
}

// TestOutcomes: duplicates and conflicts are answered as stored; a store that
// fails makes 4002 or 3004, and the server goes on.
func TestOutcomes(t *testing.T) {
	var mu sync.Mutex
	next := func([]acct.CDR) ([]acct.Outcome, error) { panic("not set") }
	s, address, _ := start(t, Config{Store: storeFunc(func(cdrs []acct.CDR) ([]acct.Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		return next(cdrs)
	})})
	c := mustDial(t, address)
	for _, step := range []struct {
		outcome acct.Outcome
		err     error
		result  uint32
	}{
		{acct.Stored, nil, 2001}, {acct.Duplicate, nil, 2001}, {acct.Conflict, nil, 2001},
		{0, errors.New("disk is full"), 4002}, {0, context.DeadlineExceeded, 3004}, {acct.Stored, nil, 2001},
	} {
		mu.Lock()
		next = func([]acct.CDR) ([]acct.Outcome, error) {
			if step.err != nil {
				return nil, step.err
			}
			return []acct.Outcome{step.outcome}, nil
		}
		mu.Unlock()
		if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, record(1), options))); err != nil {
			t.Fatal(err)
		}
		if got := u32(<-c.answers, avp.ResultCodeAVP); got != step.result {
			t.Errorf("%v, %v: Result-Code %d, want %d", step.outcome, step.err, got, step.result)
		}
	}
	if got := s.Stats(); got.Stored != 2 || got.Duplicates != 1 || got.Conflicts != 1 || got.Failed != 2 {
		t.Errorf("stats %+v", got)
	}
}

// A relay that lost its connection sends what was unanswered once more, on
// another and with the T flag, its own Hop-by-Hop Identifier, Proxy-Info and a
// Route-Record (RFC 6733, Sections 5.5.4 and 6.1.9): to the store it is the same
// record, and the answer goes back with what the relay needs.
func TestRelayRequeues(t *testing.T) {
	cdrs := make(chan acct.CDR, 3)
	_, address, _ := start(t, Config{Store: storeFunc(func(list []acct.CDR) ([]acct.Outcome, error) {
		for _, c := range list {
			cdrs <- c
		}
		return stored(list)
	})})
	content := dict.For(0).AppendRecord(nil, record(4), options)
	relayed := func(state string) []byte {
		b := avp.AppendString(slices.Clone(content), avp.RouteRecord, 0, avp.FlagMandatory, "bridge.visited.example")
		info := avp.AppendString(nil, avp.ProxyHost, 0, avp.FlagMandatory, "relay.example")
		return avp.Append(b, avp.ProxyInfo, 0, avp.FlagMandatory, avp.AppendString(info, avp.ProxyState, 0, avp.FlagMandatory, state))
	}
	again := request0
	again.Flags |= avp.FlagRetransmitted
	again.HopByHop += 100
	for i, step := range []struct {
		header avp.Header
		avps   []byte
		proxy  string
	}{{request0, content, ""}, {request0, relayed("one"), "one"}, {again, relayed("two"), "two"}} {
		c, err := dial(t, address, fmt.Sprintf("relay%d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.conn.Send(build(step.header, step.avps)); err != nil {
			t.Fatal(err)
		}
		a := <-c.answers
		info, _ := avp.Find(a.AVPs(), avp.ProxyInfo, 0)
		proxy, _ := avp.Find(info.Data, avp.ProxyState, 0)
		if a.HopByHop != step.header.HopByHop || a.EndToEnd != step.header.EndToEnd || string(proxy.Data) != step.proxy || u32(a, avp.ResultCodeAVP) != 2001 {
			t.Errorf("copy %d is answered %+v, Proxy-State %q", i, a.Header, proxy.Data)
		}
	}
	first, second, third := <-cdrs, <-cdrs, <-cdrs
	if first.Content != second.Content || second.Content != third.Content {
		t.Error("the copies differ in content")
	}
	if first.Retransmitted || second.Retransmitted || !third.Retransmitted {
		t.Error("the T flag is not kept")
	}
}

// TestBatches: while one batch is being stored, the next fills; answers keep
// their order.
func TestBatches(t *testing.T) {
	release := make(chan struct{})
	var sizes []int
	_, address, stop := start(t, Config{Batch: 300, Store: storeFunc(func(cdrs []acct.CDR) ([]acct.Outcome, error) {
		<-release
		sizes = append(sizes, len(cdrs))
		return stored(cdrs)
	})})
	c := mustDial(t, address)
	var b []byte
	for i := range uint32(1000) {
		h := request0
		h.EndToEnd = i
		b = append(b, build(h, dict.For(0).AppendRecord(nil, record(i), options))...)
	}
	if err := c.conn.Send(b); err != nil {
		t.Fatal(err)
	}
	close(release)
	for i := range uint32(1000) {
		if a := <-c.answers; a.EndToEnd != i || u32(a, avp.AccountingRecordNumber) != i {
			t.Fatalf("answer %d has End-to-End Identifier %d", i, a.EndToEnd)
		}
	}
	stop()
	if slices.Max(sizes) > 300 || len(sizes) > 50 {
		t.Errorf("batches of %v", sizes)
	}
}

func TestAdmission(t *testing.T) {
	s, address, stop := start(t, Config{Store: storeFunc(stored), Peers: []Peer{{Host: "bridge.visited.example"}}})
	var refused *peer.Refusal
	if _, err := dial(t, address, "evil.example"); !errors.As(err, &refused) || refused.Code != avp.ResultUnknownPeer {
		t.Errorf("a stranger gets %v", err)
	}
	other, err := New(Config{OriginHost: "a.example", OriginRealm: "example", Store: storeFunc(stored), Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	if other.allowed(&net.TCPAddr{IP: net.IP{127, 0, 0, 1}}) || !other.allowed(&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.7")}) {
		t.Error("addresses are not judged by Config.Allow")
	}
	if s.allowed(&net.TCPAddr{IP: net.IP{192, 0, 2, 1}}) || !s.allowed(&net.TCPAddr{IP: net.IPv6loopback}) {
		t.Error("without Config.Allow, loopback alone may connect")
	}
	stop()
	if got := s.Stats(); got.Refused != 1 || got.Connections != 0 {
		t.Errorf("stats %+v", got)
	}
}

// FuzzRequest sends whatever as the AVPs of a request: it is answered, with
// 2001 only if a CDR was stored.
func FuzzRequest(f *testing.F) {
	good := dict.For(0).AppendRecord(nil, record(1), options)
	f.Add(good, uint32(3))
	f.Add(without(good, avp.SessionID), uint32(3))
	f.Add(avp.AppendUint32(slices.Clone(good), 9999, 0, avp.FlagMandatory, 9), uint32(3))
	f.Add(good[:len(good)-3], uint32(3))
	f.Add([]byte{}, uint32(4))
	f.Add(dict.For(0).AppendRecord(nil, flowRecord(), options), uint32(3))
	part := flowRecord()
	part.Part, part.Parts, part.MultiSessionID = 1, 2, "m;1"
	f.Add(dict.For(0).AppendRecord(nil, part, options), uint32(3))
	f.Add(avp.AppendString(slices.Clone(good), avp.RouteRecord, 0, avp.FlagMandatory, "acct.home.example"), uint32(3))
	f.Add(avp.AppendString(without(good, avp.DestinationRealm), avp.DestinationRealm, 0, avp.FlagMandatory, "far.example"), uint32(3))
	s, err := New(Config{
		OriginHost: "acct.home.example", OriginRealm: "home.example", Store: storeFunc(stored),
		Pipeline: new(pipeline), Flows: true, Forward: []string{"far.example"}, Peers: []Peer{{Host: "bridge.visited.example", Realms: []string{"visited.example"}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, avps []byte, application uint32) {
		if len(avps) > 1<<16 {
			return
		}
		avps = avps[:len(avps)&^3]
		h := request0
		h.Application = application
		octets := build(h, avps)
		h, _, err := avp.ParseMessage(octets)
		if err != nil {
			t.Fatal(err)
		}
		r := request{message: peer.Message{Header: h, Octets: octets}, speaker: &s.cfg.Peers[0]}
		s.read(&r)
		if r.task == acct.RequestFlows {
			record, err := dict.For(0).ParseRecord(avps)
			if err != nil || record.Parts <= 1 && dict.For(0).CheckFlow(record.Flow) != nil {
				t.Errorf("the Pipeline gets %x (%v)", avps, err)
			}
		}
		if r.result == 0 {
			if r.cdr.SessionID == "" || r.cdr.Type < acct.Event || r.cdr.Type > acct.Stop || r.cdr.OriginHost == "" {
				t.Errorf("accepted %+v", r.cdr)
			}
			r.result = avp.ResultSuccess
		}
		answer := s.appendAnswer(nil, &r, s.node())
		if _, body, err := avp.ParseMessage(answer); err != nil || avp.Check(body) != nil {
			t.Errorf("answer %x: %v", answer, err)
		}
	})
}

func BenchmarkServer(b *testing.B) {
	_, address, _ := start(b, Config{Store: storeFunc(stored)})
	nc, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	cer := peerRequest(b)
	if _, err := nc.Write(cer); err != nil {
		b.Fatal(err)
	}
	head := make([]byte, 4096)
	if _, err := nc.Read(head); err != nil {
		b.Fatal(err)
	}
	one := build(request0, dict.For(0).AppendRecord(nil, record(1), options))
	const window = 256
	batch := slices.Concat(slices.Repeat([][]byte{one}, window)...)
	var size int
	b.ReportAllocs()
	for b.Loop() {
		if _, err := nc.Write(batch); err != nil {
			b.Fatal(err)
		}
		if size == 0 {
			if _, err := io.ReadFull(nc, head[:4]); err != nil {
				b.Fatal(err)
			}
			size = int(head[2])<<8 | int(head[3])
			_, err = io.CopyN(io.Discard, nc, int64(size*window-4))
		} else {
			_, err = io.CopyN(io.Discard, nc, int64(size*window))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/window, "ns/ACR")
}

// peerRequest returns a CER.
func peerRequest(tb testing.TB) []byte {
	tb.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go peer.Connect(context.Background(), near, peer.Config{Node: peer.Node{OriginHost: "bench.example", OriginRealm: "example"}, Handler: &caller{}}) //nolint:errcheck // cut off below
	head := make([]byte, 4096)
	n, err := far.Read(head)
	if err != nil {
		tb.Fatal(err)
	}
	return head[:n]
}
