// Package peertest has what tests need that run other programs: a test whose
// program is absent is skipped in one line, or fails where the environment
// requires all of them (TOLLBRIDGE_REQUIRE_PEERS=1). For tests only.
package peertest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Need makes sure that programs are installed.
func Need(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Missing(tb, p+" is not installed")
		}
	}
}

// Missing skips a test, or fails it, for want of something.
func Missing(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("TOLLBRIDGE_REQUIRE_PEERS") == "1" {
		tb.Fatalf("%s, and TOLLBRIDGE_REQUIRE_PEERS=1", why)
	}
	tb.Skipf("skipped: %s", why)
}

// Scripts returns the folder with the scripts that start AAA peers, beside the
// module's.
func Scripts(tb testing.TB) string {
	tb.Helper()
	root, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for !exists(filepath.Join(root, "go.mod")) && root != filepath.Dir(root) {
		root = filepath.Dir(root)
	}
	dir := filepath.Join(filepath.Dir(root), "shared", "peers")
	if !exists(dir) {
		Missing(tb, "../shared/peers is not there")
	}
	return dir
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// Start runs a script, which leaves processes behind and prints the pid of each
// after the word pid. They end with the test. RUN, in the script's environment,
// is a folder to work in.
func Start(tb testing.TB, file, run string, env []string, args ...string) {
	tb.Helper()
	cmd := exec.Command(file, args...)
	cmd.Env = append(os.Environ(), append(env, "RUN="+run)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v\n%s%s", file, err, out, &stderr)
	}
	words, started := strings.Fields(string(out)), 0
	for i, w := range words[:max(len(words)-1, 0)] {
		if pid, err := strconv.Atoi(words[i+1]); w == "pid" && err == nil {
			started++
			tb.Cleanup(func() { syscall.Kill(pid, syscall.SIGTERM) }) //nolint:errcheck // it may have ended by itself
		}
	}
	if started == 0 {
		tb.Fatalf("%s named no pid: %s", file, out)
	}
}

// FreePorts returns TCP ports that nobody listens on, for programs that must be
// told one.
func FreePorts(tb testing.TB, n int) []string {
	tb.Helper()
	var ports []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// Readable makes a folder that every user can read, as tshark needs it, which
// for root works as nobody.
func Readable(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "tollbridge-readable-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}
