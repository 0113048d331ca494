package spool

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/asm/acct"
)

// open opens a spool that is closed when the test ends.
func open(tb testing.TB, dir string, cfg Config) *Spool {
	tb.Helper()
	s, err := Open(dir, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// reopen closes s and opens its directory again.
func reopen(tb testing.TB, s *Spool, cfg Config) *Spool {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	return open(tb, s.dir, cfg)
}

func key(interval int64) acct.LedgerKey {
	return acct.LedgerKey{Exporter: "exporter-1", Domain: 7, Interval: interval}
}

func count(n uint64) acct.Count { return acct.Count{Records: n, Octets: 1000 * n, Packets: 3 * n} }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// record returns a record like those of a session with one share.
func record(session string, number uint32, t acct.RecordType, share acct.Count) acct.Record {
	return acct.Record{
		SessionID: session, Number: number, Type: t, MultiSessionID: session + ";multi", User: "alice@example.net",
		Framed: netip.MustParsePrefix("192.0.2.12/32"), Start: noon, End: noon.Add(time.Minute), Event: noon.Add(time.Minute),
		SessionTime: time.Minute, Usage: acct.Usage{InputOctets: share.Octets, InputPackets: share.Packets},
		Shares: []acct.Share{{LedgerKey: key(noon.Unix()), Count: share}},
	}
}

func sessionID(n int) string { return fmt.Sprintf("bridge.example.net;%d;%d", noon.Unix(), n) }

func mustCommit(tb testing.TB, s *Spool, b acct.Batch) {
	tb.Helper()
	if err := s.Commit(tb.Context(), resumed(b)); err != nil {
		tb.Fatal(err)
	}
}

// resumed gives b a state that a pipeline can be resumed with, if it has none.
func resumed(b acct.Batch) acct.Batch {
	if !slices.ContainsFunc(b.State, func(s acct.State) bool { return s.Kind == acct.StatePipeline }) {
		b.State = append(slices.Clip(b.State), pipeline)
	}
	return b
}

var pipeline = acct.State{Kind: acct.StatePipeline, Value: []byte{1}}

func TestOpenMakesDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir, Config{})
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700", info.Mode().Perm())
	}
	meta := s.Meta()
	if meta.Epoch == 0 || meta.OriginStateID == 0 || meta.HashKey == [16]byte{} || meta.Created.IsZero() {
		t.Errorf("a new spool has %+v", meta)
	}
	if got := reopen(t, s, Config{}).Meta(); got != meta {
		t.Errorf("opened again: %+v, want %+v", got, meta)
	}
}

func TestOpenTwice(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	_, err := Open(s.dir, Config{})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("second Open: %v, want ErrInUse", err)
	}
	if want := fmt.Sprintf("spool: %s is in use by process %d", s.dir, os.Getpid()); err.Error() != want {
		t.Errorf("second Open: %q, want %q", err, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(tb testing.TB, dir string)
		is    error
		says  string
	}{
		{"a file that is no database", func(tb testing.TB, dir string) {
			write(tb, filepath.Join(dir, "state.db"), bytes.Repeat([]byte("no database "), 1000))
		}, ErrNotDatabase, "move it away"},
		{"a database of another program", func(tb testing.TB, dir string) {
			execute(tb, filepath.Join(dir, "journal.db"), "CREATE TABLE theirs (x)")
		}, ErrNotDatabase, "journal.db"},
		{"a newer schema", func(tb testing.TB, dir string) {
			open(tb, dir, Config{}).Close()
			execute(tb, filepath.Join(dir, "state.db"), "PRAGMA user_version = 99")
		}, ErrNewer, fmt.Sprintf("schema version 99, this program knows up to %d", len(stateSchema.steps))},
		{"a directory that is a file", func(tb testing.TB, dir string) {
			if err := os.Remove(dir); err != nil {
				tb.Fatal(err)
			}
			write(tb, dir, nil)
		}, unix.ENOTDIR, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir)
			s, err := Open(dir, Config{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v\nwant %v, saying %q", err, tt.is, tt.says)
			}
		})
	}
}

func write(tb testing.TB, name string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// execute runs a statement on a database file, past this package.
func execute(tb testing.TB, file, query string, args ...any) {
	tb.Helper()
	db := sqlOpen(file)
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		tb.Fatal(err)
	}
}

