package meter

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/ipfix"
)

// nobody is an Exporting Process without a Collecting Process.
type nobody struct{}

func (nobody) Export(context.Context, *ipfix.Template, []byte) error { return nil }

// TestBrokenFile reads all packets that come whole before the break.
func TestBrokenFile(t *testing.T) {
	m, err := New(Config{Exporter: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	var progress int64
	file := demodata.Capture[:len(demodata.Capture)-1]
	err = m.ReadFile(t.Context(), bytes.NewReader(file), func(octets int64) { progress = octets })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
	}
	if s := m.Stats(); s.Packets != 7393 {
		t.Errorf("%d packets, want 7393", s.Packets)
	}
	if progress != int64(len(file)) {
		t.Errorf("progress to octet %d of %d", progress, len(file))
	}
}

func TestReadFileStops(t *testing.T) {
	m, err := New(Config{Exporter: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = m.ReadFile(ctx, bytes.NewReader(demodata.Capture), func(int64) { cancel() })
	if s := m.Stats(); !errors.Is(err, context.Canceled) || s.Packets == 0 || s.Packets == 7394 {
		t.Errorf("error %v after %d packets", err, s.Packets)
	}
}

// FuzzReadFile meters whatever a file may hold, with a cache that is always
// full.
func FuzzReadFile(f *testing.F) {
	f.Add(demodata.Capture[:600])
	f.Add(demodata.Capture[:6000])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := New(Config{Exporter: nobody{}, MaxFlows: 4})
		if err != nil {
			t.Fatal(err)
		}
		_ = m.ReadFile(t.Context(), bytes.NewReader(b), nil) // what it finds invalid pcap tests
		if err := m.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
