package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/internal/peertest"
)

// TestChaos kills exporter, bridge, relay and AAA server, cuts the network
// between them, and has the server misbehave, all at random moments, while
// capture after capture is metered:
//
//	field                core                  aaa
//	tollbridge meter ──► tollbridge serve ──►  freeDiameter ──► Erlang
//
// each in a network namespace of its own. A meter that was killed meters its
// capture again. Every other meter's export is acknowledged, and ends when all
// is on the bridge's disk; one without meters again when its connection broke.
// In the end the server's records
// come to what tshark counted in one capture, times the captures, and the
// books balance to the octet.
//
// TOLLBRIDGE_CHAOS is how long the chaos lasts, TOLLBRIDGE_CHAOS_SEED what it
// is drawn from.
func TestChaos(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "escript", "freeDiameterd", "openssl")
	lasts := time.Minute
	if d, err := time.ParseDuration(os.Getenv("TOLLBRIDGE_CHAOS")); err == nil {
		lasts = d
	}
	seed, err := strconv.ParseUint(os.Getenv("TOLLBRIDGE_CHAOS_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("TOLLBRIDGE_CHAOS_SEED=%d", seed)

	c := newChaos(t, rand.New(rand.NewPCG(seed, 0)))
	c.startServer()
	c.startRelay()
	c.startBridge()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	g, metering := errgroup.WithContext(t.Context())
	g.Go(func() error { return c.meter(metering, ctx.Done()) })
	c.strike(ctx)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	c.check()
}

// A chaos is the four processes and the networks between them.
type chaos struct {
	t      *testing.T
	random *rand.Rand
	dir    string
	field  netns
	core   netns
	aaa    netns
	flows  wire // between field and core
	acrs   wire // between core and aaa

	bridge  *daemon
	relay   *exec.Cmd
	server  *exec.Cmd
	exports atomic.Pointer[os.Process] // the meter that runs

	captures int // metered to the end
	repeats  int // of a meter that was killed or lost its connection
	strikes  map[string]int
}

// Addresses of the two networks.
const (
	chaosField  = "10.171.1.1"
	chaosCore   = "10.171.1.2"
	chaosBridge = "10.171.2.1"
	chaosAAA    = "10.171.2.2"
)

func newChaos(t *testing.T, r *rand.Rand) *chaos {
	c := &chaos{t: t, random: r, dir: t.TempDir(), strikes: make(map[string]int)}
	c.field, c.core, c.aaa = newNetns(t, "field"), newNetns(t, "core"), newNetns(t, "aaa")
	c.flows = connect(t, "flows", c.field, chaosField, c.core, chaosCore)
	c.acrs = connect(t, "acrs", c.aaa, chaosAAA, c.core, chaosBridge)
	users := bytes.ReplaceAll(bytes.ReplaceAll(demodata.Users, []byte("2026-11-22T00:00:00Z"), nil), []byte("2026-11-22T01:59:00Z"), nil)
	c.write("users.csv", string(users))
	c.write("bridge.yaml", fmt.Sprintf(`
data: %[1]s/bridge
identity: {originHost: bridge.isp.example, originRealm: isp.example}
collectingProcess:
  udpCollectors: []
  tcpCollectors: ["%[2]s:4739"]
  exporters: [{name: edge, prefixes: [%[3]s]}]
users: {files: [%[1]s/users.csv]}
accounting: {interimInterval: 1s, linger: 1500ms}
delivery:
  destinationRealm: home.example
  peers: [{address: "%[4]s:3868", host: relay.visited.example, plaintext: true}]
  timeout: 2s
  reconnect: 200ms
server: {listen: []}
spool: {checkpoint: 100ms}
status: {listen: 127.0.0.1:9739}
log: {level: info}
`, c.dir, chaosCore, chaosField, chaosAAA))

	certs := filepath.Join(c.dir, "certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(peertest.Scripts(t), "mkcerts.sh"), certs).CombinedOutput(); err != nil {
		t.Fatalf("mkcerts.sh: %v\n%s", err, out)
	}
	c.write("relay.acl", "ALLOW_IPSEC *.example\n")
	c.write("relay.rt", "dr=\"home.example\" : \"acct.home.example\" += REALM ;\n")
	c.write("relay.conf", strings.ReplaceAll(fmt.Sprintf(`
Identity = "relay.visited.example";
Realm = "visited.example";
Port = 3868;
SecPort = 5868;
No_SCTP;
No_IPv6;
ListenOn = "%s";
TwTimer = 6;
AppServThreads = 4;
TLS_Cred = "DIR/certs/relay.visited.example.pem", "DIR/certs/relay.visited.example.key";
TLS_CA = "DIR/certs/ca.pem";
TLS_DH_File = "DIR/certs/dh.pem";
LoadExtension = "/usr/lib/freeDiameter/dict_nasreq.fdx";
LoadExtension = "/usr/lib/freeDiameter/acl_wl.fdx" : "DIR/relay.acl";
LoadExtension = "/usr/lib/freeDiameter/rt_default.fdx" : "DIR/relay.rt";
ConnectPeer = "acct.home.example" { ConnectTo = "127.0.0.1"; No_IPv6; No_SCTP; Realm = "home.example"; Port = 13870; No_TLS; TcTimer = 1; };
`, chaosAAA), "DIR", c.dir))
	return c
}

func (c *chaos) write(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chaos) startBridge() {
	c.t.Helper()
	c.bridge = c.core.start(c.t, setup{data: filepath.Join(c.dir, "bridge"), file: filepath.Join(c.dir, "bridge.yaml")})
}

// background starts a program of the aaa namespace, which does not outlive the
// test, and waits until its log has a line.
func (c *chaos) background(log, ready string, args ...string) *exec.Cmd {
	c.t.Helper()
	out, err := os.Create(filepath.Join(c.dir, log))
	if err != nil {
		c.t.Fatal(err)
	}
	defer out.Close()
	cmd := c.aaa.command(args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { end(cmd) })
	if !until(c.t, func() bool {
		b, err := os.ReadFile(out.Name())
		return err == nil && bytes.Contains(b, []byte(ready))
	}) {
		b, _ := os.ReadFile(out.Name())
		c.t.Fatalf("%s never said %q:\n%s", log, ready, b)
	}
	return cmd
}

// end is kill -9. It may come twice.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func (c *chaos) startServer() {
	c.t.Helper()
	c.server = c.background("server.log", "ready", filepath.Join(peertest.Scripts(c.t), "erlang-acct.escript"), "13870", filepath.Join(c.dir, "acr.jsonl"), "13872")
}

