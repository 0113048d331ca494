package export_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// A store is a Journal with durability. It knows Messages again by their
// Identity, and counts how often each number came in Messages that are new.
type store struct {
	mu       sync.Mutex
	position uint64
	sessions map[uint64]*ipfix.Session
	watchers map[uint64]*ack.Watcher
	bodies   map[uint64]string // by Identity's position
	seen     map[uint64]int
	resent   int
	unknown  int // Data Sets without their Template
	givenUp  []ack.GivenUp
	answers  []ack.PullAnswer
	fault    string
	changed  chan struct{}

	durable uint64 // positions up to it; all where it is not held
	held    bool
	reason  ack.Reason
}

func newStore() *store {
	return &store{
		sessions: make(map[uint64]*ipfix.Session), watchers: make(map[uint64]*ack.Watcher),
		bodies: make(map[uint64]string), seen: make(map[uint64]int), changed: make(chan struct{}), reason: ack.Overload,
	}
}

func (s *store) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *store) Open(_ time.Time, i collect.Session) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position++
	s.sessions[s.position] = ipfix.NewSession(i.Transport)
	s.watchers[s.position] = ack.NewWatcher(ack.Enterprise)
	return s.position, nil
}

func (s *store) Close(time.Time, uint64) error { return nil }

func (s *store) Message(_ time.Time, session uint64, data []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notifyLocked()
	s.position++
	repeated := false
	s.watchers[session].Message(data, func(l *ack.Layout, r ipfix.Record, front bool) {
		switch {
		case l.Kind == ack.KindIdentity && front:
			p := l.Identity(r).Position
			before, known := s.bodies[p]
			if known && before != string(ack.Body(data)) {
				s.fault = "two Messages of one position"
			}
			repeated = known
			s.bodies[p] = string(ack.Body(data))
		case l.Kind == ack.KindGivenUp && !repeated:
			s.givenUp = append(s.givenUp, l.GivenUp(r))
		case l.Kind == ack.KindPullAnswer && !repeated:
			s.answers = append(s.answers, l.PullAnswer(r))
		}
	})
	if repeated {
		s.resent++
	}
	_, err := s.sessions[session].Decode(data, func(set ipfix.DataSet) {
		if set.Template == nil {
			s.unknown++
			return
		}
		for r, ok := set.Next(); ok; r, ok = set.Next() {
			if set.Template.Scope == 0 && !repeated {
				s.seen[binary.BigEndian.Uint64(r.Field(0))]++
			}
		}
	})
	return s.position, err
}

// Wait implements collect.Durability.
func (s *store) Wait(ctx context.Context, position uint64) error {
	return s.until(ctx, func() bool { return !s.held || position <= s.durable })
}

// until waits for what is told under the lock.
func (s *store) until(ctx context.Context, f func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := f(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *store) HeldUp() ack.Reason { return s.reason }

// hold makes nothing more durable, or all.
func (s *store) hold(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.durable = held, s.position
	s.notifyLocked()
}

func (s *store) await(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if s.until(ctx, f) != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Fatalf("not %s within 20 s: %d messages, %d numbers, fault %q", what, len(s.bodies), len(s.seen), s.fault)
	}
}

// exactly checks that the numbers 0 to n-1 came once, in Messages each of
// which was the same in every sending.
func (s *store) exactly(t *testing.T, n uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		if s.seen[i] != 1 {
			t.Fatalf("record %d of %d came %d times", i, n, s.seen[i])
		}
	}
	if uint64(len(s.seen)) != n || s.fault != "" || s.unknown != 0 {
		t.Errorf("%d records, want %d; fault %q, %d sets without template", len(s.seen), n, s.fault, s.unknown)
	}
}

