package main

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tollbridge/internal/peertest"
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
	t.Parallel()
	for _, row := range []struct {
		name  string
		store string // that lies on the small disk; "" for all
		spool string
		spare uint64
		trouble
	}{
		{"the mark of free space", "", ", minFree: 4MiB", 1 << 20, trouble{`journal takes no more messages.*octets are free on the disk`, "octets are free on the disk", "journal_messages_held"}},
		{"the journal's disk", "journal", ", minFree: 0", 0, trouble{`journal waits.*disk is full`, "the journal waits for space", "journal_full"}},
		{"the outbox's disk", "state.db", ", minFree: 0", 0, trouble{`accounting has stopped.*disk is full`, "accounting stands still", "pipeline_standing_still"}},
		{"the archive's disk", "archive", ", minFree: 0", 0, trouble{`the archive can't be written.*no space left`, "the archive can't be written", "archive_failing"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir, small := t.TempDir(), smallDisk(t, "24")
			cfg := setup{data: filepath.Join(dir, "data"), spool: row.spool}
			if row.store == "archive" {
				cfg.archive = filepath.Join(small, "archive")
			} else if row.store == "" {
				cfg.data = filepath.Join(small, "data")
			} else {
				if err := os.Mkdir(cfg.data, 0o700); err != nil {
					t.Fatal(err)
				}
				if row.store == "journal" {
					if err := os.Mkdir(filepath.Join(small, row.store), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink(filepath.Join(small, row.store), filepath.Join(cfg.data, row.store)); err != nil {
					t.Fatal(err)
				}
			}
			row.overcome(t, cfg, func(*daemon) func() { return fill(t, small, row.spare) })
		})
	}
}

// A disk that fails to write or to sync, and a program that has a database
// locked, are held out like a full disk, and nothing is lost or counted twice:
// of a write that failed it is not known what reached the disk.
func TestADiskThatFailsHoldsAndLetsGo(t *testing.T) {
	t.Parallel()
	journal := trouble{`journal waits.*the disk fails`, "the journal waits", "journal_messages_held"}
	state := trouble{`accounting has stopped.*the disk fails`, "accounting stands still", "pipeline_standing_still"}
	cdrs := trouble{`requests can't be stored.*the disk fails`, "", ""}
	busy := "another program has it locked"
	for _, row := range []struct {
		name string
		file string // in the state directory
		call string // that fails; "" if another program has it locked
		trouble
	}{
		{"the journal is not synced", "journal", "fsync,fdatasync", journal},
		{"the journal is not written", "journal", "fsync,pwrite64", journal},
		{"the checkpoint is not synced", "state.db-wal", "fsync,fdatasync", state},
		{"the checkpoint is not written", "state.db-wal", "pwrite64", state},
		{"the checkpoint is locked", "state.db-shm", "", trouble{"accounting has stopped.*" + busy, state.why, state.held}},
		{"the CDRs are not synced", "cdr.db-wal", "fsync,fdatasync", cdrs},
		{"the CDRs are locked", "cdr.db-shm", "", trouble{"requests can't be stored.*" + busy, "", ""}},
		{"the archive is not synced", "archive/manifest.jsonl", "fsync", trouble{`the archive can't be written.*input/output error`, "the archive can't be written", "archive_failing"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := setup{data: filepath.Join(t.TempDir(), "data")}
			if filepath.Dir(row.file) == "archive" {
				cfg.archive = filepath.Join(cfg.data, "archive")
			}
			file := filepath.Join(cfg.data, row.file)
			row.overcome(t, cfg, func(d *daemon) func() {
				if row.call == "" {
					return lockOut(t, file)
				}
				if row.file == "journal" {
					return failing(t, d, row.call, journalFiles(t, cfg.data)...)
				}
				return failing(t, d, row.call, file)
			})
		})
	}
}

// What a disk can't read, for a moment or for good, is not taken for damage: the
// daemon starts, or says that the disk fails and starts when it does not, and
// goes on with all that was there.
func TestADiskThatDoesNotReadIsNotDamage(t *testing.T) {
	t.Parallel()
	peertest.Need(t, "cc")
	dir := t.TempDir()
	// By thread, as strace counts, the second look for damage may fail as well.
	library := filepath.Join(dir, "failread.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O", "-o", library, "testdata/failread.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	cfg := setup{data: filepath.Join(dir, "data"), tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	_, cfg.users = files(t, dir)
	d := start(t, cfg)
	s := captureStream(t)
	s.send(t, d.tcp(), len(s.messages))
	octets, _ := captureOctets(t)
	waitBooks(t, cfg.data, func(b sums) bool { return b.Received.Octets == octets })
	d.stop()
	books := audit(t, cfg.data)
	program, err := plainProgram()
	if err != nil {
		t.Fatal(err)
	}
	// failReads starts a daemon whose reads from one number to another fail, and
	// reports whether that was taken for damage.
	failReads := func(first, last int, ends string) bool {
		t.Helper()
		cmd := exec.Command(program, "serve", "-c", cfg.data+".yaml")
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+library, "FAIL_FILE="+filepath.Join(cfg.data, "state.db"),
			"FAIL_READ="+strconv.Itoa(first), "FAIL_LAST="+strconv.Itoa(last))
		d := runDaemon(t, cfg.data, cmd)
		if d.waitLog(ends)[1] != "" {
			d.stop()
		} else {
			d.wait()
		}
		return d.lines.wait(t.Context(), regexp.MustCompile("looking once more")) != nil
	}
	suspected, suspectedAlways := false, false
	for read := 3; read < 60 && !(suspected && suspectedAlways); read += 4 {
		suspected = suspected || failReads(read, read, `(msg=started)|^tollbridge:`)
		suspectedAlways = suspectedAlways || failReads(read, math.MaxInt32, `(msg=started)|^tollbridge: spool: .*: the disk fails: look into the kernel's log`)
	}
	if !suspected || !suspectedAlways {
		t.Error("no read that failed was one of the search for damage")
	}
	d = start(t, cfg)
	d.stop()
	if left, err := filepath.Glob(filepath.Join(cfg.data, "*.damaged-*")); err != nil || len(left) > 0 {
		t.Errorf("salvaged: %v (%v)", left, err)
	}
	if again := audit(t, cfg.data); again != books {
		t.Errorf("the books are %+v, were %+v", again, books)
	}
	checkBill(t, bill(charges(t, cfg.data)))
}

// A trouble is what the daemon says of one.
type trouble struct {
	log  string
	why  string // on readyz; "" for nothing
	held string // metric; "" for none
}

// overcome has a daemon run into trouble between the first and the second half
// of a capture, until it says so, and sees it come out again.
func (x trouble) overcome(t *testing.T, cfg setup, begin func(*daemon) (release func())) {
	t.Helper()
	_, cfg.users = files(t, t.TempDir())
	cfg.tcp, cfg.server = "127.0.0.1:0", "127.0.0.1:0"
	s := captureStream(t)
	half := len(s.messages) / 2
	d := start(t, cfg)
	s.send(t, d.tcp(), half)
	waitBooks(t, cfg.data, func(b sums) bool { return !b.Acknowledged.IsZero() }) // all stores are in use
	if cfg.archive != "" {
		d.waitMetric("archive_position", atLeast(5))
	}

	release := begin(d)
	address, sent := d.tcp(), make(chan error, 1)
	go func() { // it waits for the daemon, which waits for the disk, or resets what it can't store in time
		err := s.export(address, len(s.messages))
		for range 9 {
			if !errors.Is(err, syscall.ECONNRESET) {
				break
			}
			err = s.export(address, len(s.messages))
		}
		sent <- err
	}()
	d.waitLog(x.log)
	if x.held != "" {
		d.waitMetric(x.held, atLeast(1))
		if why := d.unready(); !strings.Contains(why, x.why) {
			t.Errorf("readyz says %q", why)
		}
	}
	release()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if x.held != "" {
		d.waitMetric(x.held, func(v float64) bool { return v == 0 })
	}
	octets, nobodys := captureOctets(t)
	waitBooks(t, cfg.data, func(b sums) bool {
		return b.Received.Octets-b.Duplicate.Octets == octets && b.Suspended.Octets == nobodys
	})
	checkBill(t, bill(charges(t, cfg.data)))
	d.stop()
	audit(t, cfg.data)
	if cfg.archive == "" {
		return
	}
	if _, stderr, status := cli(t, "spool", "archive", "verify", cfg.archive, "--data", cfg.data); status != 0 {
		t.Errorf("verify: %s", stderr)
	}
}

// journalFiles returns the files that a journal is written to, and its directory,
// without which it can't begin another.
func journalFiles(t *testing.T, data string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(data, "journal", "*.segment"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return append(files, filepath.Join(data, "journal"))
}

// failing has system calls of the daemon fail with EIO on files, until the
// function that it returns is called.
func failing(t *testing.T, d *daemon, calls string, files ...string) (release func()) {
	t.Helper()
	peertest.Need(t, "strace")
	args := []string{"-f", "-p", strconv.Itoa(d.cmd.Process.Pid), "-e", "inject=" + calls + ":error=EIO", "-o", os.DevNull}
	for _, file := range files {
		args = append(args, "-P", file)
	}
	cmd := exec.Command("strace", args...)
	var said lines
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		said.read(stderr)
		_ = cmd.Wait() // ends by the signal
	}()
	release = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets go of the daemon
		<-done
	})
	t.Cleanup(release)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if said.wait(ctx, regexp.MustCompile(`attached`)) == nil {
		peertest.Missing(t, "strace can't trace here: "+said.tail(5))
	}
	return release
}

// lockOut takes the lock of those who write to a database as another program
// would: it is the first of those in the index of the WAL, behind two headers
// and what readers have noted (https://www.sqlite.org/walformat.html, 2.1).
func lockOut(t *testing.T, index string) (release func()) {
	t.Helper()
	const writers = 120
	f, err := os.OpenFile(index, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { f.Close() })
	t.Cleanup(release)
	if !until(t, func() bool { // the daemon has it now and then
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: writers, Len: 1}) == nil
	}) {
		t.Fatalf("%s can't be locked", index)
	}
	return release
}
