package auditcmd

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// run runs the command and returns what it prints.
func run(t *testing.T, args ...string) (string, error) {
	var out strings.Builder
	cmd := New()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetOut(&out)
	cmd.SetErr(t.Output())
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// Audit shows the rows that it is asked for, in each format, of all or of one
// user's records.
func TestAuditSelects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	b := acct.Batch{Position: 1, Needed: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}}
	var shares []acct.Share
	for _, exporter := range []string{"edge-1", "edge-2"} {
		for i := range 3 {
			k := acct.LedgerKey{Exporter: exporter, Domain: uint32(i), Interval: noon.Add(time.Duration(i) * 5 * time.Minute).Unix()}
			n := acct.Count{Records: 1, Octets: 100, Packets: 2}
			b.Ledger = append(b.Ledger, acct.LedgerRow{LedgerKey: k, Received: n, Accounted: n})
			shares = append(shares, acct.Share{LedgerKey: k, Count: n})
		}
	}
	b.Records = []acct.Record{{SessionID: "a;1;1", Type: acct.Event, User: "alice", Shares: shares[:4]}, {SessionID: "a;1;2", Type: acct.Event, User: "bob", Shares: shares[4:]}}
	if err := errors.Join(s.Commit(t.Context(), b), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args, want string // "exporter/minute ..."
	}{
		{"", "edge-1/0 edge-1/5 edge-1/10 edge-2/0 edge-2/5 edge-2/10"},
		{"--since 2026-11-22T12:05:00Z", "edge-1/5 edge-1/10 edge-2/5 edge-2/10"},
		{"--since 2026-11-22T12:05:01Z", "edge-1/10 edge-2/10"},
		{"--until 2026-11-22T12:05:00Z", "edge-1/0 edge-2/0"},
		{"--since 2026-11-22T13:05:00+01:00 --until 2026-11-22T12:10:00Z --exporter edge-2", "edge-2/5"},
		{"--since 2026-11-22", "edge-1/0 edge-1/5 edge-1/10 edge-2/0 edge-2/5 edge-2/10"},
		{"--until 2026-11-22", ""},
		{"--exporter edge-3", ""},
		{"--user alice", "edge-1/0 edge-1/5 edge-1/10 edge-2/0"},
		{"--user alice --exporter edge-1 --since 2026-11-22T12:05:00Z", "edge-1/5 edge-1/10"},
		{"--user bob --until 2026-11-22T12:10:00Z", "edge-2/5"},
		{"--user carol", ""},
	} {
		t.Run(row.args, func(t *testing.T) {
			args := append([]string{"--data", dir}, strings.Fields(row.args)...)
			var want [][2]string
			for _, f := range strings.Fields(row.want) {
				exporter, minute, _ := strings.Cut(f, "/")
				want = append(want, [2]string{exporter, fmt.Sprintf("2026-11-22T12:%02s:00Z", minute)})
			}
			out, failed := run(t, append(args, "-o", "csv")...)
			lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
			if failed != nil || err != nil || len(lines) != len(want)+2 { // a head, and the total
				t.Fatalf("%v, %v: %s", failed, err, out)
			}
			for i, w := range want {
				if got := lines[i+1]; got[0] != w[0] || got[2] != w[1] {
					t.Errorf("row %d is %v, want %v", i, got, w)
				}
			}
			total := lines[len(lines)-1]
			octets := 4 // of the books: the second column of the first amount
			if strings.Contains(row.args, "--user") {
				octets = 5
			}
			if total[0] != "total" || total[octets] != fmt.Sprint(100*len(want)) {
				t.Errorf("the total is %v", total)
			}
			if table, err := run(t, args...); err != nil || strings.Count(table, "2026-11-22T12:") != len(want) {
				t.Errorf("as a table, %v:\n%s", err, table)
			}
			if text, err := run(t, append(args, "-o", "json")...); err != nil || strings.Count(text, `"interval": "2026-11-22T12:`) != len(want) {
				t.Errorf("as JSON, %v:\n%s", err, text)
			}
		})
	}
	for args, says := range map[string]string{
		"--since yesterday":         "is not a time",
		"--duplicates --user alice": "none of the others can be",
		"-o xml":                    "xml",
	} {
		if _, err := run(t, append([]string{"--data", dir}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to say %q", args, err, says)
		}
	}
}
