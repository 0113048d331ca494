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

	"tollbridge/internal/peertest"
)

// patience bounds every wait for a server.
const patience = 30 * time.Second

// A Server is a PostgreSQL server of its own, on a Unix socket only until
// ServeTLS.
type Server struct {
	settings []string // of the command line, beside those of every server
	dir      string   // data and socket
	bin      string
	owner    *syscall.SysProcAttr // it refuses to run as root
	process  *exec.Cmd
	done     chan struct{} // closed when process has ended
	log      *bytes.Buffer // read it after done
}

// Start starts a server, which does not outlive the test. Where PostgreSQL is
// not installed it skips the test in one line, or fails it if the environment
// requires all peers.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := binaries()
	if bin == "" {
		peertest.Missing(t, "PostgreSQL's server is not installed")
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

// disown has another user than root run the server, and gives it the folder.
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
	s.owner = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	s.give(t, s.dir)
}

// give makes a file one of whoever runs the server.
func (s *Server) give(t testing.TB, file string) {
	t.Helper()
	if s.owner == nil {
		return
	}
	if err := os.Chown(file, int(s.owner.Credential.Uid), int(s.owner.Credential.Gid)); err != nil {
		t.Fatal(err)
	}
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
	s.process.Args = append(s.process.Args, s.settings...)
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
	s.allow(t, "local all "+user+" scram-sha-256")
	s.Exec(t, "SELECT pg_reload_conf();")
}

// ServeTLS starts the server anew, on TCP port 5432 of addresses too, which are
// loopback ones: there with TLS alone, and the certificate and key of these
// files.
func (s *Server) ServeTLS(t testing.TB, certificate, key string, addresses ...string) {
	t.Helper()
	s.Stop(t)
	s.allow(t, "hostssl all all 127.0.0.0/8 trust\nhostnossl all all 127.0.0.0/8 reject")
	s.settings = []string{"-c", "ssl=on", "-c", "listen_addresses=" + strings.Join(addresses, ",")}
	for setting, from := range map[string]string{"ssl_cert_file": certificate, "ssl_key_file": key} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(s.dir, setting)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s.give(t, file)
		s.settings = append(s.settings, "-c", setting+"="+file)
	}
	s.Run(t)
}

// allow puts rules before all others of who may connect.
func (s *Server) allow(t testing.TB, first string) {
	t.Helper()
	file := filepath.Join(s.data(), "pg_hba.conf")
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte(first+"\n"), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
}
