// Package pgtest runs PostgreSQL servers for tests.
package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a server.
const patience = 30 * time.Second

// A Server is a PostgreSQL server of its own, on a Unix socket only.
type Server struct {
	dir     string // data and socket
	bin     string
	owner   *syscall.SysProcAttr // it refuses to run as root
	process *exec.Cmd
	done    chan struct{} // closed when process has ended
	log     *bytes.Buffer // read it after done
}

// Start starts a server, which does not outlive the test. Where PostgreSQL is
// not installed it skips the test in one line, or fails it if the environment
// requires all peers.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := binaries()
	if bin == "" {
		const why = "PostgreSQL's server is not installed"
		if os.Getenv("TOLLBRIDGE_REQUIRE_PEERS") == "1" {
			t.Fatal(why + ", and TOLLBRIDGE_REQUIRE_PEERS=1")
		}
		t.Skip("skipped: " + why)
	}
	// Not below the test's own folder, which only its user may enter.
	dir, err := os.MkdirTemp("", "tollbridge-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{dir: dir, bin: bin}
	if os.Geteuid() == 0 {
		s.disown(t)
	}
	s.run(t, "initdb", "--pgdata", s.data(), "--username", "tollbridge", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
	t.Cleanup(func() { s.Stop(t) })
	s.Run(t)
	return s
}

// binaries returns the folder of the programs, "" if there is none. Debian
// keeps it out of PATH.
func binaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if p, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = []string{p}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// disown gives the folder to another user than root.
func (s *Server) disown(t testing.TB) {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("root can't run PostgreSQL: %v", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 != nil || err2 != nil {
		t.Fatalf("user postgres has no numbers: %+v", u)
	}
	if err := os.Chown(s.dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	s.owner = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.owner
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	return cmd
}

func (s *Server) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := s.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// Run starts the server after a Stop.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.process = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off")
	s.log, s.done = new(bytes.Buffer), make(chan struct{})
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		s.process.Wait() //nolint:errcheck // it is stopped
	}()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for late := time.After(patience); ; {
		out, err := s.command("pg_isready", "-h", s.dir).CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-s.done:
			t.Fatalf("postgres ended:\n%s", s.log)
		case <-late:
			t.Fatalf("postgres is never ready: %v\n%s", err, out)
		case <-look.C:
		}
	}
}

// Stop stops the server and whoever is connected to it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.process == nil || s.process.Process == nil {
		return // it never started
	}
	s.process.Process.Signal(syscall.SIGINT) //nolint:errcheck // it may have ended
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("postgres does not stop")
	}
}

// Connect is the connection string for a user of the server.
func (s *Server) Connect(user string) string {
	return fmt.Sprintf("host=%s user=%s dbname=postgres", s.dir, user)
}

// Exec runs SQL as the server's owner.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	cmd := s.command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", s.Connect("tollbridge"))
	cmd.Stdin = strings.NewReader(sql)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
}

// RequirePassword makes the server ask a user for a password.
func (s *Server) RequirePassword(t testing.TB, user string) {
	t.Helper()
	file := filepath.Join(s.data(), "pg_hba.conf")
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("local all "+user+" scram-sha-256\n"), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "SELECT pg_reload_conf();")
}
