package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// A daemon that is stopped takes what its socket's buffer has room for, and
// then nothing; one that is slow is waited for.
func TestStoppedDaemon(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(t.Context(), dir) // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	for _, octets := range []int{2, 16 << 20} {
		err := upload(t.Context(), dir, "import", bytes.NewReader(make([]byte, octets)), int64(octets), nil, 100*time.Millisecond)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "is it stopped") {
			t.Errorf("%d octets: %v", octets, err)
		}
	}

	var s Server
	HandleUpload(&s, "slow", func(_ context.Context, r io.Reader, _ int64) (n int64, err error) {
		return io.Copy(io.Discard, r)
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, ln) }()
	const octets = 16 << 20
	var got int64
	if err := upload(t.Context(), dir, "slow", bytes.NewReader(make([]byte, octets)), octets, &got, patience); err != nil || got != octets {
		t.Errorf("%d octets of %d (%v)", got, octets, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
