package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/dict"
	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
)

// TestSoftflowd has softflowd meter the bundled capture and export it over
// UDP and TCP. It counts octets of the IP layer of every packet, as the truth
// does, so that nothing has to be made up for: each user is billed what tshark
// counted, to the octet and packet.
func TestSoftflowd(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			peertest.Need(t, "softflowd")
			dir := t.TempDir()
			capture, users := files(t, dir)
			d := start(t, setup{
				data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0",
				users: users, server: "127.0.0.1:0",
			})
			softflowd(t, capture, transport, d.address("collectingProcess."+transport+"Collectors"))

			octets, nobodys := captureOctets(t)
			s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
			if s.Received.Octets != octets || s.Suspended.Octets != nobodys || s.Duplicate.Octets != 0 {
				t.Errorf("the books are %+v, want %d octets received and %d suspended", s, octets, nobodys)
			}
			waitEnd(t, d.data)
			d.stop()
			checkBill(t, bill(charges(t, d.data)))
		})
	}
}

// softflowd exports a capture as IPFIX and waits until it has. Its buffers for
// names are short, so it gets relative ones.
func softflowd(t *testing.T, capture, transport, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "softflowd", "-d", "-r", filepath.Base(capture), "-n", address,
		"-P", transport, "-v", "10", "-A", "milli", "-c", "ctl", "-p", "pid")
	cmd.Dir = filepath.Dir(capture)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("softflowd: %v\n%s", err, out)
	}
}

// TestDeliver meters the bundled capture and delivers its accounting records
// to the Erlang/OTP accounting server, at once and through freeDiameter as a
// relay. Every record arrives once and decodes, each user is billed what tshark
// counted, and tshark finds nothing malformed and no unknown AVP on the wire.
func TestDeliver(t *testing.T) {
	for _, c := range []struct {
		name, mode string
		relay, udp bool
	}{
		{name: "Erlang", mode: "asm"},
		{name: "freeDiameter", mode: "asm", relay: true, udp: true},
		{name: "Erlang, a record for each flow", mode: "aaa-client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := startErlang(t)
			ports, peer := []string{e.port}, peerAt(e.address(), "acct.home.example")
			if c.relay {
				port := startRelay(t, e)
				ports, peer = append(ports, port), peerAt("127.0.0.1:"+port, "relay.visited.example")
			}
			stopCapture := captureTraffic(t, ports)

			dir := t.TempDir()
			capture, users := files(t, dir)
			s := setup{
				data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0", users: users,
				mode: c.mode, peers: []string{peer}, realm: "home.example",
			}
			if c.mode == "aaa-client" {
				s.users = ""
			}
			d := start(t, s)
			meter := []string{"meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", d.tcp()}
			if c.udp {
				meter = append(meter, "--to", d.udp(), "--udp")
			}
			if out, errOut, status := cli(t, meter...); status != 0 {
				t.Fatalf("meter: %s%s", out, errOut)
			}
			octets, _ := captureOctets(t)
			waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
			books := waitEnd(t, d.data)
			d.stop()

			if books.Received.Octets != octets || books.Duplicate.Octets != 0 {
				t.Errorf("the books are %+v, want %d octets received", books, octets)
			}
			got := e.charges(t, acknowledged(t, d.data))
			if c.mode == "asm" {
				checkBill(t, bill(got))
			} else {
				if n := uint64(len(got)); n != books.Received.Records {
					t.Errorf("%d accounting records for %d flows", n, books.Received.Records)
				}
				checkBill(t, billFlows(t, got))
			}
			if stopCapture == nil {
				peertest.Missing(t, "tshark does not judge it, since capturing packets needs root")
			}
			judge(t, stopCapture(), ports)
		})
	}
}

