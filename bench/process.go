package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A process is one that we started and whose CPU time we want.
type process struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr bytes.Buffer
	done   chan error
}

// startProcess starts a program. It is killed when ctx ends.
func startProcess(ctx context.Context, name string, args ...string) (*process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, errAbsent)
	}
	p := &process{cmd: exec.CommandContext(ctx, path, args...), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// Whatever becomes of us, it ends too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

// wait waits for the process to end by itself and returns its CPU time.
func (p *process) wait() (time.Duration, error) {
	if err := <-p.done; err != nil {
		return 0, fmt.Errorf("%w: %s", err, strings.TrimSpace(p.stderr.String()))
	}
	state := p.cmd.ProcessState
	return state.UserTime() + state.SystemTime(), nil
}

// stop asks the process to end, waits, and returns its CPU time.
func (p *process) stop() (time.Duration, error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return p.wait()
}

// kill ends the process if it still runs.
func (p *process) kill() { p.cmd.Process.Kill() }

// settle waits until the process has had nothing to do for a while.
func (p *process) settle(ctx context.Context) error {
	const quiet = 400 * time.Millisecond
	before, err := p.cpu()
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quiet):
		}
		var now time.Duration
		if now, err = p.cpu(); now-before <= quiet/20 {
			return err
		}
		before = now
	}
	return err
}

// cpu returns the CPU time of the running process so far, in ticks of 10 ms.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name, is in parentheses and may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// ownCPU returns the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