func (c *chaos) startRelay() {
	c.t.Helper()
	c.relay = c.background("relay.log", "freeDiameterd daemon initialized", "stdbuf", "-oL", "freeDiameterd", "-c", filepath.Join(c.dir, "relay.conf"))
}

// tell has the server misbehave.
func (c *chaos) tell(command string) {
	c.t.Helper()
	out, err := c.aaa.command(filepath.Join(peertest.Scripts(c.t), "erlang-ctl.sh"), "13872", command).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v %s", command, err, out)
	}
}

// meter meters captures until stop, one after the other, each until a meter
// has seen it through.
func (c *chaos) meter(ctx context.Context, stop <-chan struct{}) error {
	program, err := plainProgram()
	if err != nil {
		return err
	}
	// The times of a pcap file move by whole seconds, and no two captures may
	// have the same.
	second := time.NewTicker(time.Second)
	defer second.Stop()
	at := time.Now()
	for ; ; at = at.Add(time.Second) {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-second.C:
		}
		name := filepath.Join(c.dir, fmt.Sprintf("capture-%d.pcap", c.captures))
		if err := os.WriteFile(name, captureAt(demodata.Capture, at), 0o600); err != nil {
			return err
		}
		for {
			args := []string{program, "meter", "-r", name, "--to", net.JoinHostPort(chaosCore, "4739"), "--reconnect", "500ms"}
			acknowledged := c.captures%2 == 0
			if acknowledged {
				args = append(args, "--acknowledged", "--spool", filepath.Join(c.dir, "exporter"))
			}
			cmd := c.field.command(args...)
			var log bytes.Buffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				return err
			}
			c.exports.Store(cmd.Process)
			giveUp := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }) // it may wait for an answer that was cut off
			err := cmd.Wait()
			giveUp.Stop()
			c.exports.Store(nil)
			if err == nil && (acknowledged || !strings.Contains(log.String(), "level=WARN")) {
				break
			}
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return err
			}
			c.repeats++
		}
		c.captures++
		if err := os.Remove(name); err != nil {
			return err
		}
	}
}

