//go:build crashpoints

package spool

import (
	"fmt"
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
