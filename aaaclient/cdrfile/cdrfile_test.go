package cdrfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// An outbox is a list of records and their fates.
type outbox struct {
	records []acct.Record // ID-1
	fates   map[uint64]acct.Settlement
	order   []uint64 // in which they were settled
	fail    error
}

func (o *outbox) PendingOf(_ context.Context, after uint64, most int, of func([]byte) bool) (list []acct.Delivery, through uint64, more bool, err error) {
	for id := after + 1; id <= uint64(len(o.records)); id++ {
		if through = id; len(list) == min(most, 2) {
			return list, id - 1, true, nil
		}
		if _, done := o.fates[id]; !done && of([]byte(o.records[id-1].Realm)) {
			list = append(list, acct.Delivery{ID: id, Record: o.records[id-1]})
		}
	}
	return list, through, false, nil
}

func (o *outbox) Settle(_ context.Context, list []acct.Settlement) error {
	if o.fail != nil {
		return o.fail
	}
	for _, s := range list {
		if _, done := o.fates[s.ID]; !done {
			o.fates[s.ID] = s
			o.order = append(o.order, s.ID)
		}
	}
	return nil
}

func (o *outbox) add(realm string, n int) {
	for range n {
		o.records = append(o.records, acct.Record{
			SessionID: "bridge.example;1;1", Number: uint32(len(o.records)), Type: acct.Interim, User: "ann, \"the\" user", Realm: realm,
			Event: time.Unix(1_800_000_000, 0), Usage: acct.Usage{InputOctets: 10, OutputOctets: 1},
		})
	}
}

