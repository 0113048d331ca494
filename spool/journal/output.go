package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"tollbridge/internal/durable"
)

// A file is what a segment is written to.
type file interface {
	io.WriterAt
	Allocate(from, to int64) error // takes room for those octets; ENOSPC where there is none
	SyncData() error               // makes durable what was written
	Truncate(size int64) error
	Close() error
}

// An output is the segment that is written. It belongs to who commits.
type output struct {
	*segment
	file      file
	at        int64 // where the next frame goes
	synced    int64 // up to here all is durable
	allocated int64
}

// A disk is a directory that segments are made in.
type disk struct {
	dir    string
	create func(path string) (file, error) // a new file
	spare  atomic.Int64                    // octets allocated and not used yet
}

func newDisk(dir string) *disk { return &disk{dir: dir, create: createFile} }

// making is what the path of a segment ends in until it is durable.
const making = ".making"

// begin makes a segment with groups, durably: it is there with all of them, or not
// at all.
func (d *disk) begin(n name, groups []*group) (*output, error) {
	s := newSegment(d.dir, n)
	f, err := d.create(s.path + making)
	if err != nil {
		return nil, explain(s.path, err)
	}
	o := &output{segment: s, file: f}
	for _, g := range groups {
		if err == nil {
			err = d.write(o, g)
		}
	}
	if err == nil {
		err = o.sync()
	}
	if err == nil {
		err = explain(s.path, os.Rename(s.path+making, s.path))
	}
	if err == nil {
		err = explain(d.dir, durable.SyncDir(d.dir))
	}
	if err != nil {
		d.abandon(o)
		_ = errors.Join(os.Remove(s.path+making), os.Remove(s.path)) // nothing counts on either
		return nil, err
	}
	return o, nil
}

// Room for frames is taken in steps of a quarter of what the segment has, within
// bounds: a quiet journal stays small, and a busy one changes its file's size
// seldom, which costs a sync that is not the data's alone.
const (
	leastStep = 16 << 10
	mostStep  = 4 << 20
)

// reserve takes room for so many octets more. Where there is none nothing has
// changed.
func (d *disk) reserve(o *output, octets int64) error {
	need := o.at + octets
	if need <= o.allocated {
		return nil
	}
	to := max(need, o.at+min(max(o.at/4, leastStep), mostStep))
	if err := o.file.Allocate(o.allocated, to); err != nil {
		return explain(o.path, err)
	}
	o.allocated = to
	d.spare.Store(o.allocated - o.at)
	return nil
}

// write writes a group that is sealed behind all others.
func (d *disk) write(o *output, g *group) error {
	sealFrame(g.frame, o.sum(), g.first, o.synced)
	if _, err := o.file.WriteAt(g.whole(), o.at); err != nil {
		return explain(o.path, err)
	}
	o.at += padded(len(g.frame))
	d.spare.Store(max(o.allocated-o.at, 0))
	return nil
}

// sync makes durable what was written.
func (o *output) sync() error {
	if err := o.file.SyncData(); err != nil {
		return explain(o.path, err)
	}
	o.synced = o.at
	return nil
}

// finish gives back the room that was not used, and closes the file. Nothing
// depends on whether that comes to pass.
func (d *disk) finish(o *output) {
	if o.allocated > o.synced {
		_ = o.file.Truncate(o.synced)
	}
	_ = o.file.Close()
	d.spare.Store(0)
}

// seal marks the end of a segment all of which is durable, so that it is known
// from the segment alone, and finishes it.
func (d *disk) seal(o *output) error {
	defer d.finish(o)
	if o.at == 0 || o.at != o.synced {
		return nil
	}
	g := newGroup(o.last+1, 0, nil)
	g.seal()
	return cmp.Or(d.write(o, g), o.sync())
}

// abandon closes a segment that can't be written any more.
func (d *disk) abandon(o *output) {
	_ = o.file.Close()
	d.spare.Store(0)
}

// An osFile is a file of the operating system.
type osFile struct{ *os.File }

func createFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// keepAside stores, durably, what a damaged stretch of a segment holds, for
// people.
func keepAside(dir string, s span, octets []byte) error {
	path := filepath.Join(dir, s.String())
	if err := durable.WriteFile(path, octets); err != nil {
		return fmt.Errorf("set aside: %w", explain(path, err))
	}
	return nil
}
