package main

import (
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/internal/peertest"
)

// TestLeases has lease files of Kea tell whose addresses are whose: each user is
// billed what tshark counted.
func TestLeases(t *testing.T) {
	t.Parallel()
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	v4 := []string{"address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"}
	v6 := []string{"address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context"}
	begin, end := time.Date(2026, 11, 22, 1, 58, 0, 0, time.UTC).Unix(), time.Now().Add(time.Hour).Unix()
	for i, b := range list.Bindings {
		if a := b.Prefix.Addr(); a.Is4() {
			v4 = append(v4, fmt.Sprintf("%s,02:00:00:00:00:%02x,,%d,%d,1,0,0,%s,0,", a, i, end-begin, end, b.User))
		} else {
			v6 = append(v6, fmt.Sprintf("%s,00:03:00:01:%02x,%d,%d,1,%d,2,1,%d,0,0,%s,,0,", a, i, end-begin, end, end-begin, b.Prefix.Bits(), b.User))
		}
	}
	dir := t.TempDir()
	var sources []string
	for name, lines := range map[string][]string{"kea-leases4.csv": v4, "kea-leases6.csv": v6} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, fmt.Sprintf("{file: %s, user: [hostname]}", file))
	}
	d := start(t, setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		sources: "leases: [" + strings.Join(sources, ", ") + "]",
	})
	d.waitMetric(fmt.Sprintf("dhcp_leases{file=%q}", filepath.Join(dir, "kea-leases6.csv")), func(n float64) bool { return int(n) == len(v6)-1 })
	capture, _ := files(t, t.TempDir())
	if out, errOut, status := cli(t, "meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	octets, nobodys := captureOctets(t)
	books := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets && s.Suspended.Octets == nobodys })
	if books.Received.Octets != octets || books.Duplicate.Octets != 0 {
		t.Errorf("the books are %+v, want %d octets received", books, octets)
	}
	checkBill(t, bill(charges(t, d.data)))
	d.stop()
}

