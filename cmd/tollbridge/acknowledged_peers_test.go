package main

import (
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tollbridge/ipfix"
)

// Collectors that do not know acknowledged export decode what such an exporter
// sends: libfixbuf and Wireshark find the octets and packets that tshark counts
// in the capture.
func TestAcknowledgedExportForPlainPeers(t *testing.T) {
	t.Parallel()
	need(t, "ipfixDump", "tshark")
	dir := t.TempDir()
	capture, _ := files(t, dir)
	want := tsharkPackets(t, capture, "ip || ipv6")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m, log := meterProcess(t, "", capture, ln.Addr().String(), "--acknowledged", "--spool", filepath.Join(dir, "meter"))
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name := filepath.Join(dir, "meter.ipfix")
	var all []byte
	var messages [][]byte
	for sum := uint64(0); sum < sumOf(want).octets; sum = dumpSums(t, name)[1] {
		header := make([]byte, ipfix.HeaderLength)
		if _, err := io.ReadFull(conn, header); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		h, err := ipfix.ParseHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		msg := append(header, make([]byte, int(h.Length)-len(header))...)
		if _, err := io.ReadFull(conn, msg[ipfix.HeaderLength:]); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		messages, all = append(messages, msg), append(all, msg...)
		if err := os.WriteFile(name, all, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = m.Process.Kill() // it would wait for an acknowledgement
	if got, _ := fixbufVolumes(t, name); !maps.Equal(got, want) {
		t.Errorf("libfixbuf has %+v, want %+v", got, want)
	}

	pcap := filepath.Join(dir, "meter.pcap")
	savePcap(t, pcap, messages...)
	out, err := exec.CommandContext(t.Context(), "tshark", "-r", pcap, "-d", "udp.port==4739,cflow", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;",
		"-e", "cflow.octets", "-e", "cflow.packets", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatal(err)
	}
	var sums [2]uint64
	for line := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != 3 || cells[2] != "" {
			t.Fatalf("tshark finds it malformed: %q", line)
		}
		for i := range sums {
			for _, v := range strings.Split(cells[i], ";") {
				n, err := strconv.ParseUint(v, 10, 64)
				if err != nil && v != "" {
					t.Fatal(err)
				}
				sums[i] += n
			}
		}
	}
	if sum := sumOf(want); sums != [2]uint64{sum.octets, sum.packets} {
		t.Errorf("tshark decodes %v octets and packets, want %+v", sums, sum)
	}
}
