package collect

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
)

func TestTCP(t *testing.T) {
	for _, tt := range []struct{ listen, host string }{{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"::", "127.0.0.1"}} {
		t.Run(tt.listen+" from "+tt.host, func(t *testing.T) {
			journal := newMemory()
			p := newProcess(t, Config{Journal: journal})
			ln := listenTCP(t, tt.listen)
			stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })

			conn := dial(t, &net.TCPAddr{IP: net.ParseIP(tt.host), Port: ln.Addr().(*net.TCPAddr).Port})
			write(t, conn, append(message(1), message(2)...))
			conn.Close()
			journal.await(t, "close", 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			want := []Session{{ipfix.TCP, tt.host, unmap(conn.LocalAddr()), unmap(conn.RemoteAddr())}}
			if !slices.Equal(journal.sessions, want) || !slices.Equal(journal.closed, want) {
				t.Errorf("sessions %v, want %v", journal.sessions, want)
			}
			if want := []string{string(message(1)), string(message(2))}; !slices.Equal(journal.messages, want) {
				t.Errorf("messages %q, want %q", journal.messages, want)
			}
			e := p.Stats().Exporters[tt.host]
			if e.Messages != 2 || e.Octets != 48 || e.Opened != 1 || e.Closed != 1 || len(e.Malformed) != 0 {
				t.Errorf("stats %+v", e)
			}
		})
	}
}

// Messages are framed by their Length wherever TCP cuts the stream.
func TestTCPSegments(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	conn := dial(t, ln.Addr())
	two := append(message(1), message(2)...)
	for cut := range two {
		write(t, conn, two[:cut])
		if cut >= len(message(1)) { // proves that the first part was read alone
			journal.await(t, "message", 1)
		}
		write(t, conn, two[cut:])
		if cut >= len(message(1)) {
			journal.await(t, "message", 1)
		} else {
			journal.await(t, "message", 2)
		}
	}
	conn.Close()
	journal.await(t, "close", 1)
	stop()
	for i := 0; i < len(journal.messages); i += 2 {
		if journal.messages[i] != string(message(1)) || journal.messages[i+1] != string(message(2)) {
			t.Fatalf("cut at octet %d: %q", i/2, journal.messages[i:i+2])
		}
	}
}

// A malformed Message closes its connection (RFC 7011, Section 9.1). What came
// before it counts, and other connections go on.
func TestTCPMalformed(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	honest := dial(t, ln.Addr())
	want := make(map[Cause]uint64)
	for i, m := range malformed {
		cause := m.cause
		switch m.name {
		case "nothing at all":
			continue // no fault of a stream
		case "shorter than a Message Header (9.1)", "shorter than its Length (9.1)":
			cause = CauseTruncated
		case "longer than its Length (9.1)":
			cause = CauseTruncated // the rest of it begins another
		}
		hostile := dial(t, ln.Addr())
		write(t, hostile, append(message(0), m.msg...))
		hostile.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, hostile) // until it is closed; a reset is fine
		write(t, honest, message(uint32(i)))
		want[cause]++
	}
	honest.Close()
	journal.await(t, "close", len(malformed))
	stop()
	s := p.Stats()
	wantMalformed(t, s.Malformed, want)
	// One before each fault, one whole in "longer than its Length", and the honest.
	if want := uint64(2*(len(malformed)-1) + 1); s.Messages != want || s.Opened != uint64(len(malformed)) || s.Closed != s.Opened {
		t.Errorf("%d messages, want %d; %d sessions opened, %d closed", s.Messages, want, s.Opened, s.Closed)
	}
}

// Garbage opens no session.
func TestTCPGarbage(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	conn := dial(t, ln.Addr())
	write(t, conn, bytes.Repeat([]byte("tollbridge"), 10))
	if _, err := io.ReadAll(conn); errors.Is(err, io.EOF) {
		t.Error(err)
	}
	stop()
	s := p.Stats()
	wantMalformed(t, s.Malformed, map[Cause]uint64{CauseVersion: 1})
	if s.Opened != 0 || len(journal.sessions) != 0 {
		t.Error("garbage opened a session")
	}
}

