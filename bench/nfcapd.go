package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// startNfcapd starts nfcapd with its defaults, but for a larger receive
// buffer. Its file does not rotate within a measurement.
func (l *lab) startNfcapd(ctx context.Context, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
	p, err := startProcess(ctx, "nfcapd", "-b", "127.0.0.1", "-p", strconv.Itoa(port), "-w", dir, "-t", "3600", "-B", strconv.Itoa(4<<20))
	return p, func(ctx context.Context) (uint64, error) { return nfcapdFlows(ctx, dir) }, err
}

var flowsLine = regexp.MustCompile(`(?m)^Flows: (\d+)$`)

// nfcapdFlows asks nfdump for the number of flows in the files in dir.
func nfcapdFlows(ctx context.Context, dir string) (uint64, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, f := range files {
		out, err := exec.CommandContext(ctx, "nfdump", "-I", "-r", filepath.Join(dir, f.Name())).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("nfdump: %w: %s", err, out)
		}
		m := flowsLine.FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("nfdump: no number of flows in: %s", out)
		}
		n, err := strconv.ParseUint(string(m[1]), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
