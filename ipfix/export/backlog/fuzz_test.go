package backlog_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tollbridge/ipfix/export/backlog"
)

const (
	headerLength = 29 // of a segment file
	entryHeader  = 21
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// written is the only segment file of a Backlog with a few Messages, and the
// file that says whose it is.
func written(f *testing.F) (instance, segment []byte) {
	f.Helper()
	dir := f.TempDir()
	b := open(f, dir, backlog.Config{})
	for _, err := range []error{
		b.Define(256, false, []byte{1, 0, 0, 1, 0, 1, 0, 8}),
		b.Append(backlog.Entry{Kind: backlog.Message, Records: 2, Octets: ipfixMessage(256, 40)}),
		b.Define(257, true, []byte{1, 1, 0, 2, 0, 1, 0, 149, 0, 4, 0, 41, 0, 8}),
		b.Append(backlog.Entry{Kind: backlog.Report, Records: 1, Octets: ipfixMessage(257, 50)}),
		b.Append(backlog.Entry{Kind: backlog.Message, Records: 0, Octets: nil}),
		b.Close(),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil || len(names) != 1 {
		f.Fatal(names, err)
	}
	for file, b := range map[string]*[]byte{names[0]: &segment, filepath.Join(dir, "instance"): &instance} {
		if *b, err = os.ReadFile(file); err != nil {
			f.Fatal(err)
		}
	}
	return instance, segment
}

// repair gives each entry of a segment the checksum that is right for it, up to
// one that goes beyond the end.
func repair(segment []byte) {
	for b := segment[min(headerLength, len(segment)):]; len(b) >= entryHeader; {
		end := entryHeader + uint64(binary.BigEndian.Uint32(b[4:]))
		if end > uint64(len(b)) {
			return
		}
		binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:end], castagnoli))
		b = b[end:]
	}
}

// FuzzSegment opens a Backlog whose only file is anything. Whatever that is, a
// Reader returns entries that stand in it, under rising positions, and tells of
// all others between the first and the last; what is appended later comes behind
// them, under a position of its own, in this life and in the next.
func FuzzSegment(f *testing.F) {
	instance, segment := written(f)
	f.Add(segment, false)
	f.Add(segment[:len(segment)-2], false)
	f.Add(append(slices.Clip(segment), make([]byte, 300)...), true)
	for _, at := range []int{3, 20, headerLength + 4, headerLength + 8, headerLength + 12, len(segment) - 1} {
		for _, repaired := range []bool{false, true} {
			damaged := bytes.Clone(segment)
			damaged[at] ^= 0x81
			f.Add(damaged, repaired)
		}
	}
	f.Fuzz(func(t *testing.T, segment []byte, repaired bool) {
		if repaired {
			segment = bytes.Clone(segment)
			repair(segment)
		}
		dir := t.TempDir()
		for name, b := range map[string][]byte{"instance": instance, "0000000000000001.segment": segment} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b, err := backlog.Open(dir, backlog.Config{})
		if err != nil {
			return // it says what to do, and nothing was changed
		}
		rest, last := segment, uint64(0)
		first := false // or more, of which the positions are known
		next := func(position uint64) {
			if first && position != last+1 || position <= last {
				t.Fatalf("position %d comes behind %d", position, last)
			}
			first, last = true, position
		}
		r := b.Reader(func(losses []backlog.Loss) error {
			for _, l := range losses {
				next(l.Position)
			}
			return nil
		})
		var before []string
		for {
			e, ok, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			before = append(before, text(e))
			i := bytes.Index(rest, e.Octets)
			if i < 0 {
				t.Fatalf("octets % x are not in the file", e.Octets)
			}
			rest = rest[i+len(e.Octets):]
			if e.Kind != backlog.Template {
				next(e.Position)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if last >= 1<<63 {
			t.Skip("more positions than there will ever be")
		}
		if got := b.Stats().Messages; got < len(messages(before)) {
			t.Fatalf("%d messages are said to wait, %d were read", got, len(messages(before)))
		}
		position := b.Next()
		if position <= last {
			t.Fatalf("the next position is %d after %d", position, last)
		}
		if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 1, Octets: []byte("later")}); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, dir, backlog.Config{})
		defer b.Close()
		later := text(backlog.Entry{Kind: backlog.Message, Position: position, Records: 1, Octets: []byte("later")})
		r = b.Reader(func([]backlog.Loss) error { return nil })
		defer r.Close()
		if got := read(t, r); !slices.Equal(got, append(before, later)) {
			t.Fatalf("read %q, then %q", before, got)
		}
	})
}
