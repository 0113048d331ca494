package spool

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/asm/acct"
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
	return Stored{s.jw.size(), s.w.size()}
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
	defer s.journal.hold("")
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
			s.journal.hold(reason)
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
	_, held := s.journal.marked()
	over := func(n, mark int64) bool {
		if held {
			mark = mark / 10 * 9
		}
		return mark > 0 && n > mark
	}
	if n := s.jw.size(); over(n, m.Journal) {
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
// that are ours to take, and the free pages of journal.db and state.db.
func (s *Spool) free(ctx context.Context) (int64, error) {
	n, err := FreeSpace(s.dir)
	if err != nil {
		return 0, err
	}
	state, journal := s.files()
	for _, d := range []struct {
		q    querier
		file string
		page int64
	}{{s.r, state, statePage}, {s.jr, journal, journalPage}} {
		var pages int64
		if err := d.q.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages); err != nil {
			return 0, explain(d.file, err)
		}
		n += pages * d.page
	}
	return n, nil
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

// waits reports whether entries of a kind wait while the journal is held at a
// mark: those that bring work. Others may be what lets it go.
func waits(k acct.EntryKind) bool { return k == acct.EntryMessage || k == acct.EntryRequest }

// hold keeps Messages out for a reason, and lets them in again for "".
func (j *Journal) hold(reason string) {
	j.mu.Lock()
	before := j.mark
	j.mark = reason
	j.room.Broadcast()
	j.mu.Unlock()
	switch {
	case before == "" && reason != "":
		j.log.Error("journal takes no more messages: what can wait upstream does, the rest is lost and counted there", "reason", reason)
	case before != "" && reason == "":
		j.log.Info("journal takes messages again")
	}
}

func (j *Journal) marked() (reason string, held bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mark, j.mark != ""
}

// Held reports whether Append of a Message blocks until something changes
// outside, and says why, in words for people: the disk is full or fails, or a
// mark of Guard is passed.
func (j *Journal) Held() (reason string, held bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stats.Full {
		return "the journal waits for space on the disk", true
	}
	if j.stats.Waits != nil {
		return "the journal waits: " + j.stats.Waits.Error(), true
	}
	return j.mark, j.mark != ""
}
