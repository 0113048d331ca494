package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/internal/userscmd"
	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// vendorProgram is acknowledged export as another vendor builds it: it was
// written from docs/acknowledged-export.md alone.
const vendorProgram = "../../ipfix/ack/testdata/vendor/vendor.py"

// A vendor is a process of the other vendor's, which says on its standard
// output what happens to it.
type vendor struct {
	*process // whose lines are events
	input    io.Writer
	errors   bytes.Buffer
}

// runVendor starts a command of the other vendor's. It does not outlive the
// test.
func runVendor(t *testing.T, args ...string) *vendor {
	t.Helper()
	peertest.Need(t, "python3")
	v := new(vendor)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(args, " "), &v.errors)
		}
	})
	cmd := exec.Command("python3", append([]string{vendorProgram}, args...)...)
	cmd.Stderr = &v.errors
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.input, v.process = input, runProcess(t, "vendor.py "+args[0], cmd, cmd.StdoutPipe)
	return v
}

// saw waits until as many events as that have come, and returns the submatches
// of the first.
func (v *vendor) saw(times int, pattern string) []string {
	v.t.Helper()
	if !until(v.t, func() bool { return v.lines.count(pattern) >= times }) {
		v.t.Fatalf("%s did not come %d times:\n%s", pattern, times, v.lines.tail(10))
	}
	return v.lines.wait(v.t.Context(), regexp.MustCompile(pattern))
}

// goesOn waits for an event more than there were before something was done, or
// for the end of a process that was done before.
func (v *vendor) goesOn(pattern string, done func()) {
	v.t.Helper()
	before := v.lines.count(pattern)
	done()
	more := func() bool {
		select {
		case <-v.done:
			return true
		default:
			return v.lines.count(pattern) > before
		}
	}
	if !until(v.t, more) {
		v.t.Fatalf("%s came no more:\n%s", pattern, v.lines.tail(10))
	}
}

// ends waits until the process has ended, with status 0.
func (v *vendor) ends() {
	v.t.Helper()
	v.wait()
	if v.err != nil {
		v.t.Fatalf("it ended with %v:\n%s", v.err, &v.errors)
	}
}

const (
	vendorAcknowledged = `"event": "acknowledged"`
	vendorDurable      = `"event": "durable"`
)

// vendorExporter starts the other vendor's Exporting Process. Its records are
// of 1000, 1001 ... octets, 20 to a Message.
func vendorExporter(t *testing.T, dir, to string, args ...string) *vendor {
	t.Helper()
	return runVendor(t, append([]string{"export", "--to", to, "--spool", filepath.Join(dir, "spool")}, args...)...)
}

// vendorSum is of the octets of so many records.
func vendorSum(records uint64) uint64 { return records*1000 + records*(records-1)/2 }

// vendorCollector starts the other vendor's Collecting Process on an address,
// and returns where it listens.
func vendorCollector(t *testing.T, journal, listen string, args ...string) (v *vendor, address string) {
	t.Helper()
	v = runVendor(t, append([]string{"collect", "--listen", listen, "--journal", journal}, args...)...)
	return v, v.saw(1, `"listening", "address": "([^"]+)"`)[1]
}

// holdings are what the other vendor's Collecting Process has.
type holdings struct {
	Unidentified, Conflicts, Records, Lost int

	Octets uint64
	Flows  []struct {
		Octets uint64 `json:"octetDeltaCount"`
	}
}

func held(t *testing.T, journal string) (h holdings) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", vendorProgram, "list", "--journal", journal).Output()
	if err == nil {
		err = json.Unmarshal(out, &h)
	}
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return h
}

// A cable carries TCP connections to an address.
type cable struct {
	listener net.Listener
	mu       sync.Mutex
	ends     []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: listener}
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.ends = append(c.ends, near, far)
			c.mu.Unlock()
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				carrying.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].(*net.TCPConn).CloseWrite()
				})
			}
		}
	})
	t.Cleanup(func() {
		listener.Close()
		c.cut()
		carrying.Wait()
	})
	return c
}

func (c *cable) address() string { return c.listener.Addr().String() }

// cut ends the connections. What is under way is lost.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.ends {
		_ = end.(*net.TCPConn).SetLinger(0)
		end.Close()
	}
	c.ends = nil
}

