package main

import (
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/auditcmd"
)

// An operator decides about flows in suspense while the daemon runs; without
// one nothing is decided.
func TestDecide(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(users, []byte("prefix,user,from,until\n192.0.2.1,ann,,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", users: users, server: "127.0.0.1:0"}
	d := start(t, s)
	sendFlows(t, d.udp(), 2, agedFlow{0, 100}, agedFlow{3 * time.Hour, 100}, agedFlow{4 * time.Hour, 100}) // the last two are below the floor
	waitBooks(t, s.data, func(b sums) bool {
		return b.Accounted.Octets == 100 && b.Suspended.Octets == 200 && b.Duplicate.Octets == 300
	})
	var duplicates []auditcmd.Duplicate
	show(t, &duplicates, "audit", "--duplicates", "--data", s.data)
	for i, want := range []string{"same record", "same message", "same message"} {
		if len(duplicates) != 3 || duplicates[i].Why != want || duplicates[i].Record != i || duplicates[i].Count.Octets != 100 {
			t.Fatalf("duplicates %+v", duplicates)
		}
	}
	if d := duplicates[0]; d.TwinPosition == 0 || d.TwinPosition >= d.Position || d.TwinRecord != 0 {
		t.Errorf("the twin of %+v", d)
	}

	out, errOut, status := cli(t, "spool", "release", "1", "--because", "checked", "--data", s.data)
	if status != 0 || out != "release flows 1: 1 records, 100 octets, 0 packets\n" {
		t.Errorf("release: status %d, %q %q", status, out, errOut)
	}
	waitBooks(t, s.data, func(b sums) bool { return b.Accounted.Octets == 200 && b.Suspended.Octets == 100 })
	if out, errOut, status = cli(t, "spool", "reject", "--for", "below floor", "--because", "a lab", "--data", s.data); status != 0 {
		t.Errorf("reject: status %d, %q %q", status, out, errOut)
	}
	waitBooks(t, s.data, func(b sums) bool { return b.Rejected.Octets == 100 && b.Suspended.IsZero() })
	var decisions []struct{ By, What, On, Because string }
	show(t, &decisions, "spool", "decisions", "--data", s.data)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if len(decisions) != 2 || decisions[1].What != "reject" || decisions[1].On != "below floor" || decisions[1].Because != "a lab" || decisions[1].By != me.Username {
		t.Errorf("decisions %+v", decisions)
	}

	// The user is credited with the first record's octets, and somebody else is
	// charged for them. What was delivered stays as it was.
	var records []struct {
		ID       uint64 `json:"id"`
		User     string `json:"user"`
		Octets   uint64 `json:"input_octets"`
		Corrects *struct{ Credit bool }
	}
	show(t, &records, "spool", "ls", "--data", s.data)
	wrong := records[len(records)-1]
	id := strconv.FormatUint(wrong.ID, 10)
	if out, errOut, status = cli(t, "spool", "adjust", id, "--credit", "--input-octets", "60", "--to", "bob", "--to-class", "gold", "--because", "late", "--data", s.data); status != 0 {
		t.Errorf("adjust: status %d, %q %q", status, out, errOut)
	}
	waitBooks(t, s.data, func(b sums) bool { return b.Accounted.Octets == 200 })
	var cdrs []struct {
		User     string `json:"user"`
		Octets   uint64 `json:"input_octets"`
		Corrects *struct{ Credit bool }
	}
	if !until(t, func() bool {
		cdrs = nil
		show(t, &cdrs, "spool", "cdrs", "--limit", "0", "--data", s.data)
		return len(cdrs) > 1 && cdrs[len(cdrs)-2].Corrects != nil && cdrs[len(cdrs)-1].Corrects != nil
	}) {
		t.Fatalf("the corrections do not arrive: %+v", cdrs)
	}
	credit, debit := cdrs[len(cdrs)-2], cdrs[len(cdrs)-1]
	if debit.Corrects.Credit {
		credit, debit = debit, credit
	}
	if credit.User != "ann" || !credit.Corrects.Credit || credit.Octets != 60 || debit.User != "bob" || debit.Corrects.Credit || debit.Octets != 60 {
		t.Errorf("credit %+v, debit %+v", credit, debit)
	}
	var shown []struct {
		User     string
		Classes  []acct.ClassUsage
		Corrects *acct.Correction
	}
	show(t, &shown, "spool", "show", strconv.FormatUint(wrong.ID+2, 10), "--data", s.data)
	if len(shown) != 1 || shown[0].User != "bob" || len(shown[0].Classes) != 1 || shown[0].Classes[0].Class != "gold" {
		t.Errorf("rated anew: %+v", shown)
	}
	// What was charged as of a class is rated anew: the same user, another class.
	if out, errOut, status = cli(t, "spool", "adjust", strconv.FormatUint(wrong.ID+2, 10), "--credit", "--all", "--class", "gold", "--to-class", "standard", "--because", "gold had ended", "--data", s.data); status != 0 {
		t.Errorf("adjust: status %d, %q %q", status, out, errOut)
	}
	if !until(t, func() bool {
		records = nil
		show(t, &records, "spool", "ls", "--data", s.data)
		return records[len(records)-1].ID == wrong.ID+4
	}) {
		t.Fatalf("the re-rating makes no records: %+v", records)
	}
	for id, want := range map[uint64]string{wrong.ID + 3: "gold", wrong.ID + 4: "standard"} {
		shown = nil
		show(t, &shown, "spool", "show", strconv.FormatUint(id, 10), "--data", s.data)
		if len(shown) != 1 || shown[0].User != "bob" || len(shown[0].Classes) != 1 || shown[0].Classes[0].Class != want || shown[0].Classes[0].InputOctets != 60 ||
			shown[0].Corrects == nil || shown[0].Corrects.Credit != (want == "gold") || shown[0].Corrects.Reason != "gold had ended" {
			t.Errorf("record %d of the re-rating, of class %s: %+v", id, want, shown)
		}
	}

	// Whoever audits a user sees what was corrected and why, and what is left.
	for user, left := range map[string]string{"ann": ",140,", "bob": ",60,"} {
		out, _, _ := cli(t, "audit", "--user", user, "--data", s.data, "-o", "csv")
		rows := strings.Split(strings.TrimSpace(out), "\n")
		if last := rows[len(rows)-1]; !strings.HasPrefix(last, "total,") || !strings.Contains(last, left) {
			t.Errorf("%s's total is %q, want%s", user, last, left)
		}
		if !regexp.MustCompile(`,EVENT (credit|debit),.*;\d+/\d+: late`).MatchString(out) {
			t.Errorf("the correction of %s does not say what it corrects:\n%s", user, out)
		}
	}
	for want, args := range map[string][]string{
		"more than that":  {"spool", "adjust", id, "--credit", "--input-octets", "1000", "--because", "why"},
		"no longer has":   {"spool", "adjust", "a;1;2", "3", "--credit", "--input-octets", "1", "--because", "why"},
		"of class":        {"spool", "adjust", id, "--credit", "--all", "--class", "gold", "--because", "why"},
		"want --all":      {"spool", "adjust", id, "--credit", "--because", "why"},
		"flows: want IDs": {"spool", "release", "--because", "why"},
		"required flag":   {"spool", "release", "1"},
		"is not an ID":    {"spool", "reject", "one", "--because", "why"},
	} {
		if _, errOut, status := cli(t, append(args, "--data", s.data)...); status != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%v: status %d, %q, want it to say %q", args, status, errOut, want)
		}
	}
	d.stop()
	if _, errOut, status := cli(t, "spool", "release", "1", "--because", "why", "--data", s.data); status != 1 || !strings.Contains(errOut, "no daemon is running") {
		t.Errorf("without a daemon: status %d, %q", status, errOut)
	}
	audit(t, s.data)
}
