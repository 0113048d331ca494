package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"tollbridge/asm/acct"
)

// A Reader follows the journal. It gets durable entries only, in order, from
// memory where it keeps up and from the disk where it does not; it never holds
// up the writer. A Reader is for one goroutine.
type Reader struct {
	j       *Journal
	after   uint64
	entries []acct.Entry
	held    *group // in memory, that entries are of; nil for none
	room    []byte // for a group from the disk
	from    where  // behind the latest of those
}

// Reader returns a Reader of the entries behind position after.
func (j *Journal) Reader(after uint64) *Reader { return &Reader{j: j, after: after} }

// Next returns the next entries, at least one, and blocks until there are
// some. Both the slice and its Data are valid until the next call. Positions
// are consecutive but where a damaged group was set aside. Errors are ctx's,
// ErrTrimmed, and those of the disk; ErrClosed comes after the last entry of a
// journal whose Run has ended.
func (r *Reader) Next(ctx context.Context) ([]acct.Entry, error) {
	for {
		if err := r.j.Wait(ctx, r.after+1); err != nil {
			return nil, err
		}
		r.letGo()
		durable := r.j.Durable() // before the look: what is committed beside it is not passed over
		g, err := r.find(r.after + 1)
		var damaged *damagedError
		switch {
		case errors.As(err, &damaged):
			if err := r.j.setAside(damaged); err != nil {
				return nil, err
			}
			r.after = damaged.last
			continue
		case errors.Is(err, acct.ErrNoEntry) && !errors.Is(err, ErrTrimmed):
			r.after = durable // set aside, or never stored
			continue
		case err != nil:
			return nil, err
		}
		r.entries, err = entries(r.entries[:0], g.first, g.octets(), r.after+1)
		if err != nil {
			return nil, fmt.Errorf("journal: positions %d to %d: %w", g.first, g.last(), err)
		}
		r.after = g.last()
		return r.entries, nil
	}
}

// find returns the durable group that holds position, as Journal.find, good
// until letGo.
func (r *Reader) find(position uint64) (*group, error) {
	if g := r.j.inMemory(position); g != nil {
		r.held = g
		return g, nil
	}
	g, err := r.j.onDisk(position, r.room, &r.from)
	if g != nil {
		r.room = g.frame
	}
	return g, err
}

// letGo lets the memory of what Next returned be used again.
func (r *Reader) letGo() {
	g := r.held
	if r.held = nil; g == nil {
		return
	}
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	if g.readers--; g.dropped {
		r.j.dropLocked(g)
	}
}

// Read returns the entry at a durable position. Its Data stays valid. The
// error matches acct.ErrNoEntry where the position was trimmed, is damaged or
// was never stored.
func (j *Journal) Read(ctx context.Context, position uint64) (acct.Entry, error) {
	if err := ctx.Err(); err != nil {
		return acct.Entry{}, err
	}
	j.mu.Lock()
	g := j.cached
	j.mu.Unlock()
	if g == nil || position < g.first || position > g.last() {
		var err error
		if g, err = j.find(position); err != nil {
			var damaged *damagedError
			if errors.As(err, &damaged) {
				err = errors.Join(err, j.setAside(damaged))
			}
			return acct.Entry{}, err
		}
		if position < g.first {
			return acct.Entry{}, fmt.Errorf("journal: position %d: %w", position, acct.ErrNoEntry)
		}
		j.mu.Lock()
		j.cached = g
		j.mu.Unlock()
	}
	es, err := entries(nil, g.first, g.octets(), position)
	if err != nil {
		return acct.Entry{}, fmt.Errorf("journal: positions %d to %d: %w", g.first, g.last(), err)
	}
	return es[0], nil
}

// find returns the durable group that holds position or, where position was
// set aside, the next one behind it.
func (j *Journal) find(position uint64) (*group, error) {
	if g := j.inMemory(position); g != nil {
		return g, nil // for good: it never counts as read
	}
	return j.onDisk(position, nil, new(where))
}

// inMemory returns the group that holds position if it is a recent one, and
// counts the caller among its readers.
func (j *Journal) inMemory(position uint64) *group {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, _ := slices.BinarySearchFunc(j.recent, position, func(g *group, p uint64) int {
		switch {
		case g.last() < p:
			return -1
		case g.first > p:
			return 1
		}
		return 0
	})
	if i == len(j.recent) || j.recent[i].first > position {
		return nil
	}
	j.recent[i].readers++
	return j.recent[i]
}

