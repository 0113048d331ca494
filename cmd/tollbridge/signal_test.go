package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tollbridge/aaaclient"
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

// What the last checkpoint of a daemon cuts is delivered before it ends. It
// gives up a server that answers nothing for so long, as one may on a machine
// that others use too: that proves nothing, and another daemon is stopped.
func TestAStopDeliversItsLastRecords(t *testing.T) {
	t.Parallel()
	s := captureStream(t)
	for attempts := 5; attempts > 0; attempts-- {
		d := startUncut(t, s)
		stopped := time.Now()
		d.stop()
		took := time.Since(stopped)
		b := audit(t, d.data)
		if b.Pending.IsZero() && b.Acknowledged.Records == uint64(s.records) {
			return
		}
		t.Logf("of %d records pending %+v, acknowledged %+v; stopped in %s", s.records, b.Pending, b.Acknowledged, took)
		if took < aaaclient.DefaultGrace {
			t.Fatal("the daemon did not wait for its server")
		}
	}
	t.Error("no daemon delivered its last records")
}

// startUncut starts a daemon that has taken in a stream, of which it has cut no
// record before it stops.
func startUncut(t *testing.T, s *stream) *daemon {
	t.Helper()
	cfg := setup{
		data: filepath.Join(t.TempDir(), "data"), mode: "aaa-client", tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		timeout: "1m", delivery: ", drain: 15s", // however slow the machine is
	}
	content, err := os.ReadFile(cfg.write(t))
	cfg.file = cfg.data + ".yaml"
	if err == nil {
		err = os.WriteFile(cfg.file, bytes.Replace(content, []byte("checkpoint: 100ms"), []byte("checkpoint: 1h"), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, cfg)
	d.waitLog("peer is connected")
	s.send(t, d.tcp(), len(s.messages))
	d.waitMetric("pipeline_records_total", atLeast(float64(s.records)))
	if b := audit(t, cfg.data); !b.Received.IsZero() {
		t.Fatalf("there is a checkpoint already: %+v", b)
	}
	return d
}
