package aaaserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
)

// A pipeline keeps what it is given, unless it fails.
type pipeline struct {
	mu    sync.Mutex
	taken []acct.Request
	err   error
}

func (p *pipeline) Take(_ context.Context, requests []acct.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for _, r := range requests {
		r.AVPs = slices.Clone(r.AVPs)
		p.taken = append(p.taken, r)
	}
	return nil
}

func (p *pipeline) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// flowRecord is an EVENT that carries a flow, as an AAA client sends it.
func flowRecord() *acct.Record {
	t, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4}, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err != nil {
		panic(err)
	}
	flow, err := dict.For(0).AppendFlow(nil, t, []byte{192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 9})
	if err != nil {
		panic(err)
	}
	return &acct.Record{SessionID: "bridge.visited.example;1;9", Type: acct.Event, Usage: acct.Usage{InputOctets: 9}, Flow: dict.For(0).AppendExporter(flow, "edge-1")}
}

// Where a request goes is decided by what it says: to the pipeline with a flow
// and without a user, to its realm, or to the accounting application.
func TestWays(t *testing.T) {
	p := new(pipeline)
	s, address, _ := start(t, Config{Store: storeFunc(stored), Pipeline: p, Flows: true, Forward: []string{"far.example"}, Realms: []string{"home.example"}, Aliases: []string{"bridge.home.example"}})
	c := mustDial(t, address)
	d := dict.For(0)
	far := options
	far.DestinationRealm = "FAR.example"
	mapped := flowRecord()
	mapped.User = "ann"
	broken := flowRecord()
	broken.Flow = broken.Flow[:12]
	broken.Flow[7] = 12 // an empty Flow
	proxy := avp.Append(nil, avp.ProxyInfo, 0, avp.FlagMandatory, avp.AppendString(nil, avp.ProxyHost, 0, avp.FlagMandatory, "relay.example"))
	route := func(hosts ...string) (b []byte) {
		for _, h := range hosts {
			b = avp.AppendString(b, avp.RouteRecord, 0, avp.FlagMandatory, h)
		}
		return b
	}
	odd := avp.AppendUint32(nil, 9999, 10415, avp.FlagMandatory, 1)
	for _, step := range []struct {
		name   string
		avps   []byte
		result uint32
		task   acct.RequestTask
	}{
		{"a flow", d.AppendRecord(nil, flowRecord(), options), 2001, acct.RequestFlows},
		{"a flow of a known user", d.AppendRecord(nil, mapped, options), 2001, 0},
		{"a flow that can't be read", d.AppendRecord(nil, broken, options), 5004, 0},
		{"usage", d.AppendRecord(nil, record(1), options), 2001, 0},
		{"another realm", d.AppendRecord(nil, record(1), far), 2001, acct.RequestForward},
		{"another realm, with an AVP that only its server knows", append(d.AppendRecord(nil, record(1), far), odd...), 2001, acct.RequestForward},
		{"a flow for another realm", d.AppendRecord(nil, flowRecord(), far), 2001, acct.RequestForward},
		{"Route-Record of others (6.1.9)", append(d.AppendRecord(nil, record(1), far), route("a.example", "b.example")...), 2001, acct.RequestForward},
		{"Route-Record names this node (6.1.3: 3005)", append(d.AppendRecord(nil, record(1), far), route("a.example", "ACCT.home.example")...), 3005, 0},
		{"Route-Record names this node by its other name", append(d.AppendRecord(nil, record(1), options), route("bridge.home.example")...), 3005, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			p.taken = nil
			avps := append(slices.Clone(step.avps), proxy...)
			before := s.Stats()
			if err := c.conn.Send(build(request0, avps)); err != nil {
				t.Fatal(err)
			}
			a := <-c.answers
			if got := u32(a, avp.ResultCodeAVP); got != step.result {
				t.Fatalf("Result-Code %d, want %d", got, step.result)
			}
			if info, ok := avp.Find(a.AVPs(), avp.ProxyInfo, 0); !ok || !bytes.Equal(info.Append(nil), proxy) {
				t.Errorf("Proxy-Info %x (6.2: kept in answers)", info.Data)
			}
			if got := s.Stats(); got.Stored-before.Stored+got.Flows-before.Flows+got.Forwarded-before.Forwarded+got.Invalid-before.Invalid != 1 {
				t.Errorf("stats %+v, before %+v", got, before)
			}
			if step.task == 0 {
				if len(p.taken) != 0 {
					t.Errorf("the pipeline has %+v", p.taken)
				}
				return
			}
			want := avps
			if step.task == acct.RequestForward {
				want = append(want, route("bridge.visited.example")...)
			}
			if len(p.taken) != 1 || p.taken[0].Task != step.task || p.taken[0].Peer != "bridge.visited.example" || !bytes.Equal(p.taken[0].AVPs, want) {
				t.Errorf("the pipeline has %+v", p.taken)
			}
		})
	}
}

