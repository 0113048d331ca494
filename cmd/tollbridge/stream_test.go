package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/ipfix"
	"tollbridge/meter"
)

// A stream is what an exporter sends in one Transport Session over TCP, from
// its beginning.
type stream struct {
	messages [][]byte
	records  int // in all of them
}

// captureStream meters the bundled capture into many small Messages.
func captureStream(t *testing.T) *stream {
	t.Helper()
	s := &stream{}
	w := &streamWriter{stream: s, encoder: ipfix.NewEncoder(1, 256), known: map[*ipfix.Template]bool{}}
	m, err := meter.New(meter.Config{Exporter: w, ActiveTimeout: 500 * time.Millisecond, IdleTimeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := m.ReadFile(ctx, bytes.NewReader(demodata.Capture), nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	w.flush()
	return s
}

// A streamWriter is a meter's Exporter that keeps Messages.
type streamWriter struct {
	stream  *stream
	encoder *ipfix.Encoder
	known   map[*ipfix.Template]bool
}

// Export implements meter.Exporter.
func (w *streamWriter) Export(_ context.Context, t *ipfix.Template, record []byte) error {
	if !w.known[t] {
		w.known[t] = true
		if err := w.full(func() error { return w.encoder.AddTemplate(t) }); err != nil {
			return err
		}
	}
	w.stream.records++
	return w.full(func() error { return w.encoder.AppendRecord(t, record) })
}

// full does add again in a new Message if it finds the old one full.
func (w *streamWriter) full(add func() error) error {
	err := add()
	if errors.Is(err, ipfix.ErrFull) {
		w.flush()
		err = add()
	}
	return err
}

func (w *streamWriter) flush() {
	if m := w.encoder.Flush(uint32(time.Now().Unix())); m != nil {
		w.stream.messages = append(w.stream.messages, bytes.Clone(m))
	}
}

// send sends the first n Messages on a new Transport Session and ends it, in
// order: all of them are received then.
func (s *stream) send(t *testing.T, address string, n int) {
	t.Helper()
	if err := s.export(address, n); err != nil {
		t.Fatal(err)
	}
}

// export is send that may fail.
func (s *stream) export(address string, n int) error {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer nc.Close()
	for _, m := range s.messages[:n] {
		if _, err := nc.Write(m); err != nil {
			return err
		}
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	nc.SetReadDeadline(time.Now().Add(patience))
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("the collector did not end the connection in order: %w", err)
	}
	return nil
}
