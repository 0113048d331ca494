package collect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tollbridge/ipfix"
)

// A memory is a Journal that keeps what it is given, and tells of each call
// on a channel.
type memory struct {
	message func(n int) error // nil accepts; called with the number of Messages before

	mu       sync.Mutex
	position uint64
	open     map[uint64]Session
	sessions []Session
	closed   []Session
	messages []string

	events chan string // "open", "message", "close"
}

func newMemory() *memory {
	return &memory{open: make(map[uint64]Session), events: make(chan string, 1<<17)}
}

func (m *memory) Open(_ time.Time, s Session) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.position++
	m.open[m.position] = s
	m.sessions = append(m.sessions, s)
	m.events <- "open"
	return m.position, nil
}

func (m *memory) Message(_ time.Time, session uint64, data []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.open[session]; !ok {
		return 0, fmt.Errorf("session %d is not open", session)
	}
	if m.message != nil {
		if err := m.message(len(m.messages)); err != nil {
			return 0, err
		}
	}
	m.position++
	m.messages = append(m.messages, string(data))
	m.events <- "message"
	return m.position, nil
}

func (m *memory) Close(_ time.Time, session uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.open[session]
	if !ok {
		return fmt.Errorf("session %d is not open", session)
	}
	delete(m.open, session)
	m.closed = append(m.closed, s)
	m.events <- "close"
	return nil
}

// await waits for n calls of a kind.
func (m *memory) await(t *testing.T, kind string, n int) {
	t.Helper()
	for n > 0 {
		select {
		case event := <-m.events:
			if event == kind {
				n--
			}
		case <-t.Context().Done():
			t.Fatalf("no %s in the journal", kind)
		case <-time.After(20 * time.Second):
			t.Fatalf("no %s in the journal after 20 s, %d missing", kind, n)
		}
	}
}

func newProcess(t testing.TB, cfg Config) *Process {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve runs f until the test stops it; stop returns its error.
func serve(t testing.TB, f func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { stop() })
	return stop
}

// message returns a well-formed Message of one Data Set that says n.
func message(n uint32) []byte {
	b := ipfix.Header{Length: 24, ExportTime: 1, Sequence: n, Domain: 7}.Append(nil)
	b = append(b, 1, 0, 0, 8)
	return binary.BigEndian.AppendUint32(b, n)
}

// malformed has one Message per cause that a datagram can show.
var malformed = []struct {
	name  string
	msg   []byte
	cause Cause
}{
	{"nothing at all", nil, CauseLength},
	{"shorter than a Message Header (9.1)", message(1)[:15], CauseLength},
	{"reserved Version (9.1)", append([]byte{0, 8}, message(1)[2:]...), CauseVersion},
	{"garbage", []byte("GET / HTTP/1.1\r\nHost: collector\r\n\r\n"), CauseVersion},
	{"Length below 16 (3.1)", append([]byte{0, 10, 0, 15}, message(1)[4:]...), CauseLength},
	{"shorter than its Length (9.1)", message(1)[:23], CauseLength},
	{"longer than its Length (9.1)", append(message(1), 0), CauseLength},
	{"Set Length below 4 (3.3.2)", append(message(1)[:18:18], 0, 3, 0, 0, 0, 0), CauseSet},
	{"Set longer than its Message (9.1)", append(message(1)[:16:16], 1, 0, 0, 9, 0, 0, 0, 0), CauseSet},
	{"Template ID below 256 (3.4.1)", append(message(1)[:16:16], 0, 2, 0, 8, 0, 255, 0, 1), CauseTemplate},
}

func TestNewRefuses(t *testing.T) {
	prefix := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"no journal", Config{}},
		{"a datagram longer than a Message can be", Config{Journal: newMemory(), MaxDatagram: 65536}},
		{"an exporter without a name", Config{Journal: newMemory(), Exporters: []Exporter{{Prefixes: prefix}}}},
		{"an exporter without a prefix", Config{Journal: newMemory(), Exporters: []Exporter{{Name: "a"}}}},
		{"an invalid prefix", Config{Journal: newMemory(), Exporters: []Exporter{{Name: "a", Prefixes: make([]netip.Prefix, 1)}}}},
		{"a name twice", Config{Journal: newMemory(), Exporters: []Exporter{{Name: "a", Prefixes: prefix}, {Name: "a", Prefixes: prefix}}}},
		{"a prefix twice", Config{Journal: newMemory(), Exporters: []Exporter{{Name: "a", Prefixes: prefix}, {Name: "b", Prefixes: prefix}}}},
	} {
		if _, err := New(tt.cfg); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

func TestExporterIsTheLongestPrefix(t *testing.T) {
	p := newProcess(t, Config{Journal: newMemory(), Exporters: []Exporter{
		{Name: "net", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		{Name: "host", Prefixes: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.7/128")}},
		{Name: "site", Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/48")}},
	}})
	for addr, want := range map[string]string{
		"192.0.2.1":          "net",
		"::ffff:192.0.2.1":   "net",
		"192.0.2.7":          "host",
		"2001:db8:2::1":      "net",
		"2001:db8:1::1%eth0": "site",
		"198.51.100.1":       "",
	} {
		got := ""
		if e := p.exporters.acquire(netip.MustParseAddr(addr)); e != nil {
			got = e.name
		}
		if got != want {
			t.Errorf("%s is %q, want %q", addr, got, want)
		}
	}
	if got := p.Stats().Refused; got != 1 {
		t.Errorf("refused %d, want 1", got)
	}
}

// Addresses are remembered up to a bound, and forgetting one loses no count.
func TestExportersAreBounded(t *testing.T) {
	p := newProcess(t, Config{Journal: newMemory(), MaxExporters: 3})
	held := p.exporters.acquire(netip.MustParseAddr("192.0.2.255"))
	for i := range 100 {
		e := p.exporters.acquire(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		p.malformed(e, netip.AddrPort{}, ipfix.ErrVersion)
		p.exporters.release(e)
	}
	s := p.Stats()
	if len(s.Exporters) != 3 || s.Malformed[CauseVersion] != 100 {
		t.Errorf("%d exporters with %d malformed Messages, want 3 and 100", len(s.Exporters), s.Malformed[CauseVersion])
	}
	if _, ok := s.Exporters[held.name]; !ok {
		t.Error("one that is in use was forgotten")
	}
	for i := range 2 {
		p.exporters.acquire(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	if e := p.exporters.acquire(netip.MustParseAddr("203.0.113.1")); e != nil {
		t.Error("one too many was accepted")
	}
}

func wantMalformed(t *testing.T, got, want map[Cause]uint64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("malformed by cause: %v, want %v", got, want)
	}
}

// listenUDP returns a socket that the kernel chose the port of.
func listenUDP(t testing.TB, host string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no UDP on %s: %v", host, err)
	}
	return conn.(*net.UDPConn)
}

func listenTCP(t testing.TB, host string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no TCP on %s: %v", host, err)
	}
	return ln
}

func dial(t testing.TB, a net.Addr) net.Conn {
	t.Helper()
	conn, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func write(t testing.TB, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

var errFull = errors.New("disk is full")
