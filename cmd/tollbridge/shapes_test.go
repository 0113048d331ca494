package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// exampleFile is a complete configuration of examples/ that a test runs.
type exampleFile struct {
	t    *testing.T
	name string
	text string
}

// example reads one of examples/ for a daemon with its state in dir, with
// intervals that a test can wait for.
func example(t *testing.T, name, dir string) *exampleFile {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	e := &exampleFile{t, name, string(b)}
	e.set("data", filepath.Join(dir, strings.TrimSuffix(name, ".yaml")))
	e.set("accounting.interimInterval", "1s")
	e.set("accounting.linger", "1500ms")
	e.set("delivery.reconnect", "200ms")
	e.set("delivery.timeout", "2s")
	e.set("spool.checkpoint", "100ms")
	e.set("status.listen", "127.0.0.1:0")
	e.set("log.level", "debug")
	return e
}

// set gives a key of the first or second level a value, in place of one that
// the file has on a line of its own.
func (e *exampleFile) set(key, value string) {
	section, inner, nested := strings.Cut(key, ".")
	lines := strings.Split(e.text, "\n")
	at, end := -1, len(lines)
	for i, l := range lines {
		if at < 0 && strings.HasPrefix(l, section+":") {
			at = i
		} else if at >= 0 && l != "" && l[0] != ' ' && l[0] != '#' {
			end = i
			break
		}
	}
	switch {
	case !nested && at < 0, nested && at < 0:
		if nested {
			value = "{" + inner + ": " + value + "}"
		}
		e.text += section + ": " + value + "\n"
		return
	case !nested:
		lines[at] = section + ": " + value
	default:
		set := false
		for i := at + 1; i < end; i++ {
			if strings.HasPrefix(lines[i], "  "+inner+":") {
				lines[i], set = "  "+inner+": "+value, true
			}
		}
		if flow, ok := strings.CutSuffix(lines[at], "}"); ok && !set {
			lines[at] = flow + ", " + inner + ": " + value + "}"
		} else if !set {
			lines[at] += "\n  " + inner + ": " + value
		}
	}
	e.text = strings.Join(lines, "\n")
}

// replace puts what a test has in the place of what the file says, which must
// be there.
func (e *exampleFile) replace(old, new string) {
	e.t.Helper()
	if !strings.Contains(e.text, old) {
		e.t.Fatalf("%s has no %q", e.name, old)
	}
	e.text = strings.ReplaceAll(e.text, old, new)
}