// asNobody runs f as a user who owns nothing, where the test is root's.
func asNobody(tb testing.TB, f func()) {
	tb.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	// File system identity belongs to the thread, which is thrown away.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			tb.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestOpenReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	mustChmod(t, filepath.Dir(dir), 0o755)
	mustChmod(t, dir, 0o555)
	asNobody(t, func() {
		_, err := Open(dir, Config{})
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "check owner and permissions of "+dir) {
			t.Errorf("Open: %v", err)
		}
	})
}

func mustChmod(tb testing.TB, name string, mode os.FileMode) {
	tb.Helper()
	if err := os.Chmod(name, mode); err != nil {
		tb.Fatal(err)
	}
}

func TestOpenReadOnly(t *testing.T) {
	check := func(t *testing.T, dir string) {
		s, err := OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		got, err := s.List(t.Context(), Filter{})
		if err != nil || len(got) != 1 || got[0].Record.SessionID != sessionID(1) {
			t.Errorf("List: %v, %v; want the one record", got, err)
		}
		if err := s.Commit(t.Context(), acct.Batch{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Commit: %v, want ErrReadOnly", err)
		}
		if _, err := s.Audit(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Stats(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s := open(t, t.TempDir(), Config{})
	mustCommit(t, s, acct.Batch{Position: 1, Records: []acct.Record{record(sessionID(1), 0, acct.Event, count(1))}})
	t.Run("beside the daemon", func(t *testing.T) { check(t, s.dir) })

	// What a killed daemon leaves: the files as they are, WAL and all.
	killed := t.TempDir()
	if err := os.CopyFS(filepath.Join(killed, "journal"), os.DirFS(filepath.Join(s.dir, "journal"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state.db", "state.db-wal"} {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(killed, name), b)
	}
	t.Run("after a killed daemon", func(t *testing.T) { check(t, killed) })

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "state.db-wal")); err == nil {
		t.Error("a closed spool left its WAL")
	}
	t.Run("after an orderly stop", func(t *testing.T) { check(t, s.dir) })

	mustChmod(t, filepath.Dir(s.dir), 0o755)
	mustChmod(t, filepath.Join(s.dir, "state.db"), 0o644)
	os.Remove(filepath.Join(s.dir, "state.db-wal"))
	os.Remove(filepath.Join(s.dir, "state.db-shm"))
	segments, err := filepath.Glob(filepath.Join(s.dir, "journal", "*.segment"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	for _, name := range segments {
		mustChmod(t, name, 0o644)
	}
	mustChmod(t, filepath.Join(s.dir, "journal"), 0o555)
	mustChmod(t, s.dir, 0o555)
	t.Run("in a directory that can't be written", func(t *testing.T) {
		asNobody(t, func() { check(t, s.dir) })
	})
	t.Run("where there is none", func(t *testing.T) {
		if _, err := OpenReadOnly(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("OpenReadOnly: %v, want not exist", err)
		}
	})
}

// What the power was lost in the middle of making is taken back, whoever opens
// it for writing; who may only read says what to do.
func TestOpenTakesBackHalfWritten(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"state.db", "journal.db", "cdr.db"} {
		// A rollback journal that says: the database had no page before.
		journal := make([]byte, 512)
		copy(journal, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
		binary.BigEndian.PutUint32(journal[20:], 512)  // a sector
		binary.BigEndian.PutUint32(journal[24:], 4096) // a page
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), make([]byte, 4096), 0o600),
			os.WriteFile(filepath.Join(dir, name+"-journal"), journal, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenReadOnly(dir); err == nil || !strings.Contains(err.Error(), "start the daemon") {
		t.Errorf("opened for reading: %v", err)
	}
	if err := Await(t.Context(), dir, time.Hour, slog.New(slog.DiscardHandler)); err != nil { // there is no holder to wait for
		t.Fatal(err)
	}
	s, err := Open(dir, Config{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestMigrate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	two := schema{"state", stateSchema.id, append(stateSchema.steps[:1:1], "CREATE TABLE added (x); INSERT INTO added SELECT count(*) FROM meta")}
	one := schema{"state", stateSchema.id, stateSchema.steps[:1]}
	reopen := func(s schema) (*writer, error) { return openWriter(file, statePage, s, nil) }

	w, err := reopen(one)
	if err != nil {
		t.Fatal("from an empty file:", err)
	}
	if err := w.transact(func() error { return w.setMeta("kept", 1) }); err != nil {
		t.Fatal(err)
	}
	w.close()
	if err := known(sqlOpen(file), file, two); err == nil || !strings.Contains(err.Error(), "start the daemon once") {
		t.Errorf("reading version 1 with a program of version 2: %v", err)
	}
	w, err = reopen(two)
	if err != nil {
		t.Fatal("from version 1:", err)
	}
	var n int
	if err := w.conn.QueryRowContext(t.Context(), "SELECT x FROM added").Scan(&n); err != nil || n != 1 {
		t.Errorf("the second step saw %d rows, %v; want those of version 1", n, err)
	}
	w.close()
	if _, err := reopen(one); !errors.Is(err, ErrNewer) {
		t.Errorf("version 2 with a program of version 1: %v, want ErrNewer", err)
	}

	broken := schema{"state", stateSchema.id, append(two.steps[:2:2], "CREATE TABLE third (x); CREATE TABLE meta (x)")}
	if _, err := reopen(broken); err == nil {
		t.Error("a step that fails passed")
	}
	w, err = reopen(two)
	if err != nil {
		t.Fatal("after a step that failed:", err)
	}
	w.close()
}

// Who waits for a start is told every two seconds what takes so long.
func TestTelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		telling(slog.New(slog.NewTextHandler(&b, nil)), "looking for damage", "state.db", func() { time.Sleep(5 * time.Second) })
		for _, want := range []string{`msg="looking for damage" file=state.db octets=0 for=2s`, "for=4s"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("it says %q, want %q", b.String(), want)
			}
		}
		if strings.Count(b.String(), "\n") != 2 {
			t.Errorf("it says %q", b.String())
		}
	})
}

func TestOpenBoundsCheck(t *testing.T) {
	var lines bytes.Buffer
	open(t, t.TempDir(), Config{CheckTime: 1, Log: testLog(&lines)})
	if !strings.Contains(lines.String(), "too large to be looked through whole") {
		t.Errorf("the log says %q", &lines)
	}
}

func TestCommitFullDisk(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	limit := func(pages int) {
		// A bound on the file stands for the disk; SQLite says the same of both.
		if err := s.w.exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1)
	b := acct.Batch{Position: 1, Needed: 1, State: []acct.State{{Kind: "big", Value: make([]byte, 1<<20)}}}
	err := s.Commit(t.Context(), b)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "commit position 1: "+s.dir) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("Commit: %v", err)
	}
	if cp := load(t, s); cp.Position != 0 {
		t.Errorf("loaded %+v", cp)
	}
	limit(1_000_000)
	mustCommit(t, s, b)
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), acct.Batch{Position: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v, want ErrClosed", err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Load: %v, want ErrClosed", err)
	}
	if _, err := s.Journal().Append(acct.EntryTick, 0, 0, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append: %v, want ErrClosed", err)
	}
	if err := s.Journal().Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run: %v, want ErrClosed", err)
	}
}

