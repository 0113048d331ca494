package peertest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"tollbridge/internal/peertest"
)

// What a script leaves behind ends with the test that started it.
func TestStart(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "start.sh"), filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	// The process that is left behind holds the pipe open until it ends.
	const script = "#!/bin/sh\nsleep 1000 >\"$RUN/pipe\" 2>&1 </dev/null &\necho \"started, pid $!\"\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	read := exec.Command("cat", pipe) // it ends when the pipe does
	if err := read.Start(); err != nil {
		t.Fatal(err)
	}
	t.Run("started", func(t *testing.T) { peertest.Start(t, file, dir, nil) })
	if err := read.Wait(); err != nil {
		t.Error(err)
	}
}