// acknowledging serves a Collecting Process that acknowledges.
func acknowledging(t *testing.T, transport ipfix.Transport, address string, s *store, ca *certtest.Authority) (at string, p *collect.Process, stop func()) {
	t.Helper()
	cfg := collect.Config{Journal: s, Acknowledge: s, StopTimeout: 200 * time.Millisecond}
	if transport == ipfix.TLS {
		cfg.TLS = &collect.TLS{Certificate: ca.Issue("collector.isp.example"), ClientCAs: ca.Pool()}
	}
	p, err := collect.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln := listenTCP(t, address)
	serve := p.ServeTCP
	if transport == ipfix.TLS {
		serve = p.ServeTLS
	}
	return ln.Addr().String(), p, background(t, func(ctx context.Context) error { return serve(ctx, ln) })
}

func openBacklog(t *testing.T, dir string, cfg backlog.Config) *backlog.Backlog {
	t.Helper()
	b, err := backlog.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestAcknowledged(t *testing.T) {
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			ca, s := certtest.NewAuthority(t), newStore()
			at, collector, _ := acknowledging(t, transport, "127.0.0.1:0", s, ca)
			b := openBacklog(t, t.TempDir(), backlog.Config{Segment: 64 << 10})
			cfg := export.Config{Transport: transport, Address: at, Acknowledged: &export.Acknowledged{Backlog: b}}
			if transport == ipfix.TLS {
				cfg.TLS = clientTLS(ca)
			}
			p := start(t, cfg)
			const n = 100_000
			exportNumbers(t, p, 0, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.exactly(t, n)
			if st := p.Stats(); st.Records != n || st.Acked != st.Position || st.QueuedMessages != 0 || st.Resent != 0 {
				t.Errorf("stats %+v", st)
			}
			if left := b.Stats(); left.Messages != 0 || left.Segments > 1 {
				t.Errorf("what was acknowledged is kept: %+v", left)
			}
			// One answer stands for many Messages.
			if c := collector.Stats(); c.Acknowledgements == 0 || c.Acknowledgements > c.Messages {
				t.Errorf("%d acknowledgements of %d messages", c.Acknowledgements, c.Messages)
			}
		})
	}
}

// Nothing is let go of, or acknowledged, before it is durable; the exporter is
// told why it waits.
func TestNothingIsAcknowledgedBeforeItIsDurable(t *testing.T) {
	s, log := newStore(), newLog()
	s.hold(true)
	s.reason = ack.DiskFull
	at, _, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{Transport: ipfix.TCP, Address: at, Log: log.logger(), Acknowledged: &export.Acknowledged{Backlog: b}})
	exportNumbers(t, p, 0, 5000)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.await(t, "all received", func() bool { return len(s.seen) == 5000 })
	log.await(t, "held up", "disk full")
	if st := p.Stats(); st.Acked != 0 || st.Answers != 0 || st.HeldUp != 1 || st.QueuedMessages == 0 {
		t.Errorf("stats while held up: %+v", st)
	}
	s.hold(false)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exactly(t, 5000)
	log.await(t, "goes on")
}

// A stuck is a store whose Journal stands still before it takes anything, or
// the first Message.
type stuck struct {
	*store
	open, message func()
}

func (s stuck) Open(at time.Time, x collect.Session) (uint64, error) {
	s.open()
	return s.store.Open(at, x)
}

func (s stuck) Message(at time.Time, session uint64, data []byte) (uint64, error) {
	s.message()
	return s.store.Message(at, session, data)
}