// vendorUsers are who the records of the other vendor's exporter are of.
func vendorUsers(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(name, []byte("prefix,user\n192.0.2.7/32,alice\n192.0.2.8/32,bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// An Exporting Process that was written from the document alone exports to the
// daemon. Whatever happens to either, each record is accounted for once.
func TestAnotherVendorsExporter(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "python3")
	counted := func(t *testing.T, data string, records uint64) sums {
		t.Helper()
		return waitBooks(t, data, func(b sums) bool {
			return b.Accounted.Records == records && b.Accounted.Octets == vendorSum(records)
		})
	}

	t.Run("cables are cut, both are killed", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := setup{data: filepath.Join(dir, "bridge"), users: vendorUsers(t, dir), tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
		d := start(t, s)
		s.tcp = d.tcp()
		c := newCable(t, s.tcp)
		const records = 4000
		exporter := func() *vendor {
			return vendorExporter(t, dir, c.address(), "--records", strconv.Itoa(records), "--pace", "5")
		}
		// Where the machine lets this test sleep, it may be done before.
		const orDone = `|"finished"`
		v := exporter()
		v.saw(1, vendorAcknowledged+orDone)
		v.goesOn(vendorAcknowledged, c.cut)
		v.kill()
		v = exporter()
		v.saw(1, vendorAcknowledged+orDone)
		d.kill()
		v.saw(1, `"disconnected"`+orDone)
		d = start(t, s)
		v.ends()
		if last := v.saw(1, `"event": "finished", "position": (\d+), "consumed": 4000`); last[1] != "200" {
			t.Errorf("the last position is %s, not 200", last[1])
		}
		books := counted(t, s.data, records)
		if n := bill(charges(t, s.data))["alice"]; n.InputOctets != vendorSum(records) {
			t.Errorf("alice is billed %+v, but %d octets were exported", n, vendorSum(records))
		}
		t.Logf("%d of %d records received were sent again", books.Duplicate.Records, books.Received.Records)
		d.stop()
	})

	t.Run("a full disk holds it up", func(t *testing.T) {
		t.Parallel()
		dir, small := t.TempDir(), smallDisk(t, "24")
		s := setup{data: filepath.Join(small, "bridge"), users: vendorUsers(t, dir), tcp: "127.0.0.1:0", server: "127.0.0.1:0", spool: ", minFree: 4MiB"}
		d := start(t, s)
		vendorExporter(t, dir, d.tcp(), "--records", "100").ends()
		release := fill(t, small, 1<<20)
		d.waitLog("journal takes no more messages")
		v := vendorExporter(t, dir, d.tcp(), "--records", "400") // it goes on at its 101st
		v.saw(1, `"held up", "reason": "disk full"`)
		release()
		v.ends()
		counted(t, s.data, 400)
		d.stop()
	})

	t.Run("its flow cache is asked for, over TLS", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		ca := certtest.NewAuthority(t)
		files := ca.Write(ca.IssueLike(func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"meter.vendor.example"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}))
		s := setup{
			data: filepath.Join(dir, "bridge"), users: vendorUsers(t, dir), server: "127.0.0.1:0",
			collect: fmt.Sprintf(`, tlsCollectors: ["127.0.0.1:0"], tls: {certificate: %q, key: %q, ca: %q}, exporters: [{name: vendor, certificateNames: [meter.vendor.example]}]`,
				files.Certificate, files.Key, files.CA),
		}
		d := start(t, s)
		v := vendorExporter(t, dir, d.address("collectingProcess.tlsCollectors"), "--cert", files.Certificate, "--key", files.Key, "--ca", files.CA,
			"--records", "40", "--linger", "--active", "192.0.2.7=600", "--active", "192.0.2.8=700")
		v.saw(1, `"acknowledged", "position": 2, "kept": 0`)
		var usage []userscmd.Usage
		show(t, &usage, "users", "usage", "--now", "--of", "192.0.2.7", "--data", s.data)
		if len(usage) != 1 || usage[0].User != "alice" || usage[0].InputOctets != vendorSum(40)+600 || usage[0].Exact.IsZero() {
			t.Errorf("with alice's flow the usage is %+v", usage)
		}
		v.saw(1, `"pulled", "request": \d+, "flows": 1, "result": "done"`)
		show(t, &usage, "users", "usage", "--now", "--data", s.data)
		if len(usage) != 2 || usage[1].User != "bob" || usage[1].InputOctets != 700 {
			t.Errorf("with all flows the usage is %+v", usage)
		}
		_ = v.cmd.Process.Signal(syscall.SIGTERM)
		v.ends()
		waitBooks(t, s.data, func(b sums) bool { return b.Accounted.Octets == vendorSum(40)+600+700 })
		d.stop()
	})

	t.Run("it has no room, and gives up the oldest", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := setup{data: filepath.Join(dir, "bridge"), users: vendorUsers(t, dir), tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
		d := start(t, s)
		s.tcp = d.tcp()
		d.stop()
		const records = 400
		v := vendorExporter(t, dir, s.tcp, "--records", strconv.Itoa(records), "--keep", "8", "--when-full", "drop")
		v.saw(5, `"given up"`)
		d = start(t, s)
		v.ends()
		books := waitBooks(t, s.data, func(b sums) bool { return b.Accounted.Records+b.Lost.Records == records })
		if lost := books.Lost; lost.Records == 0 || lost.Confidence != "exact" {
			t.Errorf("lost are %+v", lost)
		}
		d.stop()
	})
}

