package main

import (
	"context"
	"encoding/csv"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/internal/peertest"
)

// TestMeterToNfcapd has our meter export the bundled capture to nfcapd over
// UDP. nfdump has, for each pair of addresses, the octets and packets that
// tshark counts in the capture.
func TestMeterToNfcapd(t *testing.T) {
	peertest.Need(t, "nfcapd", "nfdump", "stdbuf", "tshark")
	capture, _ := files(t, t.TempDir())
	dir := t.TempDir()
	address := freeUDP(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	// -E prints each flow when it is stored.
	nfcapd := exec.CommandContext(t.Context(), "stdbuf", "-oL", "nfcapd", "-E", "-4", "-b", "127.0.0.1", "-p", port, "-w", dir, "-t", "86400")
	stdout, err := nfcapd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := nfcapd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := nfcapd.Start(); err != nil {
		t.Fatal(err)
	}
	var stored, log lines
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.read(stderr)
	}()
	go stored.read(stdout)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if log.wait(ctx, regexp.MustCompile("Startup nfcapd")) == nil {
		t.Fatalf("nfcapd: %s", log.tail(10))
	}

	out, errOut, status := cli(t, "meter", "-r", capture, "--udp", "--to", address)
	m := regexp.MustCompile(`in (\d+) flow records`).FindStringSubmatch(out)
	if status != 0 || m == nil {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	records, _ := strconv.Atoi(m[1])
	if !until(t, func() bool { return stored.count("^Flow Record") >= records }) {
		t.Fatalf("nfcapd stored %d of %d flows:\n%s", stored.count("^Flow Record"), records, log.tail(10))
	}
	nfcapd.Process.Signal(syscall.SIGTERM)
	<-done
	nfcapd.Wait() //nolint:errcheck // it was interrupted
	got, flows := nfdumpVolumes(t, "-R", dir)
	want := tsharkPackets(t, capture, "ip || ipv6")
	if flows != records || !maps.Equal(got, want) {
		t.Errorf("nfdump has %d flows of %d: %+v\nwant %+v", flows, records, got, want)
	}
	t.Logf("%d flows between %d pairs of addresses", flows, len(got))
}

// TestNfreplay has nfpcapd meter the bundled capture and nfreplay export what it
// stored over UDP, as NetFlow 5 and 9. Each user is billed what nfdump says of
// the same files.
//
// That is less than the truth: nfpcapd puts fragments together before it
// counts, and so leaves out the headers of all but the first. The capture has
// 12 fragments of IPv4 with 20 octets each that follow a first one.
func TestNfreplay(t *testing.T) {
	for _, row := range []struct{ version, flows string }{{"5", "ipv4"}, {"9", "any"}} {
		t.Run(row.version, func(t *testing.T) {
			t.Parallel()
			peertest.Need(t, "nfpcapd", "nfreplay", "nfdump", "tshark")
			dir := t.TempDir()
			capture, users := files(t, dir)
			stored := filepath.Join(dir, "flows")
			if err := os.Mkdir(stored, 0o700); err != nil {
				t.Fatal(err)
			}
			runExporter(t, dir, "nfpcapd", "-r", capture, "-w", stored)
			names, err := filepath.Glob(filepath.Join(stored, "nfcapd.2*"))
			if err != nil || len(names) != 1 {
				t.Fatalf("nfpcapd left %v, %v", names, err)
			}
			want, flows := nfdumpVolumes(t, "-r", names[0], row.flows)
			if row.flows == "any" {
				const fragments = 12
				truth := tsharkPackets(t, capture, "ip || ipv6")
				if w, g := sumOf(truth), sumOf(want); g.octets != w.octets-20*fragments || g.packets != w.packets-fragments {
					t.Errorf("nfpcapd counted %+v where tshark counts %+v", g, w)
				}
			}
			d := start(t, setup{data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", users: users, server: "127.0.0.1:0"})
			host, port, err := net.SplitHostPort(d.udp())
			if err != nil {
				t.Fatal(err)
			}
			runExporter(t, dir, "nfreplay", "-r", names[0], "-H", host, "-p", port, "-v", row.version, "-d", "1000")
			octets := sumOf(want).octets
			s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
			bills := want.byUser()
			if s.Received.Octets != octets || s.Received.Records != uint64(flows) || s.Suspended.Octets != bills[nobody].InputOctets {
				t.Errorf("the books are %+v, want %d flows of %d octets", s, flows, octets)
			}
			waitEnd(t, d.data)
			d.stop()
			delete(bills, nobody)
			if got := bill(charges(t, d.data)); !maps.Equal(got, bills) {
				t.Errorf("billed are %+v, but nfdump has %+v", got, bills)
			}
			t.Logf("%d flows of %d octets", flows, octets)
		})
	}
}

func sumOf(a volumes) (sum volume) {
	for _, n := range a {
		sum.octets += n.octets
		sum.packets += n.packets
	}
	return sum
}

// nfdumpVolumes has nfdump sum up flows by addresses.
func nfdumpVolumes(t *testing.T, args ...string) (all volumes, flows int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nfdump", append([]string{"-o", "csv", "-q"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("nfdump: %v in %s", err, out)
	}
	all = volumes{}
	if rows[0][0] == "ts" {
		rows = rows[1:]
	}
	const from, to, packets, octets = 3, 4, 11, 12
	for _, row := range rows {
		p, err := strconv.ParseUint(row[packets], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(row[octets], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all.add(path{address(t, row[from]), address(t, row[to])}, n, p)
	}
	return all, len(rows)
}

// address returns an address as netip has it.
func address(t *testing.T, s string) string {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

// TestMeterForFixbuf records what our meter exports over UDP, as it is and
// through "ipfix convert" with all that can be added. libfixbuf finds in both,
// for each pair of addresses, the octets and packets that tshark counts in the
// capture. Of its tools Debian has ipfixDump alone, which can't export.
func TestMeterForFixbuf(t *testing.T) {
	peertest.Need(t, "ipfixDump", "tshark")
	dir := t.TempDir()
	capture, _ := files(t, dir)
	want := tsharkPackets(t, capture, "ip || ipv6")
	recorded := filepath.Join(dir, "meter.ipfix")
	record(t, recorded, sumOf(want).octets, func(address string) {
		if out, errOut, status := cli(t, "meter", "-r", capture, "--udp", "--to", address); status != 0 {
			t.Fatalf("meter: %s%s", out, errOut)
		}
	})
	converted := filepath.Join(dir, "converted.ipfix")
	ipfixOutput(t, "convert", recorded, "--checksums", "--time-window", "--session", "-w", converted)
	for _, name := range []string{recorded, converted} {
		got, flows := fixbufVolumes(t, name)
		if !maps.Equal(got, want) {
			t.Errorf("%s: libfixbuf has %+v, want %+v", filepath.Base(name), got, want)
		}
		t.Logf("%d flows between %d pairs of addresses", flows, len(got))
	}
}

// fixbufVolumes returns what libfixbuf decodes of a file of Messages.
func fixbufVolumes(t *testing.T, name string) (volumes, int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ipfixDump", "-d", "-i", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, flows := volumes{}, 0
	fields := map[string]string{}
	flush := func() {
		if fields["octetDeltaCount"] == "" {
			return
		}
		flows++
		octets, err := strconv.ParseUint(fields["octetDeltaCount"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := strconv.ParseUint(fields["packetDeltaCount"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		from, to := fields["sourceIPv4Address"], fields["destinationIPv4Address"]
		if from == "" {
			from, to = fields["sourceIPv6Address"], fields["destinationIPv6Address"]
		}
		got.add(path{address(t, from), address(t, to)}, octets, packets)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "data record") {
			flush()
			clear(fields)
		}
		if element, value, ok := strings.Cut(strings.TrimSpace(line), " : "); ok {
			words := strings.Fields(element)
			fields[words[len(words)-1]] = value
		}
	}
	flush()
	return got, flows
}

// record writes the Messages that export sends over UDP to a file, until they
// hold so many octets of flows.
func record(t *testing.T, name string, octets uint64, export func(address string)) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.UDPConn).SetReadBuffer(8 << 20)     //nolint:errcheck // less may do
	conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // shows below
	export(conn.LocalAddr().String())
	var all []byte
	b := make([]byte, 65536)
	for sum := uint64(0); sum < octets; {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b[:n]...)
		if err := os.WriteFile(name, all, 0o600); err != nil {
			t.Fatal(err)
		}
		sum = dumpSums(t, name)[1]
	}
}
