package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestInterimIntervalOfAnswers: by its own configuration the daemon would send
// the first INTERIM_RECORDs after an hour. The server asks for one second, in
// the answer to each START_RECORD, so all that was metered is accounted soon;
// and again by a daemon that was killed and knows it from its journal.
func TestInterimIntervalOfAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, _ := files(t, dir)
	users := filepath.Join(dir, "residents.csv") // who stay: no session stops
	if err := os.WriteFile(users, []byte("prefix,user\n0.0.0.0/0,everybody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{data: filepath.Join(dir, "state"), file: filepath.Join(dir, "tollbridge.yaml")}
	err := os.WriteFile(s.file, fmt.Appendf(nil, `data: %s
identity: {originHost: bridge.isp.example, originRealm: isp.example}
collectingProcess: {udpCollectors: [], tcpCollectors: ["127.0.0.1:0"]}
users: {files: [%s]}
accounting: {interimInterval: 1h, minInterimInterval: 1s}
delivery: {destinationRealm: isp.example}
server: {listen: ["127.0.0.1:0"], originHost: server.isp.example, interimInterval: 1s}
spool: {checkpoint: 100ms}
status: {listen: "127.0.0.1:0"}
log: {level: debug}
`, s.data, users), 0o600)
	if err != nil {
		t.Fatal(err)
	}
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
