package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/internal/certtest"
)

// A cable is a network between two processes that can be cut: what is under
// way is lost, and nobody gets through until it is mended.
type cable struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{ln: ln, to: to, conns: make(map[net.Conn]bool)}
	var g sync.WaitGroup
	g.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			g.Go(func() { c.join(near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		c.sever(true)
		g.Wait()
	})
	return c
}

func (c *cable) address() string { return c.ln.Addr().String() }

// plug keeps a connection for as long as the cable is whole.
func (c *cable) plug(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		conn.Close()
		return false
	}
	c.conns[conn] = true
	return true
}

func (c *cable) join(near net.Conn) {
	defer near.Close()
	if !c.plug(near) {
		return
	}
	far, err := net.Dial("tcp", c.to)
	if err != nil || !c.plug(far) {
		return
	}
	defer far.Close()
	var g sync.WaitGroup
	for _, x := range [][2]net.Conn{{near, far}, {far, near}} {
		g.Go(func() {
			_, _ = io.Copy(x[0], x[1])
			_ = x[0].(*net.TCPConn).CloseWrite()
		})
	}
	g.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, near)
	delete(c.conns, far)
}

// sever cuts the cable, or mends it.
func (c *cable) sever(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for conn := range c.conns {
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		clear(c.conns)
	}
}

// freeAddress returns an address that nobody listens on, for a daemon that
// others must know before it starts.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestSeveralCollectors has an exporter with two collectors, which pass on to
// one that accounts and its standby, over mutual TLS. Either collector, and
// the one that accounts, is killed with kill -9, or stopped until the standby
// has replaced it, and the networks between them are cut, at random moments.
// In the end every user is billed what tshark counted, once.
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
		f := ca.Write(ca.Issue(name))
		return fmt.Sprintf("{certificate: %s, key: %s, ca: %s}", f.Certificate, f.Key, f.CA)
	}

	owners := [2]setup{}
	var inner []*cable
	for i := range owners {
		at := freeAddress(t)
		owners[i] = setup{data: filepath.Join(dir, "bridge"), file: write(fmt.Sprintf("owner-%d.yaml", i), fmt.Sprintf(`
data: %s/bridge
identity: {originHost: bridge.isp.example, originRealm: isp.example}
collectingProcess:
  udpCollectors: []
  tcpCollectors: []
  tlsCollectors: ["%s"]
  tls: %s
  exporters:
    - {name: collector-1, certificateNames: [collector-1.isp.example], forwards: true}
    - {name: collector-2, certificateNames: [collector-2.isp.example], forwards: true}
users: {files: [%s]}
accounting: {interimInterval: 1s, linger: 1500ms}
delivery: {destinationRealm: aaa.example, peers: [], timeout: 2s, reconnect: 200ms}
server: {listen: ["127.0.0.1:0"], originHost: server.aaa.example}
spool: {checkpoint: 100ms, lease: 1s}
status: {listen: 127.0.0.1:0}
log: {level: info}
`, dir, at, secure("owner.isp.example"), users))}
		inner = append(inner, newCable(t, at))
	}
	var collectors []setup
	var outer []*cable
	for i := 1; i <= 2; i++ {
		at := freeAddress(t)
		collectors = append(collectors, setup{data: filepath.Join(dir, fmt.Sprintf("collector-%d", i)), file: write(fmt.Sprintf("collector-%d.yaml", i), fmt.Sprintf(`
data: %s/collector-%d
collectingProcess:
  udpCollectors: []
  tcpCollectors: ["%s"]
  exporters: [{name: edge, prefixes: [127.0.0.1]}]
  tls: %s
forward: {to: ["%s", "%s"], acknowledge: %s, reconnect: 200ms}
status: {listen: 127.0.0.1:0}
log: {level: info}
`, dir, i, at, secure(fmt.Sprintf("collector-%d.isp.example", i)), inner[0].address(), inner[1].address(), []string{"", "owner", "here"}[i]))})
		outer = append(outer, newCable(t, at))
	}
	run := func(s setup) *daemon { return launch(t, plainProgram, s) }
	accounts, standby := run(owners[0]), (*daemon)(nil)
	accounts.waitLog("msg=started")
	holder := 0
	standby = run(owners[1])
	standby.waitLog("standing by")
	var passing [2]*daemon
	for i := range passing {
		passing[i] = run(collectors[i])
		passing[i].waitLog("msg=started")
	}
	replace := func() { // the standby has taken over, another one stands by
		accounts, standby = standby, nil
		accounts.waitLog("msg=started")
		holder = 1 - holder
		standby = run(owners[1-holder])
	}

	const captures = 8
	harms := map[string]int{}
	octets, _ := captureOctets(t)
	at := time.Now().Add(-captures * time.Second)
	to := outer[0].address() + "," + outer[1].address()
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
		m, log := meterProcess(t, name, to, args...)
		said = log
		<-time.After(time.Duration(random.IntN(150)) * time.Millisecond)
		var mend func()
		switch harm := random.IntN(5); {
		case i == captures-1:
		case harm == 0:
			harms["collector killed"]++
			n := random.IntN(2)
			passing[n].kill()
			mend = func() { passing[n] = run(collectors[n]); passing[n].waitLog("msg=started") }
		case harm == 1:
			harms["network to a collector cut"]++
			c := outer[random.IntN(2)]
			c.sever(true)
			mend = func() { c.sever(false) }
		case harm == 2:
			harms["network between collectors cut"]++
			c := inner[random.IntN(2)]
			c.sever(true)
			mend = func() { c.sever(false) }
		case harm == 3 || i == 0:
			harms["the one that accounts killed"]++
			accounts.kill()
			replace()
		default:
			harms["the one that accounts stopped, and replaced"]++
			hung := accounts
			if err := hung.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			accounts, standby = standby, nil
			accounts.waitLog("msg=started")
			holder = 1 - holder
			if err := hung.cmd.Process.Signal(syscall.SIGCONT); err != nil {
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
		m, log := meterProcess(t, empty, to, append(args, "--acknowledged")...)
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
	accounts.stop()
}
