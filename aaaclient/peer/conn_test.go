package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/dict/avp"
)

const mandatory = avp.FlagMandatory

var (
	bridge = Node{OriginHost: "bridge.visited.example", OriginRealm: "visited.example", StateID: 9}
	acctd  = Node{OriginHost: "acct.home.example", OriginRealm: "home.example"}
)

// recorder is a Handler that keeps what it gets.
type recorder struct {
	mu       sync.Mutex
	messages []Message
	flushes  int
	serves   bool
	flushed  chan int // the number of messages so far; nil for none
}

func (r *recorder) Receive(m Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Octets = slices.Clone(m.Octets)
	r.messages = append(r.messages, m)
	return r.serves
}

func (r *recorder) Flush() {
	r.mu.Lock()
	r.flushes++
	n := len(r.messages)
	r.mu.Unlock()
	if r.flushed != nil {
		r.flushed <- n
	}
}

func (r *recorder) Changed() {}

// A far is the other end of a connection, moved by hand.
type far struct {
	t  *testing.T
	nc net.Conn
}

func (f far) read() Message {
	f.t.Helper()
	head := make([]byte, avp.HeaderLen)
	if _, err := io.ReadFull(f.nc, head); err != nil {
		f.t.Fatalf("nothing came: %v", err)
	}
	h, err := avp.ParseHeader(head)
	if err != nil {
		f.t.Fatal(err)
	}
	b := make([]byte, h.Length)
	copy(b, head)
	if _, err := io.ReadFull(f.nc, b[avp.HeaderLen:]); err != nil {
		f.t.Fatal(err)
	}
	if err := avp.Check(b[avp.HeaderLen:]); err != nil {
		f.t.Fatalf("%x: %v", b, err)
	}
	return Message{h, b}
}

func (f far) expect(command uint32, request bool) Message {
	f.t.Helper()
	m := f.read()
	if m.Command != command || m.Request() != request {
		f.t.Fatalf("command %d with flags %#x came, want %d", m.Command, m.Flags, command)
	}
	return m
}

