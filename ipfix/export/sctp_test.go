package export_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/internal/sctp"
	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
)

// A streamDecoder is a decoder that counts sequence numbers per stream.
type streamDecoder struct{ *decoder }

func (d streamDecoder) StreamMessage(at time.Time, session uint64, stream uint16, data []byte) (uint64, error) {
	return d.decode(session, data, func(s *ipfix.Session, visit func(ipfix.DataSet)) (ipfix.Result, error) {
		return s.DecodeStream(data, stream, visit)
	})
}

// collectSCTP serves a Collecting Process over SCTP, or skips where there is
// none.
func collectSCTP(t *testing.T, d *decoder, address string) (at string, p *collect.Process, stop func()) {
	t.Helper()
	return serveSCTP(t, collect.Config{Journal: streamDecoder{d}}, address)
}

func serveSCTP(t *testing.T, cfg collect.Config, address string) (at string, p *collect.Process, stop func()) {
	t.Helper()
	return listenSCTP(t, cfg, address, sctp.Config{})
}

func listenSCTP(t *testing.T, cfg collect.Config, address string, association sctp.Config) (at string, p *collect.Process, stop func()) {
	t.Helper()
	ln, err := sctp.Listen(netip.MustParseAddrPort(address), association)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = collect.New(cfg); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), p, background(t, func(ctx context.Context) error { return p.ServeSCTP(ctx, ln) })
}

func TestSCTP(t *testing.T) {
	for _, tt := range []struct {
		host    string
		streams int
		taken   uint16 // by the collector; 0 is 16
	}{{"127.0.0.1:0", 1, 0}, {"127.0.0.1:0", 8, 0}, {"[::1]:0", 3, 0}, {"127.0.0.1:0", 32, 0}, {"[::1]:0", 8, 2}, {"127.0.0.1:0", 8, 1}} {
		t.Run(fmt.Sprintf("%s,%d,%d", tt.host, tt.streams, tt.taken), func(t *testing.T) {
			d := newDecoder()
			address, collector, stop := listenSCTP(t, collect.Config{Journal: streamDecoder{d}}, tt.host, sctp.Config{Streams: tt.taken})
			p := start(t, export.Config{Transport: ipfix.SCTP, Address: address, Streams: tt.streams})
			const n = 20000
			exportNumbers(t, p, 0, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, n)
			stop()
			d.exactly(t, n)
			if s := p.Stats(); s.Records != n || s.Connections != 1 || s.Broken != 0 || s.TemplateMessages != 1 || d.repeated != 0 {
				t.Errorf("stats %+v, %d templates repeated", s, d.repeated)
			}
			if s := collector.Stats(); s.Opened != 1 || s.Closed != 1 || len(s.Malformed) != 0 {
				t.Errorf("the collector's stats %+v", s)
			}
		})
	}
}

// A lockable is a streamDecoder that takes nothing in while it is locked.
type lockable struct {
	streamDecoder
	*sync.Mutex
}

func (g lockable) StreamMessage(at time.Time, session uint64, stream uint16, data []byte) (uint64, error) {
	g.Lock()
	defer g.Unlock()
	return g.streamDecoder.StreamMessage(at, session, stream, data)
}