// A where is a place in a segment that reading can go on from.
type where struct {
	segment *segment
	place
}

// onDisk returns the group that holds position or, where that was set aside or
// never stored, the next one behind it, from the disk. Its frame is put into room
// if that is large enough. It reads on from a place behind which position is, and
// leaves there the one behind the group.
func (j *Journal) onDisk(position uint64, room []byte, from *where) (*group, error) {
	for {
		s, start, err := j.segmentOf(&position)
		if err != nil {
			return nil, err
		}
		if from.segment == s.segment && from.first <= position && from.offset > start.offset {
			start = from.place
		}
		g, behind, err := j.inSegment(s, position, room, start)
		if err != nil {
			return nil, err
		}
		if g != nil && g.last() >= position {
			*from = where{s.segment, behind}
			j.mu.Lock()
			j.stats.FromDisk++
			j.mu.Unlock()
			return g, nil
		}
		position = s.last + 1 // no frame of it ever had the rest
	}
}

// A view is a segment as it stood at a moment.
type view struct {
	*segment
	begin place
	end   int64
	last  uint64
}

func (s *segment) view() view { return view{s, s.begin, s.end, s.last} }

func (v view) frames(file io.ReaderAt, from place) *frames {
	return &frames{file: file, sum: v.sum(), offset: from.offset, limit: v.end, expect: from.first, last: v.last, room: make([]byte, sector)}
}

// segmentOf returns the segment with a position, and a place in it to look for the
// position from. It moves the position behind what was set aside, and to what
// counts next.
func (j *Journal) segmentOf(position *uint64) (view, place, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if *position <= j.trimmed {
		return view{}, place{}, fmt.Errorf("journal: position %d: %w", *position, ErrTrimmed)
	}
	for _, a := range j.aside {
		if a.first <= *position && *position <= a.last {
			*position = a.last + 1
		}
	}
	for _, s := range j.segments {
		if s.last >= *position && s.last >= s.first {
			*position = max(*position, s.first)
			return s.view(), s.before(*position), nil
		}
	}
	return view{}, place{}, fmt.Errorf("journal: position %d: %w", *position, acct.ErrNoEntry)
}

// inSegment returns the group of a segment that holds a position, or the next one
// behind, nil for none, and the place behind it.
func (j *Journal) inSegment(s view, position uint64, room []byte, from place) (*group, place, error) {
	file, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, place{}, fmt.Errorf("journal: position %d: %w", position, ErrTrimmed) // meanwhile
	} else if err != nil {
		return nil, place{}, fmt.Errorf("journal: %w", explain(s.path, err))
	}
	defer file.Close()
	all := s.frames(file, from)
	for {
		f, lost, err := all.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, place{}, fmt.Errorf("journal: %w", explain(s.path, err))
		}
		if lost.has(position) {
			octets, e := lost.read(file)
			if e != nil {
				return nil, place{}, fmt.Errorf("journal: %w", explain(s.path, e))
			}
			return nil, place{}, s.missing(lost, octets)
		}
		if err != nil || f.count == 0 {
			return nil, place{}, nil
		}
		behind := place{f.end(), f.last() + 1}
		if f.last() < position {
			j.passed(s.segment, behind)
			continue
		}
		g, err := all.group(f, room)
		var damaged *damagedError
		if err != nil && !errors.As(err, &damaged) {
			err = fmt.Errorf("journal: %w", explain(s.path, err))
		}
		return g, behind, err
	}
}

// missing is the error for a stretch that holds no frame.
func (s view) missing(lost stretch, octets []byte) *damagedError {
	return &damagedError{lost.span, octets, fmt.Errorf("%w: no frame is at octet %d of %s", errGroup, lost.from, s.name)}
}

// passed keeps a place that was come by, for those who look for another position.
func (j *Journal) passed(s *segment, p place) {
	if p.offset%stride > 4*sector { // not often
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.note(p)
}

// setAside keeps what a damaged stretch holds, says so, and passes over it from
// then on. A reader beside the daemon only passes over it.
func (j *Journal) setAside(d *damagedError) error {
	j.log.Error("journal group is damaged and set aside", "first", d.first, "last", d.last, "error", d.err)
	if j.lease != nil {
		if err := keepAside(j.dir, d.span, d.octets); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Contains(j.aside, d.span) {
		j.stats.DamagedGroups++
		j.aside = append(j.aside, d.span)
		slices.SortFunc(j.aside, span.compare)
	}
	return nil
}
