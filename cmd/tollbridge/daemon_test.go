package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/spool"
)

// patience bounds every wait for a daemon. What is waited for takes moments;
// a loaded machine may take long over it.
const patience = time.Minute

// lookEvery is the time between two looks at what a daemon has on its disk.
const lookEvery = 100 * time.Millisecond

// A setup is a configuration file in the making. Zero fields stay out of it.
type setup struct {
	data     string   // required
	file     string   // configuration that is written already, in place of all that follows
	udp, tcp string   // addresses to collect on
	collect  string   // more of collectingProcess, as YAML that begins with a comma
	users    string   // file
	mode     string   // of accounting
	peers    []string // delivery.peers, as YAML flow mappings
	realm    string   // destination
	server   string   // address
	origin   string   // Origin-Host of the bridge; "" means bridge.isp.example
	timeout  string   // of delivery; "" means 2s
	sources  string   // further keys of users, as "key: value"
	extra    string   // lines of YAML, keys that are none of the above's
	spool    string   // further keys of spool, as ", key: value"
	archive  string   // directory; "" for no archive
	counting string   // further keys of accounting, as ", key: value"
	delivery string   // further keys of delivery, likewise
	serving  string   // further keys of server, likewise
}

// write writes the configuration beside the state directory and returns the
// file's name.
func (s setup) write(t *testing.T) string {
	t.Helper()
	if s.file != "" {
		return s.file
	}
	var b strings.Builder
	list := func(item string) string {
		if item == "" {
			return "[]"
		}
		return "[" + strconv.Quote(item) + "]"
	}
	fmt.Fprintf(&b, "data: %s\n", s.data)
	fmt.Fprintf(&b, "identity: {originHost: %s, originRealm: isp.example}\n", cmp.Or(s.origin, "bridge.isp.example"))
	fmt.Fprintf(&b, "collectingProcess: {udpCollectors: %s, tcpCollectors: %s%s}\n", list(s.udp), list(s.tcp), s.collect)
	fmt.Fprintf(&b, "users: {files: %s, reload: 100ms", list(s.users))
	if s.sources != "" {
		b.WriteString(", " + s.sources)
	}
	b.WriteString("}\n")
	fmt.Fprintf(&b, "accounting: {mode: %s, interimInterval: 1s, linger: 1500ms%s}\n", cmp.Or(s.mode, "asm"), s.counting)
	fmt.Fprintf(&b, "delivery: {destinationRealm: %s, peers: %s, timeout: %s, reconnect: 200ms%s}\n",
		cmp.Or(s.realm, "aaa.example"), "["+strings.Join(s.peers, ", ")+"]", cmp.Or(s.timeout, "2s"), s.delivery)
	fmt.Fprintf(&b, "server: {listen: %s, originHost: server.aaa.example%s}\n", list(s.server), s.serving)
	fmt.Fprintf(&b, "spool: {checkpoint: 100ms%s}\nstatus: {listen: 127.0.0.1:0}\nlog: {level: debug}\n", s.spool)
	b.WriteString(s.extra)
	if s.archive != "" {
		fmt.Fprintf(&b, "archive: {dir: %q, interval: 1s}\n", s.archive)
	}
	file := s.data + ".yaml"
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// peerAt is a peer of a setup.
func peerAt(address, host string) string {
	return fmt.Sprintf("{address: %q, host: %q}", address, host)
}

// A daemon is a "tollbridge serve" of its own process.
type daemon struct {
	*process // whose lines are its log
	data     string
}

// start starts the daemon and waits until it listens. Its process does not
// outlive the test.
func start(t *testing.T, s setup, env ...string) *daemon {
	t.Helper()
	d := launch(t, plainProgram, s, env...)
	d.waitLog(`msg=started`)
	return d
}

// launch starts the daemon of one of the programs, which may well refuse.
func launch(t *testing.T, program func() (string, error), s setup, env ...string) *daemon {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file, "serve", "-c", s.write(t))
	cmd.Env = append(os.Environ(), env...)
	return runDaemon(t, s.data, cmd)
}

// runDaemon starts cmd, a daemon with its state in data.
func runDaemon(t *testing.T, data string, cmd *exec.Cmd) *daemon {
	t.Helper()
	return &daemon{runProcess(t, filepath.Base(data), cmd, cmd.StderrPipe), data}
}

