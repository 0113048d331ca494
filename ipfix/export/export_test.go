package export_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
)

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  export.Config
	}{
		{"no transport", export.Config{Address: "192.0.2.1:4739"}},
		{"a transport it has not", export.Config{Transport: 99, Address: "192.0.2.1:4739"}},
		{"no address", export.Config{Transport: ipfix.TCP}},
		{"an address without port", export.Config{Transport: ipfix.TCP, Address: "192.0.2.1"}},
		{"messages that hold nothing", export.Config{Transport: ipfix.TCP, Address: "192.0.2.1:4739", MaxMessage: 16}},
		{"a lifetime over TCP", export.Config{Transport: ipfix.TCP, Address: "192.0.2.1:4739", Lifetime: time.Second}},
		{"a lifetime below 0", export.Config{Transport: ipfix.SCTP, Address: "192.0.2.1:4739", Lifetime: -1}},
		{"a longest time to reconnect below the least", export.Config{Transport: ipfix.TCP, Address: "192.0.2.1:4739", MaxReconnect: time.Second}},
		{"messages too long", export.Config{Transport: ipfix.TCP, Address: "192.0.2.1:4739", MaxMessage: 65536}},
	} {
		if _, err := export.New(tt.cfg); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

func TestTCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			d := newDecoder()
			ln := listenTCP(t, host)
			stop := collectTCP(t, d, ln)
			p := start(t, export.Config{Transport: ipfix.TCP, Address: ln.Addr().String()})
			const n = 20000
			exportNumbers(t, p, 0, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The Collecting Process has closed its end, so it has read all.
			d.exactly(t, n)
			stop()
			s := p.Stats()
			if s.Records != n || s.QueuedRecords != 0 || s.Connections != 1 || s.Broken != 0 || s.TemplateMessages != 1 || d.repeated != 0 {
				t.Errorf("stats %+v, %d templates repeated", s, d.repeated)
			}
			if d.longest > 8192 || d.closed != 1 {
				t.Errorf("longest message %d octets, %d sessions closed", d.longest, d.closed)
			}
			if err := p.Export(t.Context(), counter, record(0)); !errors.Is(err, export.ErrClosed) {
				t.Errorf("export after close: %v", err)
			}
		})
	}
}

func TestUDP(t *testing.T) {
	for _, tt := range []struct {
		host    string
		longest int
	}{{"127.0.0.1:0", 1400}, {"[::1]:0", 1232}} {
		t.Run(tt.host, func(t *testing.T) {
			d := newDecoder()
			conn := listenUDP(t, tt.host)
			collectUDP(t, d, conn)
			p := start(t, export.Config{Transport: ipfix.UDP, Address: conn.LocalAddr().String()})
			const n = 2000
			exportNumbers(t, p, 0, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, n)
			d.exactly(t, n)
			if s := p.Stats(); s.Records != n || s.TemplateMessages != 2 || s.LostMessages != 0 {
				t.Errorf("stats %+v", s)
			}
			if d.longest > tt.longest || d.longest < tt.longest-50 {
				t.Errorf("longest message %d octets, want nearly %d", d.longest, tt.longest)
			}
		})
	}
}

// Templates of different IDs are sent before their first record, in Messages of
// their own, and hold for the Transport Session: none is withdrawn or defined
// anew (RFC 7011, Sections 8.1 to 8.4). Records of several may share a Message.
func TestSeveralTemplates(t *testing.T) {
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.UDP} {
		t.Run(transport.String(), func(t *testing.T) {
			d := newDecoder()
			address, _, _ := collecting(t, transport, "127.0.0.1:0", d, nil, "")
			p := start(t, export.Config{Transport: transport, Address: address, TemplateRefreshMessages: 2, MaxMessage: 1000})
			const n = 500
			for i := range uint64(n) {
				tmpl, b := counter, record(i)
				if i%3 == 2 {
					name := strings.Repeat("x", int(i)%200)
					tmpl, b = wide, append(append(b, byte(len(name))), name...)
				}
				if err := p.Export(t.Context(), tmpl, b); err != nil {
					t.Fatal(err)
				}
				if i == 0 { // so that the second Template comes later
					if err := p.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, n)
			d.exactly(t, n)
			if d.changed != 2 || d.ignored != 0 || d.early {
				t.Errorf("%d templates defined, %d withdrawn, with data in a message: %v", d.changed, d.ignored, d.early)
			}
		})
	}
}

