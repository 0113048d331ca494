package collect

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
)

// A logBuffer is where a Process logs to in tests.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// want checks that some line has all the words.
func (l *logBuffer) want(t *testing.T, words ...string) {
	t.Helper()
lines:
	for line := range strings.Lines(l.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return
	}
	t.Errorf("no line with %q in:\n%s", words, l)
}

// secure returns a Config with a certificate of its own, whose exporter "edge"
// is whoever has a certificate of edge.isp.example.
func secure(journal Journal, ca *certtest.Authority, log *logBuffer) Config {
	return Config{
		Journal:   journal,
		Exporters: []Exporter{{Name: "edge", CertificateNames: []string{"edge.isp.example", "EDGE-2.isp.example."}}},
		TLS:       &TLS{Certificate: ca.Issue("collector.isp.example"), ClientCAs: ca.Pool()},
		Log:       slog.New(slog.NewTextHandler(log, nil)),
	}
}

// loopbacks are of both versions of IP.
var loopbacks = []string{"127.0.0.1", "::1"}

// logged is how the log names a peer whose address is ours, but for its port.
func logged(at net.Addr) string {
	if host, _, _ := net.SplitHostPort(at.String()); host != "::1" {
		return host + ":"
	}
	return "[::1]:"
}

// client returns what an exporter with a certificate needs.
func client(ca *certtest.Authority, certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "collector.isp.example", Certificates: certificates}
}

func commonName(n string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: n} }
}