// waitLog waits for a line of the daemon's log and returns the submatches.
func (d *daemon) waitLog(pattern string) []string {
	d.t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	match := d.lines.wait(ctx, re)
	if match == nil {
		d.t.Fatalf("%s never said %q:\n%s", d.name, pattern, d.lines.tail(30))
	}
	return match
}

// address returns what the daemon listens on for a key of the configuration.
func (d *daemon) address(key string) string {
	d.t.Helper()
	return d.waitLog(`msg=listening what=` + regexp.QuoteMeta(key) + ` address=(\S+)`)[1]
}

func (d *daemon) udp() string    { return d.address("collectingProcess.udpCollectors") }
func (d *daemon) tcp() string    { return d.address("collectingProcess.tcpCollectors") }
func (d *daemon) server() string { return d.address("server.listen") }

// stop asks the daemon to end, which it does with status 0.
func (d *daemon) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.wait()
	if d.err != nil {
		d.t.Fatalf("%s ended with %v:\n%s", d.name, d.err, d.lines.tail(30))
	}
}

// refuses waits until a daemon that can't start has said why, with status 1.
func (d *daemon) refuses(pattern string) {
	d.t.Helper()
	d.wait()
	if code := d.cmd.ProcessState.ExitCode(); code != 1 {
		d.t.Errorf("exit status %d", code)
	}
	d.waitLog(pattern)
}

// get returns what is at a path of the status address.
func (d *daemon) get(path string) string {
	d.t.Helper()
	r, err := http.Get("http://" + d.address("status.listen") + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		d.t.Fatalf("%s: %s, %v", path, r.Status, err)
	}
	return string(body)
}

// metric returns a value of /metrics, 0 where it has none; name holds the
// labels.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	for line := range strings.Lines(d.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, "tollbridge_"+name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// waitMetric waits until a metric is what it should be.
func (d *daemon) waitMetric(name string, is func(float64) bool) {
	d.t.Helper()
	var v float64
	if !until(d.t, func() bool { v = d.metric(name); return is(v) }) {
		d.t.Fatalf("%s stays %v", name, v)
	}
}

func atLeast(n float64) func(float64) bool { return func(v float64) bool { return v >= n } }

// until asks is again and again until it says yes, and gives up at last.
func until(t *testing.T, is func() bool) bool {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
		}
	}
	return true
}

