package export_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
)

// counter is a Template of one number.
var counter = template(256, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})

// wide is a Template of a number and a text of variable length.
var wide = template(257,
	ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8},
	ipfix.FieldSpecifier{ID: ipfix.InterfaceName, Length: ipfix.VariableLength})

func template(id uint16, fields ...ipfix.FieldSpecifier) *ipfix.Template {
	t, err := ipfix.NewTemplate(id, fields...)
	if err != nil {
		panic(err)
	}
	return t
}

func record(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A decoder is a Journal that decodes what it is given: the first field of
// each record is a number, and it counts how often each came.
type decoder struct {
	mu       sync.Mutex
	position uint64
	sessions map[uint64]*ipfix.Session
	closed   int
	seen     map[uint64]int
	lost     uint64 // records, by sequence numbers
	unknown  int    // Data Sets without their Template
	repeated int    // Templates sent again
	changed  int    // Templates that came, or came to replace others
	ignored  int    // withdrawals
	early    bool   // data came in a Message that defines a Template
	longest  int    // octets of a Message

	distinct chan int // len(seen), the latest
}

func newDecoder() *decoder {
	return &decoder{sessions: make(map[uint64]*ipfix.Session), seen: make(map[uint64]int), distinct: make(chan int, 1)}
}

func (d *decoder) Open(_ time.Time, s collect.Session) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.position++
	d.sessions[d.position] = ipfix.NewSession(s.Transport)
	return d.position, nil
}

func (d *decoder) Message(_ time.Time, session uint64, data []byte) (uint64, error) {
	return d.decode(session, data, func(s *ipfix.Session, visit func(ipfix.DataSet)) (ipfix.Result, error) {
		return s.Decode(data, visit)
	})
}

func (d *decoder) decode(session uint64, data []byte, by func(*ipfix.Session, func(ipfix.DataSet)) (ipfix.Result, error)) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := by(d.sessions[session], func(s ipfix.DataSet) {
		if s.Template == nil {
			return
		}
		for r, ok := s.Next(); ok; r, ok = s.Next() {
			d.seen[binary.BigEndian.Uint64(r.Field(0))]++
		}
	})
	d.lost += r.Lost
	d.unknown += r.Unknown
	d.repeated += r.Repeated
	d.changed += len(r.New)
	d.ignored += r.Ignored
	if r.TemplatesChanged && len(r.New) == 0 {
		d.ignored++ // it was heeded
	}
	d.early = d.early || len(r.New) > 0 && r.Records > 0
	d.longest = max(d.longest, len(data))
	select {
	case <-d.distinct:
	default:
	}
	d.distinct <- len(d.seen)
	d.position++
	return d.position, err
}

func (d *decoder) Close(time.Time, uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed++
	return nil
}

// await waits until n different numbers have come.
func (d *decoder) await(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for got := 0; got < n; {
		select {
		case got = <-d.distinct:
		case <-timeout:
			t.Fatalf("%d records came in 20 s, want %d", got, n)
		}
	}
}

// exactly checks that the numbers 0 to n-1 came, each once, and that by
// sequence numbers nothing is missing.
func (d *decoder) exactly(t *testing.T, n uint64) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range n {
		if d.seen[i] != 1 {
			t.Fatalf("record %d of %d came %d times", i, n, d.seen[i])
		}
	}
	if uint64(len(d.seen)) != n || d.lost != 0 || d.unknown != 0 {
		t.Errorf("%d records, want %d; %d lost, %d sets without template", len(d.seen), n, d.lost, d.unknown)
	}
}

// collectTCP serves a Collecting Process on ln; stop ends it in an orderly way.
func collectTCP(t *testing.T, d *decoder, ln net.Listener) (stop func()) {
	t.Helper()
	p, err := collect.New(collect.Config{Journal: d, StopTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return background(t, func(ctx context.Context) error { return p.ServeTCP(ctx, ln) })
}

func collectUDP(t *testing.T, d *decoder, conn *net.UDPConn) (stop func()) {
	t.Helper()
	p, err := collect.New(collect.Config{Journal: d})
	if err != nil {
		t.Fatal(err)
	}
	return background(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })
}

// background runs f until stop is called, at the latest when the test ends.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func listenTCP(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no TCP on %s: %v", address, err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func listenUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("no UDP on %s: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// start runs an Exporting Process until the test ends.
func start(t *testing.T, cfg export.Config) *export.Process {
	t.Helper()
	p, err := export.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	return p
}

func exportNumbers(t *testing.T, p *export.Process, from, to uint64) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := p.Export(t.Context(), counter, record(i)); err != nil {
			t.Fatal(err)
		}
	}
}