// A pipeline without room is 4002, one that is slow or stops 3004 (RFC 6733,
// Sections 7.1.4 and 7.1.3). The accounting application beside it goes on.
func TestNoRoom(t *testing.T) {
	p := new(pipeline)
	held := make(chan bool, 1)
	s, address, _ := start(t, Config{Store: storeFunc(stored), Pipeline: p, Flows: true, Held: func() (string, bool) {
		select {
		case <-held:
			return "the outbox is full", true
		default:
			return "", false
		}
	}})
	c := mustDial(t, address)
	flow, usage := dict.For(0).AppendRecord(nil, flowRecord(), options), dict.For(0).AppendRecord(nil, record(1), options)
	for _, step := range []struct {
		err    error
		held   bool
		result uint32
	}{
		{nil, false, 2001}, {nil, true, 4002}, {fmt.Errorf("stopping: %w", ErrBusy), false, 3004},
		{context.DeadlineExceeded, false, 3004}, {errors.New("disk is full"), false, 4002}, {nil, false, 2001},
	} {
		p.set(step.err)
		if step.held {
			held <- true
		}
		if err := c.conn.Send(append(build(request0, flow), build(request0, usage)...)); err != nil {
			t.Fatal(err)
		}
		if got := u32(<-c.answers, avp.ResultCodeAVP); got != step.result {
			t.Errorf("%+v: Result-Code %d, want %d", step, got, step.result)
		}
		if got := u32(<-c.answers, avp.ResultCodeAVP); got != 2001 {
			t.Errorf("%+v: beside it, Result-Code %d", step, got)
		}
	}
	if got := s.Stats(); got.Flows != 2 || got.Failed != 4 || got.Stored != 6 {
		t.Errorf("stats %+v", got)
	}
}

