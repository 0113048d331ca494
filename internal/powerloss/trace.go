// Package powerloss is for tests of what is durable. It logs each write and
// sync of a process, and builds from the log what a disk might hold if the
// power had gone at some moment.
package powerloss

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Trace runs a shell script under strace(1) and returns what its processes did
// to the files in dir, in order, with the lines that they wrote to standard
// output as promises between. It skips the test where nothing can be traced,
// or fails it if TOLLBRIDGE_REQUIRE_PEERS is set. Files that skip says are not
// looked at.
func Trace(t testing.TB, dir, script string, skip func(name string) bool) []Event {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.CommandContext(t.Context(), strace, "-f", "--seccomp-bpf", "-o", os.DevNull, "true").Run()
	}
	if err != nil {
		if os.Getenv("TOLLBRIDGE_REQUIRE_PEERS") != "" {
			t.Fatal("strace can't trace here: ", err)
		}
		t.Skip("needs strace(1), and leave to trace: ", err)
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "--seccomp-bpf", "-y", "-xx", "-s", "100000000", "-o", log,
		"-e", "trace=openat,lseek,write,writev,pwrite64,pwritev,ftruncate,fallocate,copy_file_range,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat",
		"sh", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	events, err := read(log, dir, skip)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) == 0 {
		t.Fatal("nothing was written to ", dir)
	}
	return events
}

// An Event is a system call on a file, or a promise.
type Event struct {
	Call Call
	Name string // the file's, relative to the directory that is traced; "." for that; a promise's text

	to     string // of a rename or a link
	thread string
	offset int64 // of a write; the new size of a truncation, the least one of an allocation
	data   []byte
}

func (e Event) String() string { return string(e.Call) + " " + e.Name }

// A Call says what an Event is.
type Call string

const (
	Promise   Call = "promise" // a line on standard output
	write     Call = "write"
	truncate  Call = "truncate"
	allocate  Call = "allocate"
	beginSync Call = "begin sync" // what was written until here is covered by the sync
	sync      Call = "sync"
	create    Call = "create"
	rename    Call = "rename"
	link      Call = "link"
	unlink    Call = "unlink"
)

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	quoted      = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
	descriptor  = regexp.MustCompile(`^\d+<([^>]*)>`)
	allocation  = regexp.MustCompile(`, 0, (\d+), (\d+)\)? *(?:=.*)?$`)
	lastNumber  = regexp.MustCompile(`(\d+)\)? *(?:=.*)?$`)
)

// read reads what strace logged of the files in dir. A call that can't be read
// is an error: a test must not pass for want of looking.
func read(log, dir string, skip func(string) bool) ([]Event, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := reader{dir: dir, skip: skip, began: make(map[string]string), ends: make(map[string]int64)}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		if err := r.line(lines.Text()); err != nil {
			return nil, err
		}
	}
	return r.events, lines.Err()
}

type reader struct {
	dir    string
	skip   func(string) bool
	began  map[string]string // per thread, the arguments of the call that has not returned
	ends   map[string]int64  // where the next write without an offset goes
	events []Event
}

func (r *reader) inside(path string) (string, bool) {
	if path == r.dir {
		return ".", true
	}
	name, ok := strings.CutPrefix(path, r.dir+"/")
	return name, ok && !r.skip(name)
}

func (r *reader) line(line string) error {
	// A call takes effect at any moment between its begin and its return: a
	// write as soon as it has begun, everything else not before it returned.
	begins, returns := true, true
	var thread, call, args string
	if m := resumedLine.FindStringSubmatch(line); m != nil {
		thread, call, args = m[1], m[2], r.began[m[1]]+m[3]
		delete(r.began, thread)
		begins = false
	} else if m := callLine.FindStringSubmatch(line); m != nil {
		thread, call, args = m[1], m[2], m[3]
		if rest, unfinished := strings.CutSuffix(args, " <unfinished ...>"); unfinished {
			r.began[thread], args, returns = rest, rest, false
		}
	} else {
		return nil // a signal, an exit
	}
	if strings.Contains(args, ") = -1 ") || strings.HasSuffix(args, ") = ?") {
		returns = false // it failed, or never returned
	}
	var texts []string
	for _, m := range quoted.FindAllStringSubmatch(args, -1) {
		texts = append(texts, unhex(m[1]))
	}
	if m := descriptor.FindStringSubmatch(args); m != nil {
		return r.onFile(thread, call, args, unhex(m[1]), texts, begins, returns)
	}
	if returns {
		return r.onNames(call, args, texts)
	}
	return nil
}

