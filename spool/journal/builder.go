package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A Builder writes a journal anew, of groups as they were encoded before. It is
// durable when Close has returned.
type Builder struct {
	disk    *disk
	epoch   uint64
	segment int64
	latest  name
	next    uint64
	out     *output
}

// Build makes a journal in dir, which must not exist, whose positions begin behind
// after.
func Build(dir string, epoch, after uint64) (*Builder, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", explain(dir, err))
	}
	b := &Builder{disk: newDisk(dir), epoch: epoch, segment: segmentSize, next: after + 1}
	return b, b.begin()
}

func (b *Builder) begin() (err error) {
	b.latest = b.latest.next(b.epoch, b.next)
	if b.out, err = b.disk.begin(b.latest, nil); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Add appends a group, whose first position is behind all that were added. The
// error matches ErrDamaged if its octets fail their check: nothing is added then.
func (b *Builder) Add(first uint64, octets []byte) error {
	g := &group{first: first, frame: append(make([]byte, frameHeader), octets...)}
	err := verify(first, octets)
	if err == nil {
		g.count = binary.BigEndian.Uint32(octets[4:])
		err = check(g)
	}
	if err == nil && (first < b.next || g.count == 0) {
		err = fmt.Errorf("%w: %d entries behind position %d", errGroup, g.count, b.next-1)
	}
	if err != nil {
		return fmt.Errorf("journal: position %d: %w: %w", first, ErrDamaged, err)
	}
	size := padded(len(g.frame))
	if b.out.at > 0 && b.out.at+size > b.segment {
		if err := b.finish(); err != nil {
			return err
		}
		if err := b.begin(); err != nil {
			return err
		}
	}
	err = b.disk.reserve(b.out, size)
	if err == nil {
		err = b.disk.write(b.out, g)
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	b.out.last = g.last()
	b.next = g.last() + 1
	return nil
}

// SetAside keeps octets that were found in the place of positions.
func (b *Builder) SetAside(first, last uint64, octets []byte) error {
	if err := keepAside(b.disk.dir, span{first, last}, octets); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (b *Builder) finish() error {
	if err := b.out.sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	b.disk.finish(b.out)
	return nil
}

// Close makes all that was added durable, and marks its end.
func (b *Builder) Close() error {
	if err := errors.Join(b.out.sync(), b.disk.seal(b.out)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
