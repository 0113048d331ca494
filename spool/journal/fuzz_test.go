package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"tollbridge/asm/acct"
)

// FuzzSegment reads anything as a segment: nothing panics, no entry comes out of it
// that does not lie there, and every position up to its end is an entry, or is said
// to be lost, or was never there.
func FuzzSegment(f *testing.F) {
	n := name{epoch: 1, serial: 1, first: 1, salt: 0x5eed}
	whole := encodeSegment(f, n)
	f.Add(whole, uint32(0))
	f.Add(whole, uint32(1))
	f.Add(whole, uint32(2))
	f.Add(whole[:len(whole)-sector], uint32(0))
	f.Add(append(bytes.Clone(whole[:2*sector]), make([]byte, 3*sector)...), uint32(0))
	f.Add(append(make([]byte, sector), whole[sector:]...), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, salt uint32) {
		named := n
		named.salt += salt
		if salt > 1 { // headers of frames that say anything, and say it with a checksum
			b = bytes.Clone(b)
			for at := 0; at+frameHeader+groupHeader <= len(b); at += sector {
				if binary.BigEndian.Uint32(b[at:]) == frameMagic {
					binary.BigEndian.PutUint32(b[at+28:], frameSum(named.sum(), b[at:]))
				}
			}
		}
		s := newSegment("", named)
		file := bytes.NewReader(b)
		if certain, err := s.scan(file, int64(len(b))); err != nil || certain.offset > s.end || certain.first > s.last+1 {
			t.Fatal(certain, err)
		}
		if salt == 1 && bytes.Equal(b, whole) && s.last >= s.first {
			t.Fatalf("frames of another segment are taken: it ends at %d", s.last)
		}
		at, entriesRead := s.first, 0
		for all := s.view().frames(file, s.begin); ; {
			f, lost, err := all.next()
			if lost.lost() {
				if lost.first != at || lost.last > s.last {
					t.Fatalf("lost are %+v, read up to %d of %d", lost, at-1, s.last)
				}
				at = lost.last + 1
			}
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if f.first < at || f.last() > s.last || f.end() > s.end {
				t.Fatalf("%+v behind %d, up to %d", f, at-1, s.last)
			}
			at = f.last() + 1
			g, err := all.group(f, nil)
			if errors.Is(err, ErrDamaged) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			es, err := entries(nil, g.first, g.octets(), g.first)
			if err != nil || len(es) != int(f.count) {
				t.Fatalf("%d entries of %d, %v", len(es), f.count, err)
			}
			for _, e := range es {
				if !bytes.Contains(b, e.Data) {
					t.Fatalf("entry %d is invented", e.Position)
				}
			}
			entriesRead += len(es)
		}
		if at > s.last+1 {
			t.Fatalf("read up to %d of %d", at-1, s.last)
		}
		if bytes.Equal(b, whole) && salt == 0 && entriesRead != 15 {
			t.Fatalf("%d of 15 entries are read", entriesRead)
		}
	})
}

// encodeSegment returns a segment of some groups, closed in order.
func encodeSegment(tb testing.TB, n name) []byte {
	tb.Helper()
	d := newDisk(tb.TempDir())
	out, err := d.begin(n, nil)
	if err != nil {
		tb.Fatal(err)
	}
	next := n.first
	for i := range 5 {
		g := newGroup(next, int64(i), nil)
		for k := range 3 {
			g.append(acct.EntryMessage, int64(i+k), 1, bytes.Repeat([]byte{byte(i), byte(k)}, 40))
		}
		g.seal()
		if err := errors.Join(d.write(out, g), out.sync()); err != nil {
			tb.Fatal(err)
		}
		out.last, next = g.last(), g.last()+1
	}
	if err := d.seal(out); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(out.path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// FuzzFrame reads the header of a frame from anything.
func FuzzFrame(f *testing.F) {
	n := name{1, 1, 1, 0x5eed}
	f.Add(encodeSegment(f, n)[:sector])
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, ok := parseFrame(b, n.sum(), 0)
		if !ok {
			return
		}
		if fr.first == 0 || fr.end() < sector || fr.last() < fr.first-1 {
			t.Fatalf("%+v", fr)
		}
		r := &frames{file: bytes.NewReader(b), sum: n.sum(), limit: int64(len(b)), expect: 1, last: 1 << 62, room: make([]byte, sector)}
		if _, err := r.group(fr, nil); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// A name is read as it was written, and nothing else is a name.
func TestNames(t *testing.T) {
	for _, n := range []name{{1, 1, 1, 0}, {1 << 40, 1 << 30, 1<<63 + 5, 0xffffffff}} {
		if got, ok := parseName(n.String()); !ok || got != n {
			t.Errorf("%s is read as %v, %v", n, got, ok)
		}
	}
	for _, s := range []string{"", "x.segment", "1-1-1-0.segment", "00000001-000001-00000000000000000000-00000000.segment", name{1, 1, 1, 0}.String() + "x"} {
		if n, ok := parseName(s); ok {
			t.Errorf("%q is read as %v", s, n)
		}
	}
	dir := t.TempDir()
	for _, n := range []name{{2, 1, 5, 7}, {1, 2, 9, 7}, {1, 1, 1, 7}, {10, 1, 6, 7}} {
		if err := os.WriteFile(filepath.Join(dir, n.String()), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, _, err := list(dir)
	if err != nil || len(names) != 4 || names[0].first != 1 || names[1].first != 9 || names[2].first != 5 || names[3].first != 6 {
		t.Errorf("in order: %v, %v", names, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "copy of x.segment"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := list(dir); err == nil {
		t.Error("a segment with another name is passed over")
	}
}
