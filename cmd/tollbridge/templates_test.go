package main

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tollbridge/ipfix"
)

// TestTemplatesSurvive restarts the daemon under a UDP exporter that goes on
// from the same port and sends its Template once, as one does that refreshes
// it every few minutes. What comes before the next refresh is decoded, after an
// orderly stop and after kill -9; and what came before the first, once that is
// there.
func TestTemplatesSurvive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	users := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(users, []byte("prefix,user,from,until\n192.0.2.1,ann,,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{data: filepath.Join(dir, "bridge"), udp: "127.0.0.1:0", users: users, server: "127.0.0.1:0"}
	d := start(t, s)
	s.udp = d.udp() // for its restarts
	exporter, err := net.Dial("udp", s.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer exporter.Close()

	field := func(id, length uint16) ipfix.FieldSpecifier { return ipfix.FieldSpecifier{ID: id, Length: length} }
	tmpl, err := ipfix.NewTemplate(256, field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4),
		field(ipfix.SourceTransportPort, 2), field(ipfix.OctetDeltaCount, 4))
	if err != nil {
		t.Fatal(err)
	}
	encoder, sent := ipfix.NewEncoder(1, 0), uint64(0)
	send := func(template bool) {
		t.Helper()
		if template {
			if err := encoder.AddTemplate(tmpl); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		if err := encoder.AddRecord(tmpl, now, netip.MustParseAddr("192.0.2.1"), int(sent), 100); err != nil {
			t.Fatal(err)
		}
		if _, err := exporter.Write(bytes.Clone(encoder.Flush(uint32(now.Unix())))); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	received := func() {
		t.Helper()
		waitBooks(t, s.data, func(b sums) bool { return b.Received.Records == sent && b.Accounted.Octets == 100*sent })
	}

	send(false) // early: it waits in the journal for the Template
	d.waitMetric(`pipeline_early_sets_total{what="kept"}`, atLeast(1))
	d.kill()
	d = start(t, s)
	send(true)
	received()
	d.stop()
	d = start(t, s)
	send(false)
	received()
	d.kill()
	d = start(t, s)
	send(false)
	received()
	d.stop()
}