func TestTLS(t *testing.T) {
	ca := certtest.NewAuthority(t)
	for _, tt := range []struct {
		name    string
		host    string
		version uint16
		cert    tls.Certificate
	}{
		{"1.3 over IPv4", "127.0.0.1", tls.VersionTLS13, ca.Issue("edge.isp.example")},
		{"1.3 over IPv6", "::1", tls.VersionTLS13, ca.Issue("edge.isp.example")},
		{"1.2", "127.0.0.1", tls.VersionTLS12, ca.Issue("edge.isp.example")},
		{"another name of the exporter", "127.0.0.1", tls.VersionTLS13, ca.Issue("edge-2.isp.example")},
		{"one of several names (11.3)", "127.0.0.1", tls.VersionTLS13, ca.Issue("other.isp.example", "Edge.ISP.example")},
		{"common name (11.3)", "127.0.0.1", tls.VersionTLS13, ca.IssueLike(commonName("edge.isp.example"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			journal, log := newMemory(), new(logBuffer)
			p := newProcess(t, secure(journal, ca, log))
			ln := listenTCP(t, tt.host)
			stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
			cfg := client(ca, tt.cert)
			cfg.MinVersion, cfg.MaxVersion = tt.version, tt.version
			conn, err := tls.Dial("tcp", ln.Addr().String(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			write(t, conn, append(message(1), message(2)...))
			conn.CloseWrite()
			if _, err := io.ReadAll(conn); err != nil {
				t.Errorf("the collector's end: %v, want a closure alert", err)
			}
			journal.await(t, "close", 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			want := Session{ipfix.TLS, "edge", unmap(conn.LocalAddr()), unmap(conn.RemoteAddr())}
			if len(journal.sessions) != 1 || journal.sessions[0] != want {
				t.Errorf("sessions %v, want %v", journal.sessions, want)
			}
			s := p.Stats()
			if e := s.Exporters["edge"]; e.Messages != 2 || e.Opened != 1 || e.Closed != 1 || len(e.Malformed) != 0 || s.Handshakes != 0 || s.Refused != 0 {
				t.Errorf("stats %+v", s)
			}
			log.want(t, "transport session opened", "exporter=edge", "transport=tls")
		})
	}
}

// Who can't prove to be an exporter exports nothing (RFC 7011, Section 11.3).
func TestTLSRefuses(t *testing.T) {
	ca, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	edge := ca.Issue("edge.isp.example")
	for i, tt := range []struct {
		name   string
		cfg    *tls.Config
		counts Stats
		log    []string
	}{
		{"no certificate", client(ca), Stats{Handshakes: 1},
			[]string{"handshake failed", "didn't provide a certificate"}},
		{"wrong authority", client(ca, other.Issue("edge.isp.example")), Stats{Handshakes: 1},
			[]string{"handshake failed", "unknown authority"}},
		{"expired", client(ca, ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"edge.isp.example"}, time.Now().Add(-time.Minute)
		})), Stats{Handshakes: 1}, []string{"handshake failed", "expired"}},
		{"not yet valid", client(ca, ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore = []string{"edge.isp.example"}, time.Now().Add(time.Minute)
		})), Stats{Handshakes: 1}, []string{"handshake failed", "not yet valid"}},
		{"a server's certificate", client(ca, ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"edge.isp.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), Stats{Handshakes: 1}, []string{"handshake failed", "incompatible key usage"}},
		{"wrong name", client(ca, ca.Issue("stranger.isp.example")), Stats{Counts: Counts{Refused: 1}},
			[]string{"exporter refused", "the certificate is of no exporter: stranger.isp.example"}},
		{"common name beside DNS names", client(ca, ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"stranger.isp.example"}, pkix.Name{CommonName: "edge.isp.example"}
		})), Stats{Counts: Counts{Refused: 1}}, []string{"exporter refused", "stranger.isp.example"}},
		{"wildcard", client(ca, ca.Issue("*.isp.example")), Stats{Counts: Counts{Refused: 1}},
			[]string{"exporter refused", "*.isp.example"}},
		{"no name", client(ca, ca.Issue()), Stats{Counts: Counts{Refused: 1}},
			[]string{"exporter refused", "no DNS name and no common name"}},
		{"TLS 1.1", func() *tls.Config {
			c := client(ca, edge)
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}(), Stats{Handshakes: 1}, []string{"handshake failed", "unsupported versions"}},
	} {
		host := loopbacks[i%2]
		t.Run(tt.name, func(t *testing.T) {
			journal, log := newMemory(), new(logBuffer)
			p := newProcess(t, secure(journal, ca, log))
			ln := listenTCP(t, host)
			stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
			conn, err := tls.Dial("tcp", ln.Addr().String(), tt.cfg)
			if err == nil { // with TLS 1.3 the client learns of it at its first read
				conn.Write(message(1))
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || err == io.EOF {
				t.Errorf("it was not told: %v", err)
			}
			stop()
			s := p.Stats()
			if s.Handshakes != tt.counts.Handshakes || s.Refused != tt.counts.Refused || s.Messages != 0 || len(journal.sessions) != 0 {
				t.Errorf("stats %+v, want %+v", s, tt.counts)
			}
			log.want(t, append(tt.log, "remote="+logged(ln.Addr()), "times=1")...)
		})
	}
}

