package export_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
)

// A logBuffer is where a Process logs to in tests.
type logBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	lines chan string
}

func newLog() *logBuffer { return &logBuffer{lines: make(chan string, 1<<12)} }

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines <- string(b)
	return l.b.Write(b)
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// await waits for a line with all the words.
func (l *logBuffer) await(t *testing.T, words ...string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
next:
	for {
		select {
		case line := <-l.lines:
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return
		case <-timeout:
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("no line with %q in:\n%s", words, &l.b)
		}
	}
}

// collecting serves a Collecting Process over any transport, at a loopback
// address, whose only exporter has a certificate of meter.isp.example.
func collecting(t *testing.T, transport ipfix.Transport, address string, journal collect.Journal, ca *certtest.Authority, name string) (at string, p *collect.Process, stop func()) {
	t.Helper()
	cfg := collect.Config{Journal: journal, StopTimeout: time.Minute} // a busy machine loses nothing either
	if transport == ipfix.TLS || transport == ipfix.DTLS {
		cfg.TLS = &collect.TLS{Certificate: ca.Issue(name), ClientCAs: ca.Pool()}
		cfg.Exporters = []collect.Exporter{{Name: "meter", CertificateNames: []string{"meter.isp.example"}}}
	}
	p, err := collect.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	switch transport {
	case ipfix.TCP, ipfix.TLS:
		ln := listenTCP(t, address)
		serve := p.ServeTCP
		if transport == ipfix.TLS {
			serve = p.ServeTLS
		}
		return ln.Addr().String(), p, background(t, func(ctx context.Context) error { return serve(ctx, ln) })
	default:
		conn := listenUDP(t, address)
		at = conn.LocalAddr().String() // the Process takes conn over
		serve := p.ServeUDP
		if transport == ipfix.DTLS {
			serve = p.ServeDTLS
		}
		return at, p, background(t, func(ctx context.Context) error { return serve(ctx, conn) })
	}
}

func clientTLS(ca *certtest.Authority) *export.TLS {
	return &export.TLS{Certificate: ca.Issue("meter.isp.example"), RootCAs: ca.Pool(), ServerName: "collector.isp.example"}
}

func TestTLS(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			ca, d := certtest.NewAuthority(t), newDecoder()
			address, _, _ := collecting(t, ipfix.TLS, host, d, ca, "collector.isp.example")
			p := start(t, export.Config{Transport: ipfix.TLS, Address: address, TLS: clientTLS(ca)})
			const n = 20000
			exportNumbers(t, p, 0, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.exactly(t, n)
			if s := p.Stats(); s.Records != n || s.Connections != 1 || s.Broken != 0 || s.TemplateMessages != 1 || d.repeated != 0 {
				t.Errorf("stats %+v, %d templates repeated", s, d.repeated)
			}
		})
	}
}

// The certificate must be of the host of Address, here an IP address, where
// ServerName does not say otherwise.
func TestTLSNameIsTheHost(t *testing.T) {
	ca, d := certtest.NewAuthority(t), newDecoder()
	address, _, _ := collecting(t, ipfix.TLS, "127.0.0.1:0", d, ca, "collector.isp.example")
	cfg := export.Config{Transport: ipfix.TLS, Address: address, TLS: clientTLS(ca)}
	cfg.TLS.ServerName = ""
	p := start(t, cfg)
	exportNumbers(t, p, 0, 10)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.exactly(t, 10)
}

// An Exporting Process must not export to a Collecting Process that is not who
// it should be (RFC 7011, Section 11.3).
func TestTLSRefusesCollector(t *testing.T) {
	ca, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	for _, tt := range []struct {
		name        string
		certificate tls.Certificate
		log         string
	}{
		{"wrong name", ca.Issue("elsewhere.isp.example"), "not collector.isp.example"},
		{"wrong authority", other.Issue("collector.isp.example"), "unknown authority"},
		{"expired", ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"collector.isp.example"}, time.Now().Add(-time.Minute)
		}), "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln := listenTCP(t, "127.0.0.1:0")
			secure := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{tt.certificate}})
			go func() {
				for conn, err := secure.Accept(); err == nil; conn, err = secure.Accept() {
					go func() {
						defer conn.Close()
						if n, _ := conn.Read(make([]byte, 1)); n > 0 {
							t.Error("it was exported to")
						}
					}()
				}
			}()
			log := newLog()
			p := start(t, export.Config{Transport: ipfix.TLS, Address: ln.Addr().String(), TLS: clientTLS(ca), Log: log.logger()})
			exportNumbers(t, p, 0, 10)
			log.await(t, "connecting failed", "transport=tls", "collector="+ln.Addr().String(), tt.log)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := p.Close(ctx); err == nil {
				t.Error("close says that all was read")
			}
			if s := p.Stats(); s.Failures != 1 || s.Connections != 0 || s.Records != 0 || s.QueuedRecords != 10 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// A Collecting Process that refuses our certificate says why.
