package main

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A process is a program that a test runs and whose lines it reads.
type process struct {
	t     *testing.T
	name  string // in messages
	cmd   *exec.Cmd
	lines lines
	done  chan struct{} // closed when it has ended
	err   error         // of its end
}

// runProcess starts cmd and reads the lines of output, which is a pipe of cmd.
// It does not outlive the test.
func runProcess(t *testing.T, name string, cmd *exec.Cmd, output func() (io.ReadCloser, error)) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, done: make(chan struct{})}
	pipe, err := output()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.lines.read(pipe)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s, process %d:\n%s", name, cmd.Process.Pid, p.lines.tail(10))
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// wait waits until the process has ended.
func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end:\n%s", p.name, p.lines.tail(30))
	}
}

// lines are what a process has written, and still writes.
type lines struct {
	mu      sync.Mutex
	all     []string
	ended   bool
	changed chan struct{} // closed, and made anew, with each line
}

func (l *lines) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		l.mu.Lock()
		if line != "" {
			l.all = append(l.all, strings.TrimSuffix(line, "\n"))
		}
		l.ended = err != nil
		if l.changed != nil {
			close(l.changed)
			l.changed = nil
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// wait returns the submatches of the first line that matches, nil if none does
// before ctx or the lines end.
func (l *lines) wait(ctx context.Context, re *regexp.Regexp) []string {
	for next := 0; ; {
		l.mu.Lock()
		fresh, ended := l.all[next:], l.ended
		next = len(l.all)
		if l.changed == nil && !ended {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		for _, line := range fresh {
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		}
		if ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// count returns how many lines so far match.
func (l *lines) count(pattern string) int {
	re := regexp.MustCompile(pattern)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.all {
		if re.MatchString(line) {
			n++
		}
	}
	return n
}

// tail returns the last n lines.
func (l *lines) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all[max(0, len(l.all)-n):], "\n")
}