// An exporter that connects to a collector whose Journal stands still is told
// why, though nothing of it is in the Journal.
func TestHeldUpFromTheStart(t *testing.T) {
	for _, at := range []string{"the session", "its first Message"} {
		t.Run(at, func(t *testing.T) {
			goesOn := make(chan struct{})
			s, log := stuck{newStore(), func() {}, func() {}}, newLog()
			s.reason = ack.DiskFull
			if wait := func() { <-goesOn }; at == "the session" {
				s.open = wait
			} else {
				s.message = wait
			}
			collector, err := collect.New(collect.Config{Journal: s, Acknowledge: s, StopTimeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			ln := listenTCP(t, "127.0.0.1:0")
			background(t, func(ctx context.Context) error { return collector.ServeTCP(ctx, ln) })
			goOn := sync.OnceFunc(func() { close(goesOn) })
			t.Cleanup(goOn)
			b := openBacklog(t, t.TempDir(), backlog.Config{})
			p := start(t, export.Config{Transport: ipfix.TCP, Address: ln.Addr().String(), Log: log.logger(), Acknowledged: &export.Acknowledged{Backlog: b}})
			exportNumbers(t, p, 0, 100)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			log.await(t, "no absolute time") // of these records
			log.await(t, "held up", "disk full")
			goOn()
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.exactly(t, 100)
		})
	}
}

// What one collector took and did not acknowledge goes to the backup, the same
// octet for octet, with its Templates.
func TestAcknowledgedFailover(t *testing.T) {
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			ca, primary := certtest.NewAuthority(t), newStore()
			primary.hold(true) // as if it dies before its fsync
			primaryAt, _, stop := acknowledging(t, transport, "127.0.0.1:0", primary, ca)
			backup := newStore()
			backupAt, _, _ := acknowledging(t, transport, "127.0.0.1:0", backup, ca)
			cfg := export.Config{Transport: transport, Address: primaryAt, Backups: []string{backupAt}}
			if transport == ipfix.TLS {
				cfg.TLS = clientTLS(ca)
			}
			p := failOver(t, cfg, primary, backup, stop)
			for position, body := range primary.bodies {
				if backup.bodies[position] != body {
					t.Fatalf("message %d: another at the backup", position)
				}
			}
			if st := p.Stats(); st.Resent == 0 {
				t.Errorf("nothing was sent again: %+v", st)
			}
		})
	}
}

// failOver exports to a primary that acknowledges nothing, and then stops, and
// checks that the backup has all.
func failOver(t *testing.T, cfg export.Config, primary, backup *store, stop func()) *export.Process {
	t.Helper()
	cfg.Reconnect = 10 * time.Millisecond
	cfg.Acknowledged = &export.Acknowledged{Backlog: openBacklog(t, t.TempDir(), backlog.Config{})}
	p := start(t, cfg)
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
	return p
}

// A collector that takes everything and acknowledges nothing is left for a
// backup.
func TestSilentCollectorIsLeft(t *testing.T) {
	mute := newDecoder()
	ln := listenTCP(t, "127.0.0.1:0")
	collectTCP(t, mute, ln) // it does not know acknowledged export
	s := newStore()
	backupAt, _, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: ln.Addr().String(), Backups: []string{backupAt}, Linger: 20 * time.Millisecond,
		Acknowledged: &export.Acknowledged{Backlog: b, Silence: 50 * time.Millisecond},
	})
	exportNumbers(t, p, 0, 100)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exactly(t, 100)
}

// A plain collector sees a conforming peer: it decodes every record, misses
// nothing by sequence numbers, and is not waited for in vain: what it does not
// acknowledge is kept.
func TestPlainCollectorSeesPlainExporter(t *testing.T) {
	d, log := newDecoder(), newLog()
	ln := listenTCP(t, "127.0.0.1:0")
	collectTCP(t, d, ln)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: ln.Addr().String(), Linger: 20 * time.Millisecond, Log: log.logger(),
		Acknowledged: &export.Acknowledged{Backlog: b, Silence: 100 * time.Millisecond},
	})
	exportNumbers(t, p, 0, 1000)
	log.await(t, "acknowledges nothing")
	d.mu.Lock()
	for i := range uint64(1000) {
		if d.seen[i] != 1 {
			t.Fatalf("record %d came %d times", i, d.seen[i])
		}
	}
	if d.lost != 0 || d.unknown != 0 {
		t.Errorf("%d lost, %d sets without template", d.lost, d.unknown)
	}
	d.mu.Unlock()
	if st := b.Stats(); st.Messages == 0 {
		t.Error("what nobody acknowledged is gone")
	}
}