// A Collecting Process that was written from the document alone gets what our
// Exporting Process exports. Whatever happens to it, it has each record once.
func TestAnotherVendorsCollector(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "python3")

	t.Run("cables are cut, it is killed", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		journal := filepath.Join(dir, "journal")
		v, address := vendorCollector(t, journal, "127.0.0.1:0")
		c := newCable(t, address)
		e := newOwnExporter(t, dir, c.address(), nil)
		e.export(0, 1000)
		v.saw(1, vendorDurable)
		v.goesOn(vendorDurable, func() {
			c.cut()
			e.export(1000, 2000)
		})
		v.kill()
		e.export(2000, 3000)
		v, _ = vendorCollector(t, journal, address)
		v.saw(1, vendorDurable)
		e.close()
		e.eachOnce(journal, 3000)
		_ = v.cmd.Process.Signal(syscall.SIGTERM)
		v.ends()
	})

	t.Run("its disk is full", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		capture, _ := files(t, dir)
		octets, _ := captureOctets(t)
		journal, full := filepath.Join(dir, "journal"), filepath.Join(dir, "full")
		if err := os.WriteFile(full, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		v, address := vendorCollector(t, journal, "127.0.0.1:0", "--full-while", full)
		m, log := meterProcess(t, "", capture, address, "--acknowledged", "--spool", filepath.Join(dir, "meter"))
		v.saw(1, `"event": "held up"`)
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		if err := m.Wait(); err != nil {
			t.Fatalf("the meter: %v\n%s", err, log)
		}
		if !strings.Contains(log.String(), `why="disk full"`) {
			t.Errorf("the meter did not say that it is held up:\n%s", log)
		}
		if h := held(t, journal); h.Octets != octets || h.Unidentified+h.Conflicts > 0 {
			t.Errorf("it has %d octets, metered were %d", h.Octets, octets)
		}
	})

	t.Run("it asks for the flow cache", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		journal := filepath.Join(dir, "journal")
		v, address := vendorCollector(t, journal, "127.0.0.1:0")
		asked := make(chan netip.Prefix, 2)
		var e *ownExporter
		e = newOwnExporter(t, dir, address, func(_ context.Context, of netip.Prefix) (time.Time, error) {
			asked <- of
			if of.Addr().Is6() {
				return time.Time{}, errors.New("no flows of IPv6 are known here")
			}
			e.export(10, 11)
			return time.UnixMilli(1_800_000_000_123), nil
		})
		e.export(0, 10)
		v.saw(1, vendorDurable)
		for _, row := range []struct{ command, of, answer string }{
			{"pull 192.0.2.7\n", "192.0.2.7/32", `"answered", "request": \d+, "time": 1800000000123, "result": "done"`},
			{"pull 2001:db8::/32\n", "2001:db8::/32", `"answered", "request": \d+, "time": \d+, "result": "failed"`},
		} {
			if _, err := io.WriteString(v.input, row.command); err != nil {
				t.Fatal(err)
			}
			v.saw(1, row.answer)
			if of := <-asked; of.String() != row.of {
				t.Errorf("%s: asked were flows of %v", row.command, of)
			}
		}
		e.close()
		e.eachOnce(journal, 11)
	})

	t.Run("a plain exporter is never written to", func(t *testing.T) {
		t.Parallel()
		journal := filepath.Join(t.TempDir(), "journal")
		v, address := vendorCollector(t, journal, "127.0.0.1:0")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		encoder := ipfix.NewEncoder(1, 0)
		if err := encoder.AddTemplate(numbered(t)); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(10) {
			if err := encoder.AddRecord(numbered(t), netip.MustParseAddr("192.0.2.7"), i); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Write(encoder.Flush(1)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if answers, err := io.ReadAll(conn); err != nil || len(answers) > 0 {
			t.Errorf("it wrote %x, %v", answers, err)
		}
		v.saw(1, `"ended"`)
		if h := held(t, journal); h.Records != 10 || h.Unidentified != 1 {
			t.Errorf("it has %+v", h)
		}
	})
}

// An ownExporter is our Exporting Process with acknowledgements, towards the
// other vendor's Collecting Process. Its record number i has i octets.
type ownExporter struct {
	t       *testing.T
	process *export.Process
	spool   *backlog.Backlog
	ran     chan error
}

func newOwnExporter(t *testing.T, dir, to string, pull func(context.Context, netip.Prefix) (time.Time, error)) *ownExporter {
	t.Helper()
	spool, err := backlog.Open(filepath.Join(dir, "spool"), backlog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e := &ownExporter{t: t, spool: spool, ran: make(chan error, 1)}
	e.process, err = export.New(export.Config{
		Transport: ipfix.TCP, Address: to, Domain: 1, MaxMessage: 256, Linger: 10 * time.Millisecond, Reconnect: 100 * time.Millisecond,
		Acknowledged: &export.Acknowledged{Backlog: spool, Pull: pull},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { e.ran <- e.process.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-e.ran
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func numbered(t *testing.T) *ipfix.Template {
	t.Helper()
	template, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4}, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// export exports the records from one number to another.
func (e *ownExporter) export(from, to uint64) {
	e.t.Helper()
	template := numbered(e.t)
	for i := from; i < to; i++ {
		record := binary.BigEndian.AppendUint64([]byte{192, 0, 2, 7}, i)
		if err := e.process.Export(e.t.Context(), template, record); err != nil {
			e.t.Error(err)
		}
	}
}

// close returns when all that was exported has been acknowledged, and the
// spool has let go of it.
func (e *ownExporter) close() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	if err := e.process.Close(ctx); err != nil {
		e.t.Fatal(err)
	}
	if left := e.spool.Stats().Messages; left > 0 {
		e.t.Errorf("%d Messages stay in the spool", left)
	}
}

// eachOnce checks that the other vendor's collector has each record once, and
// nothing else.
func (e *ownExporter) eachOnce(journal string, records int) {
	e.t.Helper()
	h := held(e.t, journal)
	if h.Records != records || h.Unidentified+h.Conflicts+h.Lost > 0 {
		e.t.Errorf("it has %d records, %d Messages without identity, %d conflicts; exported were %d records", h.Records, h.Unidentified, h.Conflicts, records)
	}
	seen := make(map[uint64]bool)
	for _, f := range h.Flows {
		if seen[f.Octets] || f.Octets >= uint64(records) {
			e.t.Errorf("it has record %d twice, or too many", f.Octets)
		}
		seen[f.Octets] = true
	}
}

// A Collecting Process that does not know acknowledged export gets conforming
// IPFIX of the other vendor's exporter: Wireshark decodes its flow records, and
// its sequence numbers count what came.
func TestAnotherVendorsExporterForPlainPeers(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "python3", "tshark")
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const records = 100
	v := vendorExporter(t, dir, ln.Addr().String(), "--records", strconv.Itoa(records))
	v.saw(1, `"connected"`)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	messages := plainMessages(t, conn, func(messages [][]byte) bool { return len(messages) == 1+records/20 })
	v.kill()
	session, next := ipfix.NewSession(ipfix.TCP), uint32(0)
	for i, m := range messages {
		h, err := ipfix.ParseHeader(m)
		if err != nil || h.Sequence != next {
			t.Errorf("Message %d has sequence number %d after %d Data Records (%v)", i, h.Sequence, next, err)
		}
		if _, err := session.Decode(m, func(s ipfix.DataSet) { next += uint32(s.Records) }); err != nil {
			t.Errorf("Message %d: %v", i, err)
		}
	}
	if octets, packets := tsharkDecodes(t, messages); octets != vendorSum(records) || packets != 550 {
		t.Errorf("tshark decodes %d octets and %d packets", octets, packets)
	}
}
