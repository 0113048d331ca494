package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
)

// An attacker is an exporter of its own, 127.0.0.2.
type attacker struct{ *daemon }

const attackerName = "127.0.0.2"

// dial connects from the attacker's address, from another port each time.
func (a attacker) dial(network, address string) net.Conn {
	a.t.Helper()
	d := net.Dialer{}
	ip := net.IPv4(127, 0, 0, 2)
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: ip}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	nc, err := d.DialContext(a.t.Context(), network, address)
	if err != nil {
		a.t.Fatal(err)
	}
	return nc
}

// send sends datagrams from one port, as fast as they are read: until is the
// metric that counts them.
func (a attacker) send(metric string, datagrams ...[]byte) {
	a.t.Helper()
	nc := a.dial("udp", a.udp())
	defer nc.Close()
	for batch := range slices.Chunk(datagrams, 100) {
		before := a.metric(metric)
		for _, d := range batch {
			if _, err := nc.Write(d); err != nil {
				a.t.Fatal(err)
			}
		}
		a.waitMetric(metric, atLeast(before+float64(len(batch))))
	}
}

// TestLimitsOfAnExporter has one exporter attack each of the limits that it has,
// while another exports the bundled capture. Memory stays within bounds, the
// log short, and all of the other's traffic is accounted for: the books of its
// own are as without an attack.
func TestLimitsOfAnExporter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	d := start(t, setup{
		data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0", users: users, server: "127.0.0.1:0",
	})
	a := attacker{d}
	honest := captureStream(t)
	honest.send(t, d.tcp(), len(honest.messages)/10)
	waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets > 0 })
	before, begun := d.resident(), time.Now()

	const (
		messages = `collector_messages_total{exporter="` + attackerName + `"}`
		unusable = "pipeline_unusable_entries_total"
	)
	attacks := []struct {
		name string
		do   func()
	}{
		{"a thousand UDP sessions, of 256", func() {
			template := rawMessage(1, []byte{0, 2, 0, 12, 1, 0, 0, 1, 0, 8, 0, 4})
			for range 10 {
				opened := d.metric(`collector_sessions_opened_total{exporter="` + attackerName + `"}`)
				for range 100 {
					nc := a.dial("udp", d.udp())
					defer nc.Close()
					nc.Write(template) //nolint:errcheck // is seen below
				}
				d.waitMetric(`collector_sessions_opened_total{exporter="`+attackerName+`"}`, atLeast(opened+100))
			}
		}},
		{"a hundred TCP connections, of 16", func() {
			const dialed, limit = 100, 16
			refused := make(chan bool, dialed)
			for range dialed {
				nc := a.dial("tcp", d.tcp())
				defer nc.Close()
				go func() {
					_, err := nc.Read(make([]byte, 1))
					refused <- !errors.Is(err, net.ErrClosed) // which is ours
				}()
			}
			patient := time.After(patience)
			for n := range dialed - limit {
				select {
				case <-refused:
				case <-patient:
					t.Fatalf("%d connections of %d were refused", n, dialed)
				}
			}
			if n := len(refused); n > 0 {
				t.Errorf("%d connections too many were refused", n)
			}
		}},
		{"templates", func() {
			n := d.metric(unusable)
			a.send(messages, templateFlood(9)...)
			d.waitMetric(unusable, atLeast(n+1))
		}},
		{"fields of a template", func() {
			n := d.metric(unusable)
			a.send(messages, rawMessage(10, wideTemplate(256, 5000)))
			d.waitMetric(unusable, atLeast(n+1))
		}},
		{"fields of all templates", func() {
			n := d.metric(unusable)
			var all [][]byte
			for id := range uint16(200) {
				all = append(all, rawMessage(11, wideTemplate(256+id, 1000)))
			}
			a.send(messages, all...)
			d.waitMetric(unusable, atLeast(n+100)) // 65 fit
		}},
		{"observation domains, of 1024", func() {
			n := d.metric(unusable)
			var all [][]byte
			for domain := range uint32(1100) {
				all = append(all, rawMessage(1000+domain, wideTemplate(256, 1)))
			}
			a.send(messages, all...)
			d.waitMetric(unusable, atLeast(n+76))
		}},
		{"ten MB of data whose templates never come, of 4 MiB", func() {
			const dropped = `pipeline_early_sets_total{what="dropped"}`
			n := d.metric(dropped)
			set := make([]byte, 10_000)
			binary.BigEndian.PutUint16(set, 999)
			binary.BigEndian.PutUint16(set[2:], uint16(len(set)))
			a.send(messages, slices.Repeat([][]byte{rawMessage(12, set)}, 1000)...)
			d.waitMetric(dropped, atLeast(n+500))
		}},
		{"garbage", func() {
			a.send(`collector_malformed_total{cause="version",exporter="`+attackerName+`"}`, slices.Repeat([][]byte{make([]byte, 100)}, 5000)...)
		}},
	}
	for i, attack := range attacks {
		attack.do()
		honest.send(t, d.tcp(), len(honest.messages)*(i+1)/len(attacks))
		t.Logf("%s: %d MiB of memory, %d lines of log", attack.name, d.resident()>>20, d.lines.count(attackerName))
	}
	// A few lines of each cause, and 60 a minute about sessions.
	minutes := int(time.Since(begun)/time.Minute) + 2
	if n := d.lines.count(attackerName); n > 60*minutes+100 {
		t.Errorf("%d lines of the log are about the attack, in %d minutes", n, minutes)
	}
	if grown := d.resident() - before; grown > 300<<20 { // a third of it live, by gcPercent
		t.Errorf("the daemon takes %d MiB more than before", grown>>20)
	}

	octets, nobodys := captureOctets(t)
	waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
	s := waitEnd(t, d.data)
	if s.Received.Octets-s.Duplicate.Octets != octets || s.Suspended.Octets != nobodys {
		t.Errorf("the books are %+v, want %d octets without duplicates and %d suspended", s, octets, nobodys)
	}
	var books struct {
		Rows []struct {
			Exporter  string
			Undecoded struct{ Octets uint64 }
			Lost      struct{ Records uint64 }
		}
	}
	show(t, &books, "audit", "--data", d.data)
	undecoded := map[string]uint64{}
	for _, row := range books.Rows {
		undecoded[row.Exporter] += row.Undecoded.Octets
		if row.Exporter == "127.0.0.1" && row.Lost.Records > 0 {
			t.Errorf("of the honest exporter are lost %d records", row.Lost.Records)
		}
	}
	// Messages beyond a limit are undecoded too.
	if undecoded["127.0.0.1"] != 0 || undecoded[attackerName] < 1000*(10_000-4) {
		t.Errorf("undecoded octets are %v", undecoded)
	}
	for name, want := range map[string]struct{ evicted, refused, malformed float64 }{
		attackerName: {1000 - 256, 100 - 16, 5000},
		"127.0.0.1":  {},
	} {
		got := want
		got.evicted = d.metric(fmt.Sprintf("collector_sessions_evicted_total{exporter=%q}", name))
		got.refused = d.metric(fmt.Sprintf("collector_exporter_refused_total{exporter=%q}", name))
		got.malformed = d.metric(fmt.Sprintf("collector_malformed_total{cause=\"version\",exporter=%q}", name))
		if got.evicted < want.evicted || want.evicted == 0 && got.evicted > 0 || got.refused != want.refused || got.malformed != want.malformed {
			t.Errorf("of %s are counted %+v, want %+v", name, got, want)
		}
	}
	if n := d.metric("pipeline_failures_total"); n != 0 {
		t.Errorf("accounting stopped %v times", n)
	}
	d.stop()
	checkBill(t, bill(charges(t, d.data)))
}

