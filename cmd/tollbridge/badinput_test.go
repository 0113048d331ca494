package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/ipfix"
)

// TestBadInput throws at a running daemon what hostile and broken exporters
// send, with a part of honest traffic after each. Everything bad is counted by
// its cause, and all of what is honest is accounted for.
func TestBadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	d := start(t, setup{
		data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", tcp: "127.0.0.1:0", users: users, server: "127.0.0.1:0",
	})
	honest := captureStream(t)
	message := honest.messages[0]

	malformed := func(cause string) string {
		return fmt.Sprintf("collector_malformed_total{cause=%q,exporter=\"127.0.0.1\"}", cause)
	}
	const unusable = "pipeline_unusable_entries_total"
	bad := []struct {
		name   string
		metric string
		send   func()
		counts float64
	}{
		{"garbage datagrams", malformed("version"), func() { d.datagrams([]byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 1400)) }, 2},
		{"an empty and a short datagram", malformed("length"), func() { d.datagrams(nil, message[:7]) }, 2},
		{"a version that nobody knows", malformed("version"), func() { d.datagrams(withVersion(message, 11)) }, 1},
		{"a truncated message", malformed("length"), func() { d.datagrams(message[:len(message)-5]) }, 1},
		{"two messages in a datagram", malformed("length"), func() { d.datagrams(append(withVersion(message, 10), message...)) }, 1},
		{"a set that is longer than its message", malformed("set"), func() { d.datagrams(setLength(message, 9999)) }, 1},
		{"a template without fields", malformed("template"), func() {
			d.datagrams(rawMessage(7, []byte{0, 2, 0, 12, 1, 0, 0, 1, 0, 8, 0, 4}, []byte{0, 2, 0, 8, 0, 17, 0, 1}))
		}, 1},
		{"an HTTP request over TCP", malformed("version"), func() { d.connection([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) }, 1},
		{"a connection that ends within a message", malformed("truncated"), func() { d.connection(append(withVersion(message, 10), message[:20]...)) }, 1},
		{"an absurd length over TCP", malformed("length"), func() { d.connection(append([]byte{0, 10, 0, 3}, make([]byte, 60)...)) }, 1},
		{"data whose template never comes", `pipeline_early_sets_total{what="kept"}`, func() {
			d.datagrams(rawMessage(8, []byte{3, 0, 0, 8, 1, 2, 3, 4}))
		}, 1},
		{"forty thousand templates over UDP", unusable, func() { d.datagrams(templateFlood(9)...) }, 1},
		{"forty thousand templates over TCP", unusable, func() { d.connection(slices.Concat(templateFlood(10)...)) }, 1},
		{"templates of five thousand domains", unusable, func() { d.connection(slices.Concat(domainFlood()...)) }, 1},
	}
	for i, b := range bad {
		before := d.metric(b.metric)
		b.send()
		if !until(t, func() bool { return d.metric(b.metric) >= before+b.counts }) {
			t.Fatalf("%s: %s stays %v", b.name, b.metric, d.metric(b.metric))
		}
		honest.send(t, d.tcp(), len(honest.messages)*(i+1)/len(bad))
	}
	if rss := d.resident(); rss > 300<<20 {
		t.Errorf("the daemon takes %d MiB of memory", rss>>20)
	}

	octets, nobodys := captureOctets(t)
	s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
	if s.Received.Octets-s.Duplicate.Octets != octets || s.Suspended.Octets != nobodys {
		t.Errorf("the books are %+v, want %d octets without duplicates and %d suspended", s, octets, nobodys)
	}
	waitEnd(t, d.data)
	if n := d.metric("pipeline_failures_total"); n != 0 {
		t.Errorf("accounting stopped %v times", n)
	}
	d.stop()
	checkBill(t, bill(charges(t, d.data)))
}

// datagrams sends each as one, a few at a time so that the kernel keeps all.
func (d *daemon) datagrams(all ...[]byte) {
	d.t.Helper()
	nc, err := net.Dial("udp", d.udp())
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	for _, b := range all {
		if _, err := nc.Write(b); err != nil {
			d.t.Fatal(err)
		}
	}
}

// connection sends b over TCP and waits until the daemon closes.
func (d *daemon) connection(b []byte) {
	d.t.Helper()
	nc, err := net.Dial("tcp", d.tcp())
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(b); err != nil {
		return // it has closed already
	}
	nc.(*net.TCPConn).CloseWrite()
	nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.Copy(io.Discard, nc); n > 0 || os.IsTimeout(err) {
		d.t.Errorf("the daemon answered %d octets, %v", n, err)
	}
}

// resident returns the octets of memory that the daemon has taken at most.
func (d *daemon) resident() int {
	d.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	if err != nil {
		d.t.Fatalf("%s", b)
	}
	return kib << 10
}