func TestTLSRefusedByCollector(t *testing.T) {
	ca, log := certtest.NewAuthority(t), newLog()
	address, collector, stop := collecting(t, ipfix.TLS, "127.0.0.1:0", newDecoder(), ca, "collector.isp.example")
	cfg := export.Config{Transport: ipfix.TLS, Address: address, TLS: clientTLS(ca), Log: log.logger()}
	cfg.TLS.Certificate = ca.Issue("stranger.isp.example")
	p := start(t, cfg)
	log.await(t, "connection broke", "bad certificate")
	if s := p.Stats(); s.Broken != 1 {
		t.Errorf("stats %+v", s)
	}
	stop() // it may have told us before it counted us
	if s := collector.Stats(); s.Refused != 1 || s.Messages != 0 {
		t.Errorf("the collector's stats %+v", s)
	}
}

func TestNewRefusesTLS(t *testing.T) {
	ca := certtest.NewAuthority(t)
	whole := clientTLS(ca)
	for _, tt := range []struct {
		name string
		cfg  export.Config
	}{
		{"nothing", export.Config{Transport: ipfix.TLS, Address: "192.0.2.1:4740"}},
		{"no certificate", export.Config{Transport: ipfix.TLS, Address: "192.0.2.1:4740", TLS: &export.TLS{RootCAs: ca.Pool()}}},
		{"no authority", export.Config{Transport: ipfix.DTLS, Address: "192.0.2.1:4740", TLS: &export.TLS{Certificate: whole.Certificate}}},
		{"nobody in particular", export.Config{Transport: ipfix.DTLS, Address: ":4740", TLS: &export.TLS{Certificate: whole.Certificate, RootCAs: ca.Pool()}}},
		{"a backup without port", export.Config{Transport: ipfix.TLS, Address: "192.0.2.1:4740", Backups: []string{"192.0.2.2"}, TLS: whole}},
		{"backups over UDP", export.Config{Transport: ipfix.UDP, Address: "192.0.2.1:4740", Backups: []string{"192.0.2.2:4739"}}},
		{"a message longer than a DTLS record", export.Config{Transport: ipfix.DTLS, Address: "192.0.2.1:4740", TLS: whole, MaxMessage: 8192}},
	} {
		if _, err := export.New(tt.cfg); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

// A gate is a Journal that blocks at its n-th Message until it is opened.
type gate struct {
	*decoder
	n      int
	opened chan struct{}
}

func (g *gate) Message(at time.Time, session uint64, data []byte) (uint64, error) {
	g.mu.Lock()
	g.n--
	wait := g.n == 0
	g.mu.Unlock()
	if wait {
		<-g.opened
	}
	return g.decoder.Message(at, session, data)
}

// Back-pressure: a Collecting Process whose journal blocks blocks Export in
// the end, and nothing is lost.
func TestBackPressure(t *testing.T) {
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			ca := certtest.NewAuthority(t)
			g := &gate{newDecoder(), 10, make(chan struct{})}
			address, _, _ := collecting(t, transport, "127.0.0.1:0", g, ca, "collector.isp.example")
			p := start(t, export.Config{Transport: transport, Address: address, TLS: clientTLS(ca), Buffer: 1 << 16})
			var taken uint64
			text := append([]byte{200}, make([]byte, 200)...)
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				err := p.Export(ctx, wide, append(record(taken), text...))
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				taken++
			}
			if s := p.Stats(); s.QueuedRecords*209 < 1<<16 {
				t.Errorf("it blocks although its buffer is not full: %+v", s)
			}
			close(g.opened)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.exactly(t, taken)
		})
	}
}

// deadAddress returns an address that nobody listens on.
func deadAddress(t *testing.T) string {
	t.Helper()
	ln := listenTCP(t, "127.0.0.1:0")
	defer ln.Close()
	return ln.Addr().String()
}

// union checks that the numbers 0 to n-1 came, each once, to some decoder.
func union(t *testing.T, n uint64, decoders ...*decoder) {
	t.Helper()
	all := newDecoder()
	for _, d := range decoders {
		d.mu.Lock() // a Collecting Process may still close its session
		for i, times := range d.seen {
			all.seen[i] += times
		}
		all.lost += d.lost
		all.unknown += d.unknown
		d.mu.Unlock()
	}
	all.exactly(t, n)
}