// Accounting data waits for as long as it takes, by default. Messages with a
// lifetime, which an operator may give to other data, are given up and counted
// while the collector takes nothing in, and are missing by the sequence
// numbers of their stream: by as many Data Records as were in them.
func TestSCTPLifetime(t *testing.T) {
	for _, tt := range []struct {
		name     string
		lifetime time.Duration
	}{{"none by default", 0}, {"a second", time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			d := lockable{streamDecoder{newDecoder()}, new(sync.Mutex)}
			address, collector, _ := serveSCTP(t, collect.Config{Journal: d}, "127.0.0.1:0")
			p := start(t, export.Config{Transport: ipfix.SCTP, Address: address, Streams: 2, Lifetime: tt.lifetime, Linger: 10 * time.Millisecond})
			padding := make([]byte, 1000)
			n := uint64(0)
			add := func(records int) {
				t.Helper()
				for range records {
					if err := p.Export(t.Context(), wide, ipfix.AppendVariable(record(n), padding)); err != nil {
						t.Fatal(err)
					}
					n++
				}
			}
			// arrives exports a Message on each stream, and reports whether the
			// collector has both: they show what is missing before them.
			arrives := func() bool {
				t.Helper()
				for range 2 {
					add(1)
					if err := p.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				deadline := time.After(10 * time.Second)
				for {
					d.mu.Lock()
					both := d.seen[n-2] > 0 && d.seen[n-1] > 0
					d.mu.Unlock()
					if both {
						return true
					}
					select {
					case <-deadline:
						return false
					case <-time.After(10 * time.Millisecond):
					}
				}
			}
			if !arrives() {
				t.Fatal("nothing arrives")
			}
			d.Lock()
			opened := sync.OnceFunc(d.Unlock)
			defer opened()
			add(5000) // more than the buffers of both ends hold, and less than a Process buffers
			deadline := time.After(60 * time.Second)
			for tt.lifetime > 0 && p.Stats().Abandoned == 0 {
				select {
				case <-deadline:
					t.Fatalf("nothing was given up: %+v", p.Stats())
				case <-time.After(10 * time.Millisecond):
				}
			}
			opened()
			for i := 0; !arrives(); i++ {
				if i == 5 {
					t.Fatal("nothing arrives any more")
				}
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s, c := p.Stats(), collector.Stats()
			d.mu.Lock()
			defer d.mu.Unlock()
			if s.Records != n || uint64(len(d.seen))+d.lost != n || d.unknown != 0 {
				t.Errorf("of %d records %d came and %d are missing by the numbers: %+v", n, len(d.seen), d.lost, s)
			}
			came := c.Messages - s.TemplateMessages
			if given := s.Messages - came; tt.lifetime == 0 && (given != 0 || s.Abandoned != 0) || tt.lifetime > 0 && (given == 0 || s.Abandoned == 0) {
				t.Errorf("%d messages came of %d, %d given up", came, s.Messages, s.Abandoned)
			}
		})
	}
}

// A backup is exported to while the primary can't be reached, over SCTP too.
func TestSCTPFailover(t *testing.T) {
	primary, backup, log := newDecoder(), newDecoder(), newLog()
	primaryAt, _, stop := collectSCTP(t, primary, "127.0.0.1:0")
	backupAt, _, _ := collectSCTP(t, backup, "127.0.0.1:0")
	p := start(t, export.Config{
		Transport: ipfix.SCTP, Address: primaryAt, Backups: []string{backupAt},
		Reconnect: 10 * time.Millisecond, Linger: time.Millisecond, Log: log.logger(),
	})
	exportNumbers(t, p, 0, 1000)
	primary.await(t, 1000)
	stop()
	log.await(t, "msg=connected", "collector="+backupAt)
	exportNumbers(t, p, 1000, 2000)
	backup.await(t, 1000)
	_, _, _ = collectSCTP(t, primary, primaryAt)
	log.await(t, "moving to a preferred collecting process", "from="+backupAt)
	exportNumbers(t, p, 2000, 3000)
	primary.await(t, 2000)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	union(t, 3000, primary, backup)
}

// A malformed Message is discarded and ends nothing: the next begins where it
// should.
func TestSCTPMalformed(t *testing.T) {
	d := newDecoder()
	address, p, stop := collectSCTP(t, d, "127.0.0.1:0")
	conn, err := sctp.Dial(t.Context(), netip.MustParseAddrPort(address), sctp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e := ipfix.NewEncoder(1, 1000)
	if err := errors.Join(e.AddTemplate(counter), e.AppendRecord(counter, record(0))); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{[]byte("GET / HTTP/1.1"), make([]byte, 70000), e.Flush(1)} {
		if err := conn.WriteMessage(b, sctp.Message{Stream: 3}); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	d.await(t, 1)
	stop()
	if s := p.Stats(); s.Messages != 1 || s.Malformed[collect.CauseTruncated] != 1 || s.Malformed[collect.CauseLength]+s.Malformed[collect.CauseVersion] != 1 {
		t.Errorf("stats %+v", s)
	}
}

// An exporter whose last few Messages were all malformed is heard no more: its
// association ends (RFC 7011, Section 9.1). It may begin another.
func TestSCTPMalfunction(t *testing.T) {
	d, log := newDecoder(), newLog()
	address, p, stop := serveSCTP(t, collect.Config{Journal: streamDecoder{d}, Log: log.logger()}, "127.0.0.1:0")
	for session := range uint64(2) {
		conn, err := sctp.Dial(t.Context(), netip.MustParseAddrPort(address), sctp.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		e := ipfix.NewEncoder(1, 1000)
		if err := errors.Join(e.AddTemplate(counter), e.AppendRecord(counter, record(session))); err != nil {
			t.Fatal(err)
		}
		bad := []byte("GET / HTTP/1.1")
		for _, b := range [][]byte{bad, bad, bad, bad, e.Flush(1), bad, bad, bad, bad, make([]byte, 70000)} {
			if err := conn.WriteMessage(b, sctp.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		d.await(t, int(session)+1)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if n, _, err := conn.ReadMessage(make([]byte, 100)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the exporter reads %d octets and %v, want the end", n, err)
		}
	}
	stop()
	if s := p.Stats(); s.Messages != 2 || s.Opened != 2 || s.Closed != 2 || s.Malformed[collect.CauseTruncated] != 2 {
		t.Errorf("stats %+v", s)
	}
	log.await(t, "exporter malfunctions: its session is ended", "exporter=127.0.0.1")
}

// An association that is aborted is logged and closed, and another is listened
// for (RFC 7011, Section 10.2.4).
func TestSCTPAborted(t *testing.T) {
	d, log := newDecoder(), newLog()
	address, p, _ := serveSCTP(t, collect.Config{Journal: streamDecoder{d}, Log: log.logger()}, "127.0.0.1:0")
	message := func(n uint64) []byte {
		e := ipfix.NewEncoder(1, 1000)
		if err := errors.Join(e.AddTemplate(counter), e.AppendRecord(counter, record(n))); err != nil {
			t.Fatal(err)
		}
		return e.Flush(1)
	}
	to := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		t.Fatal(err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY); {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, message(0)); err != nil {
		t.Fatal(err)
	}
	d.await(t, 1)
	if err := errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	log.await(t, "connection lost", "exporter=127.0.0.1")
	next, err := sctp.Dial(t.Context(), netip.MustParseAddrPort(address), sctp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.WriteMessage(message(1), sctp.Message{}); err != nil {
		t.Fatal(err)
	}
	d.await(t, 2)
	if s := p.Stats(); s.Messages != 2 || s.Opened != 2 || s.Closed != 1 || len(s.Malformed) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// Who has no address of an exporter's is not heard over SCTP either, over IPv4
// and IPv6.
func TestSCTPStrangersAreRefused(t *testing.T) {
	for _, tt := range []struct{ host, other string }{{"127.0.0.1:0", "192.0.2.1/32"}, {"[::1]:0", "2001:db8::1/128"}} {
		t.Run(tt.host, func(t *testing.T) {
			d := newDecoder()
			address, p, _ := serveSCTP(t, collect.Config{
				Journal:   streamDecoder{d},
				Exporters: []collect.Exporter{{Name: "edge", Prefixes: []netip.Prefix{netip.MustParsePrefix(tt.other)}}},
			}, tt.host)
			conn, err := sctp.Dial(t.Context(), netip.MustParseAddrPort(address), sctp.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("a stranger was served")
			}
			if s := p.Stats(); s.Refused != 1 || s.Opened != 0 || s.Exporters["edge"].Refused != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// Acknowledged export over SCTP: all over one stream, in order, and answered
// on the same association; what one collector did not acknowledge goes to the
// next.
func TestSCTPAcknowledged(t *testing.T) {
	serve := func(s *store) (at string, stop func()) {
		t.Helper()
		at, _, stop = serveSCTP(t, collect.Config{Journal: s, Acknowledge: s, StopTimeout: 200 * time.Millisecond}, "127.0.0.1:0")
		return at, stop
	}
	primary, backup := newStore(), newStore()
	primary.hold(true) // nothing becomes durable there
	primaryAt, stop := serve(primary)
	backupAt, _ := serve(backup)
	failOver(t, export.Config{Transport: ipfix.SCTP, Address: primaryAt, Backups: []string{backupAt}}, primary, backup, stop)
}
