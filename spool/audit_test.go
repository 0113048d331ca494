package spool

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollbridge/asm/acct"
)

// bookkeeping returns a spool in which everything that can be booked is booked, and
// balances.
func bookkeeping(tb testing.TB) *Spool {
	tb.Helper()
	s := open(tb, tb.TempDir(), Config{})
	k := key(noon.Unix())
	interim := func(session int, n uint64) acct.Record { return record(sessionID(session), 1, acct.Interim, count(n)) }
	mustCommit(tb, s, acct.Batch{
		Position: 1,
		Records:  []acct.Record{interim(1, 10), interim(2, 20), interim(3, 5)},
		Sessions: []acct.SessionState{{ID: 1, Open: []acct.Share{{LedgerKey: k, Count: count(25)}}}},
		Ledger: []acct.LedgerRow{{LedgerKey: k, Received: count(100), Mirrored: count(5), Accounted: count(60), Duplicate: count(20),
			Suspended: count(15), Resumed: count(5), Rejected: count(8), Skipped: count(7),
			UndecodedMessages: 4, UndecodedOctets: 400, DecodedMessages: 1, DecodedOctets: 100, Lost: 9, LostFound: 2,
			Estimated: count(30), Unscaled: 6, LostEstimated: 4, LostSuspect: 1}},
		Suspended: []acct.Suspended{{ID: 1, Key: k, Count: count(4)}, {ID: 2, Key: k, Count: count(6)}},
	})
	settle(tb, s, acct.Acknowledged, 1)
	settle(tb, s, acct.Quarantined, 3)
	return s
}

func TestAudit(t *testing.T) {
	s := bookkeeping(t)
	books := balanced(t, s)
	want := Sums{Received: count(100), Mirrored: count(5), Accounted: count(60), Duplicate: count(20), Suspended: count(10),
		Rejected: count(8), Skipped: count(7), Open: count(25), Pending: count(20), Acknowledged: count(10), Quarantined: count(5),
		Undecoded: Undecoded{3, 300}, Estimated: count(30), Unscaled: Unscaled{6}, Lost: Lost{Records: 7, Confidence: Suspect}}
	if books.Total != want {
		t.Errorf("total %+v\nwant %+v", books.Total, want)
	}
	if len(books.Rows) != 1 || books.Rows[0].Sums != want || books.Rows[0].Exporter != "exporter-1" || books.Rows[0].Domain != 7 {
		t.Errorf("rows %+v", books.Rows)
	}
	text, err := json.Marshal(books)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Balanced bool
		Total    map[string]map[string]any
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Balanced || got.Total["quarantined"]["octets"] != 5000.0 || got.Total["estimated"]["octets"] != 30000.0 ||
		got.Total["undecoded"]["messages"] != 3.0 || got.Total["lost"]["records"] != 7.0 || got.Total["lost"]["confidence"] != "suspect" {
		t.Errorf("JSON %s", text)
	}
}