// testLog writes every line to w.
func testLog(w *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// sqlOpen opens a database file past this package's checks.
func sqlOpen(file string) *sql.DB {
	return sql.OpenDB(connector{file: file, query: "mode=rwc"})
}

// tempDir is t.TempDir for rapid, in memory where there is such a file system:
// models restart a lot, and wait for no disk.
func tempDir(t interface{ Fatalf(string, ...any) }) (dir string, remove func()) {
	const memory = "/dev/shm"
	dir, err := os.MkdirTemp(memory, "spool")
	if err != nil {
		dir, err = os.MkdirTemp("", "spool")
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A note is what was stored, or is said to be damaged.
func TestNote(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	for _, content := range []string{"", "first", "second"} {
		if err := s.PutNote("access servers", []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := s.Note(t.Context(), "access servers")
		if err != nil || string(got) != content || got == nil {
			t.Errorf("note %q (%v), want %q", got, err, content)
		}
	}
	if got, err := s.Note(t.Context(), "another"); got != nil || err != nil {
		t.Errorf("a note that there is not: %q (%v)", got, err)
	}
	execute(t, filepath.Join(dir, "state.db"), "UPDATE meta SET value = CAST('third' || substr(value, 7) AS BLOB) WHERE name = 'note access servers'")
	if got, err := s.Note(t.Context(), "access servers"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged note: %q (%v)", got, err)
	}
}
