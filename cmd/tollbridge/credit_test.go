package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"tollbridge/internal/peertest"
)

// TestCreditControl has a real credit-control server give quotas to the users
// of the bundled capture while the daemon is killed twice: what it debits is
// what each is billed.
func TestCreditControl(t *testing.T) {
	t.Parallel()
	ocs := startOCS(t, peertest.Dictionaries(t, peertest.NASREQ, peertest.CreditControl), "10000000", "1000000")
	dir := t.TempDir()
	capture, users := files(t, dir)
	s := setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", users: users, server: "127.0.0.1:0",
		extra: fmt.Sprintf("creditControl: {peers: [{address: %q, host: ocs.home.example}], destinationRealm: home.example}\n", ocs.address),
	}
	d := start(t, s)
	if out, errOut, status := cli(t, "meter", "-r", capture, "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	octets, nobodys := captureOctets(t)
	for range 2 {
		until(t, func() bool { return ocs.requests() > 0 })
		d.kill()
		d = start(t, s)
	}
	waitBooks(t, d.data, func(s sums) bool {
		return s.Received.Octets-s.Duplicate.Octets == octets && s.Suspended.Octets == nobodys
	})
	want := map[string]uint64{}
	for user, u := range captureTruth(t) {
		if user != nobody {
			want[user] = u.InputOctets + u.OutputOctets
		}
	}
	if !until(t, func() bool { return fmt.Sprint(ocs.debited()) == fmt.Sprint(want) }) {
		t.Errorf("the server has debited %v, want %v", ocs.debited(), want)
	}
	d.waitMetric("credit_sessions", func(v float64) bool { return v == 0 })
	var left []any
	if show(t, &left, "credit", "ls", "--data", d.data); len(left) != 0 {
		t.Errorf("credit ls: %v", left)
	}
	d.stop()
}

// An ocs is a credit-control server on Erlang/OTP's diameter, with its
// dictionary of RFC 4006.
type ocs struct {
	address string
	mu      sync.Mutex
	used    map[string]uint64 // octets, by user
	count   int
}

// startOCS starts one that finds its dictionary by env.
func startOCS(t *testing.T, env []string, balance, quota string) *ocs {
	t.Helper()
	cmd := exec.Command("escript", "../../aaaclient/credit/testdata/credit.escript", balance, quota)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o := &ocs{used: map[string]uint64{}}
	lines := bufio.NewScanner(out)
	var port int
	for port == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "port %d", &port)
	}
	o.address = fmt.Sprintf("127.0.0.1:%d", port)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			o.take(t, lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return o
}

func (o *ocs) take(t *testing.T, line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var session, user string
	var typ, number, result int
	var used uint64
	if n, err := fmt.Sscan(line, &session, &typ, &number, &user, &used, &result); n != 6 || result != 2001 {
		t.Errorf("the credit-control server says %q (%v)", line, err)
	}
	o.used[user] += used
	o.count++
}

func (o *ocs) requests() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

func (o *ocs) debited() map[string]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.used)
}
