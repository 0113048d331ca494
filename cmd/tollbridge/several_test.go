package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/internal/certtest"
)

// TestSeveralCollectors has an exporter with two collectors, which pass on to
// one that accounts and its standby, over mutual TLS. Either collector, and
// the one that accounts, is killed with kill -9, or stopped until the standby
// has replaced it, and the networks between them are cut, each at least once,
// in random order and at random moments.
// In the end every user is billed what tshark counted, once. Meter, collectors,
// and those who account are in network namespaces of their own.
//
//	           ┌─► collector 1 ─┐   ┌─► accounts ─┐
//	meter ─────┤                ├───┤             ├── one state directory
//	           └─► collector 2 ─┘   └─► standby ──┘
func TestSeveralCollectors(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	write := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	users := write("users.csv", string(bytes.ReplaceAll(bytes.ReplaceAll(demodata.Users, []byte("2026-11-22T00:00:00Z"), nil), []byte("2026-11-22T01:59:00Z"), nil)))
	ca := certtest.NewAuthority(t)
	secure := func(name string) string {
		f := ca.Write(ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames = []string{name}
			c.IPAddresses = []net.IP{net.IPv4(10, 172, 1, 2), net.IPv4(10, 172, 2, 2)} // where those are who account
		}))
		return fmt.Sprintf("{certificate: %s, key: %s, ca: %s}", f.Certificate, f.Key, f.CA)
	}

	field, core := newNetns(t, "several-field"), newNetns(t, "several-core")
	owners := [2]setup{}
	for i := range owners {
		port := 4739 + i
		owners[i] = setup{data: filepath.Join(dir, "bridge"), file: write(fmt.Sprintf("owner-%d.yaml", i), fmt.Sprintf(`
data: %[1]s/bridge
identity: {originHost: bridge.isp.example, originRealm: isp.example}
collectingProcess:
  udpCollectors: []
  tcpCollectors: []
  tlsCollectors: ["10.172.1.2:%[2]d", "10.172.2.2:%[2]d"]
  tls: %[3]s
  exporters:
    - {name: collector-1, certificateNames: [collector-1.isp.example], forwards: true}
    - {name: collector-2, certificateNames: [collector-2.isp.example], forwards: true}
users: {files: [%[4]s]}
accounting: {interimInterval: 1s, linger: 1500ms}
delivery: {destinationRealm: aaa.example, peers: [], timeout: 2s, reconnect: 200ms}
server: {listen: ["127.0.0.1:0"], originHost: server.aaa.example}
spool: {checkpoint: 100ms, lease: 1s}
status: {listen: 127.0.0.1:0}
log: {level: info}
`, dir, port, secure("owner.isp.example"), users))}
	}
	var collectors []setup
	var places []netns
	var outer, inner []wire // from the meter to the collectors, and from these to who accounts
	for i := 1; i <= 2; i++ {
		at := newNetns(t, fmt.Sprintf("several-%d", i))
		places = append(places, at)
		inner = append(inner, connect(t, fmt.Sprintf("inner-%d", i), core, fmt.Sprintf("10.172.%d.2", i), at, fmt.Sprintf("10.172.%d.1", i)))
		outer = append(outer, connect(t, fmt.Sprintf("outer-%d", i), field, fmt.Sprintf("10.172.%d.1", 2+i), at, fmt.Sprintf("10.172.%d.2", 2+i)))
		collectors = append(collectors, setup{data: filepath.Join(dir, fmt.Sprintf("collector-%d", i)), file: write(fmt.Sprintf("collector-%d.yaml", i), fmt.Sprintf(`
data: %[1]s/collector-%[2]d
collectingProcess:
  udpCollectors: []
  tcpCollectors: ["10.172.%[3]d.2:4739"]
  exporters: [{name: edge, prefixes: [10.172.%[3]d.1]}]
  tls: %[4]s
forward: {to: ["10.172.%[2]d.2:4739", "10.172.%[2]d.2:4740"], acknowledge: %[5]s, reconnect: 200ms}
status: {listen: 127.0.0.1:0}
log: {level: info}
`, dir, i, 2+i, secure(fmt.Sprintf("collector-%d.isp.example", i)), []string{"", "owner", "here"}[i]))})
	}
	run := func(s setup) *daemon { return core.launch(t, s) }
	accounts, standby := run(owners[0]), (*daemon)(nil)
	accounts.waitLog("msg=started")
	holder := 0
	standby = run(owners[1])
	standby.waitLog("standing by")
	var passing [2]*daemon
	for i := range passing {
		passing[i] = places[i].start(t, collectors[i])
	}
	replace := func() { // the standby has taken over, another one stands by
		accounts, standby = standby, nil
		accounts.waitLog("msg=started")
		holder = 1 - holder
		standby = run(owners[1-holder])
	}

	// A holder that a loaded machine keeps from showing life for its term is
	// replaced like one that hangs.
	overtaken := func(d *daemon) bool {
		select {
		case <-d.done:
			return d.cmd.ProcessState.ExitCode() == exitFenced
		default:
			return false
		}
	}

	const captures = 8
	harms := map[string]int{}
	order := random.Perm(captures - 1) // each of the harms below, and another one
	order = append(order, -1)          // none with the last capture
	octets, _ := captureOctets(t)
	at := time.Now().Add(-captures * time.Second)
	const to = "10.172.3.2:4739,10.172.4.2:4739"
	var said *bytes.Buffer
	for i := range captures {
		name := filepath.Join(dir, fmt.Sprintf("capture-%d.pcap", i))
		if err := os.WriteFile(name, captureAt(demodata.Capture, at.Add(time.Duration(i)*time.Second)), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"--acknowledged", "--spool", filepath.Join(dir, "meter")}
		if i%3 == 1 { // every record to each collector
			args = []string{"--acknowledged", "--spool", filepath.Join(dir, "meters"), "--duplicate"}
		}
		m, log := meterProcess(t, field, name, to, args...)
		said = log
		<-time.After(time.Duration(random.IntN(150)) * time.Millisecond)
		if overtaken(accounts) {
			harms["the one that accounts too slow, and replaced"]++
			replace()
		}
		var mend func()
		harm := order[i]
		if harm == 6 {
			harm = random.IntN(6)
		}
		switch harm {
		case -1:
		case 0, 1:
			harms[fmt.Sprintf("collector %d killed", 1+harm)]++
			passing[harm].kill()
			mend = func() { passing[harm] = places[harm].start(t, collectors[harm]) }
		case 2:
			harms["network to a collector cut"]++
			c := outer[random.IntN(2)]
			c.cut()
			mend = c.mend
		case 3:
			harms["network between collectors cut"]++
			c := inner[random.IntN(2)]
			c.cut()
			mend = c.mend
		case 4:
			harms["the one that accounts killed"]++
			accounts.kill()
			replace()
		default:
			harms["the one that accounts stopped, and replaced"]++
			hung := accounts
			if err := hung.cmd.Process.Signal(syscall.SIGSTOP); err != nil && !overtaken(hung) {
				t.Fatal(err)
			}
			accounts, standby = standby, nil
			if accounts.waitLog("msg=started|still has a database locked")[0] != "msg=started" { // it was within a transaction
				harms["the same, with a database locked, and killed"]++
				hung.kill()
				accounts.waitLog("msg=started")
				holder = 1 - holder
				standby = run(owners[1-holder])
				break
			}
			holder = 1 - holder
			if err := hung.cmd.Process.Signal(syscall.SIGCONT); err != nil && !overtaken(hung) {
				t.Fatal(err)
			}
			hung.waitLog("another daemon has taken over")
			<-hung.done
			if status := hung.cmd.ProcessState.ExitCode(); status != exitFenced {
				t.Errorf("a daemon that was replaced ends with status %d, want %d", status, exitFenced)
			}
			standby = run(owners[1-holder])
		}
		if mend != nil {
			<-time.After(time.Duration(random.IntN(1000)) * time.Millisecond)
			mend()
		}
		if err := m.Wait(); err != nil && !strings.Contains(log.String(), "they are kept") {
			t.Fatalf("the meter of capture %d: %v\n%s", i, err, log)
		}
	}
	// What meters left behind is sent by the next on their spools.
	empty := write("empty.pcap", string(demodata.Capture[:24]))
	for _, args := range [][]string{{"--spool", filepath.Join(dir, "meter")}, {"--spool", filepath.Join(dir, "meters"), "--duplicate"}} {
		m, log := meterProcess(t, field, empty, to, append(args, "--acknowledged")...)
		if err := m.Wait(); err != nil {
			t.Errorf("the last meter: %v\n%s", err, log)
		}
	}
	want := captures * octets
	books := waitBooks(t, owners[0].data, func(b sums) bool {
		return b.Received.Octets-b.Duplicate.Octets == want && b.Open.IsZero() && b.Pending.IsZero()
	})
	t.Logf("%v; %d of %d octets received were copies; the last meter said: %s", harms, books.Duplicate.Octets, books.Received.Octets, said)
	if got := books.Received.Octets - books.Duplicate.Octets; got != want {
		t.Errorf("%d octets were received, metered were %d", got, want)
	}
	billed := bill(charges(t, owners[0].data))
	for user, one := range captureTruth(t) {
		if got := billed[user]; user != nobody && (got.InputOctets != captures*one.InputOctets || got.OutputOctets != captures*one.OutputOctets) {
			t.Errorf("%s is billed %+v, but tshark counted %+v in each of %d captures", user, got, one, captures)
		}
	}
	standby.stop()
	for _, d := range passing {
		d.stop()
	}
	accounts.cmd.Process.Signal(syscall.SIGTERM)
	if accounts.wait(); accounts.err != nil && !overtaken(accounts) {
		t.Errorf("who accounted ended with %v", accounts.err)
	}
}
