package backlog

import (
	"fmt"
	"os"
)

// A Reader reads the entries that are neither acknowledged nor given up, for one connection:
// each Message once, with the Templates it needs before it. It belongs to one
// goroutine.
type Reader struct {
	b      *Backlog
	report func([]Loss) error
	seg    *segment
	from   uint64 // the serial of the next segment
	r      reading
	// before is the position up to which Messages were acknowledged when the
	// Reader was made: they are passed over.
	before uint64
}

// Reader returns a Reader that begins at the oldest Message that is not
// acknowledged. Of Messages that are damaged it calls report, which appends what
// tells of them, before it returns one that stands behind them: so none is let
// go of in silence. In one life of the Backlog each is told once.
func (b *Backlog) Reader(report func([]Loss) error) *Reader {
	return &Reader{b: b, report: report, before: b.Acknowledged()}
}

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
// the call after. After an error, which may be that of report, the Reader is of
// no use any more.
func (r *Reader) Next() (Entry, bool, error) {
	for {
		if r.seg == nil {
			if ok, err := r.open(); !ok {
				return Entry{}, false, err
			}
		}
		last, sealed := r.extend()
		e, ok, err := r.r.next()
		if err != nil {
			return Entry{}, false, fmt.Errorf("backlog: %w", err)
		}
		if ok {
			if e.Kind != Template {
				if ok, err = r.message(e); err != nil {
					return Entry{}, false, err
				}
			}
			if ok {
				return e, true, nil
			}
			continue
		}
		if err := r.lose(r.r.missing(last + 1)); err != nil {
			return Entry{}, false, err
		}
		if !sealed {
			return Entry{}, false, nil
		}
		if err := r.Close(); err != nil {
			return Entry{}, false, fmt.Errorf("backlog: %w", err)
		}
		r.from, r.seg = r.seg.serial+1, nil
	}
}

// message reports whether a Message is to be returned, after it has told what
// is missing before it.
func (r *Reader) message(e Entry) (bool, error) {
	losses := r.r.missing(e.Position)
	r.r.from = e.Position + 1
	decodable := r.r.decodable(e.Octets)
	if !decodable {
		e.Octets = nil
		losses = append(losses, Loss{e, true, true})
	}
	if err := r.lose(losses); err != nil {
		return false, err
	}
	return decodable && e.Position > r.before && r.b.hand(e.Position), nil
}

// lose tells of Messages that are damaged, but those that were told of before.
func (r *Reader) lose(losses []Loss) error {
	if len(losses) == 0 {
		return nil
	}
	last := losses[len(losses)-1].Position
	r.b.mu.Lock()
	known := max(r.before, r.b.floor, r.b.told)
	if last > known {
		r.b.sent = max(r.b.sent, last) // if it is given up, it is told as the same again
	}
	r.b.mu.Unlock()
	losses = r.b.damaged(r.seg, losses, known)
	if len(losses) == 0 {
		return nil
	}
	if err := r.report(losses); err != nil {
		return err
	}
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.b.told = max(r.b.told, last)
	return nil
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

// extend lets the reading see what was appended, and returns the position of
// the last Message in it, and whether that is the last of its segment.
func (r *Reader) extend() (last uint64, sealed bool) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.r.end = r.seg.end
	r.r.of(r.seg)
	return r.seg.last, r.b.active == nil || r.b.lastLocked() != r.seg
}
