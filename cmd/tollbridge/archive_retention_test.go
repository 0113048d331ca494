package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/spool/archive"
)

// What the configuration says of size and age lets the archive's oldest files
// go. What is left is as it was written, and can be replayed.
func TestArchiveRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, users := files(t, dir)
	store := filepath.Join(dir, "archive")
	cfg := setup{data: filepath.Join(dir, "data"), users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	run := func(retention string, f func(*daemon)) []archive.Segment {
		t.Helper()
		cfg.extra = fmt.Sprintf("archive: {dir: %q, interval: 1s, %s}\n", store, retention)
		d := start(t, cfg)
		f(d)
		d.stop()
		if out, stderr, status := cli(t, "spool", "archive", "verify", store, "--data", cfg.data); status != 0 {
			t.Fatalf("%s: verify: %s%s", retention, out, stderr)
		}
		segments, _, err := archive.Read(store)
		if err != nil {
			t.Fatal(err)
		}
		return archive.Kept(segments)
	}
	// gone waits until none of a segment's files is there.
	gone := func(s archive.Segment) {
		t.Helper()
		for _, f := range s.Files {
			if !until(t, func() bool {
				_, err := os.Stat(filepath.Join(store, f.Name))
				return errors.Is(err, fs.ErrNotExist)
			}) {
				t.Fatalf("%s stays", f.Name)
			}
		}
	}

	s := captureStream(t)
	octets, _ := captureOctets(t)
	var first archive.Segment
	before := run("keep: 0s", func(d *daemon) {
		s.send(t, d.tcp(), len(s.messages)/2)
		d.waitMetric("archive_position", atLeast(5))
		s.send(t, d.tcp(), len(s.messages))
		waitBooks(t, cfg.data, func(b sums) bool { return b.Received.Octets-b.Duplicate.Octets == octets })
	})
	if len(before) < 3 {
		t.Fatalf("%d segments", len(before))
	}
	first = before[0]
	var size int64
	for _, x := range before {
		for _, f := range x.Files {
			size += f.Octets
		}
	}

	most := size - 1 // one must go, and more as others come
	bySize := run(fmt.Sprintf("keep: 0s, maxOctets: %d", most), func(*daemon) { gone(first) })
	size = 0
	for _, x := range bySize {
		for _, f := range x.Files {
			size += f.Octets
		}
	}
	if len(bySize) == 0 || bySize[0].Number <= first.Number || size > most {
		t.Errorf("%d segments of %d octets are left of at most %d, from %d on", len(bySize), size, most, bySize[0].Number)
	}
	var listed []archive.Segment
	show(t, &listed, "spool", "archive", "ls", store)
	if len(listed) != len(bySize) || listed[0].Number != bySize[0].Number {
		t.Errorf("ls has %d segments, want %d", len(listed), len(bySize))
	}
	replayed := filepath.Join(dir, "replayed")
	if out, stderr, status := cli(t, "replay", store, "--data", replayed); status != 0 {
		t.Errorf("replay of what is left: %s%s", out, stderr)
	}
	audit(t, replayed)

	last := bySize[len(bySize)-1]
	byAge := run("keep: 1s", func(*daemon) { gone(last) })
	for _, x := range byAge {
		if x.Number <= last.Number {
			t.Errorf("segment %d of %s is kept", x.Number, x.Written)
		}
	}
	// A file that retention did not let go shows.
	if err := os.Remove(filepath.Join(store, byAge[0].Files[0].Name)); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := cli(t, "spool", "archive", "verify", store); status != 1 || !strings.Contains(stderr, byAge[0].Files[0].Name+" is missing") {
		t.Errorf("a removed file: status %d, %s", status, stderr)
	}
}
