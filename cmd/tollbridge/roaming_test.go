package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// TestRoaming runs examples/roaming-*.yaml in two network namespaces. A visited
// network accounts users of a home network: ASM, its AAA server, which stores
// and forwards, and freeDiameter as a relay; from there TLS over a link to the
// home network's AAA server, of which one packet in ten is lost. Meanwhile the
// link is down for a while, and each of the three behind the ASM is killed. In the end "tollbridge reconcile"
// finds that what the visited network sent and what the home network received
// agree to the octet, and each user is billed what tshark counted.
func TestRoaming(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "ip", "freeDiameterd", "openssl")
	n := newRoamingNetwork(t)
	dir := t.TempDir()
	capture, users := files(t, dir)
	ca := certtest.NewAuthority(t)

	home := example(t, "roaming-home.yaml", dir)
	homeFiles := ca.Write(ca.Issue("aaa.home.example"))
	home.replace("/etc/tollbridge/aaa.home.example.pem", homeFiles.Certificate)
	home.replace("/etc/tollbridge/aaa.home.example-key.pem", homeFiles.Key)
	home.replace("/etc/tollbridge/roaming-ca.pem", homeFiles.CA)
	visited := example(t, "roaming-visited.yaml", dir)
	asm := example(t, "roaming-asm.yaml", dir)
	asm.replace("examples/users.csv", users)
	asm.replace("'127.0.0.1:4739'", "'127.0.0.1:0'")

	theirs := n.home.start(t, home.setup(dir))
	relay := n.relay(dir, ca)
	relay.start()
	proxy := n.visited.start(t, visited.setup(dir))
	ours := n.visited.start(t, asm.setup(dir))

	collector := ours.tcp()
	if out, err := n.visited.command(mustProgram(t), "meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", collector).CombinedOutput(); err != nil {
		t.Fatalf("meter: %v\n%s", err, out)
	}
	proxy.waitLog(`msg="acr sent"`)
	n.between.cut()
	proxy.kill()
	proxy = n.visited.start(t, visited.setup(dir))
	relay.kill()
	theirs.kill()
	relay.start()
	n.between.mend()
	theirs = n.home.start(t, home.setup(dir))
	theirs.waitLog(`msg="peer is connected".*relay\.visited\.example`)
	relay.kill()
	relay.start()

	octets, nobodys := captureOctets(t)
	waitBooks(t, ours.data, func(s sums) bool { return s.Received.Octets >= octets })
	sent := waitEnd(t, ours.data)
	if sent.Received.Octets != octets || sent.Suspended.Octets != nobodys || sent.Acknowledged != sent.Accounted {
		t.Errorf("the books of the visited network are %+v", sent)
	}
	records := acknowledged(t, ours.data)
	if !until(t, func() bool { return settled(t, proxy.data) == records }) {
		t.Fatalf("%d of %d records are forwarded:\n%s", settled(t, proxy.data), records, proxy.lines.tail(10))
	}
	for _, d := range []*daemon{ours, proxy, theirs} {
		d.stop()
		audit(t, d.data)
	}

	out, errOut, status := cli(t, "reconcile", ours.data, filepath.Join(theirs.data, "cdr.db"), "--realm", "home.example", "--host", "bridge.visited.example")
	if status != 0 || !strings.Contains(out, " 0 differ") {
		t.Errorf("reconcile: status %d\n%s%s", status, out, errOut)
	}
	t.Log(strings.TrimSpace(out))
	checkBill(t, bill(charges(t, theirs.data)))
	checkRoamingRecords(t, theirs.data)
	if n.roam.lost.Load() == 0 {
		t.Error("no packet was lost on the link")
	}

	// Somebody takes a record out of the partner's list, and is found out.
	list, _, _ := cli(t, "spool", "cdrs", "--limit", "0", "-o", "csv", "--data", theirs.data)
	lines := strings.SplitAfter(list, "\n")
	short := filepath.Join(dir, "theirs.csv")
	if err := os.WriteFile(short, []byte(strings.Join(append(lines[:3], lines[4:]...), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, status := cli(t, "reconcile", ours.data, short); status != 1 || !strings.Contains(out, "1 records missing") {
		t.Errorf("reconcile without a record: status %d\n%s", status, out)
	}
}

// checkRoamingRecords says of each CDR whether it has what the example promises
// the home network of it.
func checkRoamingRecords(t *testing.T, data string) {
	t.Helper()
	list := storedCDRs(t, data)
	vendor := dict.For(0).Vendor()
	for _, c := range list {
		r, err := dict.For(0).ParseRecord(c.AVPs)
		if err != nil {
			t.Fatalf("%s/%d: %v", c.SessionID, c.Number, err)
		}
		for _, want := range []acct.Attribute{
			{Code: avp.OperatorName, Data: []byte("1visited.example")},
			{Code: dict.RoamingAgreement, Vendor: vendor, Data: []byte("visited-home")},
		} {
			if !slices.ContainsFunc(r.Attributes, func(a acct.Attribute) bool {
				return a.Code == want.Code && a.Vendor == want.Vendor && bytes.Equal(a.Data, want.Data)
			}) {
				t.Errorf("%s/%d has %+v, not %+v", c.SessionID, c.Number, r.Attributes, want)
			}
		}
		if c.Usage != (acct.Usage{}) && r.Layer != acct.LayerNetwork {
			t.Errorf("%s/%d does not say which octets it counts: layer %d", c.SessionID, c.Number, r.Layer)
		}
		if r.Start.IsZero() || r.End.Before(r.Start) {
			t.Errorf("%s/%d is of the interval %v to %v", c.SessionID, c.Number, r.Start, r.End)
		}
	}
}

// settled is how many records of a spool are acknowledged.
func settled(t *testing.T, data string) int {
	t.Helper()
	var stats struct{ Records map[string]int }
	show(t, &stats, "spool", "stats", "--data", data)
	return stats.Records["acknowledged"]
}

func mustProgram(t *testing.T) string {
	t.Helper()
	file, err := plainProgram()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// A roamingNetwork is two network namespaces with a link between.
type roamingNetwork struct {
	t             *testing.T
	visited, home netns
	between       wire
	roam          *lossyLink // that it is
}

func newRoamingNetwork(t *testing.T) *roamingNetwork {
	t.Helper()
	n := &roamingNetwork{t: t, visited: newNetns(t, "visited"), home: newNetns(t, "home")}
	n.between, n.roam = connectLossy(t, "roam", n.visited, "198.51.100.1", n.home, "198.51.100.2", 10, 1)
	return n
}

// A freeDiameter is the relay of the visited network.
type freeDiameter struct {
	n    *roamingNetwork
	conf string
	cmd  *exec.Cmd
	done chan struct{}
}

// relay writes freeDiameter's configuration: it relays home.example over TLS.
func (n *roamingNetwork) relay(dir string, ca *certtest.Authority) *freeDiameter {
	n.t.Helper()
	const extensions = "/usr/lib/freeDiameter/"
	files := ca.Write(ca.Issue("relay.visited.example"))
	at := func(name string) string { return filepath.Join(dir, name) }
	if out, err := exec.Command("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", at("dh.pem")).CombinedOutput(); err != nil {
		n.t.Fatalf("openssl: %v\n%s", err, out)
	}
	for name, content := range map[string]string{
		"relay.acl": "ALLOW_IPSEC *.visited.example *.home.example\n",
		"relay.rt":  "dr=\"home.example\" : \"aaa.home.example\" += REALM ;\n",
		"relay.conf": fmt.Sprintf(`Identity = "relay.visited.example";
Realm = "visited.example";
Port = 3868;
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "127.0.0.1";
TwTimer = 6;
TcTimer = 1;
TLS_Cred = %q, %q;
TLS_CA = %q;
TLS_DH_File = %q;
LoadExtension = %q;
LoadExtension = %q : %q;
LoadExtension = %q : %q;
ConnectPeer = "aaa.home.example" { ConnectTo = "198.51.100.2"; No_IPv6; No_SCTP; Realm = "home.example"; Port = 5868; TcTimer = 1; };
`, files.Certificate, files.Key, files.CA, at("dh.pem"), extensions+"dict_nasreq.fdx",
			extensions+"acl_wl.fdx", at("relay.acl"), extensions+"rt_default.fdx", at("relay.rt")),
	} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	f := &freeDiameter{n: n, conf: at("relay.conf")}
	n.t.Cleanup(f.kill)
	return f
}

func (f *freeDiameter) start() {
	f.n.t.Helper()
	log, err := os.OpenFile(f.conf+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.n.t.Fatal(err)
	}
	defer log.Close()
	f.cmd, f.done = f.n.visited.command("freeDiameterd", "-c", f.conf), make(chan struct{})
	f.cmd.Stdout, f.cmd.Stderr = log, log
	if err := f.cmd.Start(); err != nil {
		f.n.t.Fatal(err)
	}
	cmd, done := f.cmd, f.done
	go func() {
		defer close(done)
		cmd.Wait() //nolint:errcheck // it is killed
	}()
}

func (f *freeDiameter) kill() {
	if f.cmd == nil {
		return
	}
	f.cmd.Process.Signal(syscall.SIGKILL) //nolint:errcheck // it may have ended
	<-f.done
	f.cmd = nil
	if f.n.t.Failed() {
		if b, err := os.ReadFile(f.conf + ".log"); err == nil {
			f.n.t.Logf("freeDiameter:\n%s", b[max(0, len(b)-4000):])
		}
	}
}
