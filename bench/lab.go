package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// A lab is where it is measured: a temporary directory with the programs that
// were built for it.
type lab struct {
	dir        string
	self       string // this program
	tollbridge string
	another    string // build of tollbridge to measure beside; "" for none
	goflow2    string
	scale      float64
}

func newLab(ctx context.Context, scale float64, another string) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tollbridge-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, self: self, another: another, scale: scale}
	if l.tollbridge, err = l.build(ctx, "..", "./cmd/tollbridge"); err == nil {
		l.goflow2, err = l.build(ctx, ".", "github.com/netsampler/goflow2/v2/cmd/goflow2")
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) close() { os.RemoveAll(l.dir) }

// build builds a program of the module in dir and returns its name.
func (l *lab) build(ctx context.Context, dir, pkg string) (string, error) {
	name := filepath.Join(l.dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", name, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return name, nil
}

// size returns n scaled as the user asked.
func (l *lab) size(n int) int { return max(1, int(float64(n)*l.scale)) }

// scratch returns a new directory, and what removes it.
func (l *lab) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(l.dir, "")
	return dir, func() { os.RemoveAll(dir) }, err
}

// at lets run measure in a new directory, with a port that is free, and removes
// the directory.
func (l *lab) at(run func(dir string, port int) (sample, error)) (sample, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return sample{}, err
	}
	defer remove()
	port, err := freePort()
	if err != nil {
		return sample{}, err
	}
	return run(dir, port)
}

// freePort returns a loopback port that nobody has over UDP or TCP now.
func freePort() (int, error) {
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := ln.Addr().(*net.TCPAddr).Port
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		ln.Close()
		if err == nil {
			conn.Close()
			return port, nil
		}
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