// onFile reads a call on an open file.
func (r *reader) onFile(thread, call, args, path string, texts []string, begins, returns bool) error {
	if call == "write" && strings.HasPrefix(args, "1<") && begins {
		for promise := range strings.Lines(texts[0]) {
			r.events = append(r.events, Event{Call: Promise, Name: strings.TrimSuffix(promise, "\n")})
		}
		return nil
	}
	name, ours := r.inside(path)
	if !ours {
		if call == "unlinkat" || call == "openat" || strings.HasPrefix(call, "rename") {
			return r.onNames(call, args, texts) // relative to an open directory
		}
		return nil
	}
	e := Event{Name: name, thread: thread}
	switch call {
	case "write":
		if begins {
			e.Call, e.offset, e.data = write, r.ends[name], []byte(texts[0])
			r.ends[name] += int64(len(e.data))
			r.events = append(r.events, e)
		}
	case "pwrite64", "ftruncate":
		if !begins {
			return nil
		}
		tail := args
		if call == "pwrite64" {
			tail = args[strings.LastIndexByte(args, '"')+1:]
		}
		m := lastNumber.FindStringSubmatch(tail)
		if m == nil {
			return fmt.Errorf("%s of %s: no offset", call, name)
		}
		var err error
		if e.offset, err = strconv.ParseInt(m[1], 10, 64); err != nil {
			return err
		}
		e.Call = truncate
		if call == "pwrite64" {
			e.Call, e.data = write, []byte(texts[0])
		}
		r.events = append(r.events, e)
	case "fallocate":
		if !returns {
			return nil
		}
		m := allocation.FindStringSubmatch(args)
		if m == nil {
			return fmt.Errorf("%s of %s: not of mode 0", call, name)
		}
		from, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return err
		}
		e.Call, e.offset = allocate, from+n
		r.events = append(r.events, e)
	case "fsync", "fdatasync":
		if begins {
			r.events = append(r.events, Event{Call: beginSync, Name: name, thread: thread})
		}
		if returns {
			r.events = append(r.events, Event{Call: sync, Name: name, thread: thread})
		}
	case "lseek":
		if returns && !strings.Contains(args, ", 0, SEEK_CUR") {
			m := lastNumber.FindStringSubmatch(args)
			at, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return err
			}
			r.ends[name] = at
		}
	case "openat", "unlinkat", "renameat", "renameat2":
		if returns {
			return r.onNames(call, args, texts)
		}
	default:
		return fmt.Errorf("%s of %s is not understood", call, name)
	}
	return nil
}

// onNames reads a call that makes, renames or removes a file.
func (r *reader) onNames(call, args string, texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	name, ours := r.inside(texts[0])
	switch {
	case call == "openat" && ours:
		r.ends[name] = 0
		if strings.Contains(args, "O_APPEND") {
			return fmt.Errorf("%s is opened with O_APPEND, which is not understood", name)
		}
		if strings.Contains(args, "O_CREAT") {
			r.events = append(r.events, Event{Call: create, Name: name})
		}
		if strings.Contains(args, "O_TRUNC") {
			r.events = append(r.events, Event{Call: truncate, Name: name})
		}
	case strings.HasPrefix(call, "unlink") && ours:
		r.events = append(r.events, Event{Call: unlink, Name: name})
	case (strings.HasPrefix(call, "rename") || strings.HasPrefix(call, "link")) && len(texts) == 2:
		e := Event{Call: rename, Name: name}
		if strings.HasPrefix(call, "link") {
			e.Call = link
		}
		var also bool
		if e.to, also = r.inside(texts[1]); ours && also {
			r.events = append(r.events, e)
		} else if ours || also {
			return fmt.Errorf("%s: %s and %s are not both in %s", call, texts[0], texts[1], r.dir)
		}
	}
	return nil
}

// unhex reads strace's \x escapes; what has none is as it is.
func unhex(s string) string {
	if !strings.HasPrefix(s, `\x`) {
		return s
	}
	b := make([]byte, 0, len(s)/4)
	for i := 0; i+4 <= len(s); i += 4 {
		n, _ := strconv.ParseUint(s[i+2:i+4], 16, 8)
		b = append(b, byte(n))
	}
	return string(b)
}
