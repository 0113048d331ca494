package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tollbridge/internal/peertest"
)

const corpusDir = "../../../shared/corpus"

// needCorpus skips a test where the corpus is absent.
func needCorpus(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
}

// ipfixOutput returns what an ipfix command prints.
func ipfixOutput(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, status := cli(t, append([]string{"ipfix"}, args...)...)
	if status != 0 {
		t.Fatalf("ipfix %v: %s", args, stderr)
	}
	return stdout
}

// messageCounts are what "ipfix dump --stats" counts, as far as the tests look
// at it.
type messageCounts struct {
	Messages         uint64            `json:"messages"`
	Templates        uint64            `json:"templates"`
	OptionsTemplates uint64            `json:"options_templates"`
	DataRecords      uint64            `json:"data_records"`
	OptionsRecords   uint64            `json:"options_records"`
	Errors           map[string]uint64 `json:"errors"`
}

func countsOf(t *testing.T, name string) (c messageCounts) {
	t.Helper()
	show(t, &c, "ipfix", "dump", "--stats", name)
	return c
}

// tsharkFields are fields of tshark's and the elements that they show.
var tsharkFields = []struct {
	field    string
	elements []string
}{
	{"cflow.srcaddr", []string{"sourceIPv4Address"}},
	{"cflow.dstaddr", []string{"destinationIPv4Address"}},
	{"cflow.srcaddrv6", []string{"sourceIPv6Address"}},
	{"cflow.dstaddrv6", []string{"destinationIPv6Address"}},
	{"cflow.srcport", []string{"sourceTransportPort"}},
	{"cflow.dstport", []string{"destinationTransportPort"}},
	{"cflow.protocol", []string{"protocolIdentifier"}},
	{"cflow.octets", []string{"octetDeltaCount", "reverseOctetDeltaCount"}},
	{"cflow.packets", []string{"packetDeltaCount", "reversePacketDeltaCount"}},
	{"cflow.timeend", []string{"flowEndSysUpTime"}},
	{"cflow.flow_end_reason", []string{"flowEndReason"}},
	{"cflow.sampling_packet_interval", []string{"samplingPacketInterval"}},
	{"cflow.information_element_id", []string{"informationElementId"}},
	{"cflow.information_element_name", []string{"informationElementName"}},
}

// undercounted are captures of exporters that say less FlowSets in a packet's
// header than there are; tshark stops there.
var undercounted = []string{"softflowd-v9-udp-sampled.pcap", "netflow9.pcap"}

// What "ipfix dump" prints of captures is, value for value and in order, what
// tshark reads in them.
func TestIPFIXDumpAsTshark(t *testing.T) {
	peertest.Need(t, "tshark")
	needCorpus(t)
	names, err := filepath.Glob(filepath.Join(corpusDir, "*", "*.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, name := range names {
		switch filepath.Base(filepath.Dir(name)) {
		case "generated", "netgauze", "graylog":
		default:
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			ours, ports := dumpValues(t, name)
			args := []string{"-r", name, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"}
			for p := range ports {
				args = append(args, "-d", p+",cflow")
			}
			for _, f := range tsharkFields {
				args = append(args, "-e", f.field)
			}
			out, err := exec.CommandContext(t.Context(), "tshark", args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			theirs := make([][]string, len(tsharkFields))
			for line := range strings.Lines(string(out)) {
				for i, cell := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
					if cell != "" {
						theirs[i] = append(theirs[i], strings.Split(cell, ";")...)
					}
				}
			}
			for i, f := range tsharkFields {
				if f.field == "cflow.timeend" {
					milliseconds(t, theirs[i])
					// tshark shows an up time of zero in another field.
					zero := func(s string) bool { return s == "0" }
					ours[i], theirs[i] = slices.DeleteFunc(ours[i], zero), slices.DeleteFunc(theirs[i], zero)
				}
				if slices.Contains(undercounted, filepath.Base(name)) {
					ours[i] = common(ours[i], theirs[i])
				}
				if !slices.Equal(ours[i], theirs[i]) {
					t.Errorf("%s: %d values, tshark has %d; the first that differ are %s", f.field, len(ours[i]), len(theirs[i]), difference(ours[i], theirs[i]))
				}
				compared += len(ours[i])
			}
		})
	}
	if compared < 5000 {
		t.Errorf("only %d values compared", compared)
	}
	t.Logf("%d values compared", compared)
}

// dumpValues returns the values of a capture by tsharkFields, and where
// messages went, as tshark names it.
func dumpValues(t *testing.T, name string) (values [][]string, ports map[string]bool) {
	t.Helper()
	values, ports = make([][]string, len(tsharkFields)), map[string]bool{}
	stdout := ipfixOutput(t, "dump", "-o", "json", name)
	for line := range strings.Lines(stdout) {
		var r struct{ Transport, Collector string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(r.Collector)
		if err != nil {
			t.Fatal(err)
		}
		ports[r.Transport+".port=="+port] = true
	}
	stdout = ipfixOutput(t, "dump", "-o", "csv", name)
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		for i, f := range tsharkFields {
			if slices.Contains(f.elements, row[8]) {
				values[i] = append(values[i], row[9])
			}
		}
	}
	return values, ports
}

// milliseconds turns seconds into them.
func milliseconds(t *testing.T, values []string) {
	t.Helper()
	for i, v := range values {
		s, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatal(err)
		}
		values[i] = strconv.FormatFloat(math.Round(s*1000), 'f', 0, 64)
	}
}

