package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/powerloss"
)

// TestMain lets the test binary be the process that is traced.
func TestMain(m *testing.M) {
	if dir := os.Getenv("JOURNAL_VICTIM"); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// An unsynced file is one whose writer forgot to sync it.
type unsynced struct{ file }

func (unsynced) SyncData() error { return nil }

// A killed file kills the process at the nth sync, before it.
type killed struct {
	file
	left *int
}

func (k killed) SyncData() error {
	if *k.left--; *k.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return k.file.SyncData()
}

// victim appends entries and trims behind, until it kills itself. Entry n holds
// the text n. On standard output it says what is durable, and what was trimmed.
func victim(dir string) error {
	j, err := take(dir, Config{GroupSize: 300, Segment: 4 << 10, MaxDelay: time.Millisecond})
	if err != nil {
		return err
	}
	var wrap func(f file) file
	if os.Getenv("JOURNAL_UNSYNCED") != "" {
		wrap = func(f file) file { return unsynced{f} }
	} else if n, err := strconv.Atoi(os.Getenv("JOURNAL_KILLED")); err == nil {
		wrap = func(f file) file { return killed{f, &n} }
	}
	if wrap != nil {
		j.out.file = wrap(j.out.file)
		j.disk.create = func(path string) (file, error) {
			f, err := createFile(path)
			return wrap(f), err
		}
	}
	fmt.Println("durable", j.Durable()) // it was read, and may be told on
	ctx := context.Background()
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	for said := 0; said < 60; said++ {
		var last uint64
		for range 1 + rand.IntN(20) {
			n := j.Appended() + 1
			if last, err = j.Append(acct.EntryMessage, 0, 0, strconv.AppendUint(nil, n, 10)); err != nil {
				return err
			}
		}
		if err := j.Wait(ctx, last); err != nil {
			return err
		}
		fmt.Println("durable", last)
		if said%7 == 6 {
			fmt.Println("trimmed", last-min(last, 30))
			if err := j.Trim(ctx, last-min(last, 30)); err != nil {
				return err
			}
		}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return <-ended
}

// eachImage calls look with what a disk may hold after a power cut at some moment
// of so many lives of a victim, and with what was promised by then.
func eachImage(t *testing.T, lives, images int, env func(life int) string, look func(image string, promised map[string]uint64, at string) bool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	var script strings.Builder
	for life := range lives {
		fmt.Fprintf(&script, "JOURNAL_VICTIM=%s %s %s\n", dir, env(life), os.Args[0])
	}
	script.WriteString("true")
	events := powerloss.Trace(t, dir, script.String(), func(string) bool { return false })
	promised := make(map[string]uint64)
	powerloss.EachImage(t, events, images, rand.New(rand.NewPCG(1, 0)), func(text string) {
		what, number, _ := strings.Cut(text, " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("%q is no promise", text)
		}
		promised[what] = max(promised[what], n)
	}, func(image, at string) bool { return look(image, promised, at) })
	if promised["durable"] == 0 || promised["trimmed"] == 0 {
		t.Errorf("promised were %v", promised)
	}
}

// Whenever the power goes, and whatever of what was not synced is lost, all that
// was called durable is there, in order, and nothing else but what was appended
// behind it.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	images := 40
	if n, err := strconv.Atoi(os.Getenv("TOLLBRIDGE_POWERLOSS")); err == nil {
		images = n
	}
	// Some of the lives end between a write and its sync.
	env := func(life int) string { return []string{"", "JOURNAL_KILLED=9", "JOURNAL_KILLED=2", ""}[life] }
	eachImage(t, 4, images, env, func(image string, promised map[string]uint64, at string) bool {
		if _, err := os.Stat(image); err != nil {
			return true // there is no directory yet
		}
		var epoch uint64
		for range 2 { // what opening it does, does not show
			j := open(t, image, Config{GroupSize: 300})
			if j.Durable() < promised["durable"] {
				t.Errorf("it ends at %d, promised was %d", j.Durable(), promised["durable"])
			}
			first := j.Stats().First
			if first > promised["trimmed"]+1 {
				t.Errorf("it begins at %d, trimmed was %d", first, promised["trimmed"])
			}
			if epoch >= j.cfg.Epoch {
				t.Errorf("epoch %d after %d", j.cfg.Epoch, epoch)
			}
			epoch = j.cfg.Epoch
			r := j.Reader(first - 1)
			for at := first - 1; at < j.Durable(); {
				es, err := r.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range es {
					at++
					if e.Position != at || string(e.Data) != strconv.FormatUint(at, 10) {
						t.Fatalf("entry %d %q, want %d", e.Position, e.Data, at)
					}
				}
			}
			if n := j.Stats().DamagedGroups; n != 0 {
				t.Errorf("%d groups are damaged", n)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Fatalf("power lost after %s", at)
		}
		return true
	})
}

// TestPowerLossFindsWhatIsNotSynced plants the mistake that TestPowerLoss is there
// for.
func TestPowerLossFindsWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	found := false
	eachImage(t, 1, 20, func(int) string { return "JOURNAL_UNSYNCED=1" }, func(image string, promised map[string]uint64, _ string) bool {
		if _, err := os.Stat(image); err == nil {
			j := open(t, image, Config{GroupSize: 300})
			found = found || j.Durable() < promised["durable"]
		}
		return true
	})
	if !found {
		t.Error("a journal that is never synced has lost nothing in any image")
	}
}