func withVersion(message []byte, v uint16) []byte {
	b := append([]byte(nil), message...)
	binary.BigEndian.PutUint16(b, v)
	return b
}

// setLength gives the first Set of a Message another length.
func setLength(message []byte, n uint16) []byte {
	b := append([]byte(nil), message...)
	binary.BigEndian.PutUint16(b[ipfix.HeaderLength+2:], n)
	return b
}

// rawMessage puts Sets into a Message without looking at them.
func rawMessage(domain uint32, sets ...[]byte) []byte {
	b := make([]byte, ipfix.HeaderLength)
	for _, s := range sets {
		b = append(b, s...)
	}
	binary.BigEndian.PutUint16(b, ipfix.Version)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint32(b[4:], uint32(time.Now().Unix()))
	binary.BigEndian.PutUint32(b[12:], domain)
	return b
}

// templateFlood is forty thousand Templates of one field, in Messages of 160.
func templateFlood(domain uint32) [][]byte {
	var all [][]byte
	for id := 256; id < 40256; {
		set := []byte{0, 2, 0, 0}
		for range 160 {
			set = binary.BigEndian.AppendUint16(set, uint16(id))
			set = append(set, 0, 1, 0, 8, 0, 4)
			id++
		}
		binary.BigEndian.PutUint16(set[2:], uint16(len(set)))
		all = append(all, rawMessage(domain, set))
	}
	return all
}

// domainFlood is a Template in each of five thousand Observation Domains.
func domainFlood() [][]byte {
	var all [][]byte
	for domain := range 5000 {
		all = append(all, rawMessage(uint32(1000+domain), []byte{0, 2, 0, 12, 1, 0, 0, 1, 0, 8, 0, 4}))
	}
	return all
}

// TestBadPeer delivers to something that is no Diameter server. The daemon says
// what is wrong with it, keeps every record, and delivers all once a real
// server has the peer's place.
func TestBadPeer(t *testing.T) {
	for _, c := range []struct {
		name string
		talk func(net.Conn)
		log  string
	}{
		{"nonsense", func(nc net.Conn) {
			io.WriteString(nc, strings.Repeat("220 mail.example ESMTP\r\n", 100))
			io.Copy(io.Discard, nc)
		}, `not connected" peer=127.* read CEA: .*unsupported version`},
		{"nothing", func(nc net.Conn) { io.Copy(io.Discard, nc) }, `not connected" peer=127.* read CEA: .*i/o timeout`},
		{"hangs up", func(nc net.Conn) { nc.Read(make([]byte, 1)) }, `not connected" peer=127.* read CEA: .*(reset by peer|EOF)`},
		{"an absurd length", func(nc net.Conn) {
			nc.Write(append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 60)...))
			io.Copy(io.Discard, nc)
		}, `not connected" peer=127.* read CEA: .*[Ll]ength`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					go func() { c.talk(nc); nc.Close() }()
				}
			}()
			dir := t.TempDir()
			_, users := files(t, dir)
			address := ln.Addr().String()
			s := setup{data: filepath.Join(dir, "bridge"), tcp: "127.0.0.1:0", users: users, peers: []string{peerAt(address, "server.aaa.example")}}
			d := start(t, s)
			honest := captureStream(t)
			honest.send(t, d.tcp(), len(honest.messages))
			octets, nobodys := captureOctets(t)
			if !until(t, func() bool {
				s := audit(t, d.data)
				return s.Received.Octets == octets && s.Open.IsZero() && !s.Pending.IsZero() && s.Pending == s.Accounted && s.Suspended.Octets == nobodys
			}) {
				t.Fatalf("the books stay %+v", audit(t, d.data))
			}
			d.waitLog(c.log)
			if r := d.metric(fmt.Sprintf("delivery_peer_ready{peer=%q}", address)); r != 0 {
				t.Errorf("the peer is said to be ready")
			}
			d.stop()

			ln.Close()
			aaa := start(t, setup{data: filepath.Join(dir, "aaa"), origin: "unused.aaa.example", server: address})
			d = start(t, s)
			waitBooks(t, d.data, func(s sums) bool { return s.Acknowledged == s.Accounted })
			waitEnd(t, d.data)
			d.stop()
			aaa.stop()
			checkBill(t, bill(charges(t, aaa.data)))
		})
	}
}

