package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/internal/certtest"
	"tollbridge/internal/sctp"
	"tollbridge/internal/wiretest"
)

// captureFile writes the bundled capture.
func captureFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "traffic.pcap")
	if err := os.WriteFile(name, demodata.Capture, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// metered returns what a meter says it has exported.
func metered(t *testing.T, out string) (octets uint64, records uint64) {
	t.Helper()
	var packets, messages uint64
	line := out[strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1:]
	if _, err := fmt.Sscanf(line, "%d packets and %d octets in %d flow records, %d messages sent", &packets, &octets, &records, &messages); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return octets, records
}

// secured is collecting over TLS and DTLS from whoever has a certificate of
// meter.isp.example.
func secured(f certtest.Files) string {
	return fmt.Sprintf(`, tlsCollectors: ['127.0.0.1:0', '[::1]:0'], dtlsCollectors: ['[::1]:0'],
  tls: {certificate: %q, key: %q, ca: %q},
  exporters: [{name: edge, prefixes: [127.0.0.0/8, '::1/128'], certificateNames: [meter.isp.example]}]`, f.Certificate, f.Key, f.CA)
}

// A meter over TCP or TLS ends when the collector has all in its journal: kill
// -9 right after it loses nothing.
func TestWhatAMeterExportedIsDurable(t *testing.T) {
	ca, capture := certtest.NewAuthority(t), captureFile(t)
	mine := ca.Write(ca.Issue("meter.isp.example"))
	s := setup{
		data: filepath.Join(t.TempDir(), "bridge"), udp: "[::1]:0", tcp: "[::1]:0", server: "127.0.0.1:0",
		collect: secured(ca.Write(ca.Issue("collector.isp.example"))),
	}
	var octets, records uint64
	for round := range 6 {
		d := start(t, s)
		args := []string{"-r", capture, "--domain", fmt.Sprint(round + 1), "--to"}
		if round%2 == 0 {
			args = append(args, d.tcp())
		} else {
			args = append(args, d.address("collectingProcess.tlsCollectors"), "--transport", "tls",
				"--cert", mine.Certificate, "--key", mine.Key, "--ca", mine.CA)
		}
		out, err := runMeter(t, args...)
		d.kill()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o, r := metered(t, out)
		octets, records = octets+o, records+r
	}
	// UDP promises nothing, but little is lost on the way to ::1.
	d := start(t, s)
	out, err := runMeter(t, "-r", capture, "--domain", "7", "--to", d.udp(), "--udp")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o, r := metered(t, out)
	octets, records = octets+o, records+r
	got := waitBooks(t, s.data, func(s sums) bool { return s.Received.Records >= records })
	if got.Received.Octets != octets || got.Received.Records != records {
		t.Errorf("received %+v, want %d octets in %d records", got.Received, octets, records)
	}
	d.stop()
}

// A collector that is killed resets its connections: an orderly end would tell
// exporters that all they sent is on the disk.
func TestAKilledCollectorResets(t *testing.T) {
	d := start(t, setup{data: filepath.Join(t.TempDir(), "bridge"), tcp: "127.0.0.1:0", server: "127.0.0.1:0"})
	nc, err := net.Dial("tcp", d.tcp())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, m := range captureStream(t).messages[:3] {
		if _, err := nc.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool { return !audit(t, d.data).Received.IsZero() }) // nothing is left unread
	d.kill()
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ends with %v, want a reset", err)
	}
}

func needSCTP(t *testing.T) {
	t.Helper()
	ln, err := sctp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sctp.Config{})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	} else if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