// A reset loses what was not read and ends the session; it is not malformed.
func TestTCPReset(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	conn := dial(t, ln.Addr()).(*net.TCPConn)
	write(t, conn, message(1))
	journal.await(t, "message", 1)
	conn.SetLinger(0)
	conn.Close()
	journal.await(t, "close", 1)
	stop()
	if s := p.Stats(); s.Messages != 1 || len(s.Malformed) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// To stop, the Collecting Process closes its end and reads until the exporter
// has closed the other (RFC 7011, Section 10.4).
func TestTCPStopReadsToTheEnd(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal, StopTimeout: time.Minute})
	ln := listenTCP(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.ServeTCP(ctx, ln) }()
	conn := dial(t, ln.Addr()).(*net.TCPConn)
	write(t, conn, message(0))
	journal.await(t, "message", 1)
	cancel()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the collector's end: %v, want EOF", err)
	}
	const late = 5000
	for i := range uint32(late) {
		write(t, conn, message(i))
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the exporter: %v", err)
	default:
	}
	conn.CloseWrite()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Messages != late+1 || s.Closed != 1 {
		t.Errorf("%d messages, want %d; %d sessions closed", s.Messages, late+1, s.Closed)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("it still accepts")
	}
}

// A slow is a Journal whose entries become durable when it is told.
type slow struct {
	*memory
	syncing chan struct{} // receives when Sync waits
	durable chan struct{}
}

func newSlow() slow {
	return slow{newMemory(), make(chan struct{}, 1), make(chan struct{})}
}

