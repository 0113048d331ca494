package collect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
)

// A bound is a UDP socket in the shape that the DTLS library asks for.
type bound struct{ *net.UDPConn }

// associate shakes hands as an exporter, from a port of its own or from that
// of local.
func associate(t *testing.T, to net.Addr, ca *certtest.Authority, certificates ...tls.Certificate) (*dtls.Conn, *net.UDPConn, error) {
	t.Helper()
	local := &net.UDPAddr{IP: to.(*net.UDPAddr).IP}
	socket, err := net.ListenUDP("udp", local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	conn, err := associateFrom(t, socket, to, ca, certificates...)
	return conn, socket, err
}

func associateFrom(t *testing.T, socket *net.UDPConn, to net.Addr, ca *certtest.Authority, certificates ...tls.Certificate) (*dtls.Conn, error) {
	t.Helper()
	options := []dtls.ClientOption{dtls.WithRootCAs(ca.Pool()), dtls.WithServerName("collector.isp.example")}
	if len(certificates) > 0 {
		options = append(options, dtls.WithCertificates(certificates...))
	}
	conn, err := dtls.ClientWithOptions(bound{socket}, to, options...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return conn, conn.HandshakeContext(ctx)
}

func serveDTLS(t *testing.T, cfg Config, host string) (p *Process, at net.Addr, stop func() error) {
	t.Helper()
	p = newProcess(t, cfg)
	conn := listenUDP(t, host)
	return p, conn.LocalAddr(), serve(t, func(ctx context.Context) error { return p.ServeDTLS(ctx, conn) })
}

func TestDTLS(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
			p, at, stop := serveDTLS(t, secure(journal, ca, log), host)
			conn, socket, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
			if err != nil {
				t.Fatal(err)
			}
			const n = 100
			for i := range uint32(n) {
				write(t, conn, message(i))
				if i%10 == 0 { // at no more than it takes
					journal.await(t, "message", 1)
				}
			}
			journal.await(t, "message", n-n/10)
			write(t, conn, []byte("garbage"))
			write(t, conn, message(0)[:23])
			write(t, conn, message(0))
			journal.await(t, "message", 1)
			conn.Close()
			journal.await(t, "close", 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			want := []Session{{ipfix.DTLS, "edge", unmap(socket.LocalAddr()), unmap(at)}}
			if !slices.Equal(journal.sessions, want) || !slices.Equal(journal.closed, want) {
				t.Errorf("sessions %v, want %v", journal.sessions, want)
			}
			s := p.Stats()
			wantMalformed(t, s.Exporters["edge"].Malformed, map[Cause]uint64{CauseLength: 2})
			if s.Messages != n+1 || s.Opened != 1 || s.Closed != 1 || s.Handshakes != 0 || s.Refused != 0 {
				t.Errorf("stats %+v", s)
			}
			log.want(t, "transport session opened", "exporter=edge", "transport=dtls")
			log.want(t, "malformed message discarded", "exporter=edge", "cause=length")
		})
	}
}

func TestDTLSRefuses(t *testing.T) {
	ca, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	for i, tt := range []struct {
		name         string
		certificates []tls.Certificate
		counts       Stats
		log          []string
	}{
		{"no certificate", nil, Stats{Handshakes: 1}, []string{"handshake failed", "required client verification"}},
		{"wrong authority", []tls.Certificate{other.Issue("edge.isp.example")}, Stats{Handshakes: 1}, []string{"handshake failed", "unknown authority"}},
		{"expired", []tls.Certificate{ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"edge.isp.example"}, time.Now().Add(-time.Minute)
		})}, Stats{Handshakes: 1}, []string{"handshake failed", "expired"}},
		{"wrong name", []tls.Certificate{ca.Issue("stranger.isp.example")}, Stats{Counts: Counts{Refused: 1}},
			[]string{"exporter refused", "the certificate is of no exporter: stranger.isp.example"}},
		{"no name", []tls.Certificate{ca.Issue()}, Stats{Counts: Counts{Refused: 1}}, []string{"exporter refused", "no DNS name"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			journal, log := newMemory(), new(logBuffer)
			p, at, stop := serveDTLS(t, secure(journal, ca, log), loopbacks[i%2])
			conn, _, err := associate(t, at, ca, tt.certificates...)
			if err == nil {
				t.Error("the handshake succeeded")
			}
			conn.Close()
			stop()
			s := p.Stats()
			if s.Handshakes != tt.counts.Handshakes || s.Refused != tt.counts.Refused || s.Messages != 0 || len(journal.sessions) != 0 {
				t.Errorf("stats %+v, want %+v", s, tt.counts)
			}
			log.want(t, append(tt.log, "remote="+logged(at))...)
		})
	}
}