// A meter exports over SCTP and its streams to the daemon, which is killed once
// it has that in its books: all is received and billed, and nothing seems lost.
func TestSCTP(t *testing.T) {
	needSCTP(t)
	capture := captureFile(t)
	_, users := files(t, t.TempDir())
	s := setup{
		data: filepath.Join(t.TempDir(), "bridge"), users: users, server: "127.0.0.1:0",
		collect: ", sctpCollectors: ['127.0.0.1:0', '[::1]:0']",
	}
	var octets, records uint64
	received := func(b sums) bool { return b.Received.Records >= records }
	for i, x := range []struct{ address, streams string }{{`127\S+`, "1"}, {`127\S+`, "4"}, {`\[::1\]\S+`, "15"}} {
		d := start(t, s)
		to := d.waitLog(`what=collectingProcess.sctpCollectors address=(` + x.address + `)`)[1]
		out, err := runMeter(t, "-r", capture, "--to", to, "--transport", "sctp", "--streams", x.streams, "--domain", fmt.Sprint(i+1))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o, r := metered(t, out)
		octets, records = octets+o, records+r
		if !until(t, func() bool { return received(audit(t, s.data)) }) {
			t.Fatalf("received %+v, want %d records", audit(t, s.data).Received, records)
		}
		d.kill()
		audit(t, s.data)
	}
	d := start(t, s)
	b := waitBooks(t, s.data, received)
	if b.Received.Octets != octets || b.Received.Records != records || b.Acknowledged != b.Accounted || b.Accounted.Octets == 0 {
		t.Errorf("the books are %+v, want %d octets in %d records", b, octets, records)
	}
	var books struct {
		Total struct {
			Lost struct{ Records, Restarts uint64 }
		}
	}
	show(t, &books, "audit", "--data", s.data)
	if books.Total.Lost.Records != 0 || books.Total.Lost.Restarts != 0 {
		t.Errorf("lost %+v", books.Total.Lost)
	}
	d.stop()
}

// With --lifetime a meter ends though its collector has stopped reading: it says
// how many Messages SCTP has given up, and what came before counts, once.
func TestSCTPLifetime(t *testing.T) {
	needSCTP(t)
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		t.Fatal(err)
	}
	var room int // for Messages at the receiver, who asks for 1 MiB and may get twice that
	if _, err := fmt.Sscan(string(b), &room); err != nil {
		t.Fatal(err)
	}
	room = 2 * min(room, 1<<20)
	var capture wiretest.Pcap
	flows := room / 50 // octets a record
	for i := range flows {
		capture.Add(uint16(i), nil)
	}
	name := filepath.Join(t.TempDir(), "flows.pcap")
	if err := os.WriteFile(name, capture.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	_, users := files(t, t.TempDir())
	d := start(t, setup{
		data: filepath.Join(t.TempDir(), "bridge"), users: users, server: "127.0.0.1:0",
		collect: ", sctpCollectors: ['127.0.0.1:0']",
	})
	to := d.address("collectingProcess.sctpCollectors")
	d.cmd.Process.Signal(syscall.SIGSTOP) // the kernel takes what its buffers hold
	out, err := runMeter(t, "-r", name, "--to", to, "--transport", "sctp", "--streams", "2", "--lifetime", "100ms")
	d.cmd.Process.Signal(syscall.SIGCONT)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := regexp.MustCompile(`in (\d+) flow records, (\d+) messages sent\n(\d+) messages given up by sctp\n`).FindStringSubmatch(out)
	if said == nil {
		t.Fatalf("the meter said %q", out)
	}
	var records, sent, givenUp uint64
	for i, n := range []*uint64{&records, &sent, &givenUp} {
		fmt.Sscan(said[i+1], n)
	}
	if records != uint64(flows) || givenUp == 0 || givenUp >= sent {
		t.Errorf("%d records in %d messages, %d given up", records, sent, givenUp)
	}
	d.waitMetric(`collector_sessions_closed_total{exporter="127.0.0.1"}`, atLeast(1))
	d.stop()
	got := audit(t, d.data).Received
	if got.Records == 0 || got.Records >= records || got.Octets != 28*got.Records {
		t.Errorf("received %+v of %d records of 28 octets", got, records)
	}
}

