package positions_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/positions"
	"tollbridge/internal/octets"
	"tollbridge/ipfix/ack"
)

type states map[string][]byte

func (s states) put(key string, value []byte) {
	if value == nil {
		delete(s, key)
	} else {
		s[key] = value
	}
}

func (s states) restored(t interface{ Fatal(...any) }) *positions.Spools {
	x := positions.NewSpools()
	for key, value := range s {
		if err := x.Restore(key, value); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// What is known of a position is what was noted last, also after a restart.
func TestSpoolsAgainstMap(t *testing.T) {
	type place struct {
		exporter string
		instance byte
		position uint64
	}
	type noted struct {
		digest   uint64
		interval int64
	}
	rapid.Check(t, func(t *rapid.T) {
		x, stored, model := positions.NewSpools(), make(states), make(map[place]noted)
		for n := range rapid.IntRange(1, 100).Draw(t, "steps") {
			p := place{rapid.SampledFrom([]string{"a", "b/c"}).Draw(t, "exporter"), rapid.ByteRange(0, 1).Draw(t, "instance"), rapid.Uint64Range(0, 600).Draw(t, "position")}
			s := x.Of(p.exporter, ack.Instance{p.instance}, uint64(n))
			digest := rapid.Uint64Range(1, 3).Draw(t, "digest") << 8
			was, known := model[p]
			want := positions.Never
			switch {
			case !known:
			case was.digest == 0:
				want = positions.GivenUp
			case was.digest == digest:
				want = positions.Same
			default:
				want = positions.Other
			}
			if seen, interval := s.Look(p.position, digest); seen != want || seen == positions.GivenUp && interval != was.interval {
				t.Fatalf("%+v: %d in %d, want %d of %+v", p, seen, interval, want, was)
			}
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				x.Came(s, p.position, digest)
				model[p] = noted{digest: digest}
			case 2:
				interval := int64(n) * 300
				if news, ok := x.GiveUp(s, p.position, interval); news == known || !ok {
					t.Fatalf("given up: news %t, %t", news, ok)
				} else if news {
					model[p] = noted{interval: interval}
				}
			case 3:
				x.Delta(stored.put)
				x = stored.restored(t)
			}
		}
	})
}

// What is known of one exporter is bounded: the lowest positions of a spool and
// the spool used least recently are forgotten, in the store too.
func TestBounds(t *testing.T) {
	x, stored := positions.NewSpools(), make(states)
	for n := range uint64(200) { // far apart
		x.Came(x.Of("a", ack.Instance{}, n), n*1000, 2)
	}
	x.Delta(stored.put)
	x = stored.restored(t)
	s := x.Of("a", ack.Instance{}, 200)
	if seen, _ := s.Look(0, 2); seen != positions.Forgotten {
		t.Errorf("the lowest position: %d", seen)
	}
	if seen, _ := s.Look(199_000, 2); seen != positions.Same {
		t.Errorf("the highest position: %d", seen)
	}
	if news, known := x.GiveUp(s, 0, 300); !news || known {
		t.Errorf("given up at the lowest position: news %t, known %t", news, known)
	}
	most := len(stored)
	for n := range 200 {
		x.Came(x.Of("a", ack.Instance{byte(n), 1}, uint64(201+n)), 1, 2)
	}
	x.Of("b", ack.Instance{}, 500)
	x.Delta(stored.put)
	if len(stored) >= most+64 {
		t.Errorf("%d values stored, %d before", len(stored), most)
	}
	if _, ok := stored[strings.Repeat("00", 16)+"//a"]; ok {
		t.Error("the spool used least recently is still stored")
	}
	if _, ok := stored[strings.Repeat("00", 16)+"//b"]; !ok {
		t.Error("another exporter's is not")
	}
}

func TestRestoreRefuses(t *testing.T) {
	id := strings.Repeat("00", 16)
	for _, c := range []struct{ name, key, value string }{
		{"no instance", "00//a", "\x01\x00\x00"},
		{"an instance that is none", strings.Repeat("zz", 16) + "//a", "\x01\x00\x00"},
		{"no exporter", id, "\x01\x00\x00"},
		{"another version", id + "//a", "\x02\x00\x00"},
		{"half a spool", id + "//a", "\x01\x00"},
		{"half a chunk", id + "/0/a", "\x01\x00"},
		{"no number of a chunk", id + "/x/a", "\x01" + strings.Repeat("\x00", 8*256)},
		{"nothing", id + "//a", ""},
	} {
		if err := positions.NewSpools().Restore(c.key, []byte(c.value)); !errors.Is(err, octets.ErrCorrupt) {
			t.Error(fmt.Errorf("%s: %w", c.name, err))
		}
	}
}
