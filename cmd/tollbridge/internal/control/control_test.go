package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/control"
)

// zeros are without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

type sum struct{ A, B int }

func TestCall(t *testing.T) {
	t.Run("short", func(t *testing.T) { testCall(t, t.TempDir()) })
	t.Run("longer than a socket's address", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		testCall(t, dir)
	})
}

func testCall(t *testing.T, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	var out int
	if err := control.Call(ctx, dir, "add", sum{1, 2}, &out); !errors.Is(err, control.ErrNoDaemon) {
		t.Fatalf("call without a daemon: %v, want ErrNoDaemon", err)
	}

	// A socket that a killed daemon left is in nobody's way.
	if err := os.WriteFile(filepath.Join(dir, "control.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := control.Listen(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket %v (%v), want mode 0600", info.Mode(), err)
	}
	var s control.Server
	control.Handle(&s, "add", func(_ context.Context, in sum) (int, error) {
		if in.B == 0 {
			return 0, errors.New("add: b: want a number that changes something")
		}
		return in.A + in.B, nil
	})
	control.HandleUpload(&s, "count", func(_ context.Context, r io.Reader, octets int64) (int64, error) {
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != octets {
			err = fmt.Errorf("%d octets came of %d", n, octets)
		}
		return n, err
	})
	served := make(chan error)
	go func() { served <- s.Serve(ctx, ln) }()

	if err := control.Call(ctx, dir, "add", sum{1, 2}, &out); err != nil || out != 3 {
		t.Errorf("1 + 2 = %d (%v)", out, err)
	}
	if err := control.Call(ctx, dir, "add", sum{1, 0}, &out); err == nil || err.Error() != "add: b: want a number that changes something" {
		t.Errorf("refused call: %v, want the handler's own words", err)
	}
	const much = 65 << 20 // more than a Call may bring
	if err := control.Upload(ctx, dir, "count", io.LimitReader(zeros{}, much), much, &out); err != nil || out != much {
		t.Errorf("%d octets were counted of %d (%v)", out, much, err)
	}
	if err := control.Upload(ctx, dir, "count", zeros{}, 2<<30, &out); err == nil || !strings.Contains(err.Error(), "at most 1073741824") {
		t.Errorf("an upload without measure: %v", err)
	}
	if err := control.Call(ctx, dir, "add", []int{1}, &out); err == nil {
		t.Error("a request of the wrong shape was taken")
	}
	if err := control.Call(ctx, dir, "subtract", sum{1, 2}, &out); err == nil || errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("unknown command: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("stopped: %v", err)
	}
	if err := control.Call(t.Context(), dir, "add", sum{1, 2}, &out); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("call after the stop: %v, want ErrNoDaemon", err)
	}
}