// Who may speak for whom.
func TestMaySpeak(t *testing.T) {
	client, relay := Peer{Host: "client.isp.example"}, Peer{Host: "relay.transit.example", Realms: []string{"visited.example", "other.example"}}
	for _, c := range []struct {
		name        string
		peer        Peer
		host, realm string
		want        bool
	}{
		{"a client for itself", client, "CLIENT.isp.example", "isp.example", true},
		{"a client for another", client, "bridge.isp.example", "isp.example", false},
		{"a client in a realm that its name does not lie in", client, "client.isp.example", "victim.example", false},
		{"a realm that is the end of its name, but no label", Peer{Host: "a.evilisp.example"}, "a.evilisp.example", "isp.example", false},
		{"a relay for a realm of its", relay, "nas7.visited.example", "Visited.example", true},
		{"a relay for another realm", relay, "nas7.home.example", "home.example", false},
		{"a relay for itself", relay, "relay.transit.example", "transit.example", true},
		{"a host that is named as its realm", Peer{Host: "isp.example"}, "isp.example", "isp.example", true},
	} {
		if got := c.peer.maySpeak(c.host, c.realm); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	_, address, _ := start(t, Config{Store: storeFunc(stored), Peers: []Peer{client, {Host: "bridge.visited.example"}}})
	c := mustDial(t, address)
	stranger := options
	stranger.OriginRealm = "victim.example"
	if err := c.conn.Send(build(request0, dict.For(0).AppendRecord(nil, record(1), stranger))); err != nil {
		t.Fatal(err)
	}
	a := <-c.answers
	failed, _ := avp.Find(a.AVPs(), avp.FailedAVP, 0)
	if inner, _, err := avp.Next(failed.Data); u32(a, avp.ResultCodeAVP) != avp.ResultAuthorizationRejected || err != nil || inner.Code != avp.OriginRealm {
		t.Errorf("answer %x", a.Octets)
	}
}

// Over TLS a node is who its certificate says (RFC 6733, Section 13.1), and
// why another is refused is logged, once.
func TestTLS(t *testing.T) {
	ours, theirs := certtest.NewAuthority(t), certtest.NewAuthority(t)
	files := ours.Write(ours.Issue("acct.home.example"))
	credentials, err := peer.LoadCredentials(files.Certificate, files.Key, files.CA, nil)
	if err != nil {
		t.Fatal(err)
	}
	var log safeBuffer
	s, err := New(Config{
		OriginHost: "acct.home.example", OriginRealm: "home.example", Store: storeFunc(stored),
		Peers: []Peer{{Host: "bridge.visited.example"}}, Credentials: credentials, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(ctx, ln) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	connect := func(certificate *tls.Certificate) error {
		cfg := &tls.Config{RootCAs: ours.Pool(), ServerName: "acct.home.example"}
		if certificate != nil {
			// Whatever authorities the server names.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
		}
		nc, err := tls.Dial("tcp", ln.Addr().String(), cfg)
		if err != nil {
			return err
		}
		c := &caller{answers: make(chan peer.Message, 1), end: make(chan error, 1)}
		conn, err := peer.Connect(ctx, nc, peer.Config{Node: peer.Node{OriginHost: "bridge.visited.example", OriginRealm: "visited.example"}, Handler: c, Timeout: 5 * time.Second})
		if err == nil {
			go conn.Run(ctx) //nolint:errcheck // ends with the test
		}
		return err
	}
	good, other, foreign := ours.Issue("bridge.visited.example"), ours.Issue("edge.visited.example"), theirs.Issue("bridge.visited.example")
	if err := connect(&good); err != nil {
		t.Error(err)
	}
	var refused *peer.Refusal
	for range 3 {
		if err := connect(&other); !errors.As(err, &refused) || refused.Code != avp.ResultUnknownPeer {
			t.Errorf("the certificate of another node gets %v", err)
		}
	}
	if err := connect(&foreign); err == nil {
		t.Error("the certificate of a stranger's authority is taken")
	}
	if err := connect(nil); err == nil {
		t.Error("no certificate is needed")
	}
	for line, want := range map[string]int{
		"the certificate is for edge.visited.example": 1,
		"signed by unknown authority":                 1,
		"didn't provide a certificate":                1,
	} {
		until(t, func() bool { return strings.Contains(log.String(), line) })
		if got := strings.Count(log.String(), line); got != want {
			t.Errorf("%d lines of %q:\n%s", got, line, log.String())
		}
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A cause is logged at first, and then once a minute with how many that
// stands for; of too many causes the count starts anew.
func TestCauses(t *testing.T) {
	var c causes
	at := time.Unix(1_800_000_000, 0)
	a, b := cause{"refused", "192.0.2.1"}, cause{"refused", "192.0.2.2"}
	for _, step := range []struct {
		k     cause
		after time.Duration
		times uint64
	}{{a, 0, 1}, {a, time.Second, 0}, {b, 0, 1}, {a, 30 * time.Second, 0}, {a, 30 * time.Second, 3}, {b, 0, 1}} {
		at = at.Add(step.after)
		if times, due := c.due(step.k, at); times != step.times || due != (step.times > 0) {
			t.Errorf("%+v: %d, %v", step, times, due)
		}
	}
	lines := 0
	for i := range 3 * maxCauses {
		if _, due := c.due(cause{"refused", fmt.Sprint(i)}, at); due {
			lines++
		}
	}
	if len(c.seen) > maxCauses || lines > maxLines {
		t.Errorf("%d causes are told apart, %d lines", len(c.seen), lines)
	}
}