// cli runs a command of the plain program and returns what it printed.
func cli(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	file, err := plainProgram()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// show runs a listing as JSON into v.
func show(t *testing.T, v any, args ...string) {
	t.Helper()
	out, errOut, _ := cli(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("tollbridge %s: %v\n%s", strings.Join(args, " "), err, errOut)
	}
}

// sums are the total of the books as audit prints them, as far as the tests
// look at it.
type sums struct {
	Received, Mirrored, Accounted, Duplicate, Suspended, Rejected, Skipped acct.Count
	Open, Pending, Acknowledged, Quarantined                               acct.Count
	Lost                                                                   struct {
		Records    uint64
		Confidence string
	}
}

// storedCDRs returns the CDRs of a state directory, of which there are some.
func storedCDRs(t *testing.T, data string) []spool.StoredCDR {
	t.Helper()
	cdrs, err := spool.OpenCDRsReadOnly(data)
	if err != nil {
		t.Fatal(err)
	}
	defer cdrs.Close()
	list, err := cdrs.List(t.Context(), spool.CDRFilter{})
	if err != nil || len(list) == 0 {
		t.Fatalf("%d CDRs (%v)", len(list), err)
	}
	return list
}

// audit returns the books of a state directory, which balance at any moment.
func audit(t *testing.T, data string) sums {
	t.Helper()
	var books struct {
		Balanced bool
		Problems []string
		Total    sums
	}
	show(t, &books, "audit", "--data", data)
	if !books.Balanced {
		t.Fatalf("the books do not balance: %v", books.Problems)
	}
	return books.Total
}

// waitBooks waits until the books are as they should be and nothing is open
// or pending.
func waitBooks(t *testing.T, data string, are func(sums) bool) sums {
	t.Helper()
	var s sums
	if !until(t, func() bool { s = audit(t, data); return are(s) && s.Open.IsZero() && s.Pending.IsZero() }) {
		t.Fatalf("the books stay %+v", s)
	}
	return s
}

// waitEnd waits until all that was received has been delivered, and a daemon
// that is stopped then cuts no more records. It returns the books.
func waitEnd(t *testing.T, data string) sums {
	t.Helper()
	if !until(t, func() bool { return ended(t, data) }) {
		t.Fatal("sessions do not end, or records stay pending")
	}
	return waitBooks(t, data, func(sums) bool { return true })
}

// ended reports whether all sessions that are in the spool have stopped and no
// record is pending. Metrics do not tell that: they run ahead of the checkpoint
// that puts the records into the outbox. The last may add nothing to the books.
func ended(t *testing.T, data string) bool {
	t.Helper()
	var sessions []struct{ Stopped time.Time }
	show(t, &sessions, "spool", "sessions", "--limit", "0", "--data", data)
	for _, s := range sessions {
		if s.Stopped.IsZero() {
			return false
		}
	}
	var stats struct{ Records map[string]int }
	show(t, &stats, "spool", "stats", "--data", data)
	return stats.Records["pending"] == 0
}

// A charge is an accounting record as an AAA server has stored it.
type charge struct {
	SessionID string `json:"session_id"`
	Number    uint32 `json:"number"`
	Type      string `json:"type"`
	User      string `json:"user"`
	acct.Usage
	flow []byte // AVPs of the flow, of an EVENT_RECORD that Erlang has received
}

// charges are those of our own accounting application. None contradicts
// another, and none is there twice.
func charges(t *testing.T, data string) []charge {
	t.Helper()
	var conflicts, all []charge
	show(t, &conflicts, "spool", "cdrs", "--conflicts", "--data", data)
	if len(conflicts) > 0 {
		t.Errorf("%d CDRs contradict others, the first %+v", len(conflicts), conflicts[0])
	}
	show(t, &all, "spool", "cdrs", "--limit", "0", "--data", data)
	type key struct {
		session string
		number  uint32
	}
	seen := map[key]bool{}
	for _, c := range all {
		k := key{c.SessionID, c.Number}
		if seen[k] {
			t.Errorf("%+v is stored twice", k)
		}
		seen[k] = true
	}
	return all
}

// bill is what each user's charges come to. Records of a session are
// cumulative, so the one with the highest number counts; an EVENT_RECORD has
// its own usage.
func bill(all []charge) map[string]acct.Usage {
	last := map[string]charge{}
	users := map[string]acct.Usage{}
	for _, c := range all {
		if c.Type == "EVENT" {
			users[c.User] = users[c.User].Plus(c.Usage)
		} else if l, ok := last[c.SessionID]; !ok || c.Number > l.Number {
			last[c.SessionID] = c
		}
	}
	for _, c := range last {
		users[c.User] = users[c.User].Plus(c.Usage)
	}
	return users
}

// checkBill compares a bill with what tshark counted in the bundled capture.
func checkBill(t *testing.T, got map[string]acct.Usage) {
	t.Helper()
	truth := captureTruth(t)
	for user, want := range truth {
		if user != nobody && got[user] != want {
			t.Errorf("%s is billed %+v, but tshark counted %+v", user, got[user], want)
		}
	}
	for user := range got {
		if _, known := truth[user]; !known {
			t.Errorf("%q is billed %+v, but the capture has nothing of that user", user, got[user])
		}
	}
}

func captureTruth(t *testing.T) map[string]acct.Usage {
	t.Helper()
	truth, err := parseTruth(demodata.Truth)
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

// captureOctets are those of all packets of the capture, each once, as the
// tshark command of demodata/truth.sh has them, and how many are nobody's.
func captureOctets(t *testing.T) (octets, nobodys uint64) {
	t.Helper()
	nobodys = captureTruth(t)[nobody].InputOctets
	return 6363670, nobodys
}

// files writes the bundled capture and users file into dir.
func files(t *testing.T, dir string) (capture, users string) {
	t.Helper()
	capture, users = filepath.Join(dir, "capture.pcap"), filepath.Join(dir, "users.csv")
	for name, content := range map[string][]byte{capture: demodata.Capture, users: demodata.Users} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return capture, users
}
