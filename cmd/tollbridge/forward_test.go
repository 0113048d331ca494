package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tollbridge/ipfix"
)

// passesOn is the setup of a collector in dir that passes on to an address, and
// acknowledges by "owner" or "here".
func passesOn(t *testing.T, dir, to, acknowledge string) setup {
	t.Helper()
	file := filepath.Join(dir, "collector.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `
data: %s/collector
collectingProcess:
  udpCollectors: []
  tcpCollectors: ["127.0.0.1:0"]
  exporters: [{name: edge, prefixes: [127.0.0.1]}]
forward: {to: ["%s"], acknowledge: %s, plaintext: true, reconnect: 200ms}
status: {listen: 127.0.0.1:0}
`, dir, to, acknowledge), 0o600); err != nil {
		t.Fatal(err)
	}
	return setup{data: filepath.Join(dir, "collector"), file: file}
}

// A collector that passes on takes the longest Message there can be, which
// does not fit into one of its own, and says on its status page how far it is.
func TestForwardsTheLongestMessage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	cfg := setup{
		data: filepath.Join(dir, "bridge"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		collect: ", exporters: [{name: collector-1, prefixes: [127.0.0.1], forwards: true}]",
	}
	accounts := start(t, cfg)
	collector := start(t, passesOn(t, dir, accounts.tcp(), "owner"))

	// All Sets of the capture in one Message, and a description that fills it.
	var long []byte
	for i, m := range captureStream(t).messages {
		if i == 0 {
			long = append(long, m[:ipfix.HeaderLength]...)
		}
		long = append(long, m[ipfix.HeaderLength:]...)
	}
	long = append(long, 0, 3, 0, 18, 0xff, 0, 0, 2, 0, 1, // Options Template 65280, one scope field of two
		0, 144, 0, 4, 0, 94, 0xff, 0xff) // exportingProcessId, applicationDescription
	rest := ipfix.MaxMessage - len(long)
	long = binary.BigEndian.AppendUint16(long, 0xff00)
	long = binary.BigEndian.AppendUint16(long, uint16(rest))
	long = append(long, 0, 0, 0, 1, 0xff)
	long = binary.BigEndian.AppendUint16(long, uint16(rest-11))
	for len(long) < ipfix.MaxMessage {
		long = append(long, 'x')
	}
	binary.BigEndian.PutUint16(long[2:], ipfix.MaxMessage)
	(&stream{messages: [][]byte{long}}).send(t, collector.tcp(), 1)

	octets, nobodys := captureOctets(t)
	waitBooks(t, cfg.data, func(b sums) bool { return b.Received.Octets == octets && b.Suspended.Octets == nobodys })
	checkBill(t, bill(charges(t, cfg.data)))
	for name, least := range map[string]float64{
		`collector_messages_total{exporter="edge"}`: 1,
		"forward_position":                          4, // a beginning, a session, and two parts
		"forward_acknowledged_position":             4,
		"forward_connections_total":                 1,
	} {
		collector.waitMetric(name, atLeast(least))
	}
	if why := collector.unready(); why != "" {
		t.Errorf("the collector is not ready: %s", why)
	}
	collector.stop()
	accounts.stop()
	audit(t, cfg.data)
}