// Where names are looked up, an exporter is believed at an address of its name
// alone (RFC 7011, Section 11.3).
func TestLookUp(t *testing.T) {
	ca := certtest.NewAuthority(t)
	errNoAnswer := errors.New("no answer")
	for _, tt := range []struct {
		name    string
		host    string
		cert    []string
		addrs   map[string]string
		refused string // "" for accepted
	}{
		{"its address", "127.0.0.1", []string{"edge.isp.example"}, map[string]string{"edge.isp.example": "192.0.2.1 127.0.0.1"}, ""},
		{"over IPv6", "::1", []string{"edge.isp.example"}, map[string]string{"edge.isp.example": "192.0.2.1 ::1"}, ""},
		{"mapped", "127.0.0.1", []string{"edge.isp.example"}, map[string]string{"edge.isp.example": "::ffff:127.0.0.1"}, ""},
		{"another of its names", "127.0.0.1", []string{"edge.isp.example", "edge-2.isp.example"}, map[string]string{"edge-2.isp.example": "127.0.0.1"}, ""},
		{"another's address", "127.0.0.1", []string{"edge.isp.example"}, map[string]string{"edge.isp.example": "192.0.2.1 ::1"},
			"does not have this address: edge.isp.example"},
		{"a name that is no exporter's", "127.0.0.1", []string{"edge.isp.example", "other.isp.example"},
			map[string]string{"edge.isp.example": "192.0.2.1", "other.isp.example": "127.0.0.1"}, "does not have this address: edge.isp.example, other.isp.example"},
		{"no answer", "127.0.0.1", []string{"edge.isp.example"}, nil, "does not have this address: no answer"},
	} {
		for _, transport := range []ipfix.Transport{ipfix.TLS, ipfix.DTLS} {
			t.Run(fmt.Sprintf("%s over %v", tt.name, transport), func(t *testing.T) {
				journal, log := newMemory(), new(logBuffer)
				cfg := secure(journal, ca, log)
				cfg.LookUp = func(_ context.Context, name string) (addrs []netip.Addr, err error) {
					if tt.addrs[name] == "" {
						return nil, errNoAnswer
					}
					for _, a := range strings.Fields(tt.addrs[name]) {
						addrs = append(addrs, netip.MustParseAddr(a))
					}
					return addrs, nil
				}
				cert := ca.Issue(tt.cert...)
				var p *Process
				var conn net.Conn
				var stop func() error
				var err error
				if transport == ipfix.TLS {
					p = newProcess(t, cfg)
					ln := listenTCP(t, tt.host)
					stop = serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
					var c *tls.Conn
					c, err = tls.Dial("tcp", ln.Addr().String(), client(ca, cert))
					if err == nil && tt.refused != "" {
						_, err = c.Read(make([]byte, 1)) // with TLS 1.3 it learns of it now
					}
					conn = c
				} else {
					var at net.Addr
					p, at, stop = serveDTLS(t, cfg, tt.host)
					conn, _, err = associate(t, at, ca, cert)
				}
				if (err == nil) != (tt.refused == "") {
					t.Errorf("it is told %v", err)
				}
				refused := uint64(1)
				if tt.refused == "" {
					refused = 0
					write(t, conn, message(1))
					journal.await(t, "message", 1)
				}
				if err == nil {
					conn.Close()
				}
				stop()
				if s := p.Stats(); s.Refused != refused || s.Messages != 1-refused || s.Handshakes != 0 {
					t.Errorf("stats %+v", s)
				}
				if tt.refused != "" {
					log.want(t, "exporter refused", tt.refused)
				}
			})
		}
	}
}

// Garbage is no handshake, and hurts no other connection.
func TestTLSGarbage(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	p := newProcess(t, secure(journal, ca, log))
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
	honest, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
	if err != nil {
		t.Fatal(err)
	}
	garbage := [][]byte{message(1), []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0x16, 3, 3, 0xff, 0xff}, 100), {0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0}}
	for _, g := range garbage {
		conn := dial(t, ln.Addr())
		write(t, conn, g)
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn)
	}
	write(t, honest, message(1))
	honest.Close()
	journal.await(t, "close", 1)
	stop()
	if s := p.Stats(); s.Handshakes != uint64(len(garbage)) || s.Messages != 1 || len(s.Malformed) != 0 {
		t.Errorf("stats %+v", s)
	}
	log.want(t, "handshake failed", "first record does not look like a TLS handshake")
}