func TestAuditFinds(t *testing.T) {
	row := `exporter "exporter-1" domain 7 interval 2026-11-22T12:00:00Z: `
	for _, tt := range []struct {
		name    string
		spoil   string
		problem string
	}{
		{"received that went nowhere", "UPDATE ledger SET received_octets = received_octets + 1",
			row + "octets: received + mirrored are 105001, accounted + duplicate + suspended + rejected + skipped are 105000"},
		{"accounted that nobody received", "UPDATE ledger SET accounted_packets = accounted_packets + 2",
			row + "packets: accounted are 182, open + pending + acknowledged + quarantined are 180"},
		{"a lost outbox page", "DELETE FROM record_page",
			row + "octets: accounted are 60000, open + pending + acknowledged + quarantined are 35000"},
		{"a lost session", "DELETE FROM session",
			row + "records: accounted are 60, open + pending + acknowledged + quarantined are 35"},
		{"a lost suspended record", "DELETE FROM suspended WHERE id = 1",
			row + "records: suspended less resumed in the ledger are 10, those in suspense are 6"},
		{"a settlement without its ledger", "INSERT INTO settled VALUES (2, 2, 1, 2001, '', '', 0, NULL)",
			row + "records: accounted are 60, open + pending + acknowledged + quarantined are 40"},
		{"a ledger without its settlement", "DELETE FROM settled WHERE last = 1",
			row + "records: accounted are 60, open + pending + acknowledged + quarantined are 70"},
		{"a lost ledger row", "DELETE FROM ledger",
			row + "the ledger has no such row, but sessions, suspense or records name it"},
		{"more decoded than undecoded", "UPDATE ledger SET decoded_messages = 5",
			row + "messages decoded late exceed those undecoded: 5 of 4"},
		{"more found than lost", "UPDATE ledger SET lost_found = 10",
			row + "records found late exceed those lost: 10 of 9"},
		{"more estimated than accounted", "UPDATE ledger SET estimated_octets = 60001",
			row + "octets estimated exceed those accounted: 60001 of 60000"},
		{"damage that balances", "UPDATE ledger SET received_octets = received_octets + 1, rejected_octets = rejected_octets + 1",
			row + "its row of the ledger: damaged"},
		{"damage of what balances nothing", "UPDATE ledger SET lost = lost + 1",
			row + "its row of the ledger: damaged"},
		{"a row that became another's", "UPDATE ledger SET exporter = 'exporter-2'",
			strings.Replace(row, "exporter-1", "exporter-2", 1) + "its row of the ledger: damaged"},
		{"a settlement that says more than was answered", "UPDATE settled SET first = first - 1 WHERE last = 1",
			"what became of records 0 to 1, as it stands acknowledged by \"aaa.example.net\" with 5001: damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := bookkeeping(t)
			execute(t, s.w.file, tt.spoil)
			books, err := s.Audit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if books.Balanced || !slices.Contains(books.Problems, tt.problem) {
				t.Errorf("balanced is %v; problems\n%s\nwant\n%s", books.Balanced, strings.Join(books.Problems, "\n"), tt.problem)
			}
		})
	}
}

// TestAuditErrorsCancel plants errors in two rows whose totals agree.
func TestAuditErrorsCancel(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	mustCommit(t, s, acct.Batch{Position: 1, Ledger: []acct.LedgerRow{
		{LedgerKey: key(0), Received: count(2), Duplicate: count(1)},
		{LedgerKey: key(300), Received: count(1), Duplicate: count(2)},
	}})
	books, err := s.Audit(t.Context())
	if err != nil || books.Balanced || books.Total.Received != books.Total.Duplicate {
		t.Errorf("balanced is %v with %v, %v", books.Balanced, books.Problems, err)
	}
}

func TestStats(t *testing.T) {
	s := bookkeeping(t)
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Sessions != 1 || st.Suspended != 2 || st.Checkpoint != 1 || st.Records["pending"] != 1 || st.Records["acknowledged"] != 1 ||
		st.Records["quarantined"] != 1 || st.Octets.State == 0 || st.Octets.Journal == 0 || st.First != 1 || st.Last != 0 {
		t.Errorf("%+v", st)
	}
}

// The first schema had no columns for estimates: they are zero in what it
// stored.
func TestAuditAfterMigration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.db")
	execute(t, file, stateSchema.steps[0])
	execute(t, file, fmt.Sprintf("PRAGMA application_id = %d", stateSchema.id))
	execute(t, file, "PRAGMA user_version = 1")
	execute(t, file, "INSERT INTO ledger (exporter, domain, interval, received_records, rejected_records, lost) VALUES ('a', 1, 60, 2, 2, 3)")
	books := balanced(t, open(t, dir, Config{}))
	want := Sums{Received: acct.Count{Records: 2}, Rejected: acct.Count{Records: 2}, Lost: Lost{Records: 3}}
	if books.Total != want {
		t.Errorf("total %+v, want %+v", books.Total, want)
	}
}

// Books can be read back from what the command prints.
func TestConfidenceRoundTrip(t *testing.T) {
	for want := Exact; want <= Unknown; want++ {
		b, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Confidence
		if err := got.UnmarshalText(b); err != nil || got != want {
			t.Errorf("%s is read back as %v (%v)", b, got, err)
		}
	}
	var c Confidence
	if err := c.UnmarshalText([]byte("sure")); err == nil {
		t.Error("an unknown word is read")
	}
}
