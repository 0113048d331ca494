package peertest

import (
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed dictionaries.escript
var dictionaries []byte

// Dictionaries that Erlang/OTP's diameter has as examples.
const (
	NASREQ        = "rfc4005_nas"
	CreditControl = "rfc4006_cc" // inherits NASREQ
)

// Dictionaries compiles dictionaries of Erlang/OTP's diameter, where one may
// inherit those before it, and returns what the environment of a program must
// have to find them as modules.
func Dictionaries(tb testing.TB, names ...string) (env []string) {
	tb.Helper()
	Need(tb, "escript")
	dir := tb.TempDir()
	script := filepath.Join(dir, "dictionaries.escript")
	if err := os.WriteFile(script, dictionaries, 0o600); err != nil {
		tb.Fatal(err)
	}
	out, err := exec.Command("escript", append([]string{script, dir}, names...)...).CombinedOutput()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed) && failed.ExitCode() == 2:
		Missing(tb, "erlang-examples is not installed: "+string(out))
	case err != nil:
		tb.Fatalf("dictionaries %v: %v\n%s", names, err, out)
	}
	return []string{"ERL_FLAGS=-pa " + dir}
}
