package main

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/auditcmd"

	_ "github.com/mattn/go-sqlite3"
)

// A daemon whose books are tampered with finds it by itself, says so in each
// way that it has, names the row, and takes it back once it is mended.
func TestADaemonFindsAPlantedImbalance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	cfg := setup{data: filepath.Join(dir, "data"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0", spool: ", audit: 1s"}
	d := start(t, cfg)
	s := captureStream(t)
	s.send(t, d.tcp(), len(s.messages))
	octets, _ := captureOctets(t)
	waitBooks(t, d.data, func(b sums) bool { return b.Received.Octets == octets })
	d.waitMetric("books_balanced", atLeast(1))
	if index := d.get("/"); !strings.Contains(index, "/livez") || !strings.Contains(index, "/readyz") || !strings.Contains(index, "/metrics") {
		t.Errorf("/ says %q", index)
	}
	if why := d.unready(); why != "" {
		t.Errorf("not ready: %s", why)
	}

	tamper := func(set string) {
		t.Helper()
		db, err := sql.Open("sqlite3", filepath.Join(d.data, "state.db")+"?_busy_timeout=10000")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("UPDATE ledger SET " + set); err != nil {
			t.Fatal(err)
		}
	}
	notReady := func(problem string) {
		t.Helper()
		d.waitMetric("books_balanced", func(v float64) bool { return v == 0 })
		if why := d.unready(); !strings.Contains(why, "the books do not balance: exporter") {
			t.Errorf("ready, but for %q", why)
		}
		_, stderr, status := cli(t, "audit", "--data", d.data)
		if status != 1 || !strings.Contains(stderr, `exporter "127.0.0.1" domain 1 interval`) || !strings.Contains(stderr, problem) {
			t.Errorf("audit ends with %d and says %q", status, stderr)
		}
	}
	// Who changes an amount alone is betrayed by the row's checksum.
	tamper("duplicate_octets = duplicate_octets + 1")
	d.waitLog(`level=ERROR msg="the books do not balance" problem="exporter \\"127.0.0.1\\" domain 1 interval \S+ its row of the ledger: damaged`)
	notReady("its row of the ledger: damaged")
	tamper("duplicate_octets = duplicate_octets - 1")
	d.waitLog(`msg="the books balance again"`)
	d.waitMetric("books_balanced", atLeast(1))

	// A row without one, as earlier versions wrote them, by the sums.
	tamper("duplicate_octets = duplicate_octets + 1, sum = NULL")
	d.waitLog(`level=ERROR msg="the books do not balance" problem="exporter \\"127.0.0.1\\" domain 1 interval \S+ octets: received \+ mirrored are`)
	notReady("octets: received + mirrored are")
	if _, _, status := cli(t, "audit", "--data", d.data, "--exporter", "another"); status != 0 {
		t.Errorf("audit of another exporter ends with %d", status)
	}
	tamper("duplicate_octets = duplicate_octets - 1")
	d.waitMetric("books_balanced", atLeast(1))

	// What the rows of the ledger gave to a user is what the user is billed.
	var parts []auditcmd.Part
	show(t, &parts, "audit", "--user", "alice", "--data", d.data)
	var sum uint64
	for _, p := range parts {
		sum += p.Octets
	}
	want := captureTruth(t)["alice"]
	if sum == 0 || sum != want.InputOctets+want.OutputOctets {
		t.Errorf("audit --user comes to %d octets, tshark counted %d", sum, want.InputOctets+want.OutputOctets)
	}

	// And each record comes from flows that are still in the journal.
	for _, p := range parts {
		var from auditcmd.Origin
		show(t, &from, "audit", "record", p.SessionID, fmt.Sprint(p.Number), "--data", d.data)
		if len(from.Differs) > 0 || !from.Whole || from.Found != from.Increment || len(from.Flows) == 0 {
			t.Errorf("record %s/%d of %+v comes from %d flows of %+v: %v", p.SessionID, p.Number, from.Increment, len(from.Flows), from.Found, from.Differs)
		}
	}
	d.stop()

	// After a restart the journal can be read from there on too. The exporter
	// sends all again, of which the books have nothing new, but an auditor that
	// begins at the restart could not tell.
	d = start(t, cfg)
	s.send(t, d.tcp(), len(s.messages))
	waitBooks(t, d.data, func(b sums) bool { return b.Duplicate.Octets >= octets })
	last := parts[len(parts)-1]
	var from auditcmd.Origin
	show(t, &from, "audit", "record", last.SessionID, fmt.Sprint(last.Number), "--data", d.data)
	if len(from.Differs) > 0 {
		t.Errorf("after a restart: %v", from.Differs)
	}
	d.stop()
}

// unready returns why /readyz says 503, "" for 200.
func (d *daemon) unready() string {
	d.t.Helper()
	r, err := http.Get("http://" + d.address("status.listen") + "/readyz")
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if r.StatusCode == http.StatusOK {
		return ""
	}
	return string(body)
}