func exporter(t *testing.T, dir string, o *outbox, log *bytes.Buffer) *Exporter {
	t.Helper()
	e, err := New(Config{Realm: "home.example", Dir: dir, Outbox: o, MaxRecords: 3, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func files(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "home.example-*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = strings.TrimPrefix(filepath.Base(found[i]), "home.example-")
	}
	return strings.Join(found, " ")
}

// acknowledge is the partner: it reads the manifest of a file and answers.
func acknowledge(t *testing.T, dir, number string, change func(*Acknowledgement)) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "home.example-"+number+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	ack := Acknowledgement{Sequence: m.Sequence, Records: m.Records, SHA256: m.SHA256, Accepted: true}
	change(&ack)
	if b, err = json.Marshal(ack); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "home.example-"+number+".ack"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Records go into numbered files once, across restarts, and are settled by the
// partner's word alone.
func TestFiles(t *testing.T) {
	dir, o, ctx := t.TempDir(), &outbox{fates: map[uint64]acct.Settlement{}}, t.Context()
	var log bytes.Buffer
	o.add("home.example", 3)
	o.add("far.example", 2)
	o.add("HOME.example", 1)
	e := exporter(t, dir, o, &log)
	now := time.Unix(1_800_000_100, 0)
	step := func(want string) {
		t.Helper()
		if err := errors.Join(e.Settle(ctx), e.Export(ctx, now)); err != nil {
			t.Fatal(err)
		}
		if got := files(t, dir); got != want {
			t.Fatalf("files %s, want %s", got, want)
		}
	}
	step("00000001.csv 00000001.json 00000002.csv 00000002.json")
	if len(o.fates) != 0 {
		t.Fatalf("settled without an acknowledgement: %v", o.fates)
	}
	var m Manifest
	b, _ := os.ReadFile(filepath.Join(dir, "home.example-00000001.json"))
	if err := json.Unmarshal(b, &m); err != nil || m.Records != 3 || m.Usage != (acct.Usage{InputOctets: 30, OutputOctets: 3}) || !m.Created.Equal(now) || m.Sequence != 1 {
		t.Errorf("manifest %s (%v)", b, err)
	}

	// A restart in the middle of the next file, before its manifest.
	o.add("home.example", 1)
	step("00000001.csv 00000001.json 00000002.csv 00000002.json 00000003.csv 00000003.json")
	for _, name := range []string{"home.example-00000003.json", "home.example-00000002.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "home.example-00000004.csv.tmp"), []byte("id,sess"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = exporter(t, dir, o, &log)
	step("00000001.csv 00000001.json 00000002.csv 00000002.json 00000003.csv 00000003.json")

	// Words that do not fit settle nothing.
	acknowledge(t, dir, "00000001", func(a *Acknowledgement) { a.SHA256 = "of another file" })
	acknowledge(t, dir, "00000002", func(a *Acknowledgement) { a.Records = 7 })
	step("00000001.ack 00000001.csv 00000001.json 00000002.ack 00000002.csv 00000002.json 00000003.csv 00000003.json")
	if len(o.fates) != 0 || !strings.Contains(log.String(), "does not fit") {
		t.Fatalf("%v\n%s", o.fates, log.String())
	}

	// One record refused, a file refused, and the outbox fails at first.
	acknowledge(t, dir, "00000001", func(a *Acknowledgement) { a.Rejected = []Rejected{{"bridge.example;1;1", 1, "unknown subscriber"}} })
	acknowledge(t, dir, "00000002", func(a *Acknowledgement) { a.Accepted, a.Reason = false, "no agreement" })
	o.fail = errors.New("disk is full")
	if err := e.Settle(ctx); !errors.Is(err, o.fail) {
		t.Fatalf("error %v", err)
	}
	o.fail = nil
	step("00000003.csv 00000003.json")
	for id, want := range map[uint64]acct.DeliveryState{1: acct.Acknowledged, 2: acct.Quarantined, 3: acct.Acknowledged, 6: acct.Quarantined} {
		if got := o.fates[id]; got.State != want || want == acct.Quarantined && got.Reason == "" {
			t.Errorf("record %d: %+v, want %v", id, got, want)
		}
	}
	if len(o.fates) != 4 {
		t.Errorf("fates %v", o.fates)
	}

	// A crash after settling, while the files are moved.
	acknowledge(t, dir, "00000003", func(*Acknowledgement) {})
	if err := os.Rename(filepath.Join(dir, "home.example-00000003.csv"), filepath.Join(dir, "done", "home.example-00000003.csv")); err != nil {
		t.Fatal(err)
	}
	o.fates[7] = acct.Settlement{ID: 7, State: acct.Acknowledged}
	e = exporter(t, dir, o, &log)
	step("")

	// Numbers go on behind what is done.
	o.add("home.example", 1)
	e = exporter(t, dir, o, &log)
	step("00000004.csv 00000004.json")
	if got := files(t, filepath.Join(dir, "done")); strings.Count(got, ".csv") != 3 || strings.Count(got, ".ack") != 3 {
		t.Errorf("done: %s", got)
	}
}

// A file that somebody has changed is not guessed at.
func TestForeignFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "home.example-00000001.csv"), []byte("a,b\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Realm: "home.example", Dir: dir, Outbox: &outbox{}})
	if err == nil || !strings.Contains(err.Error(), "is not a file that was written here") {
		t.Errorf("error %v", err)
	}
}

// A session's record is not acknowledged before it is known and durable what
// became of the one before, which may be in an earlier file: volumes are
// cumulative.
func TestFilesAreSettledInOrder(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir, o, ctx := t.TempDir(), &outbox{fates: map[uint64]acct.Settlement{}}, t.Context()
		var log bytes.Buffer
		o.add("home.example", 8)
		e := exporter(t, dir, o, &log)
		if err := e.Export(ctx, time.Unix(1_800_000_100, 0)); err != nil {
			t.Fatal(err)
		}
		look := func(want ...uint64) {
			t.Helper()
			if restart {
				e = exporter(t, dir, o, &log)
			}
			if err := e.Settle(ctx); !errors.Is(err, o.fail) {
				t.Fatal(err)
			}
			if !slices.Equal(o.order, want) {
				t.Fatalf("settled %v, want %v\n%s", o.order, want, &log)
			}
		}
		acknowledge(t, dir, "00000003", func(*Acknowledgement) {})
		look()
		if !strings.Contains(log.String(), "wait for that of an earlier CDR file") {
			t.Errorf("the log says %q", &log)
		}
		acknowledge(t, dir, "00000001", func(a *Acknowledgement) { a.Accepted, a.Reason = false, "no agreement" })
		acknowledge(t, dir, "00000002", func(a *Acknowledgement) { a.Records = 7 })
		o.fail = errors.New("disk is full")
		look()
		o.fail = nil
		look(1, 2, 3)
		acknowledge(t, dir, "00000002", func(*Acknowledgement) {})
		look(1, 2, 3, 4, 5, 6, 7, 8)
		if o.fates[3].State != acct.Quarantined || o.fates[8].State != acct.Acknowledged {
			t.Errorf("fates %v", o.fates)
		}
	}
}

// A manifest that can't be written when its file is comes later.
func TestManifestComesLater(t *testing.T) {
	dir, o, ctx := t.TempDir(), &outbox{fates: map[uint64]acct.Settlement{}}, t.Context()
	var log bytes.Buffer
	o.add("home.example", 2)
	e := exporter(t, dir, o, &log)
	obstacle := filepath.Join(dir, "home.example-00000001.json")
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.Export(ctx, time.Now()); err == nil {
		t.Fatal("the manifest was written over a directory")
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := e.Export(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, dir), "00000001.csv 00000001.json"; got != want {
		t.Errorf("files %s, want %s", got, want)
	}
}
