package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"tollbridge/internal/crashpoint"
	"tollbridge/internal/durable"
)

// A Keep says how much of the journal is kept though it is not needed any
// more, so that it can be looked into: what is younger than Age, as long as the
// journal has no more than Octets.
type Keep struct {
	Age    time.Duration // since arrival
	Octets int64
}

// Trim forgets the groups whose entries are all below position below, and deletes
// the segments of which nothing is left. Entries not yet durable are never
// forgotten. It returns ctx's error between two segments.
//
// Until its segment goes, a group that was forgotten is on the disk, and is known
// again to who opens the journal next.
func (j *Journal) Trim(ctx context.Context, below uint64) error {
	return j.TrimBut(ctx, below, time.Time{}, Keep{})
}

// TrimBut is Trim of what is not kept either, as of now.
func (j *Journal) TrimBut(ctx context.Context, below uint64, now time.Time, keep Keep) error {
	if j.lease == nil {
		return ErrReadOnly
	}
	j.trimming.Lock()
	defer j.trimming.Unlock()
	if err := j.lease.check(); err != nil {
		return err
	}
	below = min(below, j.Durable()+1)
	for begun := false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		before := j.Stats().First
		more, err := j.trimOldest(below, now, keep)
		if err != nil {
			return fmt.Errorf("journal: trim below %d: %w", below, err)
		}
		if j.Stats().First > before {
			if !begun {
				begun = true
				j.log.Debug("trim begin", "below", below)
			}
			crashpoint.At(crashpoint.Trimming)
		}
		if !more {
			if begun {
				j.log.Debug("trim done", "below", below)
			}
			return nil
		}
	}
}

// trimOldest forgets what may go of the oldest segment, and reports whether that
// was all of it, so that the next one is to be looked at.
func (j *Journal) trimOldest(below uint64, now time.Time, keep Keep) (more bool, err error) {
	if err := j.syncRemoved(); err != nil {
		return false, err
	}
	j.mu.Lock()
	s, size := j.segments[0].view(), j.sizeLocked()
	latest := len(j.segments) == 1 // it may grow meanwhile
	j.mu.Unlock()
	from, err := s.passTo(below, func(f frame, from int64) bool {
		young := keep.Age > 0 && now.Sub(time.Unix(0, f.time)) < keep.Age
		return young && size-(from-s.begin.offset) <= keep.Octets
	})
	if err != nil {
		return false, explain(s.path, err)
	}
	j.mu.Lock()
	j.trimmed = max(j.trimmed, from.first-1)
	if more = from.first > s.last && !latest && len(j.segments) > 1; more {
		j.segments = slices.Delete(j.segments, 0, 1)
	} else {
		j.segments[0].begin = from
	}
	j.mu.Unlock()
	if !more {
		return false, nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.mu.Lock()
		defer j.mu.Unlock()
		s.segment.begin = from
		j.segments = slices.Insert(j.segments, 0, s.segment)
		return false, explain(s.path, err)
	}
	j.removed = true
	return true, j.syncRemoved()
}

// syncRemoved makes it durable that a segment is gone, before another one goes.
func (j *Journal) syncRemoved() error {
	if !j.removed {
		return nil
	}
	if err := durable.SyncDir(j.dir); err != nil {
		return explain(j.dir, err)
	}
	j.removed = false
	return nil
}

// passTo returns the place of the first frame of a segment that is not all below a
// position or that is kept, or the segment's end.
func (s view) passTo(below uint64, kept func(f frame, from int64) bool) (from place, err error) {
	from, end := s.begin, place{s.end, s.last + 1}
	if s.begin.offset >= s.end {
		return end, nil
	}
	file, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) { // who was replaced may have trimmed it too
		return end, nil
	} else if err != nil {
		return from, err
	}
	defer file.Close()
	for r := s.frames(file, from); ; {
		f, _, err := r.next()
		switch {
		case errors.Is(err, io.EOF) || err == nil && f.count == 0:
			if s.last < below {
				from = end
			}
			return from, nil
		case err != nil:
			return from, err
		case f.last() >= below || kept(f, from.offset):
			return from, nil
		}
		from = place{f.end(), f.last() + 1}
	}
}