// What is no DTLS begins nothing, and one that stops answering ends in time.
func TestDTLSGarbage(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	cfg := secure(journal, ca, log)
	cfg.HandshakeTimeout = time.Second
	cfg.MaxHandshakes = 4
	p, at, stop := serveDTLS(t, cfg, "127.0.0.1")
	hello := append([]byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30, 1, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 18}, make([]byte, 18)...)
	for _, b := range [][]byte{message(1), {}, {22}, make([]byte, 1400), make([]byte, 9000)} {
		write(t, dial(t, at), b)
	}
	for range 20 {
		write(t, dial(t, at), hello)
	}
	for p.Stats().Handshakes < 16 { // the others but four have given way
		runtime.Gosched()
	}
	conn, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(1))
	journal.await(t, "message", 1)
	stop()
	s := p.Stats()
	if s.Messages != 1 || s.Handshakes < 16 || len(s.Malformed) != 0 || s.Dropped != 1 {
		t.Errorf("stats %+v", s)
	}
	log.want(t, "handshake failed")
}

// A malformed Message is discarded, and the exporter heard on. One whose last few
// were all malformed is heard no more: its association ends. It may begin another.
func TestDTLSMalfunction(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	p, at, stop := serveDTLS(t, secure(journal, ca, log), "127.0.0.1")
	edge := ca.Issue("edge.isp.example")
	bad := message(1)[:15]
	for session := range 2 {
		conn, _, err := associate(t, at, ca, edge)
		if err != nil {
			t.Fatal(err)
		}
		for range lastFew - 1 {
			write(t, conn, bad)
		}
		write(t, conn, message(1))
		journal.await(t, "message", 1)
		for range lastFew - 1 {
			write(t, conn, bad)
		}
		if n := p.Stats().Closed; n != uint64(session) {
			t.Errorf("%d associations are ended before the last", n)
		}
		write(t, conn, bad)
		journal.await(t, "close", 1)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Errorf("the exporter reads %d octets and %v, want the end", n, err)
		}
	}
	stop()
	if s := p.Stats(); s.Opened != 2 || s.Closed != 2 || s.Messages != 2 || s.Malformed[CauseLength] != 2*(2*lastFew-1) {
		t.Errorf("stats %+v", s)
	}
	log.want(t, "exporter malfunctions: its session is ended", "exporter=edge")
}

// An exporter that was started anew at its old address and port is heard at
// once; its association of before ends.
func TestDTLSExporterRestarts(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	p, at, stop := serveDTLS(t, secure(journal, ca, log), "127.0.0.1")
	edge := ca.Issue("edge.isp.example")
	conn, socket, err := associate(t, at, ca, edge)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(1))
	journal.await(t, "message", 1)
	// The exporter is killed: its socket goes without a word.
	local := socket.LocalAddr().(*net.UDPAddr)
	socket.Close()
	socket, err = net.ListenUDP("udp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if conn, err = associateFrom(t, socket, at, ca, edge); err != nil {
		t.Fatal(err)
	}
	journal.await(t, "close", 1)
	write(t, conn, message(2))
	journal.await(t, "message", 1)
	stop()
	if s := p.Stats(); s.Opened != 2 || s.Closed != 2 || s.Messages != 2 {
		t.Errorf("stats %+v", s)
	}
}

// Associations are bounded; the least recently used gives way, and is told.
func TestDTLSAssociationsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"in all", func(c *Config) { c.MaxSessions = 2 }},
		{"per exporter", func(c *Config) { c.MaxExporterSessions = 2 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
			cfg := secure(journal, ca, log)
			tt.change(&cfg)
			p, at, stop := serveDTLS(t, cfg, "127.0.0.1")
			edge := ca.Issue("edge.isp.example")
			var conns []*dtls.Conn
			for range 3 {
				conn, _, err := associate(t, at, ca, edge)
				if err != nil {
					t.Fatal(err)
				}
				if conns = append(conns, conn); len(conns) == 2 {
					write(t, conns[1], message(0)) // opens first, and is then used last
					journal.await(t, "message", 1)
					write(t, conns[0], message(0))
					journal.await(t, "message", 1)
				}
			}
			if _, err := conns[1].Read(make([]byte, 1)); err == nil {
				t.Error("the one that gave way was not told")
			}
			journal.await(t, "close", 1)
			write(t, conns[0], message(1))
			write(t, conns[2], message(1))
			journal.await(t, "message", 2)
			stop()
			if s := p.Stats(); s.Evicted != 1 || s.Opened != 3 || s.Closed != 3 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestDTLSIdle(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	cfg := secure(journal, ca, log)
	cfg.IdleTimeout = 50 * time.Millisecond
	_, at, stop := serveDTLS(t, cfg, "127.0.0.1")
	conn, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(1))
	journal.await(t, "close", 1)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the exporter was not told")
	}
	stop()
	log.want(t, "association is idle", "exporter=edge")
}

