package backlog

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// What an fsync failed for is not safe because a later one, of another file or
// of pages that the kernel has given up, succeeds; it is no matter any more once
// it is acknowledged.
func TestSyncThatFailed(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(*testing.T, *Backlog)
	}{
		{"of what is appended to", func(t *testing.T, b *Backlog) {
			if err := b.Sync(); !errors.Is(err, syscall.EINVAL) {
				t.Fatal(err)
			}
		}},
		{"of a file that is full", func(t *testing.T, b *Backlog) {
			b.lastLocked().end = b.cfg.Segment
			if err := b.Append(Entry{Kind: Message, Records: 2, Octets: make([]byte, 100)}); !errors.Is(err, syscall.EINVAL) {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Open(t.TempDir(), Config{Segment: 4 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			add := func() {
				t.Helper()
				if err := b.Append(Entry{Kind: Message, Records: 2, Octets: make([]byte, 100)}); err != nil {
					t.Fatal(err)
				}
			}
			add()
			// A pipe can't be synced, as a file on a disk that fails.
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := b.active.Close(); err != nil {
				t.Fatal(err)
			}
			b.active = w
			tt.fail(t, b)

			add()
			if err := b.Sync(); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("the first Message, of which no fsync ever succeeded, is said to be safe: %v", err)
			}
			if !b.hand(1) {
				t.Fatal("the first Message is not sent")
			}
			if _, err := b.Acknowledge(1); err != nil {
				t.Fatal(err)
			}
			if err := b.Sync(); err != nil {
				t.Errorf("all that was not safe is acknowledged: %v", err)
			}
		})
	}
}
