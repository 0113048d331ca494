package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/asm"
)

// TestRestoredBackup puts a state directory back that is older than what the
// AAA server has. Once "spool restored" was run, no new record is taken for
// another: nothing is in conflict, and the bill is that of both captures.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, users := files(t, dir)
	aaa := setup{data: filepath.Join(dir, "aaa"), origin: "unused.aaa.example", server: "127.0.0.1:0"}
	server := start(t, aaa)
	s := setup{data: filepath.Join(dir, "bridge"), tcp: "127.0.0.1:0", users: users, peers: []string{peerAt(server.server(), "server.aaa.example")}}
	octets, nobodys := captureOctets(t)
	meter := func(d *daemon, domain string) {
		t.Helper()
		if out, errOut, status := cli(t, "meter", "-r", capture, "--to", d.tcp(), "--domain", domain); status != 0 {
			t.Fatalf("meter: %s%s", out, errOut)
		}
		waitBooks(t, s.data, func(b sums) bool {
			return b.Received.Octets%octets == 0 && b.Suspended.Octets%nobodys == 0 && !b.Received.IsZero()
		})
		waitEnd(t, s.data)
	}

	d := start(t, s)
	d.stop()
	backup := filepath.Join(dir, "backup")
	if out, err := exec.Command("cp", "-a", s.data, backup).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", out)
	}
	d = start(t, s)
	meter(d, "1")
	if _, errOut, status := cli(t, "spool", "restored", "--data", s.data); status == 0 {
		t.Errorf("restored beside a running daemon: %s", errOut)
	}
	d.stop()

	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, s.data); err != nil {
		t.Fatal(err)
	}
	if out, errOut, status := cli(t, "spool", "restored", "--data", s.data); status != 0 {
		t.Fatalf("restored: %s%s", out, errOut)
	}
	d = start(t, s)
	meter(d, "2")
	var decisions []struct{ What, On, Because string }
	show(t, &decisions, "spool", "decisions", "--data", s.data)
	if len(decisions) != 1 || decisions[0].What != asm.NewEpoch || decisions[0].On == "" || !strings.Contains(decisions[0].Because, "restored from a backup") {
		t.Errorf("it does not say that it began a new epoch: %+v", decisions)
	}
	d.stop()
	twice := bill(charges(t, aaa.data))
	for user, one := range captureTruth(t) {
		if got, want := twice[user], one.Plus(one); user != nobody && got != want {
			t.Errorf("%s is billed %+v, want %+v", user, got, want)
		}
	}
	server.stop()
}