// A backup is exported to while the primary can't be reached, the first that
// can, and the primary again once it is back. No record is lost or doubled.
func TestFailover(t *testing.T) {
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			ca, log := certtest.NewAuthority(t), newLog()
			primary, backup := newDecoder(), newDecoder()
			primaryAt, _, stop := collecting(t, transport, "127.0.0.1:0", primary, ca, "collector.isp.example")
			backupAt, _, _ := collecting(t, transport, "127.0.0.1:0", backup, ca, "collector.isp.example")
			p := start(t, export.Config{
				Transport: transport, Address: primaryAt, Backups: []string{deadAddress(t), backupAt}, TLS: clientTLS(ca),
				Reconnect: 10 * time.Millisecond, Linger: time.Millisecond, Log: log.logger(),
			})
			exportNumbers(t, p, 0, 1000)
			primary.await(t, 1000)
			stop() // an orderly end
			exportNumbers(t, p, 1000, 2000)
			backup.await(t, 1000)
			_, _, _ = collecting(t, transport, primaryAt, primary, ca, "collector.isp.example")
			log.await(t, "moving to a preferred collecting process", "from="+backupAt)
			exportNumbers(t, p, 2000, 3000)
			primary.await(t, 2000)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			union(t, 3000, primary, backup)
			if s := p.Stats(); s.Moved != 1 || s.Connections != 3 || s.Broken != 0 || s.Records != 3000 || s.Failures == 0 {
				t.Errorf("stats %+v", s)
			}
			backup.mu.Lock()
			defer backup.mu.Unlock()
			if len(backup.seen) != 1000 {
				t.Errorf("%d records at the backup, want 1000", len(backup.seen))
			}
		})
	}
}

// While records flow the primary comes and goes; none is lost or doubled.
func TestFailoverUnderLoad(t *testing.T) {
	primary, backup := newDecoder(), newDecoder()
	primaryAt, _, stop := collecting(t, ipfix.TCP, "127.0.0.1:0", primary, nil, "")
	backupAt, _, _ := collecting(t, ipfix.TCP, "127.0.0.1:0", backup, nil, "")
	log := newLog()
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: primaryAt, Backups: []string{backupAt}, MaxMessage: 500,
		Reconnect: time.Millisecond, Linger: time.Millisecond, Log: log.logger(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var exported uint64
	var exporting sync.WaitGroup
	exporting.Go(func() {
		pace := time.NewTicker(time.Millisecond) // what is under way must arrive before a collector is left
		defer pace.Stop()
		for ; ctx.Err() == nil; <-pace.C {
			exportNumbers(t, p, exported, exported+100)
			exported += 100
		}
	})
	for range 5 {
		stop()
		log.await(t, "msg=connected", "collector="+backupAt)
		_, _, stop = collecting(t, ipfix.TCP, primaryAt, primary, nil, "")
		log.await(t, "moving to a preferred collecting process")
	}
	cancel()
	exporting.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	union(t, exported, primary, backup)
}

func TestDuplicate(t *testing.T) {
	a, b := newDecoder(), newDecoder()
	var d export.Duplicate
	for _, journal := range []*decoder{a, b, nil} {
		cfg := export.Config{Transport: ipfix.TCP, Buffer: 4096, MaxMessage: 500}
		if journal == nil {
			cfg.Address, cfg.DropWhenFull = deadAddress(t), true
		} else {
			cfg.Address, _, _ = collecting(t, ipfix.TCP, "127.0.0.1:0", journal, nil, "")
		}
		p, err := export.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		d = append(d, p)
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(t.Context()) }()
	const n = 5000
	for i := range uint64(n) {
		if err := d.Export(t.Context(), counter, record(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d[:2].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d[2].Close(ctx); err == nil {
		t.Error("nobody has read what was exported to nobody")
	}
	if err := d[:2].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	a.exactly(t, n)
	b.exactly(t, n)
	if s := d[2].Stats(); s.LostRecords+s.QueuedRecords != n || s.LostRecords == 0 {
		t.Errorf("stats of the dead one %+v", s)
	}
}

// A record that was dropped is missing by the sequence numbers.
func TestDropWhenFullShows(t *testing.T) {
	d := newDecoder()
	ln := listenTCP(t, "127.0.0.1:0")
	dialed := make(chan struct{})
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: ln.Addr().String(), Buffer: 1000, MaxMessage: 500, DropWhenFull: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			<-dialed
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	})
	exportNumbers(t, p, 0, 1000)
	lost := p.Stats().LostRecords
	collectTCP(t, d, ln)
	close(dialed)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	exportNumbers(t, p, 1000, 1001)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if lost == 0 || d.lost != lost || len(d.seen) != 1001-int(lost) {
		t.Errorf("%d lost, %d missing by sequence numbers, %d came", lost, d.lost, len(d.seen))
	}
}
