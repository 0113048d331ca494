package peertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A Wireshark is a data directory like the installed one but with a Custom.xml
// of its own in its Diameter dictionary, as any user of that may have it.
type Wireshark struct{ data string }

// NewWireshark makes one.
func NewWireshark(tb testing.TB, custom string) Wireshark {
	tb.Helper()
	const installed = "/usr/share/wireshark"
	if !exists(filepath.Join(installed, "diameter", "dictionary.xml")) {
		Missing(tb, "Wireshark has no Diameter dictionary")
	}
	w := Wireshark{Readable(tb)}
	links(tb, installed, w.data, "diameter")
	if err := os.Mkdir(filepath.Join(w.data, "diameter"), 0o755); err != nil {
		tb.Fatal(err)
	}
	links(tb, filepath.Join(installed, "diameter"), filepath.Join(w.data, "diameter"), "Custom.xml")
	if err := os.WriteFile(filepath.Join(w.data, "diameter", "Custom.xml"), []byte(custom), 0o644); err != nil {
		tb.Fatal(err)
	}
	return w
}

// Prepare makes cmd, which runs tshark, use w. For root, tshark takes no data
// directory from the environment, so it runs as nobody then.
func (w Wireshark) Prepare(cmd *exec.Cmd) {
	cmd.Dir = w.data
	cmd.Env = append(os.Environ(), "WIRESHARK_DATA_DIR="+w.data, "HOME="+w.data, "XDG_CONFIG_HOME="+w.data)
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

// JudgeDiameter has tshark read a capture of Diameter on some ports: there are
// Accounting-Requests, nothing is malformed, and no AVP is unknown.
func (w Wireshark) JudgeDiameter(tb testing.TB, capture string, ports ...string) {
	tb.Helper()
	script, err := os.Open(filepath.Join(Scripts(tb), "tshark-check.sh"))
	if err != nil {
		tb.Fatal(err)
	}
	defer script.Close()
	cmd := exec.Command("bash", append([]string{"-s", capture}, ports...)...)
	w.Prepare(cmd)
	cmd.Stdin = script
	out, err := cmd.CombinedOutput()
	if err != nil || strings.HasPrefix(string(out), "ACR frames 0") {
		tb.Errorf("tshark: %v\n%.800s", err, out)
	}
	tb.Logf("tshark: %.100s", out)
}

// links fills a folder with links to what another holds, but for one name.
func links(tb testing.TB, from, to, except string) {
	tb.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == except {
			continue
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			tb.Fatal(err)
		}
	}
}
