package backlog_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tollbridge/ipfix/export/backlog"
)

// A spoiled is a Backlog of many files, the first of which is damaged.
type spoiled struct {
	dir  string
	b    *backlog.Backlog
	last uint64 // position of the last Message
}

const spoiledSegment = 4 << 10

// spoil makes one. The first file has two Templates, 256 and 257, and between
// them and behind them Messages of as many records as their position, which need
// 256 if that is odd, else 257.
func spoil(t *testing.T, damage func(segment []byte)) *spoiled {
	s := &spoiled{dir: t.TempDir()}
	s.b = open(t, s.dir, backlog.Config{Segment: spoiledSegment})
	t.Cleanup(func() { s.b.Close() })
	for s.last < 100 {
		position := s.b.Next()
		id := uint16(257 - position%2)
		if err := s.b.Define(id, false, binary.BigEndian.AppendUint16(nil, id)); err != nil {
			t.Fatal(err)
		}
		if err := s.b.Append(backlog.Entry{Kind: backlog.Message, Records: uint32(position), Octets: ipfixMessage(id, 100+int(position%3))}); err != nil {
			t.Fatal(err)
		}
		s.last = position
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "*.segment"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	segment, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	damage(segment)
	if err := os.WriteFile(names[0], segment, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// reopen begins a life of its own.
func (s *spoiled) reopen(t *testing.T) {
	t.Helper()
	if err := s.b.Close(); err != nil {
		t.Fatal(err)
	}
	s.b = open(t, s.dir, backlog.Config{Segment: spoiledSegment})
}

// ipfixMessage is one of octets, with a Set of a Template.
func ipfixMessage(template uint16, octets int) []byte {
	m := bytes.Repeat([]byte{0xa5}, octets)
	binary.BigEndian.PutUint16(m[16:], template)
	binary.BigEndian.PutUint16(m[18:], uint16(octets-16))
	return m
}

// entryAt returns where the entry of a Message begins.
func entryAt(segment []byte, position uint64) int {
	at := headerLength
	for segment[at+8] == byte(backlog.Template) || binary.BigEndian.Uint64(segment[at+9:]) != position {
		at += entryHeader + int(binary.BigEndian.Uint32(segment[at+4:]))
	}
	return at
}

// What is damaged costs the Messages in it, and those that can't be read for
// want of a Template: they are told, the others are sent.
func TestDamageIsNotTheEnd(t *testing.T) {
	flip := func(position uint64, octet int) func([]byte) {
		return func(segment []byte) {
			segment[entryAt(segment, position)+octet] ^= 0x10
		}
	}
	zero := func(first, last uint64) func([]byte) { // from the middle of one to the middle of another
		return func(segment []byte) {
			clear(segment[entryAt(segment, first)+50 : entryAt(segment, last)+50])
		}
	}
	const inOne = 33 // Messages of the first file
	odd := make(map[uint64]uint32)
	for p := uint64(1); p <= inOne; p += 2 {
		odd[p] = uint32(p)
	}
	for _, tt := range []struct {
		name   string
		damage func(segment []byte)
		lost   map[uint64]uint32 // what is told, with records
	}{
		{"an octet of a Message", flip(7, 60), map[uint64]uint32{7: 7}},
		{"its checksum", flip(7, 2), map[uint64]uint32{7: 7}},
		{"its length", flip(7, 7), map[uint64]uint32{7: 7}},
		{"its kind", flip(7, 8), map[uint64]uint32{7: 0}},
		{"its position", flip(7, 16), map[uint64]uint32{7: 0}},
		{"two that follow each other", func(b []byte) { flip(7, 60)(b); flip(8, 60)(b) }, map[uint64]uint32{7: 7, 8: 8}},
		{"the first", flip(1, 60), map[uint64]uint32{1: 1}},
		{"the last of its file", flip(inOne, 60), map[uint64]uint32{inOne: inOne}},
		{"a sector", zero(9, 13), map[uint64]uint32{9: 9, 10: 0, 11: 0, 12: 0, 13: 0}},
		{"the end of the file", func(segment []byte) {
			clear(segment[entryAt(segment, 30):])
		}, map[uint64]uint32{30: 0, 31: 0, 32: 0, 33: 0}},
		{"a Template", func(segment []byte) { segment[headerLength+entryHeader] ^= 1 }, odd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spoil(t, tt.damage)
			for life := range 2 {
				if life > 0 {
					s.reopen(t)
				}
				told := make(map[uint64]uint32)
				tell := func(losses []backlog.Loss) error {
					for _, l := range losses {
						if _, before := told[l.Position]; before || !l.Sent || !l.Damaged {
							t.Errorf("life %d: told is %+v", life, l)
						}
						told[l.Position] = l.Records
					}
					return nil
				}
				for reader := range 2 { // the second is told of nothing
					r := s.b.Reader(tell)
					next := uint64(1)
					for {
						e, ok, err := r.Next()
						if err != nil {
							t.Fatal(err)
						}
						if !ok {
							break
						}
						if e.Kind == backlog.Template {
							continue
						}
						for ; next < e.Position; next++ {
							if _, ok := told[next]; !ok {
								t.Errorf("life %d, reader %d: Message %d is passed over, and not told when %d is sent", life, reader, next, e.Position)
							}
						}
						next++
					}
					if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					if next != s.last+1 {
						t.Errorf("life %d: %d is the last Message, want %d", life, next-1, s.last)
					}
				}
				if !maps.Equal(told, tt.lost) {
					t.Errorf("life %d: lost are, with their records, %v, want %v", life, told, tt.lost)
				}
			}
			if _, err := s.b.Acknowledge(s.last); err != nil {
				t.Fatal(err)
			}
			if st := s.b.Stats(); st.Messages != 0 {
				t.Errorf("all was acknowledged: %+v", st)
			}
		})
	}
}

// Who gives a damaged file up tells of all Messages that it had.
func TestGiveUpTellsOfDamage(t *testing.T) {
	s := spoil(t, func(segment []byte) {
		segment[entryAt(segment, 7)+60] ^= 1
		segment[entryAt(segment, 33)+60] ^= 1
	})
	var told, damaged []uint64
	err := s.b.GiveUp(func(losses []backlog.Loss) error {
		for _, l := range losses {
			told = append(told, l.Position)
			if l.Damaged {
				damaged = append(damaged, l.Position)
			}
			if l.Records != uint32(l.Position) || l.Sent != l.Damaged {
				t.Errorf("given up is %+v", l)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 33 || !slices.IsSorted(told) || told[0] != 1 || told[32] != 33 || !slices.Equal(damaged, []uint64{7, 33}) {
		t.Errorf("given up are %v, damaged %v", told, damaged)
	}
}

// A Reader that can't tell what is damaged goes no further, and nothing behind it
// can be acknowledged.
func TestDamageIsToldBeforeWhatIsBehindIt(t *testing.T) {
	s := spoil(t, func(segment []byte) {
		segment[entryAt(segment, 7)+60] ^= 1
	})
	full := os.ErrDeadlineExceeded
	r := s.b.Reader(func([]backlog.Loss) error { return full })
	defer r.Close()
	for {
		e, ok, err := r.Next()
		if err == full { //nolint:errorlint // it is returned bare
			break
		}
		if err != nil || !ok || e.Kind != backlog.Template && e.Position > 6 {
			t.Fatal(e.Position, ok, err)
		}
	}
	if _, err := s.b.Acknowledge(s.last); err != nil {
		t.Fatal(err)
	}
	if acked := s.b.Acknowledged(); acked > 7 {
		t.Errorf("%d is acknowledged, and Message 7 was never told of", acked)
	}
}

// In one file an ID means one Template.
func TestAnotherMeaningBeginsAFile(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, backlog.Config{})
	defer b.Close()
	for _, meaning := range []string{"one", "one", "another"} {
		if err := b.Define(256, false, []byte(meaning)); err != nil {
			t.Fatal(err)
		}
		if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 1, Octets: ipfixMessage(256, 40)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.Stats().Segments; n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}