// TestLeasesUnderLoad has perfdhcp take, renew and give back a thousand leases
// of Kea, which cleans its lease file up every second: what Kea has in the end
// is who holds what, to the last one, also after a kill -9, and each is as
// perfdhcp has it acknowledged.
func TestLeasesUnderLoad(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "kea-dhcp4", "perfdhcp")
	lan, wan := newNetns(t, "lease-lan"), newNetns(t, "lease-wan")
	connect(t, "dhcp", lan, "10.99.0.1", wan, "10.99.0.2")
	if !until(t, func() bool {
		out, err := exec.Command("ip", "-n", string(lan), "link", "show", "dhcp").Output()
		return err == nil && strings.Contains(string(out), "state UP")
	}) {
		t.Fatal("the wire is not up, and Kea would not listen on it")
	}
	dir := t.TempDir()
	kea := keaServer{t: t, dir: dir, at: lan, file: filepath.Join(dir, "kea-leases4.csv")}
	kea.start(fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": ["dhcp"], "dhcp-socket-type": "udp"}, "valid-lifetime": 6000,
		"lease-database": {"type": "memfile", "name": %q, "lfc-interval": 1},
		"loggers": [{"name": "kea-dhcp4", "severity": "INFO"}, {"name": "kea-dhcp4.leases", "severity": "WARN"}],
		"subnet4": [{"id": 1, "subnet": "10.99.0.0/16", "pools": [{"pool": "10.99.16.0/20"}]}]}}`, kea.file))
	s := setup{data: filepath.Join(dir, "state"), server: "127.0.0.1:0", sources: fmt.Sprintf("leases: [{file: %q}]", kea.file)}
	d := start(t, s)

	all := perfReport{leases: map[string]string{}}
	load := func(args ...string) {
		t.Helper()
		cmd := wan.command(append([]string{"perfdhcp", "-4", "-l", "dhcp", "-r", "600", "-W", "300000", "-d", "5", "-x", "l"}, append(args, "10.99.0.1")...)...)
		cmd.Env = kea.environment()
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 && err != nil { // 3 for something unanswered, as a release is
			t.Fatalf("perfdhcp: %v\n%.2000s", err, out)
		}
		all.add(t, string(out))
	}
	load("-R", "500", "-n", "500")
	kea.cleanedUp()
	load("-R", "900", "-n", "900", "-b", "mac=02:00:00:00:00:00", "-F", "150", "-f", "100")
	kea.cleanedUp()
	kea.stop()

	// Datagrams may be lost on a slow machine: of those, Kea's file alone tells.
	want := kea.leases()
	if acknowledged := len(all.leases); all.released == 0 || all.unanswered == 0 &&
		(acknowledged < 500+900 || len(want) > acknowledged || len(want) < acknowledged-all.released) {
		t.Errorf("perfdhcp has %d leases acknowledged, %d requests unanswered, and gave %d back; Kea has %d", acknowledged, all.unanswered, all.released, len(want))
	}
	for address, user := range want {
		if got, ok := all.leases[address]; got != user && (ok || all.unanswered == 0) {
			t.Errorf("Kea has %s for %s, perfdhcp has it for %q", address, user, got)
		}
	}
	held := func() map[string]string {
		var list []struct{ Prefix, User string }
		show(t, &list, "users", "ls", "--data", s.data)
		holders := map[string]string{}
		for _, b := range list {
			holders[strings.TrimSuffix(b.Prefix, "/32")] = b.User
		}
		return holders
	}
	compare := func() {
		t.Helper()
		if got := map[string]string(nil); !until(t, func() bool { got = held(); return maps.Equal(got, want) }) {
			t.Errorf("%d addresses are held by %d leases of Kea: %s", len(got), len(want), differences(got, want))
		}
	}
	compare()
	if n := d.metric(fmt.Sprintf("dhcp_malformed_total{file=%q}", kea.file)); n != 0 {
		t.Errorf("%v lines could not be read", n)
	}
	d.kill()
	d = start(t, s)
	d.waitMetric(fmt.Sprintf("dhcp_leases{file=%q}", kea.file), func(n float64) bool { return int(n) == len(want) })
	compare()
	audit(t, d.data)
	d.stop()
}

// differences says where two maps differ first, in no order.
func differences(got, want map[string]string) string {
	for k, v := range want {
		if got[k] != v {
			return fmt.Sprintf("%s is %q's, want %q", k, got[k], v)
		}
	}
	for k, v := range got {
		if want[k] == "" {
			return fmt.Sprintf("%s is still %s's", k, v)
		}
	}
	return "none"
}

// A perfReport is what perfdhcp reports.
type perfReport struct {
	leases               map[string]string // the hardware address that has an address, acknowledged
	unanswered, released int
}

// add reads a report that has "-x l".
func (r *perfReport) add(t *testing.T, report string) {
	t.Helper()
	packets := func(exchange string) (sent, received int) {
		t.Helper()
		_, section, found := strings.Cut(report, "***Statistics for: "+exchange+"***\n")
		if !found {
			return 0, 0 // no such exchange was asked for
		}
		if _, err := fmt.Sscanf(section, "sent packets: %d\nreceived packets: %d\n", &sent, &received); err != nil {
			t.Fatalf("%s: %v\n%.2000s", exchange, err, report)
		}
		return sent, received
	}
	for _, exchange := range []string{"DISCOVER-OFFER", "REQUEST-ACK"} {
		sent, received := packets(exchange)
		r.unanswered += sent - received
	}
	released, _ := packets("RELEASE")
	r.released += released
	_, section, _ := strings.Cut(report, "***Leases for REQUEST-ACK***\n")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "***") {
			break
		}
		fields := strings.Split(line, ",")
		if id, err := hex.DecodeString(fields[0]); err == nil && len(id) == 7 && len(fields) == 3 {
			r.leases[fields[1]] = net.HardwareAddr(id[1:]).String() // after the type
		}
	}
}

// A keaServer is a kea-dhcp4.
type keaServer struct {
	t    *testing.T
	dir  string // of all it writes
	at   netns
	file string // of its leases
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (k *keaServer) environment() []string {
	return append(os.Environ(), "KEA_PIDFILE_DIR="+k.dir, "KEA_LOCKFILE_DIR="+k.dir)
}

func (k *keaServer) start(config string) {
	k.t.Helper()
	file := filepath.Join(k.dir, "kea.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		k.t.Fatal(err)
	}
	k.cmd = k.at.command("kea-dhcp4", "-c", file)
	k.cmd.Env = k.environment()
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	k.cmd.Stderr = k.cmd.Stdout
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	var said lines
	k.done = make(chan struct{})
	go func() {
		defer close(k.done)
		said.read(out)
		_ = k.cmd.Wait()
	}()
	k.t.Cleanup(k.stop)
	if said.wait(k.t.Context(), regexp.MustCompile("DHCP4_STARTED")) == nil {
		k.t.Fatalf("Kea does not start:\n%s", said.tail(20))
	}
}

// stop ends it. A cleanup may still be at work.
func (k *keaServer) stop() {
	_ = k.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	<-k.done
}

// cleanedUp waits until a cleanup has taken all leases from the file.
func (k *keaServer) cleanedUp() {
	k.t.Helper()
	if !until(k.t, func() bool {
		_, atWork := os.Stat(k.file + ".1")
		_, ending := os.Stat(k.file + ".completed")
		return atWork != nil && ending != nil && len(k.rows(".2")) > 0 && len(k.rows("")) == 0
	}) {
		k.t.Fatal("Kea does not clean its file up")
	}
}

// leases returns who has which address, when it has ended.
func (k *keaServer) leases() map[string]string {
	k.t.Helper()
	k.cleanedUp()
	leases := map[string]string{}
	for _, suffix := range []string{".2", ""} {
		for _, row := range k.rows(suffix) {
			delete(leases, row[0])
			if valid, state := row[3], row[9]; valid != "0" && state == "0" {
				leases[row[0]] = row[1]
			}
		}
	}
	return leases
}

// rows returns those of the file or of one beside it, none if it is not there.
func (k *keaServer) rows(suffix string) [][]string {
	k.t.Helper()
	f, err := os.Open(k.file + suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil // being written
	}
	return rows[1:]
}