// A malformed Message ends its connection, over TLS as over TCP. A connection
// that was cut, by whomever, is not malformed.
func TestTLSEnds(t *testing.T) {
	ca := certtest.NewAuthority(t)
	for _, tt := range []struct {
		name      string
		end       func(*tls.Conn)
		malformed map[Cause]uint64
		log       []string
	}{
		{"malformed", func(c *tls.Conn) { c.Write([]byte("GET / HTTP/1.1\r\n")) },
			map[Cause]uint64{CauseVersion: 1}, []string{"malformed message discarded", "exporter=edge", "cause=version"}},
		{"closed within a Message", func(c *tls.Conn) { c.Write(message(2)[:20]); c.CloseWrite() },
			map[Cause]uint64{CauseTruncated: 1}, []string{"malformed message discarded", "cause=truncated"}},
		{"cut within a record", func(c *tls.Conn) { c.NetConn().Write([]byte{23, 3, 3, 0, 99}); c.NetConn().Close() },
			nil, []string{"connection lost", "exporter=edge", "unexpected EOF"}},
		{"garbage between records", func(c *tls.Conn) { c.NetConn().Write(bytes.Repeat([]byte{0}, 100)) },
			nil, []string{"connection lost", "exporter=edge"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			journal, log := newMemory(), new(logBuffer)
			p := newProcess(t, secure(journal, ca, log))
			ln := listenTCP(t, "127.0.0.1")
			stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
			conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			write(t, conn, message(1))
			journal.await(t, "message", 1)
			tt.end(conn)
			journal.await(t, "close", 1)
			stop()
			s := p.Stats()
			wantMalformed(t, s.Malformed, tt.malformed)
			if s.Messages != 1 || s.Closed != 1 {
				t.Errorf("stats %+v", s)
			}
			log.want(t, tt.log...)
		})
	}
}

// Handshakes that go nowhere end after a time, and can't keep others out
// before.
func TestTLSHandshakesAreBounded(t *testing.T) {
	ca := certtest.NewAuthority(t)
	t.Run("in time", func(t *testing.T) {
		log := new(logBuffer)
		cfg := secure(newMemory(), ca, log)
		cfg.HandshakeTimeout = 10 * time.Millisecond
		p := newProcess(t, cfg)
		ln := listenTCP(t, "127.0.0.1")
		stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
		io.Copy(io.Discard, dial(t, ln.Addr()))
		stop()
		if s := p.Stats(); s.Handshakes != 1 {
			t.Errorf("stats %+v", s)
		}
		log.want(t, "handshake failed", "deadline exceeded")
	})
	t.Run("in number", func(t *testing.T) {
		journal, log := newMemory(), new(logBuffer)
		cfg := secure(journal, ca, log)
		cfg.MaxHandshakes = 3
		cfg.HandshakeTimeout = time.Hour
		p := newProcess(t, cfg)
		ln := listenTCP(t, "127.0.0.1")
		stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
		gone := make(chan struct{}, 4)
		for range 4 {
			idle := dial(t, ln.Addr())
			go func() {
				io.Copy(io.Discard, idle)
				gone <- struct{}{}
			}()
		}
		<-gone // one has given way
		conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
		if err != nil {
			t.Fatal(err)
		}
		write(t, conn, message(1))
		journal.await(t, "message", 1)
		conn.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Handshakes != 2 || s.Messages != 1 {
			t.Errorf("stats %+v", s)
		}
		log.want(t, "handshake failed", "too many handshakes at once")
	})
}

// Where no exporter is configured, one is its certificate's first name,
// whatever address it comes from.
func TestTLSWithoutExporters(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	cfg := secure(journal, ca, log)
	cfg.Exporters = nil
	p := newProcess(t, cfg)
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
	conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("b.isp.example", "a.isp.example")))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(1))
	conn.Close()
	journal.await(t, "close", 1)
	stop()
	if s := p.Stats(); s.Exporters["b.isp.example"].Messages != 1 || len(s.Exporters) != 1 {
		t.Errorf("stats %+v", s)
	}
}

// To stop, the Collecting Process sends a closure alert and reads until the
// exporter has closed too.
func TestTLSStopReadsToTheEnd(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	cfg := secure(journal, ca, log)
	cfg.StopTimeout = time.Minute
	p := newProcess(t, cfg)
	ln := listenTCP(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.ServeTLS(ctx, ln) }()
	conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(0))
	journal.await(t, "message", 1)
	cancel()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the collector's end: %v, want EOF", err)
	}
	for i := range uint32(1000) {
		write(t, conn, message(i))
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Messages != 1001 || s.Closed != 1 {
		t.Errorf("stats %+v", s)
	}
}

