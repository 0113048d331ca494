package backlog

import (
	"fmt"
	"os"
)

// A Reader reads the entries that are neither acknowledged nor given up, for one connection:
// each Message once, with the Templates it needs before it. It belongs to one
// goroutine.
type Reader struct {
	b    *Backlog
	seg  *segment
	from uint64 // the serial of the next segment
	r    reading
	// before is the position up to which Messages were acknowledged when the
	// Reader was made: they are passed over.
	before uint64
}

// Reader returns a Reader that begins at the oldest Message that is not
// acknowledged.
func (b *Backlog) Reader() *Reader { return &Reader{b: b, before: b.Acknowledged()} }

// Close gives back what the Reader holds.
func (r *Reader) Close() error {
	if r.r.f == nil {
		return nil
	}
	f := r.r.f
	r.r.f = nil
	return f.Close()
}

// Next returns the next entry, false if there is none yet. It is valid until
// the call after.
func (r *Reader) Next() (Entry, bool, error) {
	for {
		if r.seg == nil {
			if ok, err := r.open(); !ok {
				return Entry{}, false, err
			}
		}
		sealed := r.extend()
		e, ok, err := r.r.next()
		switch {
		case err != nil:
			return Entry{}, false, fmt.Errorf("backlog: %w", err)
		case ok && e.Kind != Template && (e.Position <= r.before || !r.b.hand(e.Position)):
		case ok:
			return e, true, nil
		case !sealed:
			return Entry{}, false, nil
		default:
			if err := r.Close(); err != nil {
				return Entry{}, false, fmt.Errorf("backlog: %w", err)
			}
			r.from, r.seg = r.seg.serial+1, nil
		}
	}
}

// open opens the next segment, false if there is none.
func (r *Reader) open() (bool, error) {
	r.b.mu.Lock()
	var seg *segment
	for _, s := range r.b.segments {
		if s.serial >= r.from {
			seg = s
			break
		}
	}
	if seg == nil {
		r.b.mu.Unlock()
		return false, nil
	}
	f, err := os.Open(seg.path) // while it can't be removed
	r.b.mu.Unlock()
	if err != nil {
		return false, fmt.Errorf("backlog: %w", err)
	}
	r.seg = seg
	r.r = reading{f: f, instance: r.b.instance, buf: r.r.buf[:0]}
	return true, nil
}

// extend lets the reading see what was appended, and reports whether that was
// the last of its segment.
func (r *Reader) extend() (sealed bool) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.r.end = r.seg.end
	return r.b.active == nil || r.b.lastLocked() != r.seg
}
