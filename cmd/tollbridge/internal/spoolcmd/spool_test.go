package spoolcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// A refused record goes out again when an operator says so, and only then.
func TestSpoolRequeue(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	record := acct.Record{SessionID: "bridge.isp.example;1;1", Type: acct.Event, User: "alice", Event: time.UnixMilli(1000).UTC()}
	if err := s.Commit(ctx, acct.Batch{Position: 1, Needed: 2, Time: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}, Records: []acct.Record{record}}); err != nil {
		t.Fatal(err)
	}
	refused := acct.Settlement{ID: 1, State: acct.Quarantined, Result: 5004, Peer: "aaa.isp.example", Reason: "why", At: time.UnixMilli(2000)}
	if err := s.Outbox().Settle(ctx, []acct.Settlement{refused}); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) (string, error) {
		var out strings.Builder
		root := New()
		root.SetOut(&out)
		root.SetArgs(append([]string{"requeue", "--data", dir}, args...))
		err := root.ExecuteContext(ctx)
		return out.String(), err
	}
	if _, err := command("1"); err == nil || !strings.Contains(err.Error(), "stop the daemon first") {
		t.Errorf("beside a daemon: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := command("one"); err == nil || !strings.Contains(err.Error(), `"one" is not an ID`) {
		t.Errorf("no ID: %v", err)
	}
	out, err := command("1")
	if err != nil || out != "1 is pending again as 2\n" {
		t.Errorf("said %q (%v)", out, err)
	}
	if _, err := command("2"); err == nil {
		t.Error("a record that is pending was requeued")
	}
	if s, err = spool.Open(dir, spool.Config{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pending, err := s.Outbox().Pending(ctx, 0, 10)
	if err != nil || len(pending) != 1 || pending[0].ID != 2 || pending[0].Record.SessionID != record.SessionID {
		t.Errorf("pending %+v (%v)", pending, err)
	}
}

// An export has each accounting record once, whatever has become of it and
// however many there are, with all that is known of it, and they come to what
// the books have as accounted.
func TestSpoolExport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	const n = 2500 // more than two pages of the export
	row := acct.LedgerRow{LedgerKey: acct.LedgerKey{Exporter: "edge", Domain: 1, Interval: 60}}
	b := acct.Batch{Position: 1, Needed: 2, Time: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}}
	for i := range uint32(n) {
		c := acct.Count{Records: 1, Octets: uint64(i), Packets: 2}
		row.Received, row.Accounted = row.Received.Plus(c), row.Accounted.Plus(c)
		b.Records = append(b.Records, acct.Record{SessionID: "bridge.isp.example;1;1", Number: i, Type: acct.Event, User: "alice", Usage: acct.Usage{InputOctets: uint64(i)}, Shares: []acct.Share{{LedgerKey: row.LedgerKey, Count: c}}})
	}
	b.Records[7].Corrects = &acct.Correction{SessionID: "bridge.isp.example;1;1", Number: 3, Credit: true, Reason: "twice"}
	b.Ledger = []acct.LedgerRow{row}
	err = s.Commit(ctx, b)
	if err == nil {
		err = s.Outbox().Settle(ctx, []acct.Settlement{
			{ID: 1, State: acct.Acknowledged, Result: 2001, Peer: "aaa", At: time.Unix(1, 0)},
			{ID: 2, State: acct.Quarantined, Result: 5004, Peer: "aaa", Reason: "no such AVP", At: time.Unix(1, 0)},
		})
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	root := New()
	root.SetOut(&out)
	root.SetArgs([]string{"export", "--data", dir})
	if err := root.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	var octets, lines uint64
	states := map[string]int{}
	for line := range bytes.Lines(out.Bytes()) {
		var r Detail
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if lines++; r.ID != lines {
			t.Fatalf("record %d is in line %d", r.ID, lines)
		}
		states[r.State]++
		for _, sh := range r.Shares {
			octets += sh.Octets
		}
		switch r.ID {
		case 2:
			if r.Result != 5004 || r.Reason != "no such AVP" || r.Peer != "aaa" {
				t.Errorf("the quarantined record: %s", line)
			}
		case 8:
			if r.Corrects == nil || r.Corrects.Number != 3 || !r.Corrects.Credit {
				t.Errorf("the correction: %s", line)
			}
		}
	}
	if lines != n || octets != row.Accounted.Octets || states["acknowledged"] != 1 || states["quarantined"] != 1 || states["pending"] != n-2 {
		t.Errorf("%d lines with %d octets, want %d with %d; %v", lines, octets, n, row.Accounted.Octets, states)
	}
	if s, err = spool.OpenReadOnly(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if books, err := s.Audit(ctx); err != nil || !books.Balanced || books.Total.Accounted.Octets != octets {
		t.Errorf("the books have %d octets accounted, the export %d: %v %v", books.Total.Accounted.Octets, octets, books.Problems, err)
	}
}
