package collect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tollbridge/ipfix"
)

func TestUDP(t *testing.T) {
	for _, tt := range []struct{ listen, host string }{{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"::", "127.0.0.1"}} {
		t.Run(tt.listen+" from "+tt.host, func(t *testing.T) {
			journal := newMemory()
			p := newProcess(t, Config{Journal: journal})
			conn := listenUDP(t, tt.listen)
			local := unmap(conn.LocalAddr())
			stop := serve(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })

			to := &net.UDPAddr{IP: net.ParseIP(tt.host), Port: int(local.Port())}
			one, two := dial(t, to), dial(t, to)
			write(t, one, message(1))
			journal.await(t, "message", 1)
			write(t, two, message(2))
			journal.await(t, "message", 1)
			write(t, one, message(3))
			journal.await(t, "message", 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}

			want := []Session{
				{ipfix.UDP, tt.host, unmap(one.LocalAddr()), local},
				{ipfix.UDP, tt.host, unmap(two.LocalAddr()), local},
			}
			if !slices.Equal(journal.sessions, want) {
				t.Errorf("sessions %v, want %v", journal.sessions, want)
			}
			if want := []string{string(message(1)), string(message(2)), string(message(3))}; !slices.Equal(journal.messages, want) {
				t.Errorf("messages %q, want %q", journal.messages, want)
			}
			if len(journal.closed) != 0 {
				t.Errorf("a stop closed sessions: %v", journal.closed)
			}
			s := p.Stats()
			if s.Messages != 3 || s.Octets != 72 || s.Opened != 2 || s.Dropped != 0 {
				t.Errorf("stats %+v", s)
			}
			if e := s.Exporters[tt.host]; e.Messages != 3 || e.Octets != 72 || e.Opened != 2 {
				t.Errorf("stats of the exporter %+v", e)
			}
		})
	}
}

// A malformed Message is discarded (RFC 7011, Section 9.1): it opens no session
// and harms none.
func TestUDPMalformed(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal, MaxDatagram: 100})
	conn := listenUDP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })
	honest, hostile := dial(t, conn.LocalAddr()), dial(t, conn.LocalAddr())

	want := make(map[Cause]uint64)
	write(t, honest, message(0))
	for i, m := range malformed {
		write(t, hostile, m.msg)
		write(t, honest, m.msg)
		write(t, honest, message(uint32(i)))
		want[m.cause] += 2
	}
	long := ipfix.Header{Length: 101}.Append(nil)
	write(t, honest, append(long, make([]byte, 85)...))
	write(t, honest, append([]byte{0, ipfix.NetFlow5, 0xd9, 0x1e}, make([]byte, 20+48)...)) // counts 55582 records
	write(t, honest, message(99))
	want[CauseTruncated]++
	want[CauseLength]++

	journal.await(t, "message", len(malformed)+2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s := p.Stats()
	wantMalformed(t, s.Malformed, want)
	wantMalformed(t, s.Exporters["127.0.0.1"].Malformed, want)
	if s.Opened != 1 || len(journal.sessions) != 1 {
		t.Errorf("%d sessions, want 1", s.Opened)
	}
}

func TestUDPStrangersAreRefused(t *testing.T) {
	for _, tt := range []struct{ listen, edge, stranger, prefix string }{
		{"127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2/32"},
		{"::", "::1", "127.0.0.1", "::1/128"},
		{"::", "127.0.0.1", "::1", "127.0.0.0/8"},
	} {
		t.Run(tt.prefix, func(t *testing.T) {
			journal := newMemory()
			p := newProcess(t, Config{Journal: journal, Exporters: []Exporter{
				{Name: "edge", Prefixes: []netip.Prefix{netip.MustParsePrefix(tt.prefix)}},
			}})
			conn := listenUDP(t, tt.listen)
			port := conn.LocalAddr().(*net.UDPAddr).Port
			stop := serve(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })
			from := func(host string) net.Conn {
				to := &net.UDPAddr{IP: net.ParseIP(host), Port: port}
				if host == tt.edge && tt.listen != "::" {
					to.IP = net.ParseIP(tt.listen)
				}
				c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)}, to)
				if err != nil {
					t.Skipf("%s can't be used: %v", host, err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			stranger, edge := from(tt.stranger), from(tt.edge)
			for range 3 {
				write(t, stranger, message(1))
			}
			write(t, edge, message(2))
			journal.await(t, "message", 1)
			stop()
			s := p.Stats()
			if s.Refused != 3 || s.Messages != 1 || s.Exporters["edge"].Messages != 1 || s.Exporters["edge"].Refused != 0 {
				t.Errorf("stats %+v", s)
			}
			if len(journal.sessions) != 1 || journal.sessions[0].Exporter != "edge" {
				t.Errorf("sessions %v", journal.sessions)
			}
		})
	}
}

// A flood of sessions closes the least recently used, and never more than
// the limit are open.
func TestUDPSessionsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"in all", Config{MaxSessions: 5}},
		{"per exporter", Config{MaxExporterSessions: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			journal := newMemory()
			tt.cfg.Journal = journal
			p := newProcess(t, tt.cfg)
			conn := listenUDP(t, "127.0.0.1")
			stop := serve(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })
			busy := dial(t, conn.LocalAddr())
			const others = 40
			for i := range others {
				write(t, busy, message(0))
				write(t, dial(t, conn.LocalAddr()), message(uint32(i)))
			}
			journal.await(t, "message", 2*others)
			stop()
			s := p.Stats()
			if s.Opened != others+1 || s.Evicted != others-4 || s.Closed != s.Evicted || len(journal.open) != 5 {
				t.Errorf("%d open, stats %+v", len(journal.open), s)
			}
			if slices.ContainsFunc(journal.closed, func(c Session) bool { return c.Remote == unmap(busy.LocalAddr()) }) {
				t.Error("the session in use was closed")
			}
		})
	}
}

