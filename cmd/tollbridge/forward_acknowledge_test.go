package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// What a collector that passes on acknowledges is what the operator asked for:
// what is on its own disk, or what the one that accounts has too, until when
// the exporter is told what is waited for.
func TestForwardAcknowledges(t *testing.T) {
	t.Parallel()
	for _, acknowledge := range []string{"here", "owner"} {
		t.Run(acknowledge, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			capture, users := files(t, dir)
			ln, err := net.Listen("tcp", "127.0.9.1:0") // where the one that accounts will be, and nobody else
			if err != nil {
				t.Fatal(err)
			}
			owner := ln.Addr().String()
			ln.Close()
			collector := start(t, passesOn(t, dir, owner, acknowledge))

			program, err := plainProgram()
			if err != nil {
				t.Fatal(err)
			}
			var said lines
			run := func() chan error {
				t.Helper()
				m := exec.Command(program, "meter", "-r", capture, "--to", collector.tcp(), "--acknowledged", "--spool", filepath.Join(dir, "meter"))
				out, err := m.StderrPipe()
				if err == nil {
					err = m.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { said.read(out); ended <- m.Wait() }()
				t.Cleanup(func() { _ = m.Process.Kill() })
				return ended
			}
			ended := run()
			if acknowledge == "here" {
				if err := <-ended; err != nil {
					t.Fatalf("nothing is acknowledged: %v\n%s", err, said.tail(10))
				}
			} else if said.wait(t.Context(), regexp.MustCompile(`held up.*why="?waits for another collector`)) == nil {
				t.Fatalf("it is not told what is waited for:\n%s", said.tail(10))
			} else if err := <-ended; err == nil { // what nobody acknowledged it keeps
				t.Fatalf("it was acknowledged before the one that accounts had it:\n%s", said.tail(10))
			}

			cfg := setup{
				data: filepath.Join(dir, "bridge"), users: users, tcp: owner, server: "127.0.0.1:0",
				collect: ", exporters: [{name: collector-1, prefixes: [127.0.0.1], forwards: true}]",
			}
			accounts := start(t, cfg)
			octets, nobodys := captureOctets(t)
			waitBooks(t, cfg.data, func(b sums) bool {
				return b.Received.Octets-b.Duplicate.Octets == octets && b.Suspended.Octets == nobodys
			})
			checkBill(t, bill(charges(t, cfg.data)))
			if acknowledge == "owner" {
				if err := <-run(); err != nil {
					t.Errorf("now the one that accounts has it: %v\n%s", err, said.tail(10))
				}
			}
			collector.stop()
			accounts.stop()
			audit(t, cfg.data)
		})
	}
}