// TestUsersReload changes the users file under a running daemon: a file with
// errors is refused in clear words and the old bindings stay, a good one holds
// at once.
func TestUsersReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	d := start(t, setup{data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", users: users, server: "127.0.0.1:0"})
	replace := func(content string) {
		fresh := users + ".new"
		if err := os.WriteFile(fresh, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, users); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	replace("prefix,user\n192.0.2.11/33,mallory\n")
	d.waitLog(`level=ERROR msg="users file can't be used; its bindings stay as they were" .*users.csv:2:1.*192.0.2.11/33`)
	honest := captureStream(t)
	half := len(honest.messages) / 2
	honest.send(t, d.tcp(), half)
	replace(string(good) + "10.99.0.0/16,dora,,\n")
	d.waitLog(`msg="users file read" .*bindings=7`)
	honest.send(t, d.tcp(), len(honest.messages))

	octets, nobodys := captureOctets(t)
	waitBooks(t, d.data, func(s sums) bool {
		return s.Received.Octets-s.Duplicate.Octets == octets && s.Suspended.Octets == nobodys
	})
	waitEnd(t, d.data)
	d.stop()
	checkBill(t, bill(charges(t, d.data)))
}

// TestRefusesToStart has a daemon start where it can't. It says why and what to
// do, with status 1, and harms nothing.
func TestRefusesToStart(t *testing.T) {
	refused := func(t *testing.T, s setup, pattern string) {
		t.Helper()
		launch(t, plainProgram, s).refuses(pattern)
	}
	plain := func(t *testing.T) setup {
		return setup{data: filepath.Join(t.TempDir(), "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	}
	t.Run("users file with errors", func(t *testing.T) {
		t.Parallel()
		s := plain(t)
		s.users = s.data + ".csv"
		if err := os.WriteFile(s.users, []byte("prefix,user\n192.0.2.1,alice\nnonsense,bob\n192.0.2.2,\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d := launch(t, plainProgram, s)
		d.refuses(`state.csv:3:1: prefix "nonsense" is no address: an address such as 192.0.2.1 or a prefix such as 2001:db8::/56 is expected`)
		d.refuses(`state.csv:4:11: user is missing: whose is the prefix\?$`)
		if _, err := os.Stat(s.data); err == nil {
			t.Error("it made a state directory")
		}
	})
	t.Run("port in use", func(t *testing.T) {
		t.Parallel()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		for key, s := range map[string]setup{
			"collectingProcess.tcpCollectors": {tcp: ln.Addr().String(), server: "127.0.0.1:0"},
			"server.listen":                   {tcp: "127.0.0.1:0", server: ln.Addr().String()},
		} {
			s.data = plain(t).data
			refused(t, s, `^tollbridge: `+key+`: listen tcp4 127.0.0.1:\d+: bind: address already in use: stop the process that has the port, or choose another$`)
		}
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		s := plain(t)
		s.udp = conn.LocalAddr().String()
		refused(t, s, `^tollbridge: collectingProcess.udpCollectors: listen udp4 127.0.0.1:\d+: bind: address already in use: stop the process`)
	})
	t.Run("second daemon on the same spool", func(t *testing.T) {
		t.Parallel()
		s := plain(t)
		d := start(t, s)
		refused(t, s, fmt.Sprintf(`^tollbridge: spool: .*state is in use by process %d$`, d.cmd.Process.Pid))
		d.stop()
	})
	t.Run("no database", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"state.db", "journal.db", "cdr.db"} {
			s := plain(t)
			file := filepath.Join(s.data, name)
			const content = "These are the minutes of the annual meeting.\n"
			if err := os.Mkdir(s.data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, s, `^tollbridge: spool: .*`+regexp.QuoteMeta(name)+`: not a database of this program: move it away, or name another directory`)
			if b, err := os.ReadFile(file); err != nil || string(b) != content {
				t.Errorf("%s is now %q, %v", name, b, err)
			}
		}
	})
	t.Run("a file in place of the state directory", func(t *testing.T) {
		t.Parallel()
		s := plain(t)
		if err := os.WriteFile(s.data, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, s, `^tollbridge: spool: .*state.*: not a directory`)
	})
	t.Run("read-only state directory", func(t *testing.T) {
		t.Parallel()
		s := plain(t)
		if err := os.Mkdir(s.data, 0o700); err != nil {
			t.Fatal(err)
		}
		makeReadOnly(t, s.data)
		refused(t, s, `^tollbridge: spool: .*(state/lock: .*read-only file system|lock: check owner and permissions of .*state)`)
	})
}

// makeReadOnly makes a directory one in which nothing can be made, for root
// too.
func makeReadOnly(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err == nil {
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		if syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "") == nil {
			return
		}
	}
	if out, err := exec.Command("chattr", "+i", dir).CombinedOutput(); err != nil {
		t.Skipf("skipped: root may neither mount here nor make a file immutable: %s", out)
	}
	t.Cleanup(func() { exec.Command("chattr", "-i", dir).Run() })
}
