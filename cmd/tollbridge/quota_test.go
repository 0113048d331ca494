package main

import (
	"net"
	"path/filepath"
	"testing"
)

// TestMaxPending: more records wait for a partner than maxPending allows, which
// the daemon says in its log and its metrics; the partner gets them all once it
// is back.
func TestMaxPending(t *testing.T) {
	t.Parallel()
	away, err := net.Listen("tcp", "127.0.0.1:0") // whose port nobody else gets
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	dir := t.TempDir()
	capture, users := files(t, dir)
	s := setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", users: users, realm: "partner.example",
		peers:    []string{peerAt(away.Addr().String(), "server.aaa.example")},
		delivery: ", realms: [{realms: [partner.example], maxPending: 1}]",
	}
	d := start(t, s)
	if out, errOut, status := cli(t, "meter", "-r", capture, "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	d.waitMetric("outbox_pending", atLeast(2))
	d.kill()
	d = start(t, s) // it counts at the start, and once a minute
	d.waitLog(`too many records wait for a partner" realms=partner.example pending=\d+ maxPending=1`)
	d.waitMetric(`delivery_realm_over_quota{realms="partner.example"}`, func(v float64) bool { return v == 1 })
	d.stop()

	partner := start(t, setup{data: filepath.Join(dir, "partner"), server: "127.0.0.1:0", origin: "bridge.partner.example"})
	s.peers = []string{peerAt(partner.server(), "server.aaa.example")}
	d = start(t, s)
	octets, _ := captureOctets(t)
	waitBooks(t, s.data, func(b sums) bool { return b.Received.Octets >= octets && b.Acknowledged == b.Accounted })
	d.stop()
}
