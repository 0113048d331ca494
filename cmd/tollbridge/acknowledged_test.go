package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/cmd/tollbridge/internal/userscmd"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
	"tollbridge/meter"
	"tollbridge/spool"
)

// meterProcess starts "tollbridge meter" on a capture, in a network namespace
// if that is not "". It does not outlive the test.
func meterProcess(t *testing.T, in netns, capture, to string, args ...string) (cmd *exec.Cmd, log *bytes.Buffer) {
	t.Helper()
	program, err := plainProgram()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{program, "meter", "-r", capture, "--to", to, "--reconnect", "500ms"}, args...)
	if cmd = exec.Command(args[0], args[1:]...); in != "" {
		cmd = in.command(args...)
	}
	log = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, log
}

// unread reports whether octets wait in the kernel to be read by who listens
// on an address.
func unread(t *testing.T, address string) bool {
	t.Helper()
	port := fmt.Sprintf(":%04X", netip.MustParseAddrPort(address).Port())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skipf("no table of sockets: %v", err)
	}
	for line := range strings.Lines(string(table)) {
		// sl, local address, remote address, state, queues
		f := strings.Fields(line)
		if len(f) < 5 || !strings.HasSuffix(f[1], port) || f[3] != "01" && f[3] != "08" { // established, or half-closed by the exporter
			continue
		}
		if _, queue, ok := strings.Cut(f[4], ":"); ok {
			if n, err := hex.DecodeString(queue); err == nil && !bytes.Equal(n, make([]byte, len(n))) {
				return true
			}
		}
	}
	return false
}

// What the kernel of a collector took, and the collector never read, is lost
// to a plain exporter. Acknowledged export closes that hole: the same kill
// loses nothing.
func TestAcknowledgedExportClosesTheHole(t *testing.T) {
	capture, users := files(t, t.TempDir())
	octets, _ := captureOctets(t)
	for _, acknowledged := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain TCP loses", true: "acknowledged export does not"}[acknowledged], func(t *testing.T) {
			t.Parallel()
			s := setup{data: filepath.Join(t.TempDir(), "bridge"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
			d := start(t, s)
			s.tcp = d.tcp()
			if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			var args []string
			if acknowledged {
				args = []string{"--acknowledged", "--spool", filepath.Join(t.TempDir(), "meter")}
			}
			m, log := meterProcess(t, "", capture, s.tcp, args...)
			if !until(t, func() bool { return unread(t, s.tcp) }) {
				t.Fatalf("the meter sends nothing:\n%s", log)
			}
			d.kill()
			d = start(t, s)
			err := m.Wait()
			if acknowledged && err != nil {
				t.Errorf("the meter: %v\n%s", err, log)
			}
			d.stop() // all that it has goes through the pipeline
			books := audit(t, s.data)
			if got := books.Received.Octets - books.Duplicate.Octets; acknowledged != (got == octets) {
				t.Errorf("%d octets were received, metered were %d", got, octets)
			}
		})
	}
}

