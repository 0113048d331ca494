package journal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
)

// A segment is a file of frames, one behind the other. It ends where the next one
// begins to count, or behind its last whole frame.
type segment struct {
	name
	path string

	// What counts of it, guarded by Journal.mu while it is written.
	begin  place   // of the first frame that is not trimmed
	end    int64   // offset behind the last frame
	last   uint64  // position of its latest entry; first-1 for none
	places []place // where frames begin, ascending, stride apart or more
}

// A place is the offset of a frame; positions there and behind are first or above.
type place struct {
	offset int64
	first  uint64
}

// stride is how far places of a segment are apart: what has to be passed over to
// find a position.
const stride = 64 << 10

func newSegment(dir string, n name) *segment {
	return &segment{name: n, path: filepath.Join(dir, n.String()), begin: place{0, n.first}, last: n.first - 1}
}

// before returns the latest place at or before a position.
func (s *segment) before(position uint64) place {
	p := s.begin
	for i := len(s.places) - 1; i >= 0; i-- {
		if q := s.places[i]; q.first <= position {
			if q.offset > p.offset {
				p = q
			}
			break
		}
	}
	return p
}

// note keeps a place behind all others, if it is worth it.
func (s *segment) note(p place) {
	n := len(s.places)
	if p.offset >= stride && (n == 0 || p.offset >= s.places[n-1].offset+stride) {
		s.places = append(s.places, p)
	}
}

// frames reads a segment, or some of it, one frame after the other. Of what fails
// its check it says which positions it held.
type frames struct {
	file   io.ReaderAt
	sum    uint32
	offset int64  // of the next frame
	limit  int64  // no frame that counts begins here or behind
	expect uint64 // the position that follows
	last   uint64 // the latest that there may be
	room   []byte // for reading; at least a sector
}

// next returns the next frame, without its group, and moves behind it; io.EOF
// behind the last one. lost is what was to be read before it and was not there:
// the positions that are missing, and where in the segment they should have been;
// its length is 0 if nothing is missing. Positions that no frame ever had are
// passed over. Another error is a failure of the disk.
func (r *frames) next() (f frame, lost stretch, err error) {
	begun := r.offset
	f, err = r.find()
	last := f.first - 1
	if err != nil && !errors.Is(err, io.EOF) {
		return f, lost, err
	} else if err != nil {
		f.offset, last = r.limit, r.last
	}
	if r.expect <= last && (f.offset > begun || err != nil) {
		lost = stretch{span{r.expect, last}, begun, f.offset}
	}
	r.expect = last + 1
	if err != nil {
		r.offset = r.limit
		return f, lost, io.EOF
	}
	r.offset, r.expect = f.end(), f.last()+1
	return f, lost, nil
}

// A stretch is a part of a segment that can't be read, and the positions that it
// held.
type stretch struct {
	span
	from, to int64
}

func (s stretch) lost() bool { return s.first != 0 }

// read returns what lies there instead.
func (s stretch) read(file io.ReaderAt) ([]byte, error) {
	b := make([]byte, s.to-s.from)
	n, err := file.ReadAt(b, s.from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// find returns the first frame at offset or behind it.
func (r *frames) find() (frame, error) {
	b := r.room[:sector]
	for at := r.offset; at < r.limit; {
		n, err := r.file.ReadAt(b, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return frame{}, err
		}
		n -= n % sector // the file may be cut off
		for i := 0; i < n; i += sector {
			f, ok := parseFrame(b[i:min(i+sector, n)], r.sum, at+int64(i))
			if ok && f.end() <= r.limit && f.first >= r.expect && f.first <= r.last+1 && f.last() <= r.last {
				return f, nil
			}
		}
		if n < len(b) {
			break
		}
		at += int64(n)
		if len(b) == sector { // something is not as it should be: search in larger steps
			b = make([]byte, stride)
		}
	}
	return frame{}, io.EOF
}

// group reads the group of a frame into room, if that is large enough.
func (r *frames) group(f frame, room []byte) (*group, error) {
	n := frameHeader + f.length
	if cap(room) < n {
		room = make([]byte, 0, n)
	}
	g := &group{first: f.first, count: f.count, frame: room[:n]}
	if _, err := r.file.ReadAt(g.frame, f.offset); errors.Is(err, io.EOF) {
		return nil, &damagedError{span{f.first, f.last()}, nil, fmt.Errorf("%w: cut off", errGroup)}
	} else if err != nil {
		return nil, err
	}
	if err := check(g); err != nil {
		return nil, &damagedError{span{f.first, f.last()}, g.frame, err}
	}
	return g, nil
}

// check verifies a group from the disk, also that it holds as many entries as
// its positions say.
func check(g *group) error {
	if err := verify(g.first, g.octets()); err != nil {
		return err
	}
	es, err := entries(nil, g.first, g.octets(), g.last())
	if err != nil {
		return err
	}
	if len(es) != min(1, int(g.count)) {
		return fmt.Errorf("%w: other number of entries than %d", errGroup, g.count)
	}
	return nil
}

// scan finds where a segment ends that was the last one of its writer, and that
// no later one bounds: behind what was durable for certain and all that is whole
// after it, up to the first frame that is not. What was durable is known from
// frames written later, so a frame that fails its check among them is damaged,
// and does not end the segment; one behind them was being written. It returns
// where what was durable for certain ends.
func (s *segment) scan(file io.ReaderAt, size int64) (certain place, err error) {
	durable, err := s.durable(file, size)
	if err != nil {
		return place{}, err
	}
	all := s.allFrames(file, size)
	s.end, s.last = 0, s.first-1
	certain = place{0, s.first}
	var room []byte
	for {
		f, lost, err := all.next()
		if errors.Is(err, io.EOF) || err == nil && lost.lost() && lost.from >= durable {
			return certain, nil
		} else if err != nil {
			return place{}, err
		}
		g, err := all.group(f, room)
		var damaged *damagedError
		if errors.As(err, &damaged) {
			if f.offset >= durable {
				return certain, nil
			}
		} else if err != nil {
			return place{}, err
		} else {
			room = g.frame
		}
		s.end, s.last = f.end(), f.last()
		switch {
		case f.offset < durable:
			certain = place{f.end(), f.last() + 1}
		case lost.lost():
			certain = place{f.offset, f.first} // what is lost was durable, some of it
		}
		if f.count == 0 {
			return place{s.end, s.last + 1}, nil
		}
		s.note(place{f.end(), f.last() + 1})
	}
}

// durable returns how many octets of a segment were durable, as far as it says so
// itself.
func (s *segment) durable(file io.ReaderAt, size int64) (n int64, err error) {
	all := s.allFrames(file, size)
	for {
		f, _, err := all.next()
		if errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
		n = max(n, f.durable)
	}
}

// allFrames reads a segment of which it is not known where it ends.
func (s *segment) allFrames(file io.ReaderAt, size int64) *frames {
	return &frames{file: file, sum: s.sum(), limit: size, expect: s.first, last: math.MaxUint64 - 1, room: make([]byte, sector)}
}