// common returns those of values that are in the other list too, in order.
func common(values, other []string) (both []string) {
	for _, v := range values {
		if len(both) < len(other) && other[len(both)] == v {
			both = append(both, v)
		}
	}
	return both
}

func difference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return fmt.Sprintf("none and %q", b[i])
		case i >= len(b):
			return fmt.Sprintf("%q and none", a[i])
		case a[i] != b[i]:
			return fmt.Sprintf("value %d, %q and %q", i, a[i], b[i])
		}
	}
	return "none"
}

// replayed are files that nfcapd receives too. None announces a sampling rate,
// by which it would multiply.
var replayed = []string{
	"generated/softflowd-v5-udp.pcap", "generated/softflowd-v10-udp-uniflow.pcap", "graylog/pmacctd-netflow9.pcap",
	"graylog/nprobe-netflow9.pcap", "ipfixcol2/example_flows.ipfix", "ipfixcol/01-odid0.ipfix", "netgauze/srv6.pcap",
}

// nfcapd receives what "ipfix replay" sends over UDP, and nfdump finds in it
// the flows, octets and packets that "ipfix dump" does.
func TestIPFIXReplayToNfcapd(t *testing.T) {
	peertest.Need(t, "nfcapd", "nfdump", "stdbuf")
	needCorpus(t)
	for _, name := range replayed {
		t.Run(filepath.Base(name), func(t *testing.T) {
			name := filepath.Join(corpusDir, name)
			want := dumpSums(t, name)
			dir := t.TempDir()
			address := freeUDP(t)
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			// -E prints each flow when it is stored; -B has the kernel hold
			// what a busy machine lets wait.
			nfcapd := exec.CommandContext(ctx, "stdbuf", "-oL", "nfcapd", "-E", "-B", "4000000", "-4", "-b", "127.0.0.1", "-p", port, "-w", dir, "-t", "86400")
			nfcapd.Cancel = func() error { return nfcapd.Process.Signal(syscall.SIGTERM) }
			out, err := nfcapd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			log, err := nfcapd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := nfcapd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := waitFor(log, "Bound to", 1); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, log) //nolint:errcheck // ends with nfcapd
			stored := make(chan error, 1)
			go func() { stored <- waitFor(out, "Flow Record", want[0]) }()
			ipfixOutput(t, "replay", name, "--to", address, "--udp", "--rate", "100")
			if err := <-stored; err != nil {
				t.Fatal(err)
			}
			cancel()
			io.Copy(io.Discard, out) //nolint:errcheck // until nfcapd ends
			nfcapd.Wait()            //nolint:errcheck // it was interrupted
			got := nfdumpSums(t, dir)
			if got != want {
				t.Errorf("nfdump has %d flows, %d octets, %d packets; want %v", got[0], got[1], got[2], want)
			}
		})
	}
}

// freeUDP returns an address that nobody listens on.
func freeUDP(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// waitFor reads until so many lines contain a text.
func waitFor(r io.Reader, text string, lines uint64) error {
	scan := bufio.NewScanner(r)
	for lines > 0 && scan.Scan() {
		if strings.Contains(scan.Text(), text) {
			lines--
		}
	}
	if lines > 0 {
		return fmt.Errorf("%d lines with %q are missing: %w", lines, text, cmp.Or(scan.Err(), io.ErrUnexpectedEOF))
	}
	return nil
}

// dumpSums returns flows, octets and packets of a file.
func dumpSums(t *testing.T, name string) (sums [3]uint64) {
	t.Helper()
	stdout := ipfixOutput(t, "dump", "-o", "json", name)
	for line := range strings.Lines(stdout) {
		var r struct {
			Record struct {
				OctetDeltaCount, PacketDeltaCount *uint64
			}
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Record.OctetDeltaCount != nil {
			sums[0]++
			sums[1] += *r.Record.OctetDeltaCount
			sums[2] += *r.Record.PacketDeltaCount
		}
	}
	return sums
}

// nfdumpSums returns flows, octets and packets as nfdump sums them up.
func nfdumpSums(t *testing.T, dir string) (sums [3]uint64) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nfdump", "-R", dir, "-o", "csv").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, cell := range strings.Split(lines[len(lines)-1], ",")[:3] {
		if sums[i], err = strconv.ParseUint(cell, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return sums
}

// libfixbuf reads the Files that "ipfix convert" writes, with all that can be
// added, and counts the records that we do.
func TestIPFIXConvertForFixbuf(t *testing.T) {
	peertest.Need(t, "ipfixDump")
	needCorpus(t)
	for _, name := range replayed {
		t.Run(filepath.Base(name), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.ipfix")
			ipfixOutput(t, "convert", "--checksums", "--time-window", "--session", filepath.Join(corpusDir, name), "-w", out)
			c := countsOf(t, out)
			b, err := exec.CommandContext(t.Context(), "ipfixDump", "-s", "-i", out).CombinedOutput()
			want := fmt.Sprintf("File Stats: %d Messages, %d Data Records, %d Template Records", c.Messages, c.DataRecords+c.OptionsRecords, c.Templates+c.OptionsTemplates)
			if err != nil || !strings.Contains(string(b), want) {
				t.Errorf("error %v, want %q in\n%s", err, want, b)
			}
		})
	}
}
