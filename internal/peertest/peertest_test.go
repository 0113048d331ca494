package peertest_test

import (
	"os"
	"path/filepath"
	"testing"

	"tollbridge/internal/peertest"
)

// What a script leaves behind ends with the test that started it.
func TestStart(t *testing.T) {
	dir := t.TempDir()
	file, told := filepath.Join(dir, "start.sh"), filepath.Join(dir, "told")
	script := "#!/bin/sh\n(trap 'echo ended >>\"$RUN/told\"; exit' TERM; echo began >\"$RUN/told\"; while :; do sleep 0.05; done) >/dev/null 2>&1 &\necho \"started pid $!\"\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	wait := func(want string) {
		for range 600 {
			if b, _ := os.ReadFile(told); string(b) == want {
				return
			}
			sleep()
		}
		t.Fatalf("not told %q", want)
	}
	t.Run("started", func(t *testing.T) {
		peertest.Start(t, file, dir, nil)
		wait("began\n")
	})
	wait("began\nended\n")
}