// setup writes the file for a daemon.
func (e *exampleFile) setup(dir string) setup {
	e.t.Helper()
	data := filepath.Join(dir, strings.TrimSuffix(e.name, ".yaml"))
	if err := os.WriteFile(data+".yaml", []byte(e.text), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return setup{data: data, file: data + ".yaml"}
}

// TestExamplesStart starts a daemon with each of examples/ as it stands, ports
// and all, in a network namespace of its own.
func TestExamplesStart(t *testing.T) {
	t.Parallel()
	n := newNetns(t, "examples")
	ip(t, "-n", string(n), "addr", "add", "198.51.100.2/32", "dev", "lo")
	ca := certtest.NewAuthority(t)
	home := ca.Write(ca.Issue("aaa.home.example"))
	certificates := strings.NewReplacer("/etc/tollbridge/aaa.home.example.pem", home.Certificate,
		"/etc/tollbridge/aaa.home.example-key.pem", home.Key, "/etc/tollbridge/roaming-ca.pem", home.CA)
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	started := 0
	for _, file := range glob(t, filepath.Join(root, "examples"), "*.yaml") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "\ndata: ") {
			continue // it lists users
		}
		config := filepath.Join(t.TempDir(), filepath.Base(file))
		if err := os.WriteFile(config, []byte(certificates.Replace(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := n.command(mustProgram(t), "serve", "-c", config, "--data", config+".state")
		cmd.Dir = root
		d := runDaemon(t, config+".state", cmd)
		d.waitLog("msg=started")
		d.stop()
		started++
	}
	if started != 9 {
		t.Errorf("%d examples were started", started)
	}
}

// meterCapture has our meter export the bundled capture over TCP.
func meterCapture(t *testing.T, capture, to string) {
	t.Helper()
	if out, errOut, status := cli(t, "meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", to); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
}

// TestShapeAAAServer runs examples/aaa-client.yaml and examples/aaa-server.yaml
// (RFC 5472, figure 1): the client sends each flow as it is, the server finds
// out whose it is. Both are killed in between, the server between the fsync of
// its journal and its answers, so that the client sends again what is there.
// The books of both say the same, and each user is billed what tshark counted.
func TestShapeAAAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, users := files(t, dir)
	port := peertest.FreePorts(t, 1)[0]
	aaa := example(t, "aaa-server.yaml", dir)
	aaa.replace("127.0.0.1:3869", "127.0.0.1:"+port)
	aaa.replace("examples/users.csv", users)
	client := example(t, "aaa-client.yaml", dir)
	client.replace("127.0.0.1:3869", "127.0.0.1:"+port)
	client.replace("127.0.0.1:4739", "127.0.0.1:0")

	server := launch(t, crashProgram, aaa.setup(dir), "TOLLBRIDGE_CRASH=journal committed:2")
	server.waitLog("msg=started")
	c := start(t, client.setup(dir))
	meterCapture(t, capture, c.tcp())
	server.wait() // it has killed itself
	server.waitLog(`crash point "journal committed"`)
	c.waitLog(`msg="acr sent"`)
	c.kill()
	server = start(t, aaa.setup(dir))
	c = start(t, client.setup(dir))

	octets, nobodys := captureOctets(t)
	sent := waitBooks(t, c.data, func(s sums) bool { return s.Received.Octets >= octets && s.Acknowledged.Octets >= octets })
	got := waitBooks(t, server.data, func(s sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
	got = waitEnd(t, server.data)
	if got.Received.Minus(got.Duplicate) != sent.Accounted || got.Suspended.Octets != nobodys || got.Duplicate.IsZero() || got.Acknowledged != got.Accounted {
		t.Errorf("the client's books are %+v, the server's %+v", sent, got)
	}
	c.stop()
	server.stop()
	checkBill(t, bill(charges(t, server.data)))

	ofClient, ofServer := exportersOf(t, c.data), exportersOf(t, server.data)
	if !maps.Equal(ofClient, ofServer) {
		t.Errorf("exporters in the client's books %v, in the server's %v", ofClient, ofServer)
	}
}

// exportersOf returns the exporters that the books name.
func exportersOf(t *testing.T, data string) map[string]bool {
	t.Helper()
	var books struct {
		Rows []struct{ Exporter string }
	}
	show(t, &books, "audit", "--data", data)
	names := map[string]bool{}
	for _, r := range books.Rows {
		names[r.Exporter] = true
	}
	return names
}

// TestShapeASM runs examples/asm.yaml (RFC 5472, figure 2): users are mapped
// here, and the accounting application is in the same daemon.
func TestShapeASM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, users := files(t, dir)
	e := example(t, "asm.yaml", dir)
	e.replace("examples/users.csv", users)
	e.replace("'0.0.0.0:4739', '[::]:4739'", "'127.0.0.1:0'")
	e.set("server.listen", "['127.0.0.1:0']")
	d := start(t, e.setup(dir))
	meterCapture(t, capture, d.tcp())
	octets, nobodys := captureOctets(t)
	waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
	s := waitEnd(t, d.data)
	if s.Received.Octets != octets || s.Suspended.Octets != nobodys || s.Acknowledged != s.Accounted {
		t.Errorf("the books are %+v", s)
	}
	d.stop()
	checkBill(t, bill(charges(t, d.data)))
}

// TestShapeOtherServer runs examples/aaa-client-other.yaml against the
// Erlang/OTP accounting server, which finds out the users itself.
func TestShapeOtherServer(t *testing.T) {
	t.Parallel()
	erlang := startErlang(t)
	dir := t.TempDir()
	capture, _ := files(t, dir)
	e := example(t, "aaa-client-other.yaml", dir)
	e.replace("127.0.0.1:3870", erlang.address())
	e.replace("127.0.0.1:4739", "127.0.0.1:0")
	d := start(t, e.setup(dir))
	meterCapture(t, capture, d.tcp())
	octets, _ := captureOctets(t)
	s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
	if s.Received.Octets != octets || s.Acknowledged != s.Accounted || s.Accounted != s.Received {
		t.Errorf("the books are %+v", s)
	}
	d.stop()
	checkBill(t, billFlows(t, erlang.charges(t, acknowledged(t, d.data))))
}
