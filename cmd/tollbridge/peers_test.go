package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"tollbridge/spool"
)

// TestSoftflowd has softflowd meter the bundled capture and export it over
// UDP and TCP. It counts octets of the IP layer of every packet, as the truth
// does, so that nothing has to be made up for: each user is billed what tshark
// counted, to the octet and packet.
func TestSoftflowd(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			need(t, "softflowd")
			dir := t.TempDir()
			capture, users := files(t, dir)
			d := start(t, setup{
				data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0",
				users: users, server: "127.0.0.1:0",
			})
			softflowd(t, capture, transport, d.address("collectingProcess."+transport+"Collectors"))

			octets, nobodys := captureOctets(t)
			s := waitBooks(t, d.data, func(s spool.Sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
			if s.Received.Octets != octets || s.Suspended.Octets != nobodys || s.Duplicate.Octets != 0 {
				t.Errorf("the books are %+v, want %d octets received and %d suspended", s, octets, nobodys)
			}
			d.waitMetric("pipeline_sessions", func(v float64) bool { return v == 0 }) // each has its STOP_RECORD
			waitBooks(t, d.data, func(spool.Sums) bool { return true })
			d.stop()
			checkBill(t, bill(charges(t, d.data)))
		})
	}
}

// softflowd exports a capture as IPFIX and waits until it has. Its buffers for
// names are short, so it gets relative ones.
func softflowd(t *testing.T, capture, transport, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "softflowd", "-d", "-r", filepath.Base(capture), "-n", address,
		"-P", transport, "-v", "10", "-A", "milli", "-c", "ctl", "-p", "pid")
	cmd.Dir = filepath.Dir(capture)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softflowd: %v\n%s", err, out)
	}
}