func TestExportRefuses(t *testing.T) {
	p, err := export.New(export.Config{Transport: ipfix.UDP, Address: "127.0.0.1:4739", MaxMessage: 64})
	if err != nil {
		t.Fatal(err)
	}
	big := make([]ipfix.FieldSpecifier, 20)
	for i := range big {
		big[i] = ipfix.FieldSpecifier{ID: uint16(i + 1), Length: 1}
	}
	for _, tt := range []struct {
		name     string
		template *ipfix.Template
		record   []byte
		want     error
	}{
		{"octets that are no record", counter, record(1)[:7], ipfix.ErrLength},
		{"a record longer than a message", wide, append(append(record(1), 200), make([]byte, 200)...), ipfix.ErrLength},
		{"a template longer than a message", template(300, big...), make([]byte, 20), ipfix.ErrLength},
		{"a template ID in use", template(256, big[0]), []byte{1}, export.ErrTemplate},
	} {
		if err := p.Export(t.Context(), tt.template, tt.record); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	same := template(256, counter.Fields...)
	if err := p.Export(t.Context(), same, record(1)); err != nil {
		t.Errorf("an equal template: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ended); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 messages with 1 records") {
		t.Errorf("close without run: %v", err)
	}
}

// An exporter that runs out of Template IDs (RFC 5472, Section 4.5) has all of
// them exported, and is told so with the next Template: none is redefined
// under records that are under way.
func TestTemplateIDsExhausted(t *testing.T) {
	p := start(t, export.Config{Transport: ipfix.UDP, Address: listenUDP(t, "127.0.0.1:0").LocalAddr().String(), MaxMessage: ipfix.MaxMessage})
	octets := ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8}
	for id := 256; id <= 65535; id++ {
		if err := p.Export(t.Context(), template(uint16(id), octets), record(uint64(id))); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []uint16{256, 4739, 65535} {
		if err := p.Export(t.Context(), template(id, ipfix.FieldSpecifier{ID: ipfix.PacketDeltaCount, Length: 8}), record(1)); !errors.Is(err, export.ErrTemplate) {
			t.Errorf("another template %d: %v", id, err)
		}
		if err := p.Export(t.Context(), template(id, octets), record(1)); err != nil {
			t.Errorf("template %d: %v", id, err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Records+s.LostRecords != 65536-256+3 {
		t.Errorf("stats %+v", s)
	}
}

// A Collecting Process that stops in an orderly way, again and again, while
// records flow, loses none: the exporter sees it close its end, ends its own
// after what it sent, and sends the rest on the next connection.
func TestTCPCollectorRestartsLosesNothing(t *testing.T) {
	d := newDecoder()
	ln := listenTCP(t, "127.0.0.1:0")
	address := ln.Addr().String()
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: address, MaxMessage: 500, Buffer: 1 << 16,
		Reconnect: time.Millisecond, Linger: time.Millisecond,
	})
	const chunk, restarts = 10000, 5
	upTo := make(chan uint64, 1)
	var exporting sync.WaitGroup
	exporting.Go(func() {
		var from uint64
		for to := range upTo {
			exportNumbers(t, p, from, to)
			from = to
		}
	})
	for i := range restarts {
		stop := collectTCP(t, d, ln)
		upTo <- uint64(2*i+1) * chunk
		d.await(t, (2*i+1)*chunk)
		upTo <- uint64(2*i+2) * chunk // flows while it stops
		stop()
		var err error
		if ln, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	collectTCP(t, d, ln)
	close(upTo)
	exporting.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 2 * restarts * chunk
	d.exactly(t, n)
	if s := p.Stats(); s.Connections < restarts || s.Records != n || s.Broken != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A connection that breaks within a Message: what the kernel had not taken is
// sent on the next, the Message that was cut off included, and the numbers
// begin anew.
func TestTCPUnsentMessagesAreKept(t *testing.T) {
	var received [2][]byte
	cut := make(chan struct{})
	pipes := make(chan net.Conn, 2)
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: "192.0.2.1:4739", MaxMessage: 200, Reconnect: time.Millisecond,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe() // it buffers nothing
			pipes <- theirs
			return ours, nil
		},
	})
	go func() {
		first := <-pipes
		received[0] = make([]byte, 28+ // the Template's Message
			200+50) // a Message, and a part of the next
		io.ReadFull(first, received[0])
		first.Close()
		second := <-pipes
		received[1], _ = io.ReadAll(second)
		close(cut)
	}()
	const n = 100
	exportNumbers(t, p, 0, n)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-cut
	d := newDecoder()
	for i, stream := range received {
		session, _ := d.Open(time.Time{}, collect.Session{Transport: ipfix.TCP})
		for len(stream) >= ipfix.HeaderLength {
			h, err := ipfix.ParseHeader(stream)
			if err != nil {
				t.Fatal(err)
			}
			if int(h.Length) > len(stream) {
				if i != 0 {
					t.Fatal("the second connection ends within a message")
				}
				break
			}
			if _, err := d.Message(time.Time{}, session, stream[:h.Length]); err != nil {
				t.Fatal(err)
			}
			stream = stream[h.Length:]
		}
	}
	d.exactly(t, n)
	if s := p.Stats(); s.Connections != 2 || s.Broken != 1 || s.Records != n || s.TemplateMessages != 2 {
		t.Errorf("stats %+v", s)
	}
}

// While nobody collects, Export blocks at the bound of the buffer, and what it
// took is sent once somebody does.
func TestTCPBufferIsBounded(t *testing.T) {
	d := newDecoder()
	ln := listenTCP(t, "127.0.0.1:0")
	address := ln.Addr().String()
	ln.Close()
	refused := make(chan struct{}, 1)
	listening := make(chan struct{})
	p := start(t, export.Config{
		Transport: ipfix.TCP, Address: address, MaxMessage: 1000, Buffer: 10000, Reconnect: time.Millisecond,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			select {
			case refused <- struct{}{}:
			default:
				<-listening
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	})
	var taken uint64
	for ; ; taken++ {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := p.Export(ctx, counter, record(taken))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.QueuedRecords != taken || taken < 10000/8 || taken > 12000/8 {
		t.Errorf("%d records taken, stats %+v", taken, s)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	collectTCP(t, d, ln)
	close(listening)
	exportNumbers(t, p, taken, 2*taken)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.exactly(t, 2*taken)
	if s := p.Stats(); s.Failures == 0 {
		t.Errorf("no failed attempt: %+v", s)
	}
}

// An attempt to connect is given up after ConnectTimeout, 30 seconds if it is
// not set (RFC 7011, Section 10.4.4).
func TestConnectTimeout(t *testing.T) {
	for _, tt := range []struct{ configured, want time.Duration }{{0, 30 * time.Second}, {5 * time.Second, 5 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			gaveUp := make(chan time.Duration, 1)
			p, err := export.New(export.Config{
				Transport: ipfix.TCP, Address: "192.0.2.1:4739", ConnectTimeout: tt.configured,
				Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					began := time.Now()
					<-ctx.Done()
					gaveUp <- time.Since(began)
					return nil, ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			go p.Run(t.Context())
			if got := <-gaveUp; got != tt.want {
				t.Errorf("given up after %v, want %v", got, tt.want)
			}
			synctest.Wait()
			if s := p.Stats(); s.Failures != 1 {
				t.Errorf("stats %+v", s)
			}
			p.Close(t.Context())
		})
	}
}

// Without traffic Close ends a Process that waits to reconnect; with records
// left it waits as long as it may and says what is left.
func TestCloseWhileDisconnected(t *testing.T) {
	for _, records := range []uint64{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			p, err := export.New(export.Config{
				Transport: ipfix.TCP, Address: "192.0.2.1:4739",
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") },
			})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- p.Run(t.Context()) }()
			synctest.Wait()
			exportNumbers(t, p, 0, records)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			err = p.Close(ctx)
			switch {
			case records == 0 && (err != nil || time.Since(began) != 0):
				t.Errorf("close: %v after %v", err, time.Since(began))
			case records > 0 && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 records")):
				t.Errorf("close: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
}

// A datagramConn is a UDP socket that keeps what it is given.
type datagramConn struct {
	net.Conn
	write func(b []byte) error
}

func (c *datagramConn) Write(b []byte) (int, error) { return len(b), c.write(b) }
func (c *datagramConn) Close() error                { return nil }
func (c *datagramConn) LocalAddr() net.Addr         { return &net.UDPAddr{} }
func (c *datagramConn) RemoteAddr() net.Addr        { return &net.UDPAddr{} }

// runUDP runs a Process in a bubble of time, over a socket that calls write.
func runUDP(t *testing.T, cfg export.Config, write func(b []byte) error) *export.Process {
	cfg.Transport, cfg.Address = ipfix.UDP, "192.0.2.1:4739"
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return &datagramConn{write: write}, nil }
	p, err := export.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	go p.Run(t.Context())
	synctest.Wait()
	return p
}

// Over UDP Templates are sent twice before their first record, and again after
// a time, traffic or not (RFC 7011, Section 8.4).
func TestUDPTemplateRefreshByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var templates []time.Duration
		began := time.Now()
		p := runUDP(t, export.Config{}, func(b []byte) error {
			if b[17] == 2 {
				templates = append(templates, time.Since(began))
			}
			return nil
		})
		exportNumbers(t, p, 0, 1)
		time.Sleep(25*time.Minute + time.Second/2)
		p.Close(t.Context())
		if want := []time.Duration{time.Second, time.Second, 10*time.Minute + time.Second, 20*time.Minute + time.Second}; !slices.Equal(templates, want) {
			t.Errorf("templates sent at %v, want %v", templates, want)
		}
	})
}

// A Template that comes later is sent twice, with the others once.
func TestUDPNewTemplateIsSentTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []int // Template Records in Messages of them
		p := runUDP(t, export.Config{}, func(b []byte) error {
			if b[17] == 2 {
				session := ipfix.NewSession(ipfix.UDP)
				if _, err := session.Decode(b, func(ipfix.DataSet) {}); err != nil {
					t.Error(err)
				}
				sent = append(sent, len(session.Templates()))
			}
			return nil
		})
		for i, tmpl := range []*ipfix.Template{counter, wide, counter} {
			r := record(uint64(i))
			if tmpl == wide {
				r = append(r, 0)
			}
			if err := errors.Join(p.Export(t.Context(), tmpl, r), p.Flush(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		p.Close(t.Context())
		if want := []int{1, 1, 2, 1}; !slices.Equal(sent, want) {
			t.Errorf("messages of %v templates, want %v", sent, want)
		}
	})
}

// And after a number of Messages.
func TestUDPTemplateRefreshByMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []byte // T for Templates, D for data
		p := runUDP(t, export.Config{TemplateRefreshMessages: 3}, func(b []byte) error {
			if b[17] == 2 {
				sent = append(sent, 'T')
			} else {
				sent = append(sent, 'D')
			}
			return nil
		})
		for i := range uint64(7) {
			exportNumbers(t, p, i, i+1)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.Close(t.Context())
		if want := "TTDDDTDDDTD"; string(sent) != want {
			t.Errorf("sent %s, want %s", sent, want)
		}
	})
}

// Templates that one Message can't hold are sent in several, Options Templates
// among them.
func TestTemplatesFillSeveralMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session := ipfix.NewSession(ipfix.UDP)
		var messages, unknown int
		p := runUDP(t, export.Config{MaxMessage: 100}, func(b []byte) error {
			r, err := session.Decode(b, func(ipfix.DataSet) {})
			messages++
			unknown += r.Unknown
			return err
		})
		const n = 20
		for i := range uint16(n) {
			fields := []ipfix.FieldSpecifier{{ID: ipfix.OctetDeltaCount, Length: 8}, {ID: ipfix.PacketDeltaCount, Length: 8}}
			tmpl := template(256+i, fields...)
			if i%2 == 1 {
				var err error
				if tmpl, err = ipfix.NewOptionsTemplate(256+i, 1, fields...); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Export(t.Context(), tmpl, make([]byte, 16)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(session.Templates()); got != n || unknown != 0 {
			t.Errorf("%d templates, want %d; %d sets without template", got, n, unknown)
		}
		if s := p.Stats(); s.Records != n || s.LostMessages != 0 || int(s.Messages+s.TemplateMessages) != messages || s.TemplateMessages < 2 {
			t.Errorf("%d messages, stats %+v", messages, s)
		}
	})
}

// A datagram that the kernel refuses is lost, counted, and shows in the
// sequence numbers.
func TestUDPRefusedDatagramsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sequence []uint32
		refuse := false
		p := runUDP(t, export.Config{}, func(b []byte) error {
			if refuse {
				return errors.New("network is unreachable")
			}
			h, err := ipfix.ParseHeader(b)
			if err != nil {
				t.Error(err)
			}
			sequence = append(sequence, h.Sequence)
			return nil
		})
		for i := range uint64(3) {
			refuse = i == 1
			exportNumbers(t, p, 2*i, 2*i+2)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.Close(t.Context())
		s := p.Stats()
		if s.LostMessages != 1 || s.LostRecords != 2 || s.Messages != 2 || s.Records != 4 {
			t.Errorf("stats %+v", s)
		}
		if want := []uint32{0, 0, 0, 4}; !slices.Equal(sequence, want) { // the first two are of the Template
			t.Errorf("sequence numbers %v, want %v", sequence, want)
		}
	})
}

// A record waits for others no longer than Linger.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan time.Time, 10)
		p := runUDP(t, export.Config{Linger: 5 * time.Second}, func(b []byte) error {
			sent <- time.Now()
			return nil
		})
		began := time.Now()
		exportNumbers(t, p, 0, 1)
		if got := (<-sent).Sub(began); got > 5*time.Second {
			t.Errorf("sent after %v", got)
		}
		p.Close(t.Context())
	})
}

// Nobody listens: the kernel learns it from ICMP, and the next datagrams go
// out all the same.
func TestUDPNobodyListens(t *testing.T) {
	conn := listenUDP(t, "127.0.0.1:0")
	address := conn.LocalAddr().String()
	conn.Close()
	p := start(t, export.Config{Transport: ipfix.UDP, Address: address})
	for i := range uint64(10) {
		exportNumbers(t, p, i, i+1)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Messages+s.LostMessages != 10 {
		t.Errorf("stats %+v", s)
	}
}
