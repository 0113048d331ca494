package dict

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
)

// freePorts returns ports of 127.0.0.1 that were free a moment ago.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// start runs a script that starts a node in the background and prints its pid
// behind the word pid, and stops the node when the test ends.
func start(t *testing.T, env []string, script string, args ...string) {
	t.Helper()
	command := exec.Command(script, args...)
	command.Env = append(os.Environ(), env...)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(script), err, out)
	}
	_, text, _ := strings.Cut(string(out), "pid ")
	var pid int
	if _, err := fmt.Sscan(text, &pid); err != nil {
		t.Fatalf("%s printed no pid: %q", filepath.Base(script), out)
	}
	// The node is no child of ours, so it is waited for by descriptor; it may
	// write into the test's directory until it has ended.
	node, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("%s ended: %v", filepath.Base(script), err)
	}
	t.Cleanup(func() {
		defer unix.Close(node)
		for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			if err := unix.PidfdSendSignal(node, signal, nil, 0); err != nil {
				return
			}
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(node), Events: unix.POLLIN}}, 10_000); n > 0 {
				return
			}
		}
	})
}

// The Erlang accounting server, which knows two protocols of a Classifier,
// takes flows of every protocol, networks for users, and all our own AVPs.
func TestErlangAccepts(t *testing.T) {
	peertest.Need(t, "escript")
	dir := peertest.Scripts(t)
	run := t.TempDir()
	ports := freePorts(t, 2)
	start(t, []string{"RUN=" + run}, filepath.Join(dir, "erlang.sh"), ports[0], filepath.Join(run, "acr.jsonl"), ports[1])
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+ports[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}

	const m = avp.FlagMandatory
	b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest, Command: avp.CommandCapabilitiesExchange, HopByHop: 1, EndToEnd: 1})
	b = avp.AppendString(b, avp.OriginHost, 0, m, options.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, options.OriginRealm)
	b = avp.AppendAddress(b, avp.HostIPAddress, 0, m, netip.MustParseAddr("127.0.0.1"))
	b = avp.AppendUint32(b, avp.VendorID, 0, m, DefaultVendor)
	b = avp.AppendString(b, avp.ProductName, 0, 0, "tollbridge")
	b = avp.AppendUint32(b, avp.AcctApplicationID, 0, m, avp.ApplicationAccounting)
	avp.SetLength(b)
	if code := exchange(t, conn, b); code != avp.ResultSuccess {
		t.Fatalf("CEA with %d", code)
	}

	// A server may lose the answer to a request that comes right behind its CEA.
	b = avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest, Command: avp.CommandDeviceWatchdog, HopByHop: 2, EndToEnd: 2})
	b = avp.AppendString(b, avp.OriginHost, 0, m, options.OriginHost)
	b = avp.AppendString(b, avp.OriginRealm, 0, m, options.OriginRealm)
	avp.SetLength(b)
	if code := exchange(t, conn, b); code != avp.ResultSuccess {
		t.Fatalf("DWA with %d", code)
	}

	d := For(0)
	for i, protocol := range []byte{1, 6, 17, 47, 58, 132, 255} {
		template, err := ipfix.NewTemplate(256, field(ipfix.SourceIPv4Address, 4), field(ipfix.ProtocolIdentifier, 1),
			field(ipfix.SourceTransportPort, 2), field(ipfix.IpDiffServCodePoint, 1), field(ipfix.IcmpTypeCodeIPv4, 2),
			ipfix.FieldSpecifier{ID: 1, Enterprise: 9, Length: ipfix.VariableLength})
		if err != nil {
			t.Fatal(err)
		}
		record := []byte{192, 0, 2, 1, protocol, 0, 80, 46, 8, 0, 0}
		r := acct.Record{
			SessionID: fmt.Sprintf("asm.isp.example;1;%d", i), Type: acct.Event, Event: time.Unix(1_790_000_000, 0),
			Framed: netip.MustParsePrefix("192.0.2.0/25"), SessionTime: 1500 * time.Millisecond, Estimated: true, Part: 1, Parts: 1,
			Classes: interim().Classes,
		}
		if r.Flow, err = d.AppendFlow(nil, template, record); err != nil {
			t.Fatal(err)
		}
		r.Flow = AppendClassifier(r.Flow, template, record, ClassifierOptions{})
		b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting,
			Application: avp.ApplicationAccounting, HopByHop: uint32(i) + 3, EndToEnd: uint32(i) + 3})
		b = d.AppendRecord(b, &r, options)
		avp.SetLength(b)
		if code := exchange(t, conn, b); code != avp.ResultSuccess {
			t.Errorf("protocol %d: ACA with %d", protocol, code)
		}
	}
}

// exchange sends a request and returns the Result-Code of its answer.
func exchange(t *testing.T, conn net.Conn, request []byte) uint32 {
	t.Helper()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	want, err := avp.ParseHeader(request)
	if err != nil {
		t.Fatal(err)
	}
	for {
		head := make([]byte, avp.HeaderLen)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		h, err := avp.ParseHeader(head)
		if err != nil {
			t.Fatal(err)
		}
		avps := make([]byte, h.Length-avp.HeaderLen)
		if _, err := io.ReadFull(conn, avps); err != nil {
			t.Fatal(err)
		}
		if h.Flags&avp.FlagRequest != 0 || h.HopByHop != want.HopByHop {
			continue
		}
		a, found := avp.Find(avps, avp.ResultCodeAVP, 0)
		code, err := a.Uint32()
		if !found || err != nil {
			t.Fatalf("answer without Result-Code: %x", avps)
		}
		if code != avp.ResultSuccess {
			failed, _ := avp.Find(avps, avp.FailedAVP, 0)
			t.Logf("Failed-AVP %x", failed.Data)
		}
		return code
	}
}

// freeDiameter loads the extension that FreeDiameter gives it.
func TestFreeDiameterLoadsExtension(t *testing.T) {
	peertest.Need(t, "freeDiameterd", "openssl", "cc")
	dir := peertest.Scripts(t)
	include := os.Getenv("FREEDIAMETER_INCLUDE") // where the headers are if not installed
	if include == "" {
		include = "/usr/include"
	}
	if _, err := os.Stat(filepath.Join(include, "freeDiameter", "extension.h")); err != nil {
		t.Skip("libfreediameter-dev is not installed")
	}
	run := t.TempDir()
	certs := filepath.Join(run, "certs")
	if err := os.Mkdir(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(dir, "mkcerts.sh"), certs).CombinedOutput(); err != nil {
		t.Fatalf("mkcerts.sh: %v\n%s", err, out)
	}
	source, extension := filepath.Join(run, "dict_tollbridge.c"), filepath.Join(run, "dict_tollbridge.fdx")
	if err := os.WriteFile(source, []byte(For(0).FreeDiameter()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-I", include, "-o", extension, source).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	ports := freePorts(t, 3)
	start(t, []string{
		"RUN=" + run, "CERTS=" + certs, "PORT=" + ports[0], "SEC=" + ports[1], "HOMEPORT=" + ports[2],
		fmt.Sprintf("EXTRA=LoadExtension = %q;", extension),
	}, filepath.Join(dir, "freediameter.sh"))
	log, err := os.ReadFile(filepath.Join(run, "freediameter.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "'"+extension+"'[(no config file)], loaded") {
		t.Errorf("the daemon did not load it:\n%s", log)
	}
}
