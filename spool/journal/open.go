package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tollbridge/internal/durable"
)

// errClosed is what calls get of a journal that is closed, or whose Run has ended.
var errClosed = fmt.Errorf("journal: %w", ErrClosed)

func newJournal(dir string, cfg Config) *Journal {
	if cfg.Segment == 0 {
		cfg.Segment = segmentSize
	}
	j := &Journal{cfg: cfg, log: cfg.Log, dir: dir, disk: newDisk(dir),
		kick: make(chan struct{}, 1), changed: make(chan struct{})}
	j.room.L = &j.mu
	return j
}

// OpenReadOnly opens the journal in dir for looking at it, beside who writes it or
// without one. It ends where it ended then. The error matches fs.ErrNotExist where
// there is none.
func OpenReadOnly(dir string, cfg Config) (*Journal, error) {
	j := newJournal(dir, cfg)
	if _, err := j.load(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// Open opens the journal in dir for writing, under an epoch that was taken, and
// begins a segment. The error matches ErrFenced where it was taken from us since;
// the caller sees to it that it is not while Open runs.
func Open(dir string, cfg Config) (_ *Journal, err error) {
	j := newJournal(dir, cfg)
	if j.lease, err = openLease(dir, cfg.Epoch, cfg.Fenced); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("journal: %w", err), j.Close())
		}
	}()
	void, err := j.load()
	if err != nil {
		return nil, err
	}
	stored := j.durable
	if stored < cfg.After {
		j.log.Warn("journal ends before the checkpoint: it was lost or is older than state.db",
			"journal_position", stored, "checkpoint_position", cfg.After)
	}
	j.durable = max(stored, cfg.After)
	j.next = j.durable + 1
	rest, err := j.uncertain()
	if err != nil {
		return nil, err
	}
	if err := j.begin(j.certain.first, rest); err != nil {
		return nil, err
	}
	return j, j.clear(void)
}

// uncertain returns the groups of the latest segment of before that are whole and
// of which it is not certain that they are on the disk, and bounds it to the others.
func (j *Journal) uncertain() (rest []*group, err error) {
	if len(j.segments) == 0 {
		j.certain.first = j.durable + 1
		return nil, nil
	}
	s := j.segments[len(j.segments)-1]
	if j.certain.offset < s.end {
		if rest, err = s.groups(j.certain); err != nil {
			return nil, explain(s.path, err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.end, s.last = j.certain.offset, j.certain.first-1
	return rest, nil
}

// groups returns the groups of a segment from a place on.
func (s *segment) groups(from place) (list []*group, err error) {
	file, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for all := s.view().frames(file, from); ; {
		f, _, err := all.next()
		if errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		g, err := all.group(f, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
}

// load reads where the journal stands, and returns the segments of which nothing
// counts.
func (j *Journal) load() (void []*segment, err error) {
	names, aside, err := list(j.dir)
	if err != nil {
		return nil, err
	}
	if n := len(names); n > 0 {
		if j.latest = names[n-1]; j.lease != nil && j.latest.epoch > j.lease.epoch {
			return nil, j.lease.fenced() // what it wrote is not ours to judge
		}
	}
	const none = math.MaxUint64
	bound := uint64(none)
	for _, n := range slices.Backward(names) {
		s := newSegment(j.dir, n)
		if n.first >= bound {
			void = append(void, s)
			continue
		}
		var err error
		if bound == none {
			j.certain, err = s.read()
		} else {
			err = s.bound(bound)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went since it was listed
		} else if err != nil {
			return nil, explain(s.path, err)
		}
		bound = n.first
		j.segments = append(j.segments, s)
	}
	slices.Reverse(j.segments)
	j.aside = aside
	if n := len(j.segments); n > 0 {
		j.durable = j.segments[n-1].last
		j.trimmed = j.segments[0].first - 1
	}
	for _, a := range aside {
		j.durable = max(j.durable, a.last)
	}
	return void, nil
}

// read finds where the latest segment ends.
func (s *segment) read() (certain place, err error) {
	file, err := os.Open(s.path)
	if err != nil {
		return place{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return place{}, err
	}
	return s.scan(file, info.Size())
}

// bound ends a segment before the position at which the next one begins to count.
func (s *segment) bound(next uint64) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	s.end, s.last = info.Size(), next-1
	return nil
}

// clear deletes segments of which nothing counts, now that there is a later one,
// and those whose making was cut off.
func (j *Journal) clear(void []*segment) error {
	if n := len(j.segments); n > 1 && j.segments[n-2].last < j.segments[n-2].first {
		void = append(void, j.segments[n-2])
		j.segments = slices.Delete(j.segments, n-2, n-1)
	}
	unwanted, err := j.unfinished()
	if err != nil {
		return err
	}
	for _, s := range void {
		unwanted = append(unwanted, s.path)
	}
	if len(unwanted) == 0 {
		return nil
	}
	for _, path := range unwanted {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explain(path, err)
		}
	}
	return explain(j.dir, durable.SyncDir(j.dir))
}

// unfinished returns the segments whose making was cut off. Those of a later epoch
// are being made.
func (j *Journal) unfinished() (paths []string, err error) {
	all, err := filepath.Glob(filepath.Join(j.dir, "*"+segmentSuffix+making))
	for _, path := range all {
		n, ok := parseName(strings.TrimSuffix(filepath.Base(path), making))
		if ok && n.epoch <= j.lease.epoch {
			paths = append(paths, path)
		}
	}
	return paths, err
}

// Close marks the end of the journal, so that damage there is known for what it
// is, and makes every further call fail. Run must have returned.
func (j *Journal) Close() error {
	j.mu.Lock()
	closed, running := j.closed, j.running
	j.closed = true
	j.stopLocked(errClosed)
	j.mu.Unlock()
	if closed || j.lease == nil {
		return nil
	}
	var err error
	if j.out != nil && !running && j.lease.check() == nil {
		err = j.disk.seal(j.out)
	}
	return errors.Join(err, j.lease.file.Close())
}

// Size returns the octets of what is not trimmed.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sizeLocked()
}

func (j *Journal) sizeLocked() (n int64) {
	for _, s := range j.segments {
		n += s.end - s.begin.offset
	}
	return n
}

// Spare returns the octets that are taken from the file system, and not used yet.
func (j *Journal) Spare() int64 { return j.disk.spare.Load() }

// Aside returns how many damaged stretches have been set aside and are kept.
func (j *Journal) Aside() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.aside)
}
