package export_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
	"tollbridge/ipfix/sctp"
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
	ln, err := sctp.Listen(netip.MustParseAddrPort(address), sctp.Config{})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = collect.New(collect.Config{Journal: streamDecoder{d}}); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), p, background(t, func(ctx context.Context) error { return p.ServeSCTP(ctx, ln) })
}

func TestSCTP(t *testing.T) {
	for _, tt := range []struct {
		host    string
		streams int
	}{{"127.0.0.1:0", 1}, {"127.0.0.1:0", 8}, {"[::1]:0", 3}} {
		t.Run(tt.host, func(t *testing.T) {
			d := newDecoder()
			address, collector, stop := collectSCTP(t, d, tt.host)
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

// Acknowledged export over SCTP: all over one stream, in order, and answered
// on the same association; what one collector did not acknowledge goes to the
// next.
func TestSCTPAcknowledged(t *testing.T) {
	serve := func(s *store) (at string, stop func()) {
		t.Helper()
		ln, err := sctp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sctp.Config{})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip("this kernel has no SCTP: run make test-sctp")
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := collect.New(collect.Config{Journal: s, Acknowledge: s, StopTimeout: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return ln.Addr().String(), background(t, func(ctx context.Context) error { return p.ServeSCTP(ctx, ln) })
	}
	primary, backup := newStore(), newStore()
	primary.hold(true) // nothing becomes durable there
	primaryAt, stop := serve(primary)
	backupAt, _ := serve(backup)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{
		Transport: ipfix.SCTP, Address: primaryAt, Backups: []string{backupAt}, Reconnect: 10 * time.Millisecond,
		Acknowledged: &export.Acknowledged{Backlog: b},
	})
	const n = 20_000
	exportNumbers(t, p, 0, n)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	primary.await(t, "all received", func() bool { return len(primary.seen) == n })
	stop()
	exportNumbers(t, p, n, n+100)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	backup.exactly(t, n+100)
}
