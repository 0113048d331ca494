package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of so many MiB in memory for the test.
func smallDisk(t *testing.T, mib string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root may mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tollbridge-test", dir, "tmpfs", 0, "size="+mib+"m"); err != nil {
		t.Skipf("skipped: no small file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill takes all but about spare octets of dir's file system, until the
// function that it returns is called.
func fill(t *testing.T, dir string, spare uint64) (release func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := int64(0); ; { // the daemon writes meanwhile
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		free := st.Bavail * uint64(st.Bsize)
		if free <= spare {
			break
		}
		err := syscall.Fallocate(int(f.Fd()), 0, size, int64(free-spare))
		if err == nil {
			size += int64(free - spare)
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// Whatever runs full, the daemon holds what can be held, says so in its log, on
// /readyz and in its metrics, and goes on by itself when there is room: every
// user is billed what tshark counted.
func TestAFullDiskHoldsAndLetsGo(t *testing.T) {
	for _, row := range []struct {
		name  string
		store string // that lies on the small disk; "" for all
		spool string
		spare uint64
		says  string // in the log
		why   string // on readyz
		held  string // metric
	}{
		{"the mark of free space", "", ", minFree: 4MiB", 1 << 20, `journal takes no more messages.*octets are free on the disk`, "octets are free on the disk", "journal_messages_held"},
		{"the journal's disk", "journal.db", ", minFree: 0", 0, `journal waits.*disk is full`, "the journal waits for space", "journal_full"},
		{"the outbox's disk", "state.db", ", minFree: 0", 0, `accounting has stopped.*disk is full`, "accounting stands still", "pipeline_standing_still"},
		{"the archive's disk", "archive", ", minFree: 0", 0, `the archive can't be written.*no space left`, "the archive can't be written", "archive_failing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir, small := t.TempDir(), smallDisk(t, "24")
			_, users := files(t, dir)
			data := filepath.Join(dir, "data")
			cfg := setup{users: users, tcp: "127.0.0.1:0", server: "127.0.0.1:0", spool: row.spool}
			if row.store == "archive" {
				cfg.archive = filepath.Join(small, "archive")
			} else if row.store == "" {
				data = filepath.Join(small, "data")
			} else {
				if err := os.Mkdir(data, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(filepath.Join(small, row.store), filepath.Join(data, row.store)); err != nil {
					t.Fatal(err)
				}
			}
			s := captureStream(t)
			half := len(s.messages) / 2
			cfg.data = data
			d := start(t, cfg)
			s.send(t, d.tcp(), half)

			release := fill(t, small, row.spare)
			sent := make(chan struct{})
			go func() { // it waits for the daemon, which waits for the disk
				defer close(sent)
				s.send(t, d.tcp(), len(s.messages))
			}()
			d.waitLog(row.says)
			d.waitMetric(row.held, atLeast(1))
			if why := d.unready(); !strings.Contains(why, row.why) {
				t.Errorf("readyz says %q", why)
			}
			release()
			<-sent
			d.waitMetric(row.held, func(v float64) bool { return v == 0 })
			octets, nobodys := captureOctets(t)
			waitBooks(t, data, func(b sums) bool {
				return b.Received.Octets-b.Duplicate.Octets == octets && b.Suspended.Octets == nobodys
			})
			checkBill(t, bill(charges(t, data)))
			d.stop()
			audit(t, data)
			if cfg.archive == "" {
				return
			}
			if _, stderr, status := cli(t, "spool", "archive", "verify", cfg.archive, "--data", data); status != 0 {
				t.Errorf("verify: %s", stderr)
			}
		})
	}
}
