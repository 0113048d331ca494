package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/entry"
	"tollbridge/cmd/tollbridge/internal/replay"
	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// A replay of the archive, across a kill -9, comes to the same amounts of each
// user to the octet; zstd(1) reads what is in it; and whoever changes, removes
// or cuts off something of it is found out.
func TestArchiveComesToTheSameTotals(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "zstd", "ipfixDump")
	dir := t.TempDir()
	_, users := files(t, dir)
	store := filepath.Join(dir, "archive")
	cfg := setup{data: filepath.Join(dir, "data"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0", archive: store}
	s := captureStream(t)
	d := start(t, cfg)
	s.send(t, d.tcp(), len(s.messages)/2)
	d.waitMetric("archive_position", atLeast(5))
	d.kill()
	d = start(t, cfg)
	s.send(t, d.tcp(), len(s.messages)) // all again: the first half are duplicates
	octets, nobodys := captureOctets(t)
	waitBooks(t, cfg.data, func(b sums) bool {
		return b.Received.Octets-b.Duplicate.Octets == octets && b.Suspended.Octets == nobodys
	})
	d.stop()

	out, stderr, status := cli(t, "spool", "archive", "verify", store, "--data", cfg.data)
	if status != 0 {
		t.Fatalf("verify: %s%s", out, stderr)
	}
	if named, _, status := cli(t, "spool", "archive", "verify", "-c", cfg.data+".yaml"); status != 0 || named != out {
		t.Errorf("verify of the configuration's archive: status %d, %s", status, named)
	}
	if _, stderr, status := cli(t, "spool", "archive", "verify", dir); status != 1 || !strings.Contains(stderr, "is no archive") {
		t.Errorf("verify of another directory: status %d, %s", status, stderr)
	}
	for _, ours := range []string{store + "," + cfg.data, cfg.data} {
		if out, stderr, status := cli(t, "reconcile", ours, filepath.Join(cfg.data, "cdr.db")); status != 0 {
			t.Errorf("reconcile %s: %s%s", ours, out, stderr)
		}
	}
	var replayed []replay.Amount
	show(t, &replayed, "replay", store, "--data", filepath.Join(dir, "replayed"))
	audit(t, filepath.Join(dir, "replayed"))
	kept, err := spool.OpenReadOnly(cfg.data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := replay.Amounts(t.Context(), kept)
	if err := errors.Join(err, kept.Close()); err != nil {
		t.Fatal(err)
	}
	if len(want) != 3 || !reflect.DeepEqual(replayed, want) {
		t.Errorf("replayed %+v, want %+v", replayed, want)
	}
	for _, u := range replayed {
		truth := captureTruth(t)[u.User]
		if u.Cut.Octets+u.Open.Octets != truth.InputOctets+truth.OutputOctets {
			t.Errorf("%s: %+v, but tshark counted %+v", u.User, u, truth)
		}
	}

	// What is in it: each settled record once, and Messages as IPFIX Files.
	segments, _, err := archive.Read(store)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	messages, records, sums, dumped := 0, 0, 0, 0
	var victim string
	for _, seg := range segments {
		for _, f := range seg.Files {
			content, err := exec.Command("zstd", "-dc", filepath.Join(store, f.Name)).Output()
			if err != nil {
				t.Fatalf("zstd %s: %v", f.Name, err)
			}
			switch {
			case strings.HasSuffix(f.Name, "cdr.jsonl.zst"):
				for line := range bytes.Lines(content) {
					var r archive.Record
					if err := json.Unmarshal(line, &r); err != nil {
						t.Fatal(err)
					}
					if seen[r.ID] {
						t.Errorf("record %d is archived twice", r.ID)
					}
					seen[r.ID] = true
				}
			case strings.HasSuffix(f.Name, ".ipfix.zst"):
				victim = f.Name
				dump := exec.Command("ipfixDump", "--data", "--in", "-")
				dump.Stdin = bytes.NewReader(content)
				out, err := dump.CombinedOutput()
				if err != nil {
					t.Errorf("ipfixDump %s: %v\n%s", f.Name, err, out)
				}
				dumped += bytes.Count(out, []byte("--- data record"))
				session := ipfix.NewSession(ipfix.UDP)
				in := file.NewReader(bytes.NewReader(content))
				for {
					m, err := in.Next()
					if err != nil {
						break
					}
					messages++
					summed := false
					if _, err := session.Decode(m.Octets, func(set ipfix.DataSet) {
						if set.Template == nil {
							t.Errorf("%s: Data Set %d without its Template", f.Name, set.ID)
						}
						records += set.Records
						found, err := file.VerifyChecksum(m.Octets, set)
						if err != nil {
							t.Errorf("%s: %v", f.Name, err)
						}
						summed = summed || found
					}); err != nil {
						t.Fatal(err)
					}
					if summed {
						sums++
					}
				}
			}
		}
	}
	if messages < len(s.messages) || records < s.records+messages || sums != messages || dumped != records {
		t.Errorf("%d messages are archived with %d records, %d of them with checksums; ipfixDump reads %d records", messages, records, sums, dumped)
	}
	showTrimmed(t, cfg.data, store)

	// Read back they are what came, to the octet.
	arrived := map[string]int{}
	if err := archive.ReadJournal(store, func(spool.Opening) error { return nil }, func(e acct.Entry) error {
		if e.Kind == acct.EntryMessage {
			arrived[string(e.Data)]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, m := range s.messages {
		want := 1
		if i < len(s.messages)/2 {
			want = 2
		}
		if arrived[string(m)] != want {
			t.Errorf("message %d is archived %d times, want %d", i, arrived[string(m)], want)
		}
	}
	for id := range uint64(len(seen)) {
		if !seen[id+1] {
			t.Errorf("record %d is not archived", id+1)
		}
	}

	broken := func(name, says string, spoil func(dir string) error) {
		t.Helper()
		copied := filepath.Join(dir, name)
		if err := os.CopyFS(copied, os.DirFS(store)); err != nil {
			t.Fatal(err)
		}
		if err := spoil(copied); err != nil {
			t.Fatal(err)
		}
		if _, stderr, status := cli(t, "spool", "archive", "verify", copied, "--data", cfg.data); status != 1 || !strings.Contains(stderr, says) {
			t.Errorf("%s: status %d, %q", name, status, stderr)
		}
	}
	manifest := func(change func([][]byte) [][]byte) func(string) error {
		return func(dir string) error {
			name := filepath.Join(dir, "manifest.jsonl")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(name, bytes.Join(change(bytes.SplitAfter(b, []byte("\n"))), nil), 0o600)
		}
	}
	broken("removed", victim+" is missing", func(dir string) error { return os.Remove(filepath.Join(dir, victim)) })
	broken("changed", victim+" was changed", func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, victim), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{0xff}, 40)
		return errors.Join(err, f.Close())
	})
	broken("reordered", "line 1: it was changed, or lines", manifest(func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l }))
	broken("forged", "line 1: it was changed, or lines", manifest(func(l [][]byte) [][]byte {
		l[0] = bytes.Replace(l[0], []byte(`"records":`), []byte(`"records":1`), 1)
		return l
	}))
	broken("cut off", "does not end as the spool knows it", manifest(func(l [][]byte) [][]byte { return l[:1] }))
}

// showTrimmed sees that what the journal of a state directory has at a position
// is shown from the archive in the same way, once it is trimmed there.
func showTrimmed(t *testing.T, data, store string) {
	t.Helper()
	var messages []uint64
	if err := archive.ReadJournal(store, func(spool.Opening) error { return nil }, func(e acct.Entry) error {
		if e.Kind == acct.EntryMessage {
			messages = append(messages, e.Position)
		}
		return nil
	}); err != nil || len(messages) < 10 {
		t.Fatalf("%d messages (%v)", len(messages), err)
	}
	positions := []uint64{1, messages[0], messages[1], messages[len(messages)/2], messages[len(messages)-1]}
	journal := make([]entry.View, len(positions))
	records := 0
	for i, at := range positions {
		show(t, &journal[i], "spool", "journal", "show", fmt.Sprint(at), "--data", data)
		for _, m := range journal[i].Messages {
			for _, set := range m.Sets {
				records += len(set.Records)
				if set.Unknown {
					t.Errorf("position %d: a Data Set without its Template", at)
				}
			}
		}
	}
	if records == 0 {
		t.Error("no record is shown")
	}
	s, err := spool.Open(data, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Journal().Trim(t.Context(), positions[len(positions)-1]+1), s.Close()); err != nil {
		t.Fatal(err)
	}
	trimmed := 0
	for i, at := range positions {
		var v entry.View
		show(t, &v, "spool", "journal", "show", fmt.Sprint(at), "--data", data, "--archive", store)
		if v.From == store {
			trimmed++
		}
		if v.From = "journal"; !reflect.DeepEqual(v, journal[i]) {
			t.Errorf("position %d is shown from the archive as %+v, was %+v", at, v, journal[i])
		}
	}
	if trimmed == 0 {
		t.Error("nothing was trimmed")
	}
	if _, stderr, status := cli(t, "spool", "journal", "show", "1", "--data", data); status != 1 || !strings.Contains(stderr, "position 1 was trimmed from the journal") {
		t.Errorf("without the archive: status %d, %s", status, stderr)
	}
}