func (f far) write(b []byte) {
	f.t.Helper()
	if _, err := f.nc.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

func message(h avp.Header, avps ...[]byte) []byte {
	b := avp.AppendHeader(nil, h)
	b = append(b, slices.Concat(avps...)...)
	avp.SetLength(b)
	return b
}

// answer makes the answer to m.
func answer(m Message, result uint32, avps ...[]byte) []byte {
	h := m.Header
	h.Flags &^= avp.FlagRequest
	return message(h, append([][]byte{avp.AppendUint32(nil, avp.ResultCodeAVP, 0, mandatory, result)}, avps...)...)
}

func caps(n Node) []byte { return n.filled(nil).appendCapabilities(nil) }

// connected returns a connection that has exchanged capabilities as initiator,
// and its far end.
func connected(t *testing.T, cfg Config) (*Conn, far) {
	t.Helper()
	near, other := net.Pipe()
	f := far{t, other}
	if cfg.Node.OriginHost == "" {
		cfg.Node = bridge
	}
	type result struct {
		c   *Conn
		err error
	}
	made := make(chan result, 1)
	go func() {
		c, err := Connect(context.Background(), near, cfg)
		made <- result{c, err}
	}()
	f.write(answer(f.expect(avp.CommandCapabilitiesExchange, true), avp.ResultSuccess, caps(acctd)))
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.c, f
}

// start runs c and returns what Run returned, later.
func start(c *Conn) <-chan error {
	end := make(chan error, 1)
	go func() { end <- c.Run(context.Background()) }()
	return end
}

func TestConnect(t *testing.T) {
	u32 := func(code, v uint32) []byte { return avp.AppendUint32(nil, code, 0, mandatory, v) }
	origin := acctd.appendOrigin(nil)
	for name, test := range map[string]struct {
		reply  func(cer Message) []byte
		expect string
		check  func(error) bool
		ok     bool
	}{
		"success with a common application (5.3.2)": {ok: true, reply: func(m Message) []byte { return answer(m, 2001, caps(acctd)) }},
		"a relay takes every application (2.4)": {ok: true, reply: func(m Message) []byte {
			return answer(m, 2001, origin, u32(avp.AuthApplicationID, avp.ApplicationRelay))
		}},
		"a relay in Acct-Application-Id": {ok: true, reply: func(m Message) []byte {
			return answer(m, 2001, origin, u32(avp.AcctApplicationID, avp.ApplicationRelay))
		}},
		"an application within Vendor-Specific-Application-Id (6.11)": {ok: true, reply: func(m Message) []byte {
			group := append(u32(avp.VendorID, 10415), u32(avp.AcctApplicationID, 3)...)
			return answer(m, 2001, origin, avp.Append(nil, avp.VendorSpecificApplicationID, 0, mandatory, group))
		}},
		"Origin-Host compares without case (4.3.1)": {ok: true, expect: "ACCT.Home.Example", reply: func(m Message) []byte { return answer(m, 2001, caps(acctd)) }},
		"no common application": {
			reply: func(m Message) []byte { return answer(m, 2001, origin, u32(avp.AuthApplicationID, 4)) },
			check: func(err error) bool {
				var r *Refusal
				return errors.As(err, &r) && r.Code == avp.ResultNoCommonApplication && strings.Contains(err.Error(), "[4]")
			}},
		"the CEA refuses": {
			reply: func(m Message) []byte {
				return answer(m, 3010, origin, avp.AppendString(nil, avp.ErrorMessage, 0, 0, "who are you"))
			},
			check: func(err error) bool {
				var r *Refusal
				return errors.As(err, &r) && r.Code == 3010 && r.Message == "who are you"
			}},
		"another Origin-Host than configured": {expect: "other.example",
			reply: func(m Message) []byte { return answer(m, 2001, caps(acctd)) },
			check: func(err error) bool { return errors.Is(err, ErrIdentity) }},
		"no Origin-Host": {
			reply: func(m Message) []byte { return answer(m, 2001, u32(avp.AcctApplicationID, 3)) },
			check: func(err error) bool { var r *Refusal; return errors.As(err, &r) && r.Code == avp.ResultMissingAVP }},
		"the answer to another request": {
			reply: func(m Message) []byte { m.HopByHop++; return answer(m, 2001, caps(acctd)) },
			check: func(err error) bool { return errors.Is(err, ErrProtocol) }},
		"a request where the CEA should be": {
			reply: func(m Message) []byte { return m.Octets },
			check: func(err error) bool { return errors.Is(err, ErrProtocol) }},
		"Message Length below 20": {
			reply: func(Message) []byte { return []byte("\x01\x00\x00\x10aaaabbbbccccddddeeeeffff") },
			check: func(err error) bool { return errors.Is(err, ErrProtocol) }},
		"Message Length of 16 MiB": {
			reply: func(Message) []byte { return []byte("\x01\xff\xff\xfcaaaabbbbccccddddeeeeffff") },
			check: func(err error) bool { return errors.Is(err, ErrProtocol) }},
		"another protocol": {
			reply: func(Message) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") },
			check: func(err error) bool { return errors.Is(err, avp.ErrVersion) }},
		"an AVP that is longer than its message": {
			reply: func(m Message) []byte { return answer(m, 2001, []byte("\x00\x00\x01\x08\x40\x00\xff\x00")) },
			check: func(err error) bool { return errors.Is(err, avp.ErrLength) }},
	} {
		t.Run(name, func(t *testing.T) {
			near, other := net.Pipe()
			defer other.Close()
			f := far{t, other}
			got := make(chan error, 1)
			go func() {
				_, err := Connect(context.Background(), near, Config{Node: bridge, Peer: test.expect, Handler: &recorder{}})
				got <- err
			}()
			cer := f.expect(avp.CommandCapabilitiesExchange, true)
			for _, code := range []uint32{avp.OriginHost, avp.OriginRealm, avp.HostIPAddress, avp.VendorID, avp.ProductName, avp.OriginStateID, avp.AcctApplicationID} {
				if _, ok := avp.Find(cer.AVPs(), code, 0); !ok {
					t.Errorf("the CER has no AVP %d", code)
				}
			}
			go other.Write(test.reply(cer))
			err := <-got
			if test.ok != (err == nil) || !test.ok && !test.check(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestHostIPAddressOfIPv6(t *testing.T) {
	n := bridge.filled(&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Zone: "eth0"})
	a, ok := avp.Find(n.appendCapabilities(nil), avp.HostIPAddress, 0)
	addr, err := a.Addr()
	if !ok || err != nil || addr != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("Host-IP-Address %v, %v", addr, err)
	}
}

func TestCapabilitiesRoundTrip(t *testing.T) {
	want := Node{
		OriginHost: "a.example", OriginRealm: "example", StateID: 5, VendorID: 6, ProductName: "p", Firmware: 7,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")},
		Vendors:   []uint32{10415, 32473}, Accounting: []uint32{3, 4}, Auth: []uint32{1},
	}
	got, err := parseNode(want.appendCapabilities(nil))
	if err != nil || got.ProductName != want.ProductName || !slices.Equal(got.Addresses, want.Addresses) || !slices.Equal(got.Vendors, want.Vendors) ||
		!slices.Equal(got.Accounting, want.Accounting) || got.StateID != want.StateID || got.Firmware != want.Firmware {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAccept(t *testing.T) {
	for name, test := range map[string]struct {
		first  []byte // sent in place of a CER
		node   Node
		cfg    Config
		result uint32 // of the CEA; 0 for none
	}{
		"success":                   {node: bridge, result: 2001},
		"unknown peer (5.3)":        {node: bridge, result: 3010, cfg: Config{Admit: func(Node) error { return errors.New("unknown") }}},
		"another than configured":   {node: bridge, result: 3010, cfg: Config{Peer: "other.example"}},
		"our own Origin-Host":       {node: acctd, result: 3010},
		"no common application":     {node: Node{OriginHost: "a.example", OriginRealm: "example", Auth: []uint32{4}}, result: 5010},
		"a relay connects":          {node: Node{OriginHost: "a.example", OriginRealm: "example", Auth: []uint32{avp.ApplicationRelay}}, result: 2001},
		"no Origin-Realm":           {node: Node{OriginHost: "a.example"}, result: 5005},
		"Origin-Host is no FQDN":    {node: Node{OriginHost: "a b", OriginRealm: "example"}, result: 5004},
		"a DWR where CER should be": {first: message(avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDeviceWatchdog})},
		"garbage":                   {first: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaa")},
	} {
		t.Run(name, func(t *testing.T) {
			near, other := net.Pipe()
			defer other.Close()
			f := far{t, other}
			cfg := test.cfg
			cfg.Node, cfg.Handler = acctd, &recorder{}
			got := make(chan error, 1)
			go func() {
				_, err := Accept(context.Background(), near, cfg)
				got <- err
			}()
			if test.first == nil {
				test.first = message(avp.Header{Flags: avp.FlagRequest, Command: avp.CommandCapabilitiesExchange, HopByHop: 5, EndToEnd: 6}, caps(test.node))
			}
			go other.Write(test.first)
			if test.result != 0 {
				m := f.expect(avp.CommandCapabilitiesExchange, false)
				a, _ := avp.Find(m.AVPs(), avp.ResultCodeAVP, 0)
				if v, err := a.Uint32(); err != nil || v != test.result {
					t.Errorf("Result-Code %d, %v, want %d", v, err, test.result)
				}
				if m.HopByHop != 5 || m.EndToEnd != 6 || m.Flags&avp.FlagError != 0 != (test.result/1000 == 3) {
					t.Errorf("header %+v", m.Header)
				}
				if _, explained := avp.Find(m.AVPs(), avp.ErrorMessage, 0); explained != (test.result != 2001) {
					t.Errorf("Error-Message: %v", explained)
				}
			}
			if err := <-got; (err == nil) != (test.result == 2001) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestConnectTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, other := net.Pipe()
		defer other.Close()
		go io.Copy(io.Discard, other)
		before := time.Now()
		if _, err := Connect(context.Background(), near, Config{Node: bridge, Handler: &recorder{}}); err == nil {
			t.Error("a silent peer is taken")
		}
		if d := time.Since(before); d != DefaultTimeout {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestBaseProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &recorder{flushed: make(chan int, 9)}
		c, f := connected(t, Config{Handler: h})
		end := start(c)

		dwr := f.expect(avp.CommandDeviceWatchdog, true)
		if c.Status().Proven {
			t.Error("proven before an answer came")
		}
		f.write(answer(Message{avp.Header{Command: avp.CommandDeviceWatchdog, HopByHop: dwr.HopByHop + 1, EndToEnd: dwr.EndToEnd}, nil}, 2001, acctd.appendOrigin(nil)))
		synctest.Wait()
		if c.Status().Proven {
			t.Error("an answer with another Hop-by-Hop Identifier counts")
		}
		f.write(answer(dwr, 2001, acctd.appendOrigin(nil)))
		synctest.Wait()
		if s := c.Status(); !s.Proven || s.State != Okay {
			t.Errorf("%+v after a DWA", s)
		}

		f.write(message(avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDeviceWatchdog, HopByHop: 1, EndToEnd: 2}, acctd.appendOrigin(nil)))
		dwa := f.expect(avp.CommandDeviceWatchdog, false)
		if a, ok := avp.Find(dwa.AVPs(), avp.OriginStateID, 0); dwa.HopByHop != 1 || dwa.EndToEnd != 2 || !ok || a.Data[3] != 9 {
			t.Errorf("DWA %+v", dwa.Header)
		}

		f.write(message(avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: 999, Application: 12, HopByHop: 3, EndToEnd: 4},
			avp.AppendString(nil, avp.OriginHost, 0, mandatory, "x"), avp.AppendString(nil, avp.SessionID, 0, mandatory, "s;1")))
		unknown := f.expect(999, false)
		first, _, _ := avp.Next(unknown.AVPs())
		result, _ := avp.Find(unknown.AVPs(), avp.ResultCodeAVP, 0)
		if v, _ := result.Uint32(); v != avp.ResultCommandUnsupported || unknown.Flags != avp.FlagError|avp.FlagProxiable || first.Code != avp.SessionID || unknown.Application != 12 {
			t.Errorf("unknown command: result %d, header %+v, first AVP %d", v, unknown.Header, first.Code)
		}
		f.write(message(avp.Header{Flags: avp.FlagRequest | avp.FlagError, Command: 271, HopByHop: 3, EndToEnd: 4}))
		result, _ = avp.Find(f.expect(271, false).AVPs(), avp.ResultCodeAVP, 0)
		if v, _ := result.Uint32(); v != avp.ResultInvalidHeaderBits {
			t.Errorf("E bit in a request: result %d", v)
		}
		f.write(message(avp.Header{Flags: avp.FlagRequest, Command: avp.CommandCapabilitiesExchange, HopByHop: 3, EndToEnd: 4}, caps(acctd)))
		f.expect(avp.CommandCapabilitiesExchange, false)

		aca := message(avp.Header{Command: 271, HopByHop: 1})
		f.write(slices.Concat(aca, aca, aca))
		if n := <-h.flushed; n != 1 { // the unknown command
			t.Errorf("%d messages at the first Flush", n)
		}
		if n := <-h.flushed; n != 4 {
			t.Errorf("%d messages at the Flush of three, which came at once", n)
		}

		f.write(message(avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDisconnectPeer, HopByHop: 8, EndToEnd: 8},
			acctd.appendOrigin(nil), avp.AppendUint32(nil, avp.DisconnectCause, 0, mandatory, avp.Busy)))
		f.expect(avp.CommandDisconnectPeer, false)
		synctest.Wait()
		if !c.Status().Leaving {
			t.Error("not leaving after a DPR")
		}
		before := time.Now()
		var left *DisconnectError
		if err := <-end; !errors.As(err, &left) || left.Cause != avp.Busy {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(before); d != linger {
			t.Errorf("a peer that does not close is closed after %v", d)
		}
		if err := c.Send(aca); !errors.As(err, &left) {
			t.Errorf("Send on a closed connection: %v", err)
		}
	})
}

func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := connected(t, Config{Handler: &recorder{}})
		end := start(c)
		f.expect(avp.CommandDeviceWatchdog, true)
		go c.Disconnect(context.Background(), avp.DoNotWantToTalkToYou)
		dpr := f.expect(avp.CommandDisconnectPeer, true)
		if a, ok := avp.Find(dpr.AVPs(), avp.DisconnectCause, 0); !ok || a.Data[3] != 2 {
			t.Errorf("Disconnect-Cause %x", a.Data)
		}
		f.write(answer(dpr, 2001, acctd.appendOrigin(nil)))
		if err := <-end; !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a peer that does not answer
		c, f := connected(t, Config{Handler: &recorder{}})
		end := start(c)
		go io.Copy(io.Discard, f.nc)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Disconnect(ctx, avp.Rebooting)
		if err := <-end; !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := NewWatchdog(6 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		w.jitter = func() time.Duration { return 0 }
		c, f := connected(t, Config{Handler: &recorder{}, Watchdog: w})
		before := time.Now()
		end := start(c)
		f.write(answer(f.expect(avp.CommandDeviceWatchdog, true), 2001, acctd.appendOrigin(nil)))
		f.expect(avp.CommandDeviceWatchdog, true) // after 6 s; then silence
		if d := time.Since(before); d != 6*time.Second {
			t.Errorf("DWR after %v", d)
		}
		<-time.After(7 * time.Second)
		if s := c.Status().State; s != Suspect {
			t.Errorf("%v, want SUSPECT", s)
		}
		if err := <-end; !errors.Is(err, ErrSilent) {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(before); d != 18*time.Second {
			t.Errorf("given up after %v, want 3 Tw", d)
		}
		if s := w.State(); s != Down {
			t.Errorf("%v, want DOWN", s)
		}
	})
}

func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := connected(t, Config{Handler: &recorder{}, Timeout: 3 * time.Second})
		end := start(c)
		f.expect(avp.CommandDeviceWatchdog, true)
		before := time.Now()
		if err := c.Send(make([]byte, 2*maxBacklog)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer has taken them and nobody reads
		if err := c.Send(make([]byte, 2*maxBacklog)); err != nil {
			t.Fatal(err)
		}
		if err := c.Answer(make([]byte, maxBacklog)); err != nil || time.Now() != before {
			t.Errorf("an answer waits for requests to leave, or %v", err)
		}
		if err := c.Answer(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := <-end; err == nil {
			t.Error("a peer that does not read keeps its connection")
		}
		if d := time.Since(before); d != 3*time.Second {
			t.Errorf("given up after %v", d)
		}
	})
}

func TestLongMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &recorder{serves: true, flushed: make(chan int, 9)}
		c, f := connected(t, Config{Handler: h, MaxMessage: 200_000})
		end := start(c)
		f.expect(avp.CommandDeviceWatchdog, true)
		for i, n := range []int{readBuffer - 28, readBuffer, 150_000} {
			f.write(message(avp.Header{Command: 271}, avp.Append(nil, avp.Class, 0, 0, make([]byte, n))))
			<-h.flushed
			if got := len(h.messages[i].Octets); got != n+28 {
				t.Errorf("%d octets came of %d", got, n+28)
			}
		}
		f.write(message(avp.Header{Command: 271}, avp.Append(nil, avp.Class, 0, 0, make([]byte, 200_000)))[:avp.HeaderLen])
		if err := <-end; !errors.Is(err, ErrProtocol) {
			t.Errorf("Run: %v", err)
		}
	})
}

// FuzzRead feeds whatever comes behind a capabilities exchange.
func FuzzRead(f *testing.F) {
	request := avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDeviceWatchdog, HopByHop: 1, EndToEnd: 2}
	f.Add(message(request, acctd.appendOrigin(nil)))
	request.Command = avp.CommandDisconnectPeer
	f.Add(message(request, avp.AppendUint32(nil, avp.DisconnectCause, 0, mandatory, 2)))
	request.Command = avp.CommandCapabilitiesExchange
	f.Add(message(request, caps(acctd)))
	request.Command = 271
	f.Add(slices.Concat(message(request), message(avp.Header{Command: 271}, avp.AppendUint32(nil, avp.ResultCodeAVP, 0, mandatory, 2001))))
	f.Add([]byte("\x01\x00\x00\x13aaaabbbbccccddddeeeeffff"))
	f.Add([]byte("\x01\xff\xff\xfcaaaabbbbccccddddeeeeffff"))
	f.Fuzz(func(t *testing.T, octets []byte) {
		h := &recorder{serves: true}
		c, far := connected(t, Config{Handler: h, MaxMessage: 1 << 16})
		end := start(c)
		go io.Copy(io.Discard, far.nc)
		far.nc.Write(octets) //nolint:errcheck // the reader may give up before the end
		far.nc.Close()
		if err := <-end; err == nil {
			t.Error("Run returned nil")
		}
		var n int
		for _, m := range h.messages {
			n += len(m.Octets)
			if int(m.Length) != len(m.Octets) {
				t.Errorf("message of %d octets says %d", len(m.Octets), m.Length)
			}
		}
		if n > len(octets) {
			t.Errorf("%d octets were handed over of %d", n, len(octets))
		}
	})
}
