package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/internal/peertest"
	"tollbridge/spool"
)

// radiusSecret is shared by all RADIUS servers and clients of the tests.
const radiusSecret = "a secret for tests only"

// radiusUsers are further keys of a setup's users: the RADIUS server, for
// clients of this host. Events of the bundled capture may be long ago.
func radiusUsers(t *testing.T, listen string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(radiusSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("radius: {listen: [%q], maxDelay: 87600h, clients: [{name: edge, prefixes: [127.0.0.0/8], secret: {file: %s}}]}", listen, file)
}

// radiusSessions are the bindings of the bundled users file as a NAS would tell
// of them: a request for each, in radclient's words.
func radiusSessions(t *testing.T, status string, at time.Time) string {
	t.Helper()
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i, u := range list.Bindings {
		address := "Framed-IP-Address = " + u.Prefix.Addr().String()
		if u.Prefix.Addr().Is6() {
			address = "Framed-IPv6-Prefix = " + u.Prefix.String()
		}
		fmt.Fprintf(&b, "Acct-Status-Type = %s\nAcct-Session-Id = \"session-%d\"\nUser-Name = %q\n%s\n", status, i, u.User, address)
		fmt.Fprintf(&b, "NAS-Identifier = bng-1\nNAS-IP-Address = 127.0.0.1\nClass = 0x%x\nCalling-Station-Id = %q\nEvent-Timestamp = %d\n\n",
			"class of "+u.User, "line-"+u.User, at.Unix())
	}
	return b.String()
}

// radclient has FreeRADIUS's client send requests, each until it is answered.
func radclient(t *testing.T, address, requests string) {
	t.Helper()
	peertest.Need(t, "radclient")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "radclient", "-r", "30", "-t", "1", "-p", "8", address, "acct", radiusSecret)
	cmd.Stdin = strings.NewReader(requests)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("radclient: %v\n%s", err, out)
	}
}

// freeUDPPort returns a UDP port of 127.0.0.1 that is free now.
func freeUDPPort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// TestRADIUS has FreeRADIUS tell whose addresses are whose, its client at once
// and its server as a relay that keeps requests in a file until they are
// answered (robust-proxy-accounting), while the daemon is killed between noting
// a session and saying so. Each user is billed what tshark counted, and the
// accounting records carry the session's Class and Calling-Station-Id.
func TestRADIUS(t *testing.T) {
	capture := func(t *testing.T) string { c, _ := files(t, t.TempDir()); return c }
	begin, end := time.Date(2026, 11, 22, 1, 58, 0, 0, time.UTC), time.Date(2026, 11, 22, 1, 59, 0, 0, time.UTC)

	t.Run("radclient", func(t *testing.T) {
		t.Parallel()
		peertest.Need(t, "radclient")
		d := start(t, setup{
			data: filepath.Join(t.TempDir(), "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
			sources: radiusUsers(t, "127.0.0.1:0"),
		})
		address := d.address("users.radius.listen")
		radclient(t, address, radiusSessions(t, "Start", begin))
		radclient(t, address, radiusSessions(t, "Interim-Update", begin.Add(30*time.Second)))
		radclient(t, address, radiusSessions(t, "Stop", end))
		billCapture(t, d, capture(t))
		if n := d.metric(`radius_requests_total{client="edge",status="stop"}`); n == 0 {
			t.Error("no Stop is counted")
		}
		d.stop()
		checkRADIUSRecords(t, d.data)
	})

	t.Run("relay and kill -9", func(t *testing.T) {
		t.Parallel()
		listen := "127.0.0.1:" + freeUDPPort(t)
		s := setup{
			data: filepath.Join(t.TempDir(), "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
			sources: radiusUsers(t, listen),
		}
		relay := startRADIUSRelay(t, listen)
		d := launch(t, crashProgram, s, "TOLLBRIDGE_CRASH=binding durable:2")
		d.waitLog("msg=started")
		radclient(t, relay, radiusSessions(t, "Start", begin)) // answered when the relay has it
		d.wait()                                               // killed before its second answer
		d = start(t, s)
		sessions := strings.Count(radiusSessions(t, "Start", begin), "Acct-Session-Id")
		radclient(t, relay, radiusSessions(t, "Stop", end))
		d.waitMetric(`radius_requests_total{client="edge",status="stop"}`, func(n float64) bool { return int(n) >= sessions })
		billCapture(t, d, capture(t))
		d.stop()
		checkRADIUSRecords(t, d.data)
	})
}

// billCapture meters the bundled capture and checks the bill.
func billCapture(t *testing.T, d *daemon, capture string) {
	t.Helper()
	if out, errOut, status := cli(t, "meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	octets, nobodys := captureOctets(t)
	waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
	books := waitEnd(t, d.data)
	if books.Received.Octets != octets || books.Suspended.Octets != nobodys || books.Duplicate.Octets != 0 {
		t.Errorf("the books are %+v, want %d octets received and %d suspended", books, octets, nobodys)
	}
	checkBill(t, bill(charges(t, d.data)))
}

// checkRADIUSRecords checks what sessions brought along to their accounting
// records.
func checkRADIUSRecords(t *testing.T, data string) {
	t.Helper()
	s, err := spool.OpenReadOnly(data)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	records, err := s.List(t.Context(), spool.Filter{})
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records (%v)", len(records), err)
	}
	for _, l := range records {
		values := map[uint32][]string{}
		for _, a := range l.Record.Attributes {
			values[a.Code] = append(values[a.Code], string(a.Data))
		}
		for code, want := range map[uint32]string{25: "class of " + l.Record.User, 31: "line-" + l.Record.User, 32: "bng-1"} {
			if !slices.Equal(values[code], []string{want}) {
				t.Errorf("%v of %s has attribute %d %q, want %q", l.Record.Type, l.Record.User, code, values[code], want)
			}
		}
	}
}

// startRADIUSRelay starts FreeRADIUS as a relay to a RADIUS accounting server:
// it writes what it is told to a file, answers, and sends on from there.
func startRADIUSRelay(t *testing.T, home string) (address string) {
	t.Helper()
	peertest.Need(t, "freeradius")
	run := peertest.Readable(t)
	port := freeUDPPort(t)
	_, homePort, _ := net.SplitHostPort(home)
	config, err := os.ReadFile(filepath.Join("testdata", "radiusd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("RUN", run, "HOMEPORT", homePort, "PORT", port, "SECRET", radiusSecret).Replace(string(config))
	if err := os.WriteFile(filepath.Join(run, "radiusd.conf"), []byte(filled), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "dictionary"), []byte("$INCLUDE /usr/share/freeradius/dictionary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("freeradius", "-f", "-l", "stdout", "-d", run, "-D", run, "-n", "radiusd")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log lines
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.read(stdout)
		cmd.Wait() //nolint:errcheck // it is killed
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("freeradius:\n%s", log.tail(20))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if log.wait(ctx, regexp.MustCompile("Ready to process requests")) == nil {
		t.Fatalf("freeradius:\n%s", log.tail(20))
	}
	return "127.0.0.1:" + port
}