// billFlows does what is left to an AAA server that gets a record for each
// flow: it finds out from the flow's AVPs whose it is, and adds up.
func billFlows(t *testing.T, all []charge) map[string]acct.Usage {
	t.Helper()
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	holder := func(a netip.Addr) string {
		for _, b := range list.Bindings {
			if b.Prefix.Contains(a) {
				return b.User
			}
		}
		return nobody
	}
	billed := map[string]acct.Usage{}
	for _, c := range all {
		if c.Type != "EVENT" || c.User != "" {
			t.Fatalf("%+v: want an EVENT_RECORD without a user", c)
		}
		template, record, err := dict.For(0).ParseFlow(c.flow)
		if err != nil {
			t.Fatal(err)
		}
		r, err := template.Record(record)
		if err != nil {
			t.Fatal(err)
		}
		address := func(v4, v6 uint16) netip.Addr {
			if a, ok := template.Accessor(0, v4); ok {
				return a.Addr(r)
			}
			a, _ := template.Accessor(0, v6)
			return a.Addr(r)
		}
		number := func(id uint16) uint64 {
			a, _ := template.Accessor(0, id)
			return a.Uint64(r)
		}
		from := holder(address(ipfix.SourceIPv4Address, ipfix.SourceIPv6Address))
		to := holder(address(ipfix.DestinationIPv4Address, ipfix.DestinationIPv6Address))
		octets, packets := number(ipfix.OctetDeltaCount), number(ipfix.PacketDeltaCount)
		if from != nobody {
			billed[from] = billed[from].Plus(acct.Usage{InputOctets: octets, InputPackets: packets})
		}
		if to != nobody {
			billed[to] = billed[to].Plus(acct.Usage{OutputOctets: octets, OutputPackets: packets})
		}
	}
	return billed
}

func writeUsers(t *testing.T) string {
	t.Helper()
	_, users := files(t, t.TempDir())
	return users
}

// startRelay starts freeDiameter as a relay of realm visited.example to e, and
// returns its port.
func startRelay(t *testing.T, e erlang) string {
	t.Helper()
	return runRelay(t, e).port
}

// A relay is freeDiameter, relay.visited.example.
type relay struct {
	port, secure string // without TLS and with it
	certs        string // folder of certificates
}

func runRelay(t *testing.T, e erlang) relay {
	t.Helper()
	peertest.Need(t, "freeDiameterd", "openssl")
	run := t.TempDir()
	certs := filepath.Join(run, "certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(peertest.Scripts(t), "mkcerts.sh"), certs).CombinedOutput(); err != nil {
		t.Fatalf("mkcerts.sh: %v\n%s", err, out)
	}
	ports := peertest.FreePorts(t, 2)
	peertest.Start(t, filepath.Join(peertest.Scripts(t), "freediameter.sh"), run, []string{"PORT=" + ports[0], "SEC=" + ports[1], "HOMEPORT=" + e.port, "CERTS=" + certs})
	return relay{ports[0], ports[1], certs}
}

// captureTraffic has tcpdump write what passes over the ports. The function
// that it returns ends that and returns the file's name; it is nil where the
// user may not capture.
func captureTraffic(t *testing.T, ports []string) (stop func() string) {
	t.Helper()
	peertest.Need(t, "tcpdump", "tshark")
	if os.Geteuid() != 0 {
		return nil
	}
	file := filepath.Join(peertest.Readable(t), "diameter.pcap")
	// In immediate mode each packet takes a whole snapshot of the buffer: 1,024
	// have room, for as long as a loaded machine lets tcpdump wait.
	cmd := exec.Command("tcpdump", "-i", "lo", "-n", "-U", "--immediate-mode", "-B", "65536", "-s", "65535", "-Z", "root", "-w", file, "tcp port "+strings.Join(ports, " or tcp port "))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log lines
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.read(stderr)
		cmd.Wait()
	}()
	end := func() {
		cmd.Process.Signal(os.Interrupt)
		<-done
	}
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if log.wait(ctx, regexp.MustCompile("listening on lo")) == nil {
		t.Fatalf("tcpdump: %s", log.tail(10))
	}
	return func() string {
		end()
		if log.count(`^0 packets dropped by kernel`) == 0 {
			t.Fatalf("tcpdump: %s", log.tail(10))
		}
		return file
	}
}

// judge has tshark read a capture: nothing is malformed, no AVP is unknown. It
// gets our vendor's AVPs as any user of it would: "tollbridge dict export
// wireshark" is the Custom.xml of its dictionary.
func judge(t *testing.T, capture string, ports []string) {
	t.Helper()
	custom, errOut, status := cli(t, "dict", "export", "wireshark")
	if status != 0 {
		t.Fatal(errOut)
	}
	peertest.NewWireshark(t, custom).JudgeDiameter(t, capture, ports...)
}
