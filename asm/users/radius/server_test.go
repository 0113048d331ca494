package radius

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"tollbridge/asm/users"
)

// patience bounds every wait for what takes moments.
const patience = 20 * time.Second

// A journal keeps events in memory. They are durable at once, unless it is
// held.
type journal struct {
	mu      sync.Mutex
	events  []users.Event
	held    chan struct{} // closed to let go; nil for never held
	failure error         // of Wait
}

func (j *journal) Append(e users.Event) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
	return uint64(len(j.events)), nil
}

func (j *journal) Wait(ctx context.Context, _ uint64) error {
	if j.held != nil {
		select {
		case <-j.held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return j.failure
}

func (j *journal) ids() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []string
	for _, e := range j.events {
		all = append(all, e.Kind.String()+" "+e.ID)
	}
	return all
}

// A running server serves one socket of a test.
type running struct {
	*testing.T
	*Server
	journal *journal
	address netip.AddrPort
	log     *bytes.Buffer // read it after the end
	stop    context.CancelFunc
	ended   chan error
}

func serve(t *testing.T, listen string, j *journal, cfg Config) *running {
	t.Helper()
	r := &running{T: t, journal: j, log: new(bytes.Buffer), ended: make(chan error, 1)}
	cfg.Journal, cfg.Log = j, slog.New(slog.NewTextHandler(r.log, nil))
	if cfg.Clients == nil {
		cfg.Clients = []Client{edge()}
	}
	var err error
	if r.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	network := "udp"
	if strings.HasPrefix(listen, "0.0.0.0:") {
		network = "udp4" // else it is all of IPv6 too
	}
	conn, err := net.ListenPacket(network, listen)
	if err != nil {
		t.Fatal(err)
	}
	r.address = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- r.Serve(ctx, conn.(*net.UDPConn)) }()
	return r
}

// end stops the server and returns what it logged.
func (r *running) end() string {
	r.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.Error(err)
	}
	return r.log.String()
}

// until waits for a condition of the client's counters.
func (r *running) until(what string, is func(ClientStats) bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !is(r.Stats().Clients["edge"]) {
		select {
		case <-ctx.Done():
			r.Fatalf("never %s: %+v", what, r.Stats())
		case <-look.C:
		}
	}
}

// A testNAS sends packets from one port to one address.
type testNAS struct {
	*testing.T
	net.Conn
}

func (r *running) dial(host string) testNAS {
	r.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(r.address.Port())))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.Fatal(err)
	}
	return testNAS{r.T, c}
}

