package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/internal/powerloss"
	"tollbridge/spool"
)

// TestMain lets the test binary be the process whose writes are traced.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARCHIVE_VICTIM"); dir != "" {
		fmt.Println("victim:", victim(dir)) // which is no promise
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim lets go of what an earlier one has archived, then accounts, archives,
// and lets go, twice, and kills itself. It says on standard output up to which entry and record all is to be
// found again from then on.
func victim(dir string) error {
	ctx := context.Background()
	l := &life{dir: dir}
	if err := l.begin(ctx); err != nil {
		return err
	}
	if kill := os.Getenv("ARCHIVE_KILLED"); kill != "" {
		l.archive.step = func(at string) {
			if at == kill {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
	}
	if err := l.letGo(ctx); err != nil {
		return err
	}
	for range 2 {
		if err := l.account(ctx); err != nil {
			return err
		}
		records, err := l.spool.NextRecord(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("stored %d %d\n", l.entries, records-1)
		if err := l.archive.Work(ctx); err != nil {
			return err
		}
		if err := l.letGo(ctx); err != nil {
			return err
		}
		fmt.Printf("archived %d 0\n", l.archive.Last())
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// letGo trims what is archived.
func (l *life) letGo(ctx context.Context) error {
	if err := l.spool.Journal().Trim(ctx, l.archive.Last()+1); err != nil {
		return err
	}
	_, err := l.spool.Outbox().TrimSettled(ctx, time.Now(), spool.Retention{})
	return err
}

// TestPowerLoss asks what spool and archive have between them when the power
// goes, and with it all that was written but not synced: the chain holds, and
// each record and each entry is in the archive once, or else in the spool.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "life")
	life := fmt.Sprintf("ARCHIVE_VICTIM=%s %s\n", dir, os.Args[0])
	// The first of three is killed once it has written a line of the manifest, and
	// has not synced it: the next takes it for one that counts.
	events := powerloss.Trace(t, dir, "ARCHIVE_KILLED='line written' "+life+life+life+"true", func(name string) bool {
		return strings.HasSuffix(name, "-shm") || strings.HasSuffix(name, "/lock")
	})
	var entries, records, archived uint64
	powerloss.EachImage(t, events, powerloss.Images(t, 40), rand.New(rand.NewPCG(1, 0)), func(text string) {
		var what string
		var n, m uint64
		if _, err := fmt.Sscan(text, &what, &n, &m); err != nil {
			t.Fatalf("%q is no promise", text)
		}
		if what == "stored" {
			entries, records = n, m
		} else {
			archived = n
		}
	}, func(image, at string) bool {
		survived(t, image, entries, records, archived)
		if t.Failed() {
			t.Fatalf("power lost after %s", at)
		}
		return true
	})
	if records == 0 || archived == 0 {
		t.Errorf("%d records were ever stored, %d entries archived", records, archived)
	}
}

// survived opens what the power left and looks for all that was promised.
func survived(t *testing.T, dir string, entries, records, archived uint64) {
	t.Helper()
	l := &life{t: t, dir: dir}
	l.check(false)
	l.open()
	defer l.close()
	if got := l.archive.Last(); got < archived {
		t.Errorf("entries are archived up to %d, it was %d", got, archived)
	}
	if got := l.spool.Journal().Durable(); got < entries {
		t.Errorf("the journal ends at %d, it was %d", got, entries)
	}
	have := make(map[uint64]bool)
	for _, s := range l.archive.segments {
		for _, r := range s.IDs {
			for id := r.First; id <= r.Last; id++ {
				have[id] = true
			}
		}
	}
	list, err := l.spool.List(t.Context(), spool.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		have[r.ID] = true
	}
	for id := uint64(1); id <= records; id++ {
		if !have[id] {
			t.Errorf("record %d is gone", id)
		}
	}
}