func TestUDPIdleSessionsClose(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal, IdleTimeout: 20 * time.Millisecond})
	conn := listenUDP(t, "127.0.0.1")
	stop := serve(t, func(ctx context.Context) error { return p.ServeUDP(ctx, conn) })
	exporter := dial(t, conn.LocalAddr())
	for i := range uint32(2) { // a session closes, and may begin anew
		write(t, exporter, message(i))
		journal.await(t, "close", 1)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Opened != 2 || s.Closed != 2 || s.Evicted != 0 || s.Messages != 2 {
		t.Errorf("stats %+v", s)
	}
}

// What the kernel drops for want of buffer is counted, be it dropped before a
// datagram that was queued (SO_RXQ_OVFL tells) or after the last.
func TestUDPKernelDropsAreCounted(t *testing.T) {
	journal := newMemory()
	p := newProcess(t, Config{Journal: journal, ReceiveBuffer: 4096})
	conn := listenUDP(t, "127.0.0.1")
	s, err := newUDPServer(p, conn)
	if err != nil {
		t.Fatal(err)
	}
	socket := s.socket
	exporter := dial(t, conn.LocalAddr())
	const sent = 1000
	for i := range uint32(sent) { // nobody reads
		write(t, exporter, message(i))
	}
	held, err := socket.read()
	if err != nil || held == sent || socket.drops.take() != 0 {
		t.Fatalf("read %d datagrams, %v; the test needs the socket to be full", held, err)
	}
	socket.noWait = true
	for n := held; n != 0; held += n { // until it is empty
		if n, err = socket.read(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, exporter, message(sent))
	if n, err := socket.read(); err != nil || n != 1 {
		t.Fatalf("read %d datagrams, %v", n, err)
	}
	if got, want := socket.drops.take(), uint32(sent-held); got != want {
		t.Errorf("SO_RXQ_OVFL tells of %d drops, want %d", got, want)
	}
	if got := socket.finalDrops(); got != 0 {
		t.Errorf("the socket knows of %d more drops", got)
	}
	for i := range uint32(sent) {
		write(t, exporter, message(i))
	}
	// These drops no datagram tells of: none was queued after them.
	socket.noWait = true
	if err := s.drain(); err != nil {
		t.Fatal(err)
	}
	s.close()
	stats := p.Stats()
	if stats.Dropped+stats.Messages != sent || stats.Dropped < sent/2 {
		t.Errorf("%d dropped and %d received, want %d together", stats.Dropped, stats.Messages, sent)
	}
}

// SO_RXQ_OVFL counts modulo 2^32.
func TestDropsWrap(t *testing.T) {
	d := drops{known: 1<<32 - 3, seen: 4}
	if got := d.take(); got != 7 {
		t.Errorf("%d drops across the wrap, want 7", got)
	}
}

// A stop journals what the socket still holds.
func TestUDPStopDrains(t *testing.T) {
	journal := newMemory()
	release := make(chan struct{})
	journal.message = func(n int) error {
		if n == 0 {
			<-release
		}
		return nil
	}
	p := newProcess(t, Config{Journal: journal})
	conn := listenUDP(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.ServeUDP(ctx, conn) }()
	exporter := dial(t, conn.LocalAddr())
	write(t, exporter, message(0))
	journal.await(t, "open", 1) // and blocks in Message
	const queued = 3 * batchSize
	for i := range uint32(queued) {
		write(t, exporter, message(i))
	}
	cancel()
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := p.Stats().Messages; got != queued+1 {
		t.Errorf("%d messages, want %d", got, queued+1)
	}
}

func TestUDPJournalFails(t *testing.T) {
	journal := newMemory()
	journal.message = func(n int) error {
		if n == 1 {
			return errFull
		}
		return nil
	}
	p := newProcess(t, Config{Journal: journal})
	conn := listenUDP(t, "127.0.0.1")
	exporter := dial(t, conn.LocalAddr())
	write(t, exporter, message(0))
	write(t, exporter, message(1))
	if err := p.ServeUDP(t.Context(), conn); !errors.Is(err, errFull) {
		t.Errorf("serving ended with %v, want %v", err, errFull)
	}
	if got := p.Stats().Messages; got != 1 {
		t.Errorf("%d messages counted, want 1", got)
	}
}

func TestUDPClosedSocket(t *testing.T) {
	p := newProcess(t, Config{Journal: newMemory()})
	conn := listenUDP(t, "127.0.0.1")
	conn.Close()
	if err := p.ServeUDP(t.Context(), conn); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serving a closed socket: %v", err)
	}
}

// Reading, checking and counting a datagram allocates nothing.
func TestUDPAllocatesNothing(t *testing.T) {
	p := newProcess(t, Config{Journal: counting{}})
	conn := listenUDP(t, "127.0.0.1")
	s, err := newUDPServer(p, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	exporter := dial(t, conn.LocalAddr())
	msg := message(1)
	allocs := testing.AllocsPerRun(100, func() {
		for range 10 {
			exporter.Write(msg)
		}
		if _, err := s.receive(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per batch", allocs)
	}
}

// Link-local addresses are told apart by their interface.
func TestUDPPeerScope(t *testing.T) {
	addr := netip.MustParseAddrPort("[fe80::1]:4739")
	if got := (udpPeer{addr, 0}).remote(); got != addr {
		t.Errorf("without scope: %v", got)
	}
	if got, want := (udpPeer{addr, 3}).remote(), netip.MustParseAddrPort("[fe80::1%3]:4739"); got != want {
		t.Errorf("with scope: %v, want %v", got, want)
	}
}