// captureAt returns a pcap file with its times moved so that it ends at t.
func captureAt(pcap []byte, t time.Time) []byte {
	pcap = bytes.Clone(pcap)
	order := binary.LittleEndian
	var last uint32
	each := func(f func(seconds []byte)) {
		for at := 24; at+16 <= len(pcap); at += 16 + int(order.Uint32(pcap[at+8:])) {
			f(pcap[at : at+4])
		}
	}
	each(func(b []byte) { last = max(last, order.Uint32(b)) })
	move := uint32(t.Unix()) - last
	each(func(b []byte) { order.PutUint32(b, order.Uint32(b)+move) })
	return pcap
}

// strike does harm at random until ctx ends, and then lets everything live.
func (c *chaos) strike(ctx context.Context) {
	type harm struct {
		name string
		do   func()
	}
	pause := func(atMost time.Duration) {
		<-time.After(time.Duration(c.random.Int64N(int64(atMost))))
	}
	harms := []harm{
		{"exporter killed", func() {
			if p := c.exports.Load(); p != nil {
				_ = p.Kill() // it may have ended
			}
		}},
		{"bridge killed", func() {
			c.bridge.kill()
			pause(time.Second)
			c.startBridge()
		}},
		{"relay killed", func() {
			end(c.relay)
			pause(time.Second)
			c.startRelay()
		}},
		{"server killed", func() {
			// It writes what it has answered up to 200 ms late. With no new
			// request nothing is answered that is not written.
			_ = c.relay.Process.Signal(syscall.SIGSTOP)
			<-time.After(400 * time.Millisecond)
			end(c.server)
			_ = c.relay.Process.Signal(syscall.SIGCONT)
			pause(time.Second)
			c.startServer()
		}},
		{"exporter cut off", func() {
			c.flows.cut()
			pause(3 * time.Second)
			c.flows.mend()
		}},
		{"AAA cut off", func() {
			c.acrs.cut()
			pause(3 * time.Second)
			c.acrs.mend()
		}},
		{"too busy", func() { c.tell("result 3004 " + strconv.Itoa(1+c.random.IntN(20))) }},
		{"out of space", func() { c.tell("result 4002 " + strconv.Itoa(1+c.random.IntN(20))) }},
		{"silent", func() { c.tell("silent " + strconv.Itoa(1+c.random.IntN(10))) }},
		{"answers lost", func() { c.tell("lose " + strconv.Itoa(1+c.random.IntN(10))) }},
		{"connection dropped", func() { c.tell("drop " + strconv.Itoa(1+c.random.IntN(10))) }},
	}
	for ctx.Err() == nil {
		h := harms[c.random.IntN(len(harms))]
		h.do()
		c.strikes[h.name]++
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(c.random.IntN(1500)) * time.Millisecond):
		}
	}
	c.tell("reset")
}

// check waits until everything has been delivered, and compares.
func (c *chaos) check() {
	t := c.t
	octets, nobodys := captureOctets(t)
	n := uint64(c.captures)
	t.Logf("%d captures metered, %d meters repeated; %v", c.captures, c.repeats, c.strikes)
	var s sums
	// Peers that were down are tried again at their own pace.
	for range 6 {
		if until(t, func() bool {
			s = audit(t, c.bridge.data)
			return s.Received.Octets-s.Duplicate.Octets == n*octets && s.Open.IsZero() && s.Pending.IsZero()
		}) {
			break
		}
	}
	if s.Received.Octets-s.Duplicate.Octets != n*octets || s.Suspended.Octets != n*nobodys || s.Acknowledged != s.Accounted {
		t.Errorf("the books are %+v, want %d octets received and %d suspended", s, n*octets, n*nobodys)
	}
	e := erlang{file: filepath.Join(c.dir, "acr.jsonl"), misbehaves: true}
	got := bill(e.charges(t, acknowledged(t, c.bridge.data)))
	for user, one := range captureTruth(t) {
		want := acct.Usage{InputOctets: n * one.InputOctets, OutputOctets: n * one.OutputOctets, InputPackets: n * one.InputPackets, OutputPackets: n * one.OutputPackets}
		if user != nobody && got[user] != want {
			t.Errorf("%s is billed %+v, but tshark counted %+v in %d captures", user, got[user], want, n)
		}
	}
	c.bridge.stop()
}
