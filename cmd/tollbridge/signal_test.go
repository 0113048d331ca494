package main

import (
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Whoever does not want to wait for an orderly stop asks a second time.
func TestASecondSignalEndsTheDaemonAtOnce(t *testing.T) {
	d := start(t, setup{data: filepath.Join(t.TempDir(), "data"), tcp: "127.0.0.1:0", server: "127.0.0.1:0"})
	exporter := d.waitLog(`what=collectingProcess.tcpCollectors address=(\S+)`)[1]
	conn, err := net.Dial("tcp", exporter) // which the daemon waits for, as it does not close
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 10, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}); err != nil { // a Message of a header alone
		t.Fatal(err)
	}
	d.waitLog(`transport session opened`)
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitLog(`msg=stopping`)
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			d.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have gone
			continue
		case <-d.done:
		}
		break
	}
	var exit *exec.ExitError
	if !errors.As(d.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended by %v, want SIGTERM", d.err)
	}
}
