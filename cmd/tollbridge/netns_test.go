package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tollbridge/internal/peertest"
)

// A netns is a network namespace that a test has made.
type netns string

// newNetns makes a network namespace with its loopback up, which goes with the
// test. Its purpose must be unlike that of all others of the process. It
// skips the test where none can be made.
func newNetns(t *testing.T, purpose string) netns {
	t.Helper()
	peertest.Need(t, "ip")
	n := netns(fmt.Sprintf("tb-%s-%d", purpose, os.Getpid()))
	if out, err := exec.Command("ip", "netns", "add", string(n)).CombinedOutput(); err != nil {
		peertest.Missing(t, "no network namespace can be made: "+strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", string(n)).CombinedOutput(); err != nil {
			t.Errorf("%s stays: %s", n, out)
		}
	})
	ip(t, "-n", string(n), "link", "set", "lo", "up")
	return n
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %s", strings.Join(args, " "), out)
	}
}

// command is exec.Command of a process in n.
func (n netns) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", string(n)}, args...)...)
}

// start is start in n.
func (n netns) start(t *testing.T, s setup) *daemon {
	t.Helper()
	d := n.launch(t, s)
	d.waitLog("msg=started")
	return d
}

// launch is launch of the plain program in n.
func (n netns) launch(t *testing.T, s setup) *daemon {
	t.Helper()
	program, err := plainProgram()
	if err != nil {
		t.Fatal(err)
	}
	return runDaemon(t, s.data, n.command(program, "serve", "-c", s.write(t)))
}

// A wire is a network between two namespaces. Cut, it loses what is under way,
// and what comes: nobody is told.
type wire struct {
	t    *testing.T
	name string
	at   netns
}

// connect lays a wire between two namespaces, which have an address of a /24 on
// it each.
func connect(t *testing.T, name string, near netns, nearAddr string, far netns, farAddr string) wire {
	t.Helper()
	ip(t, "-n", string(near), "link", "add", "name", name, "type", "veth", "peer", "name", name, "netns", string(far))
	for ns, addr := range map[netns]string{near: nearAddr, far: farAddr} {
		ip(t, "-n", string(ns), "addr", "add", addr+"/24", "dev", name)
		ip(t, "-n", string(ns), "link", "set", name, "up")
	}
	return wire{t, name, far}
}

func (w wire) cut()  { w.t.Helper(); ip(w.t, "-n", string(w.at), "link", "set", w.name, "down") }
func (w wire) mend() { w.t.Helper(); ip(w.t, "-n", string(w.at), "link", "set", w.name, "up") }
