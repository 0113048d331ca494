package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"tollbridge/aaaclient"
	"tollbridge/spool"
)

// What peers demand is stored when it changes, is known at the next start, and
// is nothing where it can't be read. What can't be stored is tried again, and
// said once.
func TestDemands(t *testing.T) {
	var log bytes.Buffer
	s := &fakeNotes{}
	open := func() *demands {
		t.Helper()
		d, err := openDemands(t.Context(), s, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	peers := []aaaclient.PeerStats{{Address: "127.0.0.1:1", Realtime: true}, {Address: "127.0.0.1:2"}}
	expect := func(d *demands, one, two bool, puts int) {
		t.Helper()
		if d.of(peers[0].Address) != one || d.of(peers[1].Address) != two || s.puts != puts {
			t.Errorf("%v demand it, stored %d times; want %v and %v, %d times", d.peers, s.puts, one, two, puts)
		}
	}
	d := open()
	expect(d, false, false, 0)
	d.keep(peers[1:])
	expect(open(), false, false, 0)
	d.keep(peers)
	d.keep(peers)
	expect(open(), true, false, 1)

	peers[0].Realtime, peers[1].Realtime = false, true
	s.err = errors.New("disk is full")
	d.keep(peers)
	d.keep(peers)
	expect(open(), true, false, 3)
	if n := strings.Count(log.String(), "disk is full"); n != 1 {
		t.Errorf("the log says %d times that the disk is full", n)
	}
	s.err = nil
	d.keep(peers)
	expect(open(), false, true, 4)
	peers[1].Realtime = false
	d.keep(peers)
	expect(open(), false, false, 5)

	s.content = []byte("{")
	expect(open(), false, false, 5)
	s.damaged = spool.ErrDamaged
	expect(open(), false, false, 5)
	if n := strings.Count(log.String(), "can't be read"); n != 2 {
		t.Errorf("the log says %d times that what was stored can't be read", n)
	}
	s.damaged = errors.New("no such table")
	if _, err := openDemands(t.Context(), s, slog.New(slog.DiscardHandler)); !errors.Is(err, s.damaged) {
		t.Errorf("error %v, want %v", err, s.damaged)
	}
}

// fakeNotes keep one note in memory, and fail as they are told.
type fakeNotes struct {
	content      []byte
	puts         int
	err, damaged error // of PutNote, and of Note
}

func (f *fakeNotes) Note(context.Context, string) ([]byte, error) { return f.content, f.damaged }

func (f *fakeNotes) PutNote(_ string, content []byte) error {
	f.puts++
	if f.err == nil {
		f.content = content
	}
	return f.err
}
