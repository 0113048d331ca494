package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/internal/peertest"
)

// TestNetFlowExporters has softflowd and pmacctd meter the bundled capture and
// export it over UDP, as NetFlow 5 and 9 and as IPFIX. Each user is billed what
// tshark counted in the capture, to the octet and packet, and no record is lost
// or an estimate.
//
// No tolerance is needed, as both count what the truth does: the octets of the
// IP layer of every packet (Total Length; Payload Length and 40), fragments as
// they are, nothing of Ethernet, each packet. NetFlow 5 has no IPv6, so of
// softflowd's the truth is the frames of type 0x0800.
//
// The capture was cut to 128 octets a packet. Both programs go by the lengths
// that the headers tell.
func TestNetFlowExporters(t *testing.T) {
	for _, e := range []struct {
		program, version string
		frames           string // display filter of the frames that the exporter tells of
		export           func(t *testing.T, capture, version, address string)
	}{
		{"softflowd", "5", "eth.type == 0x0800", softflowdNetFlow},
		{"softflowd", "9", "ip || ipv6", softflowdNetFlow},
		{"pmacctd", "9", "ip || ipv6", pmacctd},
		{"pmacctd", "10", "ip || ipv6", pmacctd},
	} {
		t.Run(e.program+" "+e.version, func(t *testing.T) {
			t.Parallel()
			peertest.Need(t, e.program, "tshark")
			dir := t.TempDir()
			capture, users := files(t, dir)
			truth, octets := tsharkTruth(t, capture, e.frames)
			d := start(t, setup{data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", users: users, server: "127.0.0.1:0"})
			e.export(t, capture, e.version, d.udp())

			s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
			nobodys := truth[nobody].InputOctets
			if s.Received.Octets != octets || s.Suspended.Octets != nobodys || !s.Duplicate.IsZero() {
				t.Errorf("the books are %+v, want %d octets received and %d suspended", s, octets, nobodys)
			}
			var books struct {
				Total struct {
					Estimated acct.Count
					Lost      struct{ Records uint64 }
				}
			}
			if show(t, &books, "audit", "--data", d.data); !books.Total.Estimated.IsZero() || books.Total.Lost.Records > 0 {
				t.Errorf("the books are %+v, want nothing estimated and nothing lost", books.Total)
			}
			waitEnd(t, d.data)
			d.stop()
			delete(truth, nobody)
			if got := bill(charges(t, d.data)); !maps.Equal(got, truth) {
				t.Errorf("billed are %+v, but tshark counted %+v", got, truth)
			}
			t.Logf("%d flow records of %d octets", s.Received.Records, s.Received.Octets)
		})
	}
}

// softflowdNetFlow has softflowd export a capture as NetFlow, and waits until
// it has. It has no control socket, on which it may wait for ever.
func softflowdNetFlow(t *testing.T, capture, version, address string) {
	t.Helper()
	runExporter(t, filepath.Dir(capture), "softflowd", "-d", "-r", filepath.Base(capture), "-n", address, "-v", version, "-c", "none", "-p", "pid")
}

// pmacctd has its nfprobe plugin export a capture, and waits until it has.
func pmacctd(t *testing.T, capture, version, address string) {
	t.Helper()
	name := filepath.Join(filepath.Dir(capture), "pmacctd.conf")
	content := fmt.Sprintf(`daemonize: false
pcap_savefile: %s
aggregate: src_host, dst_host, src_port, dst_port, proto, tos
plugins: nfprobe
nfprobe_version: %s
nfprobe_receiver: %s
`, capture, version, address)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	// Its core ends with status 1 where it sees its plugin, done, end first.
	// What was exported is for the books to tell.
	out, err := exporterOutput(t, filepath.Dir(capture), "pmacctd", "-f", name)
	if err != nil && !strings.Contains(out, "no more plugins active. Shutting down.") {
		t.Fatalf("pmacctd: %v\n%s", err, out)
	}
}

func runExporter(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	if out, err := exporterOutput(t, dir, program, args...); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func exporterOutput(t *testing.T, dir, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tsharkTruth is demodata/truth.sh for the frames of a display filter. It also
// returns the octets of all of them, each once.
func tsharkTruth(t *testing.T, capture, frames string) (truth map[string]acct.Usage, octets uint64) {
	t.Helper()
	packets := tsharkPackets(t, capture, frames)
	for _, n := range packets {
		octets += n.octets
	}
	return packets.byUser(), octets
}

// A path is a way that packets go.
type path struct{ from, to string }

// A volume is what goes there.
type volume struct{ octets, packets uint64 }

type volumes map[path]volume

func (a volumes) add(p path, octets, packets uint64) {
	n := a[p]
	a[p] = volume{n.octets + octets, n.packets + packets}
}

// byUser are the volumes as the users of the capture are billed them.
func (a volumes) byUser() map[string]acct.Usage {
	users := map[string]acct.Usage{}
	for p, n := range a {
		from, to := captureUser(p.from), captureUser(p.to)
		if from != nobody || to == nobody {
			users[from] = users[from].Plus(acct.Usage{InputOctets: n.octets, InputPackets: n.packets})
		}
		if to != nobody {
			users[to] = users[to].Plus(acct.Usage{OutputOctets: n.octets, OutputPackets: n.packets})
		}
	}
	return users
}

// tsharkPackets are the packets of a capture as tshark reads them, by
// addresses.
func tsharkPackets(t *testing.T, capture, frames string) volumes {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", capture, "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
		"-Y", frames, "-T", "fields", "-E", "occurrence=f", "-E", "separator=,",
		"-e", "eth.type", "-e", "ip.src", "-e", "ip.dst", "-e", "ip.len", "-e", "ipv6.src", "-e", "ipv6.dst", "-e", "ipv6.plen").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := volumes{}
	for line := range strings.Lines(string(out)) {
		// An ICMP error quotes a header of its own version, so the frame type decides.
		c, header := strings.Split(strings.TrimSpace(line), ","), uint64(0)
		a := c[1:4]
		if c[0] == "0x86dd" {
			a, header = c[4:7], 40
		}
		n, err := strconv.ParseUint(a[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all.add(path{a[0], a[1]}, n+header, 1)
	}
	return all
}

// captureUser is whose an address of the capture is.
func captureUser(address string) string {
	for user, prefixes := range map[string][2]string{
		"alice": {"192.0.2.11", "2001:db8:1:1:"}, "bob": {"192.0.2.12", "2001:db8:1:2:"}, "carol": {"192.0.2.13", "2001:db8:1:3:"},
	} {
		if address == prefixes[0] || strings.HasPrefix(address, prefixes[1]) {
			return user
		}
	}
	return nobody
}
