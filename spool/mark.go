package spool

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Marks are how full a spool may become before its journal takes no more
// Messages. A zero mark is none.
type Marks struct {
	Journal int64 // octets of journal entries
	Outbox  int64 // octets of accounting records, settled ones included while they are kept
	Free    int64 // octets left on the file system, the free pages of the databases included

	Archive  int64        // octets of the archive
	Archived func() int64 // how many those are now; nil without an archive
}

// Stored is what of a spool counts against its marks, in octets.
type Stored struct{ Journal, Outbox int64 }

// Stored returns how much it is now; zero for a spool open for reading only.
func (s *Spool) Stored() Stored {
	if s.w == nil {
		return Stored{}
	}
	return Stored{s.journal.Size(), s.w.size()}
}

// guardEvery is how often Guard looks.
const guardEvery = time.Second

// Guard compares the spool with its marks until ctx ends. While one is passed
// the journal is held: it takes no Messages, so that reliable transports wait
// and the kernel drops (and counts) datagrams, but it takes what may empty it,
// such as ticks and commands. A mark that was passed lets go again at nine
// tenths of it, by itself. Settled records are let go before the outbox's mark
// counts. When ctx ends nothing is held.
func (s *Spool) Guard(ctx context.Context, m Marks) error {
	defer s.journal.Hold("")
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		reason, err := s.passed(ctx, m)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.log.Error("how full the spool is can't be seen", "error", err)
		} else {
			s.journal.Hold(reason)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// passed says which mark is passed, "" for none.
func (s *Spool) passed(ctx context.Context, m Marks) (string, error) {
	held := s.journal.Marked()
	over := func(n, mark int64) bool {
		if held {
			mark = mark / 10 * 9
		}
		return mark > 0 && n > mark
	}
	if n := s.journal.Size(); over(n, m.Journal) {
		return fmt.Sprintf("the journal has %d octets, its mark is %d", n, m.Journal), nil
	}
	if over(s.w.size(), m.Outbox) {
		if _, err := s.outbox.TrimSettled(ctx, time.Now(), Retention{}); err != nil {
			return "", err
		}
		if n := s.w.size(); over(n, m.Outbox) {
			return fmt.Sprintf("the outbox has %d octets, its mark is %d", n, m.Outbox), nil
		}
	}
	if m.Archived != nil {
		if n := m.Archived(); over(n, m.Archive) {
			return fmt.Sprintf("the archive has %d octets, its mark is %d", n, m.Archive), nil
		}
	}
	if m.Free > 0 {
		n, err := s.free(ctx)
		if err != nil {
			return "", err
		}
		if n < m.Free || held && n < m.Free/9*10 {
			return fmt.Sprintf("%d octets are free on the disk, the mark is %d", n, m.Free), nil
		}
	}
	return "", nil
}

// free returns the octets that can still be written: those of the file system
// that are ours to take, the free pages of state.db, and what the journal has taken
// and not used yet.
func (s *Spool) free(ctx context.Context) (int64, error) {
	n, err := FreeSpace(s.dir)
	if err != nil {
		return 0, err
	}
	var pages int64
	if err := s.r.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages); err != nil {
		return 0, explain(s.state(), err)
	}
	return n + pages*statePage + s.journal.Spare(), nil
}

// FreeSpace returns how many octets of dir's file system an ordinary user may
// still write.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, explain(dir, err)
	}
	return int64(min(st.Bavail*uint64(st.Bsize), math.MaxInt64)), nil
}
