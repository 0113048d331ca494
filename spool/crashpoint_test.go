//go:build crashpoints

package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/internal/crashpoint"
)

// TestCrashPoints has a process kill itself at each crash point in turn, on
// one spool.
func TestCrashPoints(t *testing.T) {
	dir := t.TempDir()
	for _, point := range []string{
		crashpoint.JournalCommitted, crashpoint.CheckpointWritten, crashpoint.CheckpointCommitted,
		crashpoint.Trimming, crashpoint.SettleWritten,
	} {
		for _, pass := range []int{1, 4} {
			p, log := kill(t, dir, "", 0, fmt.Sprintf("TOLLBRIDGE_CRASH=%s:%d", point, pass))
			if want := fmt.Sprintf("crash point %q pass %d", point, pass); !strings.Contains(log, want) {
				t.Errorf("the log does not say %s", want)
			}
			survived(t, dir, p)
			if t.Failed() {
				t.Fatalf("killed at %q", point)
			}
		}
	}
}

// A salvage that is killed at any moment has changed nothing, and is done anew.
func TestCrashPointsOfASalvage(t *testing.T) {
	w := newWhole(t)
	overwrite(t, filepath.Join(w.dir, "state.db"), "settled")
	for _, at := range []string{
		crashpoint.Salvaging + ":1", crashpoint.Salvaging + ":7", crashpoint.Salvaging + ":9", crashpoint.Salvaging + ":14",
		crashpoint.SalvageWhole + ":1",
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
			t.Fatal(err)
		}
		kill(t, dir, "", 0, "TOLLBRIDGE_CRASH="+at)
		if w.salvaged(t, dir); t.Failed() {
			t.Fatalf("killed at %s", at)
		}
	}
}

// A take-over of an earlier version's journal that is killed is done anew, or
// ended.
func TestCrashPointsOfATakeOver(t *testing.T) {
	for _, point := range []string{crashpoint.JournalTaking, crashpoint.JournalTaken} {
		dir := oldSpool(t)
		kill(t, dir, "", 0, "TOLLBRIDGE_CRASH="+point+":1")
		if took(t, dir); t.Failed() {
			t.Fatalf("killed at %s", point)
		}
	}
}
