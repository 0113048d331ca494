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
	"time"

	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
)

// Collectors that do not know acknowledged export decode what such an exporter
// sends: libfixbuf and Wireshark find the octets and packets that tshark counts
// in the capture.
func TestAcknowledgedExportForPlainPeers(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "ipfixDump", "tshark")
	dir := t.TempDir()
	capture, _ := files(t, dir)
	want := tsharkPackets(t, capture, "ip || ipv6")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m, _ := meterProcess(t, "", capture, ln.Addr().String(), "--acknowledged", "--spool", filepath.Join(dir, "meter"))
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name := filepath.Join(dir, "meter.ipfix")
	var all []byte
	messages := plainMessages(t, conn, func(messages [][]byte) bool {
		all = append(all, messages[len(messages)-1]...)
		if err := os.WriteFile(name, all, 0o600); err != nil {
			t.Fatal(err)
		}
		return dumpSums(t, name)[1] >= sumOf(want).octets
	})
	_ = m.Process.Kill() // it would wait for an acknowledgement
	if got, _ := fixbufVolumes(t, name); !maps.Equal(got, want) {
		t.Errorf("libfixbuf has %+v, want %+v", got, want)
	}

	if octets, packets := tsharkDecodes(t, messages); octets != sumOf(want).octets || packets != sumOf(want).packets {
		t.Errorf("tshark decodes %d octets and %d packets, want %+v", octets, packets, sumOf(want))
	}
}

// plainMessages reads what an exporter sends to a collector that does not
// answer, until there is enough.
func plainMessages(t *testing.T, conn net.Conn, enough func([][]byte) bool) (all [][]byte) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for len(all) == 0 || !enough(all) {
		header := make([]byte, ipfix.HeaderLength)
		if _, err := io.ReadFull(conn, header); err != nil {
			t.Fatal(err)
		}
		h, err := ipfix.ParseHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		msg := append(header, make([]byte, int(h.Length)-len(header))...)
		if _, err := io.ReadFull(conn, msg[ipfix.HeaderLength:]); err != nil {
			t.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

// tsharkDecodes returns the octets and packets of the flow records that tshark
// decodes from Messages, none of which it finds malformed.
func tsharkDecodes(t *testing.T, messages [][]byte) (octets, packets uint64) {
	t.Helper()
	pcap := filepath.Join(t.TempDir(), "messages.pcap")
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
	return sums[0], sums[1]
}