// Each of these limits is the one of the configuration, and none that it has by
// default.
func TestLimitsAsConfigured(t *testing.T) {
	t.Parallel()
	mine := certtest.NewAuthority(t)
	collector := mine.Write(mine.Issue("collector.isp.example"))
	d := start(t, setup{
		data: filepath.Join(t.TempDir(), "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		collect: fmt.Sprintf(`, tlsCollectors: ['127.0.0.1:0'], tls: {certificate: %q, key: %q, ca: %q},
  idleTimeout: 1s, maxSessions: 3, maxConnections: 2, maxHandshakes: 1`, collector.Certificate, collector.Key, collector.CA),
	})
	a := attacker{d}
	of := func(metric string) string {
		return fmt.Sprintf("collector_%s_total{exporter=%q}", metric, attackerName)
	}
	template := rawMessage(1, []byte{0, 2, 0, 12, 1, 0, 0, 1, 0, 8, 0, 4})

	// Nothing is refused but the third.
	var connections []net.Conn
	for range 3 {
		nc := a.dial("tcp", d.tcp())
		connections = append(connections, nc)
		if _, err := nc.Write(template); err != nil {
			t.Fatal(err)
		}
	}
	d.waitMetric(of("exporter_refused"), atLeast(1))
	d.waitMetric(of("messages"), atLeast(2))
	if n := d.metric(of("exporter_refused")); n != 1 {
		t.Errorf("%v connections are refused, want 1 of 3", n)
	}

	for _, nc := range connections {
		nc.Close()
	}

	// The fourth session in a second, at the latest, makes the first give way.
	for n := 0; d.metric(of("sessions_evicted")) == 0; n++ {
		if n == 200 {
			t.Fatal("no UDP session of 200 has given way")
		}
		for range 4 {
			nc := a.dial("udp", d.udp())
			defer nc.Close()
			if _, err := nc.Write(template); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The others end without a word.
	if !until(t, func() bool { return d.metric(of("sessions_opened")) == d.metric(of("sessions_closed")) }) {
		t.Errorf("%v sessions are opened, %v closed", d.metric(of("sessions_opened")), d.metric(of("sessions_closed")))
	}

	// A second handshake ends the first.
	for range 2 {
		defer a.dial("tcp", d.address("collectingProcess.tlsCollectors")).Close()
	}
	d.waitLog(`handshake failed.*error="given up: too many handshakes at once"`)
	d.stop()
}

// wideTemplate is a Template Set of one Template of so many fields.
func wideTemplate(id uint16, fields int) []byte {
	set := binary.BigEndian.AppendUint16([]byte{0, 2, 0, 0}, id)
	set = binary.BigEndian.AppendUint16(set, uint16(fields))
	for range fields {
		set = ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 4}.Append(set)
	}
	binary.BigEndian.PutUint16(set[2:], uint16(len(set)))
	return set
}
