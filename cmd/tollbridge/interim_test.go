package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tollbridge/internal/peertest"
)

// TestInterimIntervalOfAnswers: by its own configuration the daemon would send
// the first INTERIM_RECORDs after an hour. The server asks for one second, in
// the answer to each START_RECORD, so all that was metered is accounted soon;
// and again by a daemon that was killed and knows it from its journal.
func TestInterimIntervalOfAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, _ := files(t, dir)
	s := obedient(t, dir, "server: {listen: ['127.0.0.1:0'], originHost: server.isp.example, interimInterval: 1s}")
	octets, _ := captureOctets(t)
	for life := uint64(1); life <= 2; life++ {
		d := start(t, s)
		// Other Observation Domains' flows are other flows.
		if out, errOut, status := cli(t, "meter", "-r", capture, "--domain", fmt.Sprint(life), "--to", d.tcp()); status != 0 {
			t.Fatalf("meter: %s%s", out, errOut)
		}
		waitBooks(t, s.data, func(b sums) bool { return b.Received.Octets >= life*octets })
		d.kill()
	}
	numbers := map[string]int{}
	for _, c := range charges(t, s.data) {
		if c.Type == "STOP" {
			t.Errorf("a session has stopped: %+v", c)
		}
		numbers[c.Type]++
	}
	if numbers["START"] != 1 || numbers["INTERIM"] < 2 {
		t.Errorf("records by type: %v, want one START and an INTERIM of each life", numbers)
	}
}

// obedient is a daemon that goes by the interval of answers: its own is an hour.
// Its users stay, so no session stops. More is YAML.
func obedient(t *testing.T, dir, more string) setup {
	t.Helper()
	users := filepath.Join(dir, "residents.csv")
	if err := os.WriteFile(users, []byte("prefix,user\n0.0.0.0/0,everybody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{data: filepath.Join(dir, "state"), file: filepath.Join(dir, "tollbridge.yaml")}
	err := os.WriteFile(s.file, fmt.Appendf(nil, `data: %s
identity: {originHost: bridge.isp.example, originRealm: isp.example}
collectingProcess: {udpCollectors: [], tcpCollectors: ["127.0.0.1:0"]}
users: {files: [%s]}
accounting: {interimInterval: 1h, minInterimInterval: 1s}
spool: {checkpoint: 100ms}
status: {listen: "127.0.0.1:0"}
log: {level: debug}
%s
`, s.data, users, more), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDeliversBesideAFailingJournal: a server asks for another interval in an
// answer that comes while nothing can be journaled. What waits for delivery is
// delivered all the same; the interval is kept once the journal is free, and the
// session goes by it.
func TestDeliversBesideAFailingJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address := "127.0.0.1:" + peertest.FreePorts(t, 1)[0]
	s := obedient(t, dir, fmt.Sprintf(`delivery: {destinationRealm: aaa.example, peers: [%s], reconnect: 200ms}
server: {listen: []}`, peerAt(address, "server.aaa.example")))
	d := start(t, s)
	stream := captureStream(t)
	stream.send(t, d.tcp(), len(stream.messages))
	octets, _ := captureOctets(t)
	pending := func() int {
		var stats struct{ Records map[string]int }
		show(t, &stats, "spool", "stats", "--data", s.data)
		return stats.Records["pending"]
	}
	if !until(t, func() bool { return audit(t, s.data).Received.Octets == octets && pending() > 0 }) {
		t.Fatal("no record waits for delivery")
	}
	release := failing(t, d, "fsync,fdatasync", journalFiles(t, s.data)...)
	server := start(t, setup{
		data: filepath.Join(dir, "server"), origin: "unused.aaa.example", server: address, serving: ", interimInterval: 1s",
	})
	if !until(t, func() bool { return pending() == 0 }) {
		t.Fatalf("%d records wait for the journal", pending())
	}
	d.waitMetric("delivery_interim_interval_failures_total", atLeast(1))
	if n := d.metric("delivery_outbox_failures_total"); n != 0 {
		t.Errorf("the outbox has failed %v times", n)
	}
	release()
	d.waitLog("interim intervals that answers ask for are kept again")
	waitBooks(t, s.data, func(b sums) bool { return b.Accounted == b.Acknowledged && b.Received.Octets == octets })
	d.stop()
	server.stop()
	audit(t, s.data)
	types := map[string]int{}
	for _, c := range charges(t, server.data) {
		types[c.Type]++
	}
	if types["INTERIM"] == 0 {
		t.Errorf("records by type: %v, want INTERIMs at the server's interval", types)
	}
}