func encode(t *testing.T, p *radius.Packet) []byte {
	t.Helper()
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signed gives a packet a Message-Authenticator.
func signed(t *testing.T, p *radius.Packet, secret []byte) []byte {
	t.Helper()
	p.Set(rfc2869.MessageAuthenticator_Type, make([]byte, 16))
	b, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	at, err := findMessageAuthenticator(b)
	if err != nil {
		t.Fatal(err)
	}
	copy(p.Get(rfc2869.MessageAuthenticator_Type), messageAuthenticator(b, at, p.Code, secret))
	return encode(t, p)
}

func (n testNAS) send(b []byte) {
	n.Helper()
	if _, err := n.Write(b); err != nil {
		n.Fatal(err)
	}
}

func (n testNAS) receive() []byte {
	n.Helper()
	b := make([]byte, radius.MaxPacketLength)
	length, err := n.Read(b)
	if err != nil {
		n.Fatal(err)
	}
	return b[:length]
}

// exchange sends a request and returns the response, which must be to it.
func (n testNAS) exchange(request []byte) []byte {
	n.Helper()
	n.send(request)
	b := n.receive()
	if !radius.IsAuthenticResponse(b, request, secret) || radius.Code(b[0]) != radius.CodeAccountingResponse || b[1] != request[1] {
		n.Fatalf("%x is no Accounting-Response to %x", b, request)
	}
	return b
}

func start(t *testing.T, id int) []byte {
	return encode(t, request(rfc2866.AcctStatusType_Value_Start, session, func(p *radius.Packet) {
		p.Identifier = byte(id)
		rfc2866.AcctSessionID_SetString(p, fmt.Sprint(id))
	}))
}

func TestResponseOnlyWhenDurable(t *testing.T) {
	j := &journal{held: make(chan struct{})}
	r := serve(t, "127.0.0.1:0", j, Config{})
	nas := r.dial("127.0.0.1")
	first := start(t, 1)
	nas.send(first)
	nas.send(first) // the NAS grows impatient
	nas.send(first)
	nas.send(start(t, 2))
	r.until("two journaled, two repetitions coalesced", func(s ClientStats) bool { return s.Starts == 2 && s.Coalesced == 2 })
	if s := r.Stats().Clients["edge"]; s.Answered != 0 {
		t.Fatalf("%d answers before anything is durable", s.Answered)
	}
	close(j.held)
	answer := nas.receive()
	if other := nas.receive(); answer[1] != 1 || other[1] != 2 {
		t.Fatalf("answers to %d and %d, want 1 and 2", answer[1], other[1])
	}
	if again := nas.exchange(first); !bytes.Equal(again, answer) {
		t.Errorf("a repetition is answered %x, not %x as before", again, answer)
	}
	r.end()
	if s := r.Stats().Clients["edge"]; s.Answered != 3 || s.Repeated != 1 || len(j.ids()) != 2 {
		t.Errorf("%+v and events %q", s, j.ids())
	}
}

// TestOrder sends the whole life of sessions at once: the journal has it in
// the order in which it came.
func TestOrder(t *testing.T) {
	r := serve(t, "127.0.0.1:0", new(journal), Config{})
	nas := r.dial("127.0.0.1")
	var want []string
	for i := range 60 {
		for _, k := range []struct {
			status rfc2866.AcctStatusType
			kind   users.EventKind
		}{{rfc2866.AcctStatusType_Value_Start, users.Begin}, {rfc2866.AcctStatusType_Value_InterimUpdate, users.Update}, {rfc2866.AcctStatusType_Value_Stop, users.End}} {
			nas.send(encode(t, request(k.status, session, func(p *radius.Packet) { rfc2866.AcctSessionID_SetString(p, fmt.Sprint(i)) })))
			want = append(want, fmt.Sprintf("%v edge/bng-1/192.0.2.1/%d", k.kind, i))
		}
	}
	for range want {
		nas.receive()
	}
	r.end()
	if got := r.journal.ids(); !slices.Equal(got, want) {
		t.Errorf("events\n%q\nwant\n%q", got, want)
	}
}

func TestOverloadIsNotAnswered(t *testing.T) {
	j := &journal{held: make(chan struct{})}
	r := serve(t, "127.0.0.1:0", j, Config{MaxWaiting: 4})
	nas := r.dial("127.0.0.1")
	for i := range 5 {
		nas.send(start(t, i))
	}
	r.until("three too many", func(s ClientStats) bool { return s.Overload == 3 })
	close(j.held)
	nas.receive()
	nas.receive()
	nas.exchange(start(t, 4)) // repeated, it is taken
	r.end()
	if got := len(j.ids()); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
}

func TestDiscarded(t *testing.T) {
	other := []byte("another secret")
	status := func(secret []byte) []byte { return signed(t, radius.New(radius.CodeStatusServer, secret), secret) }
	resign := func(b []byte) []byte { // as one who knows the secret would
		copy(b[4:], requestAuthenticator(b, secret))
		return b
	}
	wrongLength := func(n byte) []byte {
		b := start(t, 1)
		b[3] = n
		return resign(b)
	}
	padded := append(start(t, 3), 1, 2, 3)

	for _, c := range []struct {
		name     string
		required bool
		packet   []byte
		cause    Cause
		answered bool
	}{
		{name: "an Accounting-Request", packet: start(t, 1), answered: true},
		{name: "octets beyond Length are padding (2865, 3)", packet: padded, answered: true},
		{name: "with Message-Authenticator (2869, 5.14)", packet: signed(t, request(rfc2866.AcctStatusType_Value_Start, session), secret), required: true, answered: true},
		{name: "Status-Server (5997, 4.2)", packet: status(secret), answered: true},

		{name: "19 octets", packet: start(t, 1)[:19], cause: CauseLength},
		{name: "Length below 20 (2865, 3)", packet: wrongLength(19), cause: CauseLength},
		{name: "Length beyond the datagram (2865, 3)", packet: wrongLength(255), cause: CauseLength},
		{name: "an attribute beyond the packet (2865, 5)", packet: func() []byte { b := start(t, 1); b[headerLength+1] = 255; return resign(b) }(), cause: CauseLength},
		{name: "Access-Request", packet: encode(t, radius.New(radius.CodeAccessRequest, secret)), cause: CauseCode},
		{name: "Accounting-Response", packet: encode(t, radius.New(radius.CodeAccountingResponse, secret)), cause: CauseCode},
		{name: "Request Authenticator of another secret (2866, 3)", packet: encode(t, func() *radius.Packet {
			p := request(rfc2866.AcctStatusType_Value_Start, session)
			p.Secret = other
			return p
		}()), cause: CauseAuthenticator},
		{name: "an octet changed on the way", packet: func() []byte { b := start(t, 1); b[len(b)-1]++; return b }(), cause: CauseAuthenticator},
		{name: "Message-Authenticator of another secret", packet: signed(t, request(rfc2866.AcctStatusType_Value_Start, session), other), cause: CauseMessageAuthenticator},
		{name: "Message-Authenticator missing though required", required: true, packet: start(t, 1), cause: CauseMessageAuthenticator},
		{name: "Message-Authenticator of 4 octets", packet: encode(t, request(rfc2866.AcctStatusType_Value_Start, session, raw(rfc2869.MessageAuthenticator_Type, "00000000"))), cause: CauseMessageAuthenticator},
		{name: "Status-Server of another secret (5997, 3)", packet: status(other), cause: CauseMessageAuthenticator},
		{name: "Status-Server without Message-Authenticator (5997, 3)", packet: encode(t, radius.New(radius.CodeStatusServer, secret)), cause: CauseMessageAuthenticator},
		{name: "no Acct-Status-Type", packet: encode(t, request(0, session)), cause: CauseAttribute},
	} {
		t.Run(c.name, func(t *testing.T) {
			own := edge()
			own.RequireMessageAuthenticator = c.required
			r := serve(t, "127.0.0.1:0", new(journal), Config{Clients: []Client{own}})
			nas := r.dial("127.0.0.1")
			ping := status(secret)
			if c.answered {
				nas.exchange(c.packet)
			} else {
				nas.send(c.packet)
				nas.send(c.packet)
			}
			nas.exchange(ping) // nothing else was answered
			log, malformed := r.end(), r.Stats().Clients["edge"].Malformed
			switch {
			case c.answered && len(malformed) > 0:
				t.Errorf("malformed: %v", malformed)
			case !c.answered && (len(malformed) != 1 || malformed[c.cause] != 2 || len(r.journal.ids()) > 0):
				t.Errorf("malformed %v and events %q, want 2 for the %v", malformed, r.journal.ids(), c.cause)
			case !c.answered && strings.Count(log, "discarded") != 1:
				t.Errorf("it says more or less than once\n%s", log)
			}
			if strings.Contains(log, string(secret)) || strings.Contains(log, "alice") {
				t.Errorf("the log tells secrets:\n%s", log)
			}
		})
	}
}

func TestStrangersAreIgnored(t *testing.T) {
	near := edge()
	near.Prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.64/26")}
	// The longest prefix counts, so 127.0.0.65 shares another secret.
	far := Client{Name: "far", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.65/32"), netip.MustParsePrefix("2001:db8::/32")}, Secret: []byte("another")}
	r := serve(t, "127.0.0.1:0", new(journal), Config{Clients: []Client{near, far}})
	from := func(host string) testNAS {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)}, net.UDPAddrFromAddrPort(r.address))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return testNAS{t, c}
	}
	for range 2 {
		from("127.0.0.9").send(start(t, 1))
	}
	from("127.0.0.65").send(start(t, 1))
	from("127.0.0.66").exchange(start(t, 1))
	from("127.0.0.1").exchange(start(t, 2))
	log, s := r.end(), r.Stats()
	if s.Strangers != 2 || s.Clients["far"].Malformed[CauseAuthenticator] != 1 || s.Clients["edge"].Starts != 2 {
		t.Errorf("%+v", s)
	}
	if strings.Count(log, "127.0.0.9") != 1 {
		t.Errorf("the stranger is named more or less than once:\n%s", log)
	}
}

