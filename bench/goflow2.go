package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// startGoflow2 starts goflow2 with one socket, writing Protocol Buffers, the
// cheapest of its formats.
func (l *lab) startGoflow2(ctx context.Context, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
	file := filepath.Join(dir, "flows")
	p, err := startProcess(ctx, l.goflow2, "-listen", fmt.Sprintf("netflow://127.0.0.1:%d", port), "-addr", "127.0.0.1:0",
		"-transport", "file", "-transport.file", file, "-transport.file.sep", "", "-format", "bin", "-loglevel", "error")
	return p, func(context.Context) (uint64, error) { return countDelimited(file) }, err
}

// countDelimited counts the messages in a file of Protocol Buffers, each
// behind its length.
func countDelimited(file string) (uint64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for n := uint64(0); ; n++ {
		length, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err == nil {
			_, err = r.Discard(int(length))
		}
		if err != nil {
			return n, fmt.Errorf("goflow2: %s: %w", filepath.Base(file), err)
		}
	}
}
