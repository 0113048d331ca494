package journal

import (
	"context"
	"errors"
	"os"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

// tempDir is t.TempDir for rapid, in memory where there is such a file system:
// models restart a lot, and wait for no disk.
func tempDir(t interface{ Fatalf(string, ...any) }) (dir string, remove func()) {
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		dir, err = os.MkdirTemp("", "journal")
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// TestJournalModel compares a journal with a list, over restarts, crashes that
// leave any part of what was not synced, holders that are replaced and do not know
// it, trims, and readers of any speed.
func TestJournalModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, remove := tempDir(t)
		defer remove()
		cfg := Config{GroupSize: 200, Recent: 600, Segment: 2048}
		j, err := take(dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { j.Close() }()
		var model []string // by position-1
		trimmed := 0       // at most so many are gone
		durable := 0
		fill := func(t *rapid.T, j *Journal) (data []string) {
			resume(t, j)
			for range rapid.IntRange(1, 10).Draw(t, "n") {
				d := rapid.StringN(0, 80, 700).Draw(t, "data")
				p, err := j.Append(acct.EntryMessage, 0, 0, []byte(d))
				if err != nil {
					t.Fatal(err)
				}
				data = append(data, d)
				if p != j.next-1 {
					t.Fatalf("position %d, want %d", p, j.next-1)
				}
			}
			return data
		}
		// again opens the journal, whose end is one of those that it may have.
		again := func(t *rapid.T) {
			if j, err = take(dir, cfg); err != nil {
				t.Fatal(err)
			}
			if end := int(j.Durable()); end < durable || end > len(model) {
				t.Fatalf("it ends at %d, durable were %d of %d", end, durable, len(model))
			}
			durable = int(j.Durable())
			model = model[:durable]
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if j.next != uint64(len(model)+1) {
					t.Fatalf("next is %d, want %d", j.next, len(model)+1)
				}
			},
			"append": func(t *rapid.T) { model = append(model, fill(t, j)...) },
			"flush": func(t *rapid.T) {
				if err := j.Run(ended); err != nil {
					t.Fatal(err)
				}
				durable = len(model)
			},
			"restart": func(t *rapid.T) {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				model = model[:durable] // the rest was never written
				again(t)
			},
			"crash": func(t *rapid.T) {
				tear(t, j)
				again(t)
			},
			"replaced": func(t *rapid.T) {
				old := j
				model = model[:durable]
				again(t)
				fill(t, old)
				if err := old.Run(ended); !errors.Is(err, ErrFenced) {
					t.Fatalf("who was replaced writes on: %v", err)
				}
				if rapid.Bool().Draw(t, "more") { // as if it had looked at the lease before it wrote
					tear(t, old)
				}
				old.Close()
			},
			"trim": func(t *rapid.T) {
				below := rapid.IntRange(0, len(model)+2).Draw(t, "below")
				if err := j.Trim(context.Background(), uint64(below)); err != nil {
					t.Fatal(err)
				}
				trimmed = max(trimmed, min(below-1, durable))
			},
			"read all": func(t *rapid.T) {
				if trimmed >= durable {
					return
				}
				after := rapid.IntRange(trimmed, durable-1).Draw(t, "after")
				from := j
				if rapid.Bool().Draw(t, "beside") {
					if from, err = OpenReadOnly(dir, cfg.withDefaults()); err != nil {
						t.Fatal(err)
					}
					if from.Durable() != uint64(durable) {
						t.Fatalf("who looks at it sees %d, durable are %d", from.Durable(), durable)
					}
				}
				r := from.Reader(uint64(after))
				for at := after; at < durable; {
					es, err := r.Next(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range es {
						if e.Position != uint64(at+1) || string(e.Data) != model[at] {
							t.Fatalf("entry %d %q, want %d %q", e.Position, e.Data, at+1, model[at])
						}
						at++
					}
				}
			},
			"read one": func(t *rapid.T) {
				if trimmed >= durable {
					return
				}
				p := rapid.IntRange(trimmed+1, durable).Draw(t, "position")
				e, err := j.Read(context.Background(), uint64(p))
				if err != nil || string(e.Data) != model[p-1] {
					t.Fatalf("Read(%d): %q, %v; want %q", p, e.Data, err, model[p-1])
				}
			},
		})
	})
}

// ended makes Run and flush commit what there is.
var ended = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

// tear writes what j has not committed as a power cut may leave it: each frame
// whole, or without some of its sectors, or not at all.
func tear(t *rapid.T, j *Journal) {
	if j.open != nil {
		j.sealLocked()
	}
	if j.out == nil {
		return
	}
	for _, g := range j.sealed {
		at := j.out.at
		g.seal()
		if err := j.disk.write(j.out, g); err != nil {
			t.Fatal(err)
		}
		for s := at; s < j.out.at; s += sector {
			if rapid.IntRange(0, 3).Draw(t, "sector") == 0 {
				if _, err := j.out.file.WriteAt(make([]byte, sector), s); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