// Exporter and collector are killed with kill -9 at random moments. A meter
// that was killed meters its capture again, as what was in its flow cache is
// gone; what it had exported is known again. A collector that was killed is
// nobody's concern but its own.
func TestAcknowledgedKill(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	_, users := files(t, dir)
	content, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	// Each capture is at times of its own, all of which the users hold.
	content = bytes.ReplaceAll(bytes.ReplaceAll(content, []byte("2026-11-22T00:00:00Z"), nil), []byte("2026-11-22T01:59:00Z"), nil)
	if err := os.WriteFile(users, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{data: filepath.Join(dir, "bridge"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	d := start(t, s)
	s.tcp = d.tcp()
	octets, _ := captureOctets(t)
	const captures = 6
	at := time.Now().Add(-captures * time.Second)
	killed := map[string]int{}
	last := ""
	for i := range captures {
		name := filepath.Join(dir, fmt.Sprintf("capture-%d.pcap", i))
		if err := os.WriteFile(name, captureAt(demodata.Capture, at.Add(time.Duration(i)*time.Second)), 0o600); err != nil {
			t.Fatal(err)
		}
		for again := true; again; {
			m, log := meterProcess(t, "", name, s.tcp, "--acknowledged", "--spool", filepath.Join(dir, "meter"))
			moment := time.NewTimer(time.Duration(random.IntN(120)) * time.Millisecond)
			<-moment.C
			again = false
			if random.IntN(2) == 0 {
				killed["collector"]++
				d.kill()
			}
			if random.IntN(3) > 0 && i < captures-1 {
				killed["exporter"]++
				_ = m.Process.Kill()
				again = true
			}
			select {
			case <-d.done:
				d = start(t, s)
			default:
			}
			err := m.Wait()
			last = log.String()
			if !again && err != nil && i == captures-1 {
				t.Fatalf("the last meter: %v\n%s", err, log)
			}
		}
	}
	want := captures * octets
	books := waitBooks(t, s.data, func(b sums) bool {
		return b.Received.Octets-b.Duplicate.Octets == want && b.Open.IsZero() && b.Pending.IsZero()
	})
	t.Logf("killed: %v; %d of %d octets received were sent again; the last meter said: %s", killed, books.Duplicate.Octets, books.Received.Octets, last)
	if got := books.Received.Octets - books.Duplicate.Octets; got != want {
		t.Errorf("%d octets were received, metered were %d", got, want)
	}
	for user, one := range captureTruth(t) {
		if got := bill(charges(t, s.data))[user]; user != nobody && (got.InputOctets != captures*one.InputOctets || got.OutputOctets != captures*one.OutputOctets) {
			t.Errorf("%s is billed %+v, but tshark counted %+v in each of %d captures", user, got, one, captures)
		}
	}
	d.stop()
}

// captureEnd returns when the last packet of the capture was seen.
func captureEnd() (last time.Time) {
	order := binary.LittleEndian
	for at, b := 24, demodata.Capture; at+16 <= len(b); at += 16 + int(order.Uint32(b[at+8:])) {
		if seen := time.Unix(int64(order.Uint32(b[at:])), int64(order.Uint32(b[at+4:]))*1000); seen.After(last) {
			last = seen
		}
	}
	return last
}

// "users usage --now" brings what an exporter still has in its flow cache into
// the sessions of users, exact to a time.
func TestUsersUsageNow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	s := setup{data: filepath.Join(dir, "bridge"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	// Alice has one of her prefixes only later, which no checkpoint tells of by itself.
	later := []byte("2001:db8:1:1::/64,alice,")
	if err := os.WriteFile(users, bytes.Replace(demodata.Users, later, []byte("# "), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s.file = s.write(t)
	file, err := os.ReadFile(s.file)
	if err == nil {
		err = os.WriteFile(s.file, bytes.Replace(file, []byte("checkpoint: 100ms"), []byte("checkpoint: 30s"), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, s)
	kept, err := backlog.Open(filepath.Join(dir, "meter"), backlog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	var m *meter.Meter
	pull := func(ctx context.Context, of netip.Prefix) (time.Time, error) { return m.Pull(ctx, of) }
	p, err := export.New(export.Config{
		Transport: ipfix.TCP, Address: d.tcp(), Domain: 1, Acknowledged: &export.Acknowledged{Backlog: kept, Pull: pull},
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing leaves the cache by itself.
	if m, err = meter.New(meter.Config{Exporter: p, IdleTimeout: 1000 * time.Hour, ActiveTimeout: 1000 * time.Hour, EndTimeout: 1000 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { _ = p.Run(ctx); return nil })
	if err := m.ReadFile(ctx, bytes.NewReader(demodata.Capture), nil); err != nil {
		t.Fatal(err)
	}
	if n := m.Stats().Exported.Sum(); n != 0 {
		t.Fatalf("%d flows have left the cache", n)
	}
	last := captureEnd()
	g.Go(func() error { // a meter that goes on
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := m.Advance(ctx, last.UnixNano()); err != nil && ctx.Err() == nil {
					return err
				}
			}
		}
	})
	// A collector asks whoever has exported before.
	some, err := ipfix.NewTemplate(900, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err == nil {
		err = p.Export(ctx, some, make([]byte, 8))
	}
	if err == nil {
		err = p.Flush(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.waitLog("exporter asks for acknowledgements")

	var usage []userscmd.Usage
	show(t, &usage, "users", "usage", "--now", "--of", "192.0.2.250", "--data", s.data)
	if len(usage) != 0 {
		t.Errorf("flows of others were exported: %+v", usage)
	}
	if err := os.WriteFile(users+".new", demodata.Users, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(users+".new", users); err != nil {
		t.Fatal(err)
	}
	if !until(t, func() bool { return usersEntries(t, s.data) == 2 }) {
		t.Fatal("the users file is not read again")
	}
	truth := captureTruth(t)
	delete(truth, nobody)
	show(t, &usage, "users", "usage", "--now", "alice", "--data", s.data)
	if len(usage) != 1 || usage[0].User != "alice" || usage[0].Usage != truth["alice"] || !usage[0].Exact.Equal(last.Truncate(time.Millisecond)) {
		t.Errorf("alice used %+v, in truth %+v", usage, truth["alice"])
	}
	hers := m.Stats().Exported.Sum()
	show(t, &usage, "users", "usage", "--now", "--data", s.data)
	if all := m.Stats().Exported.Sum(); hers == 0 || hers >= all {
		t.Errorf("%d of %d flows left the cache for alice", hers, all)
	}
	if len(usage) != len(truth) {
		t.Errorf("%d users have used something, in truth %d", len(usage), len(truth))
	}
	for _, u := range usage {
		if u.Usage != truth[u.User] || !u.Exact.Equal(last.Truncate(time.Millisecond)) {
			t.Errorf("%s used %+v as of %v, in truth %+v as of %v", u.User, u.Usage, u.Exact, truth[u.User], last)
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	d.stop()
	if _, stderr, status := cli(t, "users", "usage", "--now", "--data", s.data); status != 1 || !strings.Contains(stderr, "no daemon is running") {
		t.Errorf("without a daemon: status %d, %s", status, stderr)
	}
}

// usersEntries counts the lists of bindings in a journal.
func usersEntries(t *testing.T, data string) (n int) {
	t.Helper()
	s, err := spool.OpenReadOnly(data)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for at := uint64(1); at <= s.Journal().Durable(); at++ {
		e, err := s.Journal().Read(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == acct.EntryUsers {
			n++
		}
	}
	return n
}
