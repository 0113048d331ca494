package spool

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tollbridge/internal/powerloss"
)

// TestPowerLoss asks what a spool keeps when the power goes, and with it all
// that was written but not synced. The process that is traced is killed and
// starts again twice. Whatever was promised before the moment of an image must
// be there, and the books must balance.
//
// TOLLBRIDGE_POWERLOSS is how many images are looked at.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	images := 25
	if n, err := strconv.Atoi(os.Getenv("TOLLBRIDGE_POWERLOSS")); err == nil {
		images = n
	}
	events := traceVictim(t, 3, "")
	r := rand.New(rand.NewPCG(1, 0))
	p := eachImage(t, events, images, r, func(image string, p promised, at string) bool {
		survived(t, image, p)
		if t.Failed() {
			t.Fatalf("power lost after %s", at)
		}
		return true
	})
	for _, kind := range []string{"durable", "checkpoint", "settled", "stored"} {
		if p[kind] == 0 {
			t.Errorf("nothing was ever promised to be %s", kind)
		}
	}
}

func sameContent(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// TestPowerLossFindsWhatIsNotSynced plants the mistake that TestPowerLoss is
// there for.
func TestPowerLossFindsWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	events := traceVictim(t, 1, "NORMAL")
	found := false
	eachImage(t, events, 40, rand.New(rand.NewPCG(1, 0)), func(image string, p promised, _ string) bool {
		s, err := Open(image, Config{GroupSize: 300})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		found = s.Journal().Durable() < p["durable"] || load(t, s).Position < p["checkpoint"]
		return !found
	})
	if !found {
		t.Error("a journal and a checkpoint that are not synced at a commit have lost nothing in any image")
	}
}

// traceVictim traces the lives of a victim on one spool. Synchronous is what
// SQLite is told; "" leaves it as it is.
func traceVictim(t *testing.T, lives int, synchronous string) []powerloss.Event {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	life := fmt.Sprintf("SPOOL_VICTIM=%s SPOOL_VICTIM_PROMISES=60 SPOOL_VICTIM_SYNCHRONOUS=%s %s\n", dir, synchronous, os.Args[0])
	return powerloss.Trace(t, dir, strings.Repeat(life, lives)+"true", rebuilt)
}

// rebuilt reports whether nothing of a file is durable: the index of a WAL is
// made anew from it, and nothing is in the lock.
func rebuilt(name string) bool { return strings.HasSuffix(name, "-shm") || name == "lock" }

// TestPowerLossOfASalvage has the power go at any moment of a salvage, most of
// all at its end, when names change: there is the old database, which is
// salvaged anew, or the new one, and the books balance.
func TestPowerLossOfASalvage(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	overwrite(t, filepath.Join(w.dir, "state.db"), "settled")
	disk := powerloss.DiskOf(t, w.dir)
	events := powerloss.Trace(t, w.dir, fmt.Sprintf("SPOOL_SALVAGED=%s %s", w.dir, os.Args[0]), rebuilt)
	first := func(what string) int {
		i := slices.IndexFunc(events, func(e powerloss.Event) bool { return strings.HasPrefix(e.String(), what) })
		if i < 0 {
			t.Fatalf("there is no %s", what)
		}
		return i
	}
	names := first("create state.db" + damagedInfix) // from here on they change
	renamed := first("rename state.db.salvage") + 3  // and the directory is synced
	at := make(map[string]int)                       // which database was found how often
	look := func(image, moment string) bool {
		found := "old"
		if kept, err := filepath.Glob(filepath.Join(image, "state.db.damaged-*Z")); err == nil && len(kept) > 0 && !sameContent(t, kept[0], filepath.Join(image, "state.db")) {
			found = "new"
		}
		at[found]++
		if w.salvaged(t, image); t.Failed() {
			t.Fatalf("power lost after %s: %s database", moment, found)
		}
		return true
	}
	promise := func(text string) { t.Fatalf("%q is no promise", text) }
	r := rand.New(rand.NewPCG(3, 0))
	disk.EachImage(t, events[:names], powerloss.Images(t, 4), r, promise, look)
	disk.EachImage(t, events[names:renamed], 4*powerloss.EverySync, r, promise, look)
	disk.EachImage(t, events[renamed:], powerloss.Images(t, 1), r, promise, look)
	if at["old"] == 0 || at["new"] == 0 {
		t.Errorf("found were %v", at)
	}
}

// eachImage calls f with so many images of random moments, and what was
// promised until then, while it returns true. It returns what was promised in
// all.
func eachImage(t *testing.T, events []powerloss.Event, images int, r *rand.Rand, f func(image string, p promised, at string) bool) promised {
	t.Helper()
	p := make(promised)
	powerloss.EachImage(t, events, images, r, func(text string) {
		what, number, _ := strings.Cut(text, " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("%q is no promise", text)
		}
		p[what] = max(p[what], n)
	}, func(image, at string) bool { return f(image, maps.Clone(p), at) })
	return p
}
