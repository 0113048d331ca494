package backlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/ipfix/export/backlog"
)

type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func open(t tb, dir string, cfg backlog.Config) *backlog.Backlog {
	t.Helper()
	b, err := backlog.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// undamaged is who is told of Messages that are damaged, where none is.
func undamaged(t tb) func([]backlog.Loss) error {
	return func(losses []backlog.Loss) error {
		t.Fatalf("damaged: %+v", losses)
		return nil
	}
}

// read returns what a Reader has, as text.
func read(t tb, r *backlog.Reader) (all []string) {
	t.Helper()
	for {
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, text(e))
	}
}

func text(e backlog.Entry) string {
	return fmt.Sprintf("%d %v %d %d %x", e.Kind, e.Options, e.Position, e.Records, e.Octets)
}

func messages(entries []string) []string {
	return slices.DeleteFunc(slices.Clone(entries), func(s string) bool { return s[0] == '1' })
}

func TestTemplatesComeBeforeTheirMessages(t *testing.T) {
	b := open(t, t.TempDir(), backlog.Config{Segment: 200})
	defer b.Close()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(b.Define(256, false, []byte{1}))
	check(b.Define(300, true, []byte{2}))
	for i := range 20 {
		if i == 10 {
			check(b.Define(256, false, []byte{3}))
		}
		check(b.Append(backlog.Entry{Kind: backlog.Message, Records: 1, Octets: bytes.Repeat([]byte{byte(i)}, 50)}))
	}
	r := b.Reader(undamaged(t))
	defer r.Close()
	known := map[uint64]byte{}
	n := 0
	for {
		e, ok, err := r.Next()
		check(err)
		if !ok {
			break
		}
		if e.Kind == backlog.Template {
			known[e.Position] = e.Octets[0]
			continue
		}
		want := byte(1)
		if e.Octets[0] >= 10 {
			want = 3
		}
		if known[256] != want || known[300] != 2 {
			t.Errorf("message %d is read with templates %v", e.Octets[0], known)
		}
		n++
		if n%3 == 0 { // whatever went before, the next segment has its templates
			check(b.Sending())
			if _, err := b.Acknowledge(e.Position); err != nil {
				t.Fatal(err)
			}
			check(r.Close())
			r = b.Reader(undamaged(t))
			clear(known)
		}
	}
	if n != 20 {
		t.Errorf("%d messages", n)
	}
}

// kill -9 leaves what write(2) took: any prefix of the last entry.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, backlog.Config{})
	if err := b.Define(256, false, []byte("template")); err != nil {
		t.Fatal(err)
	}
	var ends []int64
	file := func() string {
		names, err := filepath.Glob(filepath.Join(dir, "*.segment"))
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		return names[0]
	}
	for i := range 3 {
		if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 2, Octets: []byte{byte(i), 7, 7}}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file())
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.Size())
	}
	instance, last := b.Instance(), b.Next()-1
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(file())
	for cut := range len(whole) + 1 {
		for _, garbage := range []string{"", "\x00\x00\x00\x00\x00", "no entry at all, but long enough for a header of one"} {
			again := t.TempDir()
			id, err := os.ReadFile(filepath.Join(dir, "instance"))
			if err != nil {
				t.Fatal(err)
			}
			if garbage != "" && (cut < 30 || cut%5 != 0) {
				continue // write(2) leaves a prefix of the header, nothing else
			}
			for n, data := range map[string][]byte{"instance": id, name: append(whole[:cut:cut], garbage...)} {
				if err := os.WriteFile(filepath.Join(again, n), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b := open(t, again, backlog.Config{})
			want := 0
			for _, end := range ends {
				if int64(cut) >= end {
					want++
				}
			}
			r := b.Reader(undamaged(t))
			if got := messages(read(t, r)); len(got) != want || b.Instance() != instance {
				t.Fatalf("cut at %d: %d messages, want %d", cut, len(got), want)
			}
			if want > 0 && b.Next() <= last {
				t.Fatalf("cut at %d: position %d may have been used", cut, b.Next())
			}
			if err := errors.Join(r.Close(), b.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, backlog.Config{})
	if _, err := backlog.Open(dir, backlog.Config{}); !errors.Is(err, backlog.ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, backlog.Config{}).Close()
}

func TestForeignSegmentIsNotTouched(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	b := open(t, one, backlog.Config{})
	if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 1, Octets: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	open(t, other, backlog.Config{}).Close()
	names, _ := filepath.Glob(filepath.Join(one, "*.segment"))
	data, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(other, filepath.Base(names[0]))
	if err := os.WriteFile(moved, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backlog.Open(other, backlog.Config{}); err == nil {
		t.Error("messages of another exporter are taken for ours")
	}
	if _, err := os.Stat(moved); err != nil {
		t.Error(err)
	}
}

// Whatever is appended, read, acknowledged, given up, and killed in between:
// each message is read until it is acknowledged or told to be given up.
func TestModel(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		cfg := backlog.Config{Segment: 300}
		b := open(t, dir, cfg)
		defer func() { b.Close() }()
		type kept struct {
			position uint64
			text     string
		}
		var model []kept
		var acked uint64
		last, handed := uint64(0), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				body := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "body")
				p := b.Next()
				if p <= last {
					t.Fatalf("position %d after %d", p, last)
				}
				last = p
				if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 3, Octets: body}); err != nil {
					t.Fatal(err)
				}
				model = append(model, kept{p, text(backlog.Entry{Kind: backlog.Message, Position: p, Records: 3, Octets: body})})
			},
			"acknowledge": func(t *rapid.T) {
				p := rapid.Uint64Range(0, last+2).Draw(t, "position")
				if _, err := b.Acknowledge(p); err != nil {
					t.Fatal(err)
				}
				acked = max(acked, min(p, handed)) // nobody can have what was never sent
				model = slices.DeleteFunc(model, func(k kept) bool { return k.position <= acked })
			},
			"give up": func(t *rapid.T) {
				err := b.GiveUp(func(all []backlog.Loss) error {
					for _, l := range all {
						if len(model) == 0 || model[0].position != l.Position || l.Sent != (l.Position <= handed) {
							t.Fatalf("given up is %d, sent %v; handed out up to %d of %v", l.Position, l.Sent, handed, model)
						}
						model = model[1:]
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			},
			"kill": func(t *rapid.T) {
				if err := b.Sending(); err != nil {
					t.Fatal(err)
				}
				b.Close()
				b = open(t, dir, cfg)
			},
			"": func(t *rapid.T) {
				if b.Acknowledged() != acked || b.Stats().Messages != len(model) {
					t.Fatalf("%+v, want %d messages behind %d", b.Stats(), len(model), acked)
				}
				r := b.Reader(undamaged(t))
				got := messages(read(t, r))
				if err := errors.Join(r.Close(), b.Sending()); err != nil {
					t.Fatal(err)
				}
				handed = max(handed, b.LastSent())
				if len(got) != len(model) {
					t.Fatalf("%d messages are read, want %d", len(got), len(model))
				}
				for i := range got {
					if got[i] != model[i].text {
						t.Fatalf("message %d is %s, want %s", i, got[i], model[i].text)
					}
				}
			},
		})
	})
}