// To stop, it journals what was sent before and tells the exporters.
func TestDTLSStop(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	p, at, stop := serveDTLS(t, secure(journal, ca, log), "127.0.0.1")
	conn, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(100) {
		write(t, conn, message(i))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the exporter was not told")
	}
	if s := p.Stats(); s.Messages != 100 || s.Closed != 1 {
		t.Errorf("stats %+v", s)
	}
}

// While the Journal blocks datagrams are dropped and counted, and others'
// memory is not taken.
func TestDTLSBackPressure(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	release := make(chan struct{})
	journal.message = func(n int) error {
		if n == 1 {
			<-release
		}
		return nil
	}
	cfg := secure(journal, ca, log)
	cfg.ReceiveBuffer = 1 << 16
	p, at, stop := serveDTLS(t, cfg, "127.0.0.1")
	conn, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	var sent uint64
	for p.Stats().Dropped == 0 { // by the kernel, or for want of room
		write(t, conn, message(1))
		sent++
	}
	close(release)
	stop()
	if s := p.Stats(); s.Messages == 0 || s.Messages+s.Dropped > sent {
		t.Errorf("%d sent, stats %+v", sent, s)
	}
	if !strings.Contains(log.String(), "datagrams are dropped") {
		t.Error("drops are not logged")
	}
}

// What an exporter sends, and that it ends, waits for the handshake to be done
// at our end too, and keeps its order.
func TestDTLSEarlyData(t *testing.T) {
	s := newDTLSServer(newProcess(t, secure(newMemory(), certtest.NewAuthority(t), new(logBuffer))), listenUDP(t, "127.0.0.1"))
	peer := unmap(s.conn.LocalAddr())
	a := s.associations.begin(peer, s.conn)
	for _, content := range []byte{23, 21, 22} { // application data, alert, handshake
		if !s.associations.deliver(peer, []byte{content}, 1<<20) {
			t.Fatal("no room")
		}
	}
	b := make([]byte, 10)
	for i, want := range []byte{22, 23, 21} {
		if n, _, err := a.ReadFrom(b); n != 1 || err != nil || b[0] != want {
			t.Fatalf("read %d of %d, %v; want %d", b[0], n, err, want)
		}
		if i == 0 {
			close(a.ready)
		}
	}
}

// What the kernel drops for want of buffer is counted, as at UDP sockets.
func TestDTLSKernelDropsAreCounted(t *testing.T) {
	ca := certtest.NewAuthority(t)
	cfg := secure(newMemory(), ca, new(logBuffer))
	cfg.ReceiveBuffer = 1 << 16
	p := newProcess(t, cfg)
	conn := listenUDP(t, "127.0.0.1")
	s := newDTLSServer(p, conn)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	exporter := dial(t, conn.LocalAddr())
	const sent = 100
	send := func() {
		for range sent { // nobody reads; what will be read is too long
			write(t, exporter, make([]byte, maxRecord+1))
		}
	}
	drain := func() {
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if err := s.read(func(*association) { t.Error("an association") }); err != nil {
			t.Fatal(err)
		}
	}
	send()
	drain()
	write(t, exporter, make([]byte, maxRecord+1)) // tells of the drops before it
	drain()
	if got := p.Stats().Dropped; got != sent+1 || s.drops.seen < sent/2 {
		t.Errorf("%d dropped, %d of them by the kernel; want %d in all", got, s.drops.seen, sent+1)
	}
	send()
	drain()
	s.finalDrops() // which no datagram tells of
	if got := p.Stats().Dropped; got != 2*sent+1 {
		t.Errorf("%d dropped, want %d", got, 2*sent+1)
	}
}

// New handshakes take a new certificate and new authorities; what stands goes
// on.
func TestDTLSSetTLS(t *testing.T) {
	old, ca := certtest.NewAuthority(t), certtest.NewAuthority(t)
	journal := newMemory()
	p, at, stop := serveDTLS(t, secure(journal, old, new(logBuffer)), "127.0.0.1")
	standing, _, err := associate(t, at, old, old.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetTLS(TLS{Certificate: ca.Issue("collector.isp.example"), ClientCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := associate(t, at, old, old.Issue("edge.isp.example")); err == nil {
		t.Error("the certificate of before is still shown")
	}
	fresh, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, standing, message(1))
	write(t, fresh, message(2))
	journal.await(t, "message", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestDTLSJournalFails(t *testing.T) {
	ca, journal, log := certtest.NewAuthority(t), newMemory(), new(logBuffer)
	journal.message = func(int) error { return errFull }
	p := newProcess(t, secure(journal, ca, log))
	socket := listenUDP(t, "127.0.0.1")
	at := socket.LocalAddr()
	done := make(chan error, 1)
	go func() { done <- p.ServeDTLS(t.Context(), socket) }()
	conn, _, err := associate(t, at, ca, ca.Issue("edge.isp.example"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, message(1))
	if err := <-done; err == nil || !strings.Contains(err.Error(), errFull.Error()) {
		t.Errorf("serving ended with %v", err)
	}
}