// TestResponseAttributes checks that a response has each Proxy-State in order
// (RFC 2866, Section 4.2), and a Message-Authenticator if the request has one.
func TestResponseAttributes(t *testing.T) {
	r := serve(t, "127.0.0.1:0", new(journal), Config{})
	p := request(rfc2866.AcctStatusType_Value_Start, session, func(p *radius.Packet) {
		p.Add(rfc2865.ProxyState_Type, []byte("inner"))
		p.Add(rfc2865.ProxyState_Type, []byte("outer"))
	})
	b := signed(t, p, secret)
	nas := r.dial("127.0.0.1")
	answer, err := radius.Parse(nas.exchange(b), secret)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range answer.Attributes[1:] {
		got = append(got, fmt.Sprintf("%d %s", a.Type, a.Attribute))
	}
	if want := []string{"33 inner", "33 outer"}; !slices.Equal(got, want) || answer.Attributes[0].Type != rfc2869.MessageAuthenticator_Type {
		t.Errorf("response has %v and then %q, want 80 and then %q", answer.Attributes[0].Type, got, want)
	}
	// RFC 2869, Section 5.14: with the authenticator of the request.
	copy(answer.Authenticator[:], b[4:])
	unsigned, err := answer.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if want := messageAuthenticator(unsigned, headerLength+2, answer.Code, secret); !hmac.Equal(want, answer.Attributes[0].Attribute) {
		t.Errorf("Message-Authenticator %x, want %x", answer.Attributes[0].Attribute, want)
	}
	r.end()
}