// Sync implements DurableJournal.
func (j slow) Sync(ctx context.Context) error {
	select {
	case j.syncing <- struct{}{}:
	default: // others wait already
	}
	select {
	case <-j.durable:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An exporter that reads the end of its connection knows that what it sent is
// durable. The connection is cut where that takes too long.
func TestTheEndMeansDurable(t *testing.T) {
	ca := certtest.NewAuthority(t)
	for name, open := range map[string]func(t *testing.T, p *Process) net.Conn{
		"tcp": func(t *testing.T, p *Process) net.Conn {
			ln := listenTCP(t, "127.0.0.1")
			serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
			return dial(t, ln.Addr())
		},
		"tls": func(t *testing.T, p *Process) net.Conn {
			ln := listenTCP(t, "127.0.0.1")
			serve(t, func(ctx context.Context) error { return p.ServeTLS(ctx, ln) })
			conn, err := tls.Dial("tcp", ln.Addr().String(), client(ca, ca.Issue("edge.isp.example")))
			if err != nil {
				t.Fatal(err)
			}
			return conn
		},
	} {
		ended := func(t *testing.T, journal slow, timeout time.Duration) (net.Conn, <-chan error) {
			cfg := secure(journal, ca, new(logBuffer))
			cfg.Exporters, cfg.StopTimeout = nil, timeout
			conn := open(t, newProcess(t, cfg))
			write(t, conn, message(1))
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			end := make(chan error, 1)
			go func() {
				_, err := conn.Read(make([]byte, 1))
				end <- err
			}()
			<-journal.syncing
			return conn, end
		}
		t.Run(name, func(t *testing.T) {
			journal := newSlow()
			_, end := ended(t, journal, time.Minute)
			select {
			case err := <-end:
				t.Fatalf("the end came before: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			close(journal.durable)
			if err := <-end; err != io.EOF {
				t.Errorf("the end is %v", err)
			}
		})
		t.Run(name+", too slowly", func(t *testing.T) {
			if _, end := ended(t, newSlow(), 10*time.Millisecond); !errors.Is(<-end, syscall.ECONNRESET) {
				t.Error("the end is an orderly one")
			}
		})
	}
}

// To stop, the Process closes its end only when all that it had read is
// durable.
func TestTCPStopMeansDurable(t *testing.T) {
	journal := newSlow()
	p := newProcess(t, Config{Journal: journal, StopTimeout: time.Minute})
	ln := listenTCP(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.ServeTCP(ctx, ln) }()
	conn := dial(t, ln.Addr())
	write(t, conn, message(1))
	journal.await(t, "message", 1)
	cancel()
	<-journal.syncing
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the end came before: %v", err)
	}
	close(journal.durable)
	conn.SetReadDeadline(time.Time{})
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the end is %v", err)
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// An exporter that never closes can't hold up the stop.
func TestTCPStopIsBounded(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal, StopTimeout: 20 * time.Millisecond})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	conn := dial(t, ln.Addr())
	write(t, conn, message(0))
	journal.await(t, "message", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Closed != 1 || len(s.Malformed) != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTCPConnectionsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"in all", Config{MaxConnections: 3}},
		{"per exporter", Config{MaxExporterConnections: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			journal := newMemory()
			tt.cfg.Journal = journal
			p := newProcess(t, tt.cfg)
			ln := listenTCP(t, "127.0.0.1")
			stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
			var conns []net.Conn
			for i := range 3 {
				conns = append(conns, dial(t, ln.Addr()))
				write(t, conns[i], message(0))
			}
			journal.await(t, "message", 3)
			for range 20 {
				if _, err := dial(t, ln.Addr()).Read(make([]byte, 1)); err == nil {
					t.Fatal("one too many was served")
				}
			}
			conns[0].Close() // makes room
			journal.await(t, "close", 1)
			for served := false; !served; {
				conn := dial(t, ln.Addr())
				conn.Write(message(1))
				refused := make(chan struct{})
				go func() {
					conn.Read(make([]byte, 1))
					close(refused)
				}()
				select {
				case <-journal.events: // "open"
					served = true
					conns[0] = conn
				case <-refused: // too early
				}
			}
			for _, c := range conns {
				c.Close()
			}
			journal.await(t, "close", 3)
			stop()
			if s := p.Stats(); s.Refused < 20 || s.Exporters["127.0.0.1"].Refused != s.Refused {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestTCPStrangersAreRefused(t *testing.T) {
	for _, tt := range []struct{ listen, prefix string }{{"127.0.0.1", "192.0.2.1/32"}, {"::1", "2001:db8::/32"}, {"::1", "127.0.0.0/8"}} {
		t.Run(tt.listen+" is not of "+tt.prefix, func(t *testing.T) {
			p := newProcess(t, Config{Journal: newMemory(), Exporters: []Exporter{
				{Name: "edge", Prefixes: []netip.Prefix{netip.MustParsePrefix(tt.prefix)}},
			}})
			ln := listenTCP(t, tt.listen)
			stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
			if _, err := dial(t, ln.Addr()).Read(make([]byte, 1)); err == nil {
				t.Error("a stranger was served")
			}
			stop()
			if s := p.Stats(); s.Refused != 1 || s.Exporters["edge"].Refused != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// A failing Journal ends the Process, with connections open that idle.
func TestTCPJournalFails(t *testing.T) {
	journal := newMemory()
	journal.message = func(n int) error {
		if n == 1 {
			return errFull
		}
		return nil
	}
	p := newProcess(t, Config{Journal: journal, StopTimeout: time.Hour})
	ln := listenTCP(t, "127.0.0.1")
	done := make(chan error, 1)
	go func() { done <- p.ServeTCP(t.Context(), ln) }()
	write(t, dial(t, ln.Addr()), message(0))
	journal.await(t, "message", 1)
	write(t, dial(t, ln.Addr()), message(1))
	if err := <-done; !errors.Is(err, errFull) {
		t.Errorf("serving ended with %v, want %v", err, errFull)
	}
}

// Back-pressure: while the Journal blocks, TCP stops reading, and nothing is
// lost.
func TestTCPBackPressure(t *testing.T) {
	journal := newMemory()
	release := make(chan struct{})
	journal.message = func(n int) error {
		if n == 1 {
			<-release
		}
		return nil
	}
	p := newProcess(t, Config{Journal: journal})
	ln := listenTCP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
	conn := dial(t, ln.Addr()).(*net.TCPConn)
	conn.SetWriteBuffer(1 << 16)
	batch := bytes.Repeat(message(7), 1000)
	conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	var sent int
	for {
		n, err := conn.Write(batch)
		sent += n
		if err != nil { // the exporter is held up
			break
		}
	}
	conn.SetWriteDeadline(time.Time{})
	close(release)
	write(t, conn, batch[sent%len(batch):])
	conn.Close()
	journal.await(t, "close", 1)
	stop()
	want := uint64((sent + len(batch) - sent%len(batch)) / len(message(7)))
	if s := p.Stats(); s.Messages != want || len(s.Malformed) != 0 {
		t.Errorf("%d messages, want %d: %+v", s.Messages, want, s)
	}
}

// A tiredListener fails with each of its errors, then is closed.
type tiredListener struct {
	net.Listener
	errs []error
}

func (l *tiredListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return nil, net.ErrClosed
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func (l *tiredListener) Close() error   { return nil }
func (l *tiredListener) Addr() net.Addr { return &net.TCPAddr{} }

// A lack of descriptors passes; a listener that fails otherwise ends serving.
func TestTCPAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t, Config{Journal: newMemory()})
		began := time.Now()
		if err := p.ServeTCP(t.Context(), &tiredListener{errs: []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE}}); err != nil {
			t.Error(err)
		}
		if got := time.Since(began); got != 2*acceptPause {
			t.Errorf("it paused for %v, want %v", got, 2*acceptPause)
		}
		if err := p.ServeTCP(t.Context(), &tiredListener{errs: []error{syscall.EINVAL}}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("serving ended with %v", err)
		}
	})
}