// A daemon takes new certificates without a restart: a broken one changes
// nothing, and what was exported over either counts.
func TestNewCertificates(t *testing.T) {
	old, ca, capture := certtest.NewAuthority(t), certtest.NewAuthority(t), captureFile(t)
	files := old.Write(old.Issue("collector.isp.example"))
	s := setup{data: filepath.Join(t.TempDir(), "bridge"), server: "127.0.0.1:0", collect: secured(files)}
	d := start(t, s)
	d.waitMetric(`collector_certificate_expiry_timestamp_seconds`, atLeast(1))
	meter := func(ca *certtest.Authority, transport, to string) error {
		f := ca.Write(ca.Issue("meter.isp.example"))
		_, err := runMeter(t, "-r", capture, "--to", to, "--transport", transport, "--cert", f.Certificate, "--key", f.Key, "--ca", f.CA)
		return err
	}
	tls := d.waitLog(`what=collectingProcess.tlsCollectors address="?(\[::1\]:\d+)`)[1]
	dtls := d.address("collectingProcess.dtlsCollectors")
	if err := meter(old, "tls", tls); err != nil {
		t.Fatal(err)
	}
	renew := func(to certtest.Files) {
		for name, from := range map[string]string{files.Certificate: to.Certificate, files.Key: to.Key, files.CA: to.CA} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d.cmd.Process.Signal(syscall.SIGHUP)
	}
	fresh, another := ca.Write(ca.Issue("collector.isp.example")), ca.Write(ca.Issue("collector.isp.example"))
	renew(certtest.Files{Certificate: fresh.Certificate, Key: another.Key, CA: fresh.CA})
	d.waitLog(`level=ERROR msg="new certificate can't be used; the one before counts on" what=collectingProcess.tls .*private key does not match`)
	if err := meter(old, "tls", tls); err != nil {
		t.Errorf("after a broken certificate: %v", err)
	}
	renew(fresh)
	d.waitLog(`new certificate for the handshakes from now on`)
	for transport, to := range map[string]string{"tls": tls, "dtls": dtls} {
		if err := meter(ca, transport, to); err != nil {
			t.Errorf("%s with the new certificate: %v", transport, err)
		}
	}
	d.waitMetric(`collector_sessions_closed_total{exporter="edge"}`, atLeast(4))
	if n := d.metric(`collector_handshakes_failed_total`) + d.metric(`collector_exporter_refused_total{exporter="edge"}`) + d.metric(`collector_sessions_evicted_total{exporter="edge"}`); n != 0 {
		t.Errorf("%v handshakes failed, connections were refused or sessions evicted", n)
	}
	d.stop()
}

// Where names are looked up, an exporter is taken from an address of its name
// alone.
func TestLookUpNames(t *testing.T) {
	t.Parallel()
	ca := certtest.NewAuthority(t)
	mine := ca.Write(ca.Issue("collector.isp.example"))
	d := start(t, setup{
		data: filepath.Join(t.TempDir(), "bridge"), server: "127.0.0.1:0",
		collect: fmt.Sprintf(`, lookUpNames: true, tlsCollectors: ['127.0.0.1:0'], tls: {certificate: %q, key: %q, ca: %q},
  exporters: [{name: edge, certificateNames: [localhost]}]`, mine.Certificate, mine.Key, mine.CA),
	})
	export := func(from string) {
		dialer := tls.Dialer{
			NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}},
			Config: &tls.Config{RootCAs: ca.Pool(), ServerName: "collector.isp.example",
				Certificates: []tls.Certificate{ca.Issue("localhost")}},
		}
		conn, err := dialer.DialContext(t.Context(), "tcp", d.address("collectingProcess.tlsCollectors"))
		if err != nil {
			return // it was told within the handshake
		}
		defer conn.Close()
		conn.Write(rawMessage(1)) //nolint:errcheck // is seen below
	}
	export("127.0.0.2")
	d.waitLog(`exporter refused.*does not have this address: localhost`)
	export("127.0.0.1")
	d.waitMetric(`collector_messages_total{exporter="edge"}`, atLeast(1))
	d.stop()
}
