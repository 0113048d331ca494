package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/aaaclient/cdrfile"
)

// TestCDRFiles has a partner take files: its records are settled by its
// acknowledgements alone, across a kill -9, and "tollbridge reconcile" finds
// that all files together say what was sent.
func TestCDRFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, users := files(t, dir)
	exchange := filepath.Join(dir, "partner")
	e := example(t, "asm.yaml", dir)
	e.replace("examples/users.csv", users)
	e.replace("'0.0.0.0:4739', '[::]:4739'", "'127.0.0.1:0'")
	e.set("server.listen", "['127.0.0.1:0']")
	e.set("delivery.destinationRealm", "home.example")
	e.set("delivery.files", fmt.Sprintf("[{realm: home.example, dir: %q, every: 1s}]", exchange))
	d := start(t, e.setup(dir))
	meterCapture(t, capture, d.tcp())
	if !until(t, func() bool { return len(glob(t, exchange, "*.json")) > 0 }) {
		t.Fatal("no file is written")
	}
	d.kill()
	if s := audit(t, d.data); !s.Acknowledged.IsZero() {
		t.Errorf("%+v is acknowledged, and the partner has said nothing", s.Acknowledged)
	}
	d = start(t, e.setup(dir))
	octets, _ := captureOctets(t)
	var s sums
	if !until(t, func() bool {
		for _, name := range glob(t, exchange, "*.json") {
			acknowledgeFile(t, name)
		}
		s = audit(t, d.data)
		return s.Received.Octets >= octets && s.Open.IsZero() && s.Pending.IsZero() && len(glob(t, exchange, "*.csv")) == 0
	}) {
		t.Fatalf("the books stay %+v", s)
	}
	if s.Acknowledged != s.Accounted {
		t.Errorf("the books are %+v", s)
	}
	if !until(t, func() bool {
		for _, name := range glob(t, exchange, "*.json") {
			acknowledgeFile(t, name)
		}
		return ended(t, d.data)
	}) {
		t.Fatal("records stay pending")
	}
	d.stop()

	var all strings.Builder
	for i, name := range glob(t, filepath.Join(exchange, "done"), "*.csv") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		header, lines, _ := strings.Cut(string(b), "\n")
		if i == 0 {
			all.WriteString(header + "\n")
		}
		all.WriteString(lines)
		if want := fmt.Sprintf("home.example-%08d.csv", i+1); filepath.Base(name) != want {
			t.Errorf("file %s, want %s", name, want)
		}
	}
	theirs := filepath.Join(dir, "theirs.csv")
	if err := os.WriteFile(theirs, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut, status := cli(t, "reconcile", d.data, theirs); status != 0 {
		t.Errorf("reconcile: %s%s", out, errOut)
	}
	if n := len(charges(t, d.data)); n != 0 {
		t.Errorf("%d records went to the server too", n)
	}
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// acknowledgeFile is the partner: it answers the manifest of a file.
func acknowledgeFile(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return // settled meanwhile
	}
	var m cdrfile.Manifest
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	ack, err := json.Marshal(cdrfile.Acknowledgement{Sequence: m.Sequence, Records: m.Records, SHA256: m.SHA256, Accepted: true})
	if err != nil {
		t.Fatal(err)
	}
	to := strings.TrimSuffix(name, ".json") + ".ack"
	if err := os.WriteFile(to+".part", ack, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".part", to); err != nil {
		t.Fatal(err)
	}
}
