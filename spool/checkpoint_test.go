package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func load(tb testing.TB, s *Spool) acct.Checkpoint {
	tb.Helper()
	cp, err := s.Load(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return cp
}

func suspendedIDs(tb testing.TB, s *Spool, after uint64) []uint64 {
	tb.Helper()
	var ids []uint64
	if err := s.EachSuspended(tb.Context(), after, func(r acct.Suspended) error {
		ids = append(ids, r.ID)
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return ids
}

func TestCheckpoint(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	cp := load(t, s)
	if cp.Position != 0 || cp.Epoch == 0 || cp.HashKey == [16]byte{} || cp.NextSuspended != 1 || cp.Sessions != nil || cp.State != nil {
		t.Errorf("a new spool has %+v", cp)
	}
	one := acct.SessionState{ID: 1, SessionID: sessionID(1), User: "alice@example.net", State: []byte("one"), Number: 3, Started: noon.Unix(),
		Usage: acct.Usage{InputOctets: math.MaxUint64, OutputOctets: 2, InputPackets: 3, OutputPackets: 4},
		Open:  []acct.Share{{LedgerKey: key(0), Count: count(1)}, {LedgerKey: key(300), Count: count(2)}}}
	two := acct.SessionState{ID: 2, SessionID: sessionID(2), State: []byte{}}
	held := acct.Suspended{ID: 5, Key: key(300), Count: count(1), Reason: "unmapped", Since: noon.UnixNano(), FlowEnd: noon.UnixMilli(),
		Source: "192.0.2.12:1", Position: 9, Flow: []byte("flow")}
	mustCommit(t, s, acct.Batch{Position: 10, Needed: 9, Time: noon.UnixNano(), Sessions: []acct.SessionState{one, two},
		Suspended: []acct.Suspended{held, {ID: 7, Key: key(300)}},
		State:     []acct.State{{Kind: "template", Key: "a", Value: []byte("1")}, {Kind: "users", Key: "b", Value: []byte{}}}})
	check := func() {
		t.Helper()
		cp := load(t, s)
		want := acct.Checkpoint{Position: 10, Time: noon.UnixNano(), Epoch: s.Meta().Epoch, HashKey: s.Meta().HashKey, NextSuspended: 8,
			Sessions: []acct.SessionState{one, two},
			State:    []acct.State{pipeline, {Kind: "template", Key: "a", Value: []byte("1")}, {Kind: "users", Key: "b", Value: []byte{}}}}
		if !reflect.DeepEqual(cp, want) {
			t.Errorf("loaded\n%+v\nwant\n%+v", cp, want)
		}
		got, err := s.Suspended(t.Context(), 0, 1)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], held) {
			t.Errorf("suspended %+v, %v\nwant %+v", got, err, held)
		}
	}
	check()
	s = reopen(t, s, Config{})
	check()
	if s.Needed() != 9 {
		t.Errorf("needed %d, want 9", s.Needed())
	}

	if err := s.Commit(t.Context(), acct.Batch{Position: 9}); err == nil || !strings.Contains(err.Error(), "after one at 10") {
		t.Errorf("a checkpoint before the last: %v", err)
	}
	mustCommit(t, s, acct.Batch{Position: 11, Sessions: []acct.SessionState{{ID: 1, Ended: true}, {ID: 2, SessionID: "changed"}},
		Released: []uint64{5}, State: []acct.State{{Kind: "template", Key: "a"}}})
	cp = load(t, s)
	if len(cp.Sessions) != 1 || cp.Sessions[0].SessionID != "changed" || len(cp.State) != 2 || cp.NextSuspended != 8 {
		t.Errorf("loaded %+v", cp)
	}
	if ids := suspendedIDs(t, s, 0); !slices.Equal(ids, []uint64{7}) {
		t.Errorf("suspended %v, want the one not released", ids)
	}
	if got, err := s.Sessions(t.Context(), 1, 10); err != nil || len(got) != 1 || got[0].ID != 2 {
		t.Errorf("Sessions: %v, %v", got, err)
	}
}

// TestCheckpointFails fails each kind of write of a checkpoint in turn:
// nothing of it may be found, and the same may be committed afterwards.
func TestCheckpointFails(t *testing.T) {
	batch := acct.Batch{Position: 2, Records: []acct.Record{record(sessionID(1), 1, acct.Interim, count(1))},
		Sessions: []acct.SessionState{{ID: 1, SessionID: sessionID(1)}}, Ledger: []acct.LedgerRow{{LedgerKey: key(0), Received: count(1)}},
		Suspended: []acct.Suspended{{ID: 1}}, State: []acct.State{{Kind: "k", Value: []byte("v")}},
		Identities: []acct.Identities{{Bucket: 60, Data: make([]byte, 16)}}}
	for _, table := range []string{"record_page", "session", "ledger", "suspended", "state", "identity"} {
		t.Run(table, func(t *testing.T) {
			s := open(t, t.TempDir(), Config{})
			mustCommit(t, s, acct.Batch{Position: 1})
			fail(t, s, "INSERT", table)
			if err := s.Commit(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "planted") {
				t.Fatalf("Commit: %v", err)
			}
			if ds := pending(t, s.Outbox(), 0, 10); len(ds) != 0 {
				t.Errorf("records of a checkpoint that failed: %v", ds)
			}
			if cp := load(t, s); cp.Position != 1 || len(cp.Sessions) != 0 {
				t.Errorf("loaded %+v", cp)
			}
			unfail(t, s, table)
			mustCommit(t, s, batch)
			if ds := pending(t, s.Outbox(), 0, 10); len(ds) != 1 || ds[0].ID != 1 {
				t.Errorf("committed again: %v, want record 1", ds)
			}
		})
	}
}

// fail makes every statement of a kind on a table of state.db fail.
func fail(tb testing.TB, s *Spool, kind, table string) {
	tb.Helper()
	execute(tb, s.w.file, fmt.Sprintf("CREATE TRIGGER fail_%s BEFORE %s ON %s BEGIN SELECT raise(ABORT, 'planted'); END", table, kind, table))
}

func unfail(tb testing.TB, s *Spool, table string) {
	tb.Helper()
	execute(tb, s.w.file, "DROP TRIGGER fail_"+table)
}

func TestLedgerSaturates(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	huge := acct.LedgerRow{LedgerKey: key(0), Received: acct.Count{Octets: math.MaxInt64 - 5}, Lost: math.MaxUint64}
	mustCommit(t, s, acct.Batch{Position: 1, Ledger: []acct.LedgerRow{huge}})
	mustCommit(t, s, acct.Batch{Position: 2, Ledger: []acct.LedgerRow{huge}})
	books, err := s.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := books.Total.Received.Octets; got != math.MaxInt64 {
		t.Errorf("received %d octets, want 2^63-1", got)
	}
	var kind string
	if err := s.r.QueryRowContext(t.Context(), "SELECT typeof(received_octets) FROM ledger").Scan(&kind); err != nil || kind != "integer" {
		t.Errorf("stored as %s, %v", kind, err)
	}
}

// TestIdentities compares the stored identities with a map, over many
// checkpoints, merges, a rising floor and restarts.
func TestIdentities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, remove := tempDir(t)
		defer remove()
		s, err := Open(dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		model, other := make(map[int64]string), make(map[int64]string) // of an exporter whose floor rises and one whose does not
		var floor int64
		for i := range uint64(rapid.IntRange(1, 80).Draw(t, "checkpoints")) {
			b := acct.Batch{Position: i + 1, Floors: []acct.Floor{{Exporter: "a", Bucket: floor}}}
			for range rapid.IntRange(0, 2).Draw(t, "rows") {
				bucket := 60 * rapid.Int64Range(0, 3).Draw(t, "bucket")
				data := fmt.Sprintf("%016d", rapid.IntRange(0, 1<<30).Draw(t, "identity"))
				b.Identities = append(b.Identities, acct.Identities{Exporter: "a", Bucket: bucket, Data: []byte(data)},
					acct.Identities{Exporter: "b", Bucket: bucket, Data: []byte(data)})
				other[bucket] += data
				if bucket >= floor {
					model[bucket] += data
				}
			}
			if rapid.IntRange(0, 40).Draw(t, "floor rises") == 0 {
				floor += 60
				b.Floors[0].Bucket = floor
				maps.DeleteFunc(model, func(bucket int64, _ string) bool { return bucket < floor })
			}
			if err := s.Commit(context.Background(), resumed(b)); err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 40).Draw(t, "restart") == 0 {
				s.Close()
				if s, err = Open(dir, Config{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, gotOther := make(map[int64]string), make(map[int64]string)
		if err := s.EachIdentity(context.Background(), func(i acct.Identities) error {
			if i.Exporter == "b" {
				gotOther[i.Bucket] += string(i.Data)
				return nil
			}
			got[i.Bucket] += string(i.Data)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, model) {
			t.Fatalf("stored %v\nwant %v", got, model)
		}
		if !maps.Equal(gotOther, other) {
			t.Fatalf("of the exporter whose floor did not rise: stored %v\nwant %v", gotOther, other)
		}
	})
}

func TestIdentitiesMerge(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	var want []byte
	b := acct.Batch{Position: 1}
	for i := range 2*identityFanIn*identityFanIn + identityFanIn + 1 {
		data := fmt.Appendf(nil, "%016d", i)
		want = append(want, data...)
		b.Identities = append(b.Identities, acct.Identities{Bucket: 60, Data: data})
	}
	mustCommit(t, s, b)
	var got []byte
	rows := 0
	if err := s.EachIdentity(t.Context(), func(i acct.Identities) error {
		got = append(got, i.Data...)
		rows++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if rows != 2+1+1 || string(got) != string(want) {
		t.Errorf("%d rows, want two of level 2 and one of each below; %d octets, want %d in order", rows, len(got), len(want))
	}
}

// Rows that are large already are not written again.
func TestIdentitiesLarge(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	large, small := make([]byte, identityLarge), make([]byte, 16)
	for i := range uint64(identityFanIn + 1) {
		mustCommit(t, s, acct.Batch{Position: i + 1, Identities: []acct.Identities{{Bucket: 60, Data: large}, {Bucket: 60, Data: small}}})
	}
	levels := make(map[int]int)
	rows, err := s.r.QueryContext(t.Context(), "SELECT level FROM identity")
	if err != nil {
		t.Fatal(err)
	}
	if err := each(rows, func(rows *sql.Rows) error {
		var level int
		err := rows.Scan(&level)
		levels[level]++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := map[int]int{0: 1, 1: 1, identityMaxLevel: identityFanIn + 1}; !maps.Equal(levels, want) {
		t.Errorf("rows by level: %v, want %v", levels, want)
	}
	octets := 0
	if err := s.EachIdentity(t.Context(), func(i acct.Identities) error { octets += len(i.Data); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := (identityFanIn + 1) * (len(large) + len(small)); octets != want {
		t.Errorf("%d octets, want %d", octets, want)
	}
}

func TestVisitEndsWithError(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	mustCommit(t, s, acct.Batch{Position: 1, Suspended: []acct.Suspended{{ID: 1}, {ID: 2}},
		Identities: []acct.Identities{{Data: make([]byte, 16)}, {Bucket: 1, Data: make([]byte, 16)}}})
	stop := errors.New("stop")
	n := 0
	if err := s.EachSuspended(t.Context(), 0, func(acct.Suspended) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("EachSuspended: %v after %d", err, n)
	}
	n = 0
	if err := s.EachIdentity(t.Context(), func(acct.Identities) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("EachIdentity: %v after %d", err, n)
	}
}