// A plain exporter is never written to.
func TestPlainExporterIsNotWrittenTo(t *testing.T) {
	s := newStore()
	at, collector, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e := ipfix.NewEncoder(1, 0)
	if err := errors.Join(e.AddTemplate(counter), e.AppendRecord(counter, record(7))); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(e.Flush(1)); err != nil {
		t.Fatal(err)
	}
	s.await(t, "received", func() bool { return s.seen[7] == 1 })
	if pulled := collector.Pull(t.Context(), []netip.Prefix{ack.All}); len(pulled) != 0 {
		t.Errorf("it was asked for its cache: %+v", pulled)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 {
		t.Errorf("%d octets came back (%v)", n, err)
	}
}

// A window bounds what is sent again after a connection breaks.
func TestWindow(t *testing.T) {
	s := newStore()
	s.hold(true)
	at, _, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{Transport: ipfix.TCP, Address: at, MaxMessage: 200, Acknowledged: &export.Acknowledged{Backlog: b, Window: 5}})
	exportNumbers(t, p, 0, 1000)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.await(t, "five received", func() bool { return len(s.bodies) == 5 })
	s.hold(false)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exactly(t, 1000)
}

// Block: Export waits for room. Drop: the oldest Messages go, and what went is
// told to the record.
func TestFullBacklog(t *testing.T) {
	const n = 200_000
	for _, drop := range []bool{false, true} {
		t.Run(map[bool]string{false: "block", true: "drop oldest"}[drop], func(t *testing.T) {
			b := openBacklog(t, t.TempDir(), backlog.Config{MaxOctets: 600 << 10})
			s := newStore()
			ln := listenTCP(t, "127.0.0.1:0") // nobody accepts yet
			p := start(t, export.Config{
				Transport: ipfix.TCP, Address: ln.Addr().String(), DropWhenFull: drop,
				Acknowledged: &export.Acknowledged{Backlog: b, Window: 8},
			})
			serve := func() {
				c, err := collect.New(collect.Config{Journal: s, Acknowledge: s})
				if err != nil {
					t.Fatal(err)
				}
				background(t, func(ctx context.Context) error { return c.ServeTCP(ctx, ln) })
			}
			if !drop {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				taken := uint64(0)
				for ; taken < n; taken++ {
					if err := p.Export(ctx, counter, record(taken)); err != nil {
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Fatal(err)
						}
						break
					}
				}
				if st := b.Stats(); taken == n || st.Octets < 600<<10 || st.Octets > 620<<10 {
					t.Errorf("it blocks at %d records and %+v", taken, st)
				}
				serve()
				exportNumbers(t, p, taken, n)
			} else {
				exportNumbers(t, p, 0, n)
				serve()
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !drop {
				s.exactly(t, n)
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			lost := s.lostLocked()
			if got := uint64(len(s.seen)) + lost; got != n || lost == 0 || s.fault != "" {
				t.Errorf("%d records came and %d are told to be lost, in all %d of %d; fault %q", len(s.seen), lost, got, n, s.fault)
			}
			if st := p.Stats(); st.LostRecords < lost {
				t.Errorf("stats %+v, lost %d", st, lost)
			}
		})
	}
}

// A record that fits into a Message, but not beside its Identity, is refused;
// what came before and comes after it goes.
func TestRecordWithoutRoomForItsIdentity(t *testing.T) {
	s := newStore()
	at, _, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	p := start(t, export.Config{Transport: ipfix.TCP, Address: at, MaxMessage: 512, Acknowledged: &export.Acknowledged{Backlog: b}})
	long := template(300, ipfix.FieldSpecifier{ID: ipfix.ApplicationName, Length: 512 - ipfix.HeaderLength - 4})
	exportNumbers(t, p, 0, 1)
	for range 2 { // the first ends a Message
		refused := make(chan error, 1)
		go func() { refused <- p.Export(t.Context(), long, make([]byte, 492)) }()
		select {
		case err := <-refused:
			if !errors.Is(err, ipfix.ErrLength) {
				t.Errorf("a record of 492 octets: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("Export holds the Process's lock")
		}
	}
	exportNumbers(t, p, 1, 2)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exactly(t, 2)
}

// lostLocked returns how many records were told to be lost that are, as a
// collector counts them.
func (s *store) lostLocked() (lost uint64) {
	told := map[uint64]bool{}
	for _, g := range s.givenUp {
		if g.First == g.Last { // it may have arrived, or be told again
			if _, arrived := s.bodies[g.First]; arrived || told[g.First] {
				continue
			}
			told[g.First] = true
		}
		lost += g.Records
	}
	return lost
}

// A Message that the disk does not give back as it was written is told to be
// lost, with the others all is there; the Message that was begun meanwhile has
// a position of its own.
func TestDamagedBacklog(t *testing.T) {
	for _, begun := range []string{"with a record", "without one"} {
		t.Run(begun, func(t *testing.T) { testDamagedBacklog(t, begun == "with a record") })
	}
}

func testDamagedBacklog(t *testing.T, filled bool) {
	dir := t.TempDir()
	b := openBacklog(t, dir, backlog.Config{Segment: 32 << 10})
	s := newStore()
	ln := listenTCP(t, "127.0.0.1:0") // nobody accepts yet
	p, err := export.New(export.Config{
		Transport: ipfix.TCP, Address: ln.Addr().String(), Linger: time.Hour, Acknowledged: &export.Acknowledged{Backlog: b},
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	exportNumbers(t, p, 0, n-1)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if filled {
		exportNumbers(t, p, n-1, n)
	} else if err := p.Export(t.Context(), counter, []byte{1}); !errors.Is(err, ipfix.ErrLength) {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	f, err := os.OpenFile(names[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	octet := make([]byte, 1)
	if _, err := f.ReadAt(octet, 10_000); err != nil {
		t.Fatal(err)
	}
	octet[0] ^= 0x40
	if _, err := f.WriteAt(octet, 10_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	collector, err := collect.New(collect.Config{Journal: s, Acknowledge: s})
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return collector.ServeTCP(ctx, ln) })
	background(t, p.Run)
	s.await(t, "told", func() bool { return len(s.givenUp) > 0 })
	if !filled {
		exportNumbers(t, p, n-1, n)
	}
	closing, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Close(closing); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lostLocked()
	if got := uint64(len(s.seen)) + lost; got != n || lost == 0 || len(s.givenUp) != 1 || s.fault != "" {
		t.Errorf("%d records came and %d are told to be lost, of %d; %+v; fault %q", len(s.seen), lost, n, s.givenUp, s.fault)
	}
	if st := p.Stats(); st.Damaged != 1 || st.LostRecords != lost || st.QueuedMessages != 0 {
		t.Errorf("stats %+v, lost %d", st, lost)
	}
}

// A pull is answered behind the records that it caused.
func TestPull(t *testing.T) {
	s := newStore()
	at, collector, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	moment := time.UnixMilli(1_700_000_000_123).UTC()
	var p *export.Process
	asked := make(chan netip.Prefix, 1)
	cfg := export.Config{Transport: ipfix.TCP, Address: at, Linger: time.Hour, Acknowledged: &export.Acknowledged{
		Backlog: b,
		Pull: func(ctx context.Context, of netip.Prefix) (time.Time, error) {
			asked <- of
			if of.Bits() == 0 {
				return moment, p.Export(ctx, counter, record(1))
			}
			return moment, errors.New("no")
		},
	}}
	p, err := export.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	exportNumbers(t, p, 0, 1)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.await(t, "received", func() bool { return s.seen[0] == 1 })
	var pulled []collect.Pulled
	for len(pulled) == 0 && t.Context().Err() == nil { // the journal has the Message before the collector knows whom it can ask
		pulled = collector.Pull(t.Context(), []netip.Prefix{ack.All})
	}
	if of := <-asked; of != ack.All {
		t.Errorf("asked for %v", of)
	}
	if len(pulled) != 1 || pulled[0].Err != nil || pulled[0].Result != ack.Done || !pulled[0].Time.Equal(moment) || pulled[0].Position == 0 {
		t.Fatalf("pulled %+v", pulled)
	}
	s.mu.Lock()
	if s.seen[1] != 1 || pulled[0].Position != s.position || len(s.answers) != 1 {
		t.Errorf("numbers %v, answer at %d of %d", s.seen, pulled[0].Position, s.position)
	}
	s.mu.Unlock()
	want := netip.MustParsePrefix("192.0.2.7/32")
	pulled = collector.Pull(t.Context(), []netip.Prefix{want})
	if of := <-asked; of != want {
		t.Errorf("asked for %v, want %v", of, want)
	}
	if len(pulled) != 1 || pulled[0].Result != ack.Failed {
		t.Errorf("pulled %+v", pulled)
	}
}

// A new life sends what the last one left, under the same positions, though
// its Templates have other IDs for other things.
func TestBacklogOutlivesProcess(t *testing.T) {
	dir := t.TempDir()
	b := openBacklog(t, dir, backlog.Config{})
	dead := deadAddress(t)
	first, err := export.New(export.Config{Transport: ipfix.TCP, Address: dead, Acknowledged: &export.Acknowledged{Backlog: b}})
	if err != nil {
		t.Fatal(err)
	}
	exportNumbers(t, first, 0, 3000)
	if err := first.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	instance := b.Instance()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = openBacklog(t, dir, backlog.Config{})
	if b.Instance() != instance {
		t.Error("another instance after a restart")
	}
	s := newStore()
	at, _, _ := acknowledging(t, ipfix.TCP, "127.0.0.1:0", s, nil)
	p := start(t, export.Config{Transport: ipfix.TCP, Address: at, Acknowledged: &export.Acknowledged{Backlog: b}})
	other := template(counter.ID, // it has the ID of what the backlog holds records of
		ipfix.FieldSpecifier{ID: ipfix.PacketDeltaCount, Length: 8}, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err := p.Export(t.Context(), other, slices.Concat(record(3000), record(1))); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exactly(t, 3001)
}

func TestAcknowledgedRefuses(t *testing.T) {
	b := openBacklog(t, t.TempDir(), backlog.Config{})
	for _, tt := range []struct {
		name string
		cfg  export.Config
	}{
		{"UDP, which brings no answers", export.Config{Transport: ipfix.UDP, Acknowledged: &export.Acknowledged{Backlog: b}}},
		{"messages that may be given up", export.Config{Transport: ipfix.SCTP, Lifetime: time.Second, Acknowledged: &export.Acknowledged{Backlog: b}}},
		{"no spool", export.Config{Transport: ipfix.TCP, Acknowledged: &export.Acknowledged{}}},
		{"a window above what collectors must know again", export.Config{Transport: ipfix.TCP, Acknowledged: &export.Acknowledged{Backlog: b, Window: 4097}}},
	} {
		tt.cfg.Address = "192.0.2.1:4739"
		if _, err := export.New(tt.cfg); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
	p, err := export.New(export.Config{Transport: ipfix.TCP, Address: "192.0.2.1:4739", Acknowledged: &export.Acknowledged{Backlog: b}})
	if err != nil {
		t.Fatal(err)
	}
	reserved := template(ack.IdentityID, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err := p.Export(t.Context(), reserved, record(1)); !errors.Is(err, export.ErrTemplate) {
		t.Errorf("a template ID of the protocol: %v", err)
	}
	delta := template(256, ipfix.FieldSpecifier{ID: ipfix.FlowStartDeltaMicroseconds, Length: 4})
	if err := p.Export(t.Context(), delta, make([]byte, 4)); !errors.Is(err, export.ErrRelative) {
		t.Errorf("a time that each sending moves: %v", err)
	}
}