// New handshakes take a new certificate and new authorities; what stands goes
// on. A new one that is of no use changes nothing.
func TestSetTLS(t *testing.T) {
	old, ca := certtest.NewAuthority(t), certtest.NewAuthority(t)
	journal := newMemory()
	p := newProcess(t, secure(journal, old, new(logBuffer)))
	ln := listenTCP(t, "127.0.0.1")
	serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
	connect := func(ca *certtest.Authority) (*tls.Conn, error) {
		conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return conn, err
	}
	standing, err := connect(old)
	if err != nil {
		t.Fatal(err)
	}
	write(t, standing, message(1))
	journal.await(t, "message", 1)
	for _, bad := range []TLS{{ClientCAs: ca.Pool()}, {Certificate: ca.Issue("collector.isp.example")}} {
		if p.SetTLS(bad) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := p.SetTLS(TLS{Certificate: ca.Issue("collector.isp.example"), ClientCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(old); err == nil {
		t.Error("the certificate of before is still shown")
	}
	fresh, err := connect(ca)
	if err != nil {
		t.Fatal(err)
	}
	write(t, standing, message(2))
	write(t, fresh, message(3))
	journal.await(t, "message", 2)
	if newProcess(t, Config{Journal: journal}).SetTLS(TLS{Certificate: ca.Issue("x"), ClientCAs: ca.Pool()}) == nil {
		t.Error("a Process without TLS takes a certificate")
	}
}

func TestTLSNeedsACertificate(t *testing.T) {
	ca := certtest.NewAuthority(t)
	for _, tt := range []struct {
		name string
		tls  TLS
	}{
		{"nothing", TLS{}},
		{"no authority", TLS{Certificate: ca.Issue("a")}},
		{"no certificate", TLS{ClientCAs: ca.Pool()}},
		{"no key", TLS{Certificate: tls.Certificate{Certificate: ca.Issue("a").Certificate}, ClientCAs: ca.Pool()}},
	} {
		if _, err := New(Config{Journal: newMemory(), TLS: &tt.tls}); err == nil || !strings.Contains(err.Error(), "Config.TLS") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	p := newProcess(t, Config{Journal: newMemory()})
	if err := p.ServeTLS(t.Context(), listenTCP(t, "127.0.0.1")); err == nil {
		t.Error("TLS is served without a certificate")
	}
	for _, names := range [][]string{{"a.example", "A.example."}, {""}} {
		if _, err := New(Config{Journal: newMemory(), Exporters: []Exporter{{Name: "a", CertificateNames: names[:1]}, {Name: "b", CertificateNames: names[len(names)-1:]}}}); err == nil {
			t.Errorf("certificate names %q: accepted", names)
		}
	}
}

// An exporter of certificates only is a stranger over TCP, and one of prefixes
// only is a stranger over TLS.
func TestTLSAndTCPKnowExportersApart(t *testing.T) {
	p := newProcess(t, Config{Journal: newMemory(), Exporters: []Exporter{
		{Name: "certified", CertificateNames: []string{"a.example"}},
		{Name: "addressed", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
	}})
	if e := p.exporters.acquire(netip.MustParseAddr("192.0.2.2")); e != nil {
		t.Errorf("%s by an address that nobody has", e.name)
	}
	if e := p.exporters.connectNames([]string{"addressed", "192.0.2.1"}); e != nil {
		t.Errorf("%s by a name that nobody has", e.name)
	}
	if e := p.exporters.connectNames([]string{"x.example", "a.example"}); e == nil || e.name != "certified" {
		t.Error("its certificate is not known")
	}
}