// TestAnswersFromTheAddressAsked has a server on all addresses of the host: a
// NAS takes an answer only from the address that it asked.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	own := edge()
	own.Prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for listen, hosts := range map[string][]string{"0.0.0.0:0": {"127.0.0.5"}, "[::]:0": {"127.0.0.5", "::1"}} {
		r := serve(t, listen, new(journal), Config{Clients: []Client{own}})
		for i, host := range hosts {
			r.dial(host).exchange(start(t, i))
		}
		r.end()
	}
}

func TestEndOfTheJournalEndsTheServer(t *testing.T) {
	failure := errors.New("the disk is gone")
	r := serve(t, "127.0.0.1:0", &journal{failure: failure}, Config{})
	r.dial("127.0.0.1").send(start(t, 1))
	if err := <-r.ended; !errors.Is(err, failure) {
		t.Errorf("it ended with %v", err)
	}
	if s := r.Stats().Clients["edge"]; s.Answered != 0 {
		t.Errorf("%+v", s)
	}
	r.stop()
}

func TestStopAnswersWhatIsJournaled(t *testing.T) {
	j := &journal{held: make(chan struct{})}
	r := serve(t, "127.0.0.1:0", j, Config{})
	nas := r.dial("127.0.0.1")
	nas.send(start(t, 1))
	r.until("journaled", func(s ClientStats) bool { return s.Starts == 1 })
	r.stop()
	close(j.held)
	nas.receive()
	r.end()
}

func TestWindowIsBounded(t *testing.T) {
	var w window
	key := func(i int) requestKey {
		return requestKey{identifier: byte(i), authenticator: [16]byte{byte(i >> 8), byte(i >> 16)}}
	}
	for i := range 3 * maxSeen {
		w.add(key(i), new(answer), arrival)
	}
	if len(w.answers) != maxSeen || len(w.order) != maxSeen || w.find(key(3*maxSeen-1)) == nil || w.find(key(0)) != nil {
		t.Errorf("%d answers, %d in order: want the latest %d", len(w.answers), len(w.order), maxSeen)
	}
	w.add(key(1<<20), new(answer), arrival.Add(windowLength+1))
	if len(w.answers) != 1 {
		t.Errorf("%d answers are remembered for too long", len(w.answers)-1)
	}
}

func TestNewRefuses(t *testing.T) {
	j := new(journal)
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"no journal", Config{}},
		{"a client without a name", Config{Journal: j, Clients: []Client{{Secret: secret}}}},
		{"a name that another NAS could have", Config{Journal: j, Clients: []Client{{Name: "a/b", Secret: secret}}}},
		{"no secret", Config{Journal: j, Clients: []Client{{Name: "a"}}}},
		{"an address of two", Config{Journal: j, Clients: []Client{edge(), {Name: "b", Secret: secret, Prefixes: edge().Prefixes}}}},
	} {
		if _, err := New(c.cfg); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}

// FuzzRequest throws datagrams at the entrance, with the right authenticator in
// its place so that more than the first check is tried.
func FuzzRequest(f *testing.F) {
	for _, p := range []*radius.Packet{
		request(rfc2866.AcctStatusType_Value_Start, session),
		request(rfc2866.AcctStatusType_Value_AccountingOn),
		request(rfc2866.AcctStatusType_Value_Stop, session, raw(rfc2865.VendorSpecific_Type, "000028af 0807 3232323031")),
		request(rfc2866.AcctStatusType_Value_InterimUpdate, session, raw(123, "00 38 20010db8 ff0001"), raw(80, strings.Repeat("00", 16))),
	} {
		b, err := p.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s, err := New(Config{Journal: new(journal), User: []AttributeType{{10415, 1}, {Type: 1}}})
	if err != nil {
		f.Fatal(err)
	}
	own := edge()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerLength {
			length := max(min(int(b[2])<<8|int(b[3]), len(b)), headerLength)
			copy(b[4:], requestAuthenticator(b[:length], secret))
		}
		var p *PacketError
		packet, err := parseRequest(b, &own)
		if err != nil {
			if !errors.As(err, &p) {
				t.Fatalf("%x: %v is no *PacketError", b, err)
			}
			return
		}
		if answer, err := response(packet, &own); err == nil && !radius.IsAuthenticResponse(answer, b, secret) {
			t.Fatalf("%x: no response to it", answer)
		}
		a, err := s.read(packet, &own, arrival)
		if err != nil && !errors.As(err, &p) {
			t.Fatalf("%x: %v is no *PacketError", b, err)
		}
		if err != nil || a.event.Kind == 0 {
			return
		}
		if again, err := users.ParseEvent(a.event.AppendBinary(nil)); err != nil || again.ID != a.event.ID {
			t.Fatalf("event %+v is not journaled as it is: %+v (%v)", a.event, again, err)
		}
	})
}
