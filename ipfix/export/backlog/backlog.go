// Package backlog is an Exporting Process's own spool: the Messages that no
// Collecting Process has acknowledged yet, in append-only files.
package backlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"tollbridge/internal/durable"
)

// Crash argument.
//
// Segments are append-only: each holds entries, one after the other, each with
// a checksum over all of it. An entry that was begun and not finished, by a
// process that was killed or a disk that was full, fails its checksum, and so
// ends its segment for whoever reads it. Nobody appends to a segment of an
// earlier life: every life begins a segment of its own, so nothing follows
// what was torn.
//
// What kill -9 leaves is what write(2) took, so an entry is safe from it when
// Append returns. From a power cut it is safe when Sync has returned after it,
// or Open in a later life. A file that could not be synced never is again, as
// what the kernel failed to write it need not try again: Sync fails until all
// of the file is acknowledged or given up.
//
// A position may be sent before: a Collecting Process then may know positions
// that this disk does not. So every life goes on at a position that is far
// behind the last it knows (leap), and no position is used twice.
//
// A segment goes when all of it is acknowledged, or given up; in the second
// case only after the entry that says so was appended, so that a crash between
// the two tells of Messages which are sent all the same, and never drops one
// silently. The marks (how far acknowledged, how far sent) are hints: where an
// older one is read, Messages are sent again, and known again by their
// position. They are written over one another in two places in turn, each with
// a checksum, so one of them is always whole.
//
// Each segment begins with all Templates that its Messages may need, so it
// can be read though those before it are gone. No ID changes its meaning within
// one.
//
// The positions of one life have no gaps, and those of two are more than leap
// apart: a Message that is missing is damage wherever one of the same life
// stands behind it, in the same segment or a later one. What is behind it is
// read all the same, and what is missing is told. Only the last octets of a life
// can't be told from what it had begun to write.

// ErrLocked says that another process uses the directory.
var ErrLocked = errors.New("the spool is in use by another process")

// ErrClosed says that the Backlog was closed.
var ErrClosed = errors.New("backlog is closed")

// A Kind says what an Entry is. The numbers are stored.
type Kind uint8

const (
	Template Kind = 1 // a Template Record, or an Options Template Record
	Message  Kind = 2
	Report   Kind = 3 // a Message that tells of Messages given up
)

// An Entry is one line of a Backlog.
type Entry struct {
	Kind     Kind
	Options  bool   // of a Template: it is an Options Template
	Position uint64 // of a Message; of a Template its ID
	Records  uint32 // Data Records of a Message, as its header counts them
	Octets   []byte
}

// A Config says how large a Backlog becomes. Zero means the default.
type Config struct {
	// MaxOctets is what the files may take before Full reports true. 0 means
	// 1 GiB.
	MaxOctets int64

	// Segment is the size of one file in octets. 0 means 4 MiB, or an eighth
	// of MaxOctets where that is less.
	Segment int64

	Log *slog.Logger // nil discards
}

// leap is how far behind the last known position each life begins: more than
// can be sent between two calls of Sync.
const leap = 1 << 20

// maxMessages bounds the Messages of one segment, and so what is sent again
// for want of a newer mark.
const maxMessages = 1024

// A Backlog is the spool of one exporter. Its methods may be called at once.
type Backlog struct {
	cfg      Config
	dir      string
	instance [16]byte
	lock     *os.File
	marks    *os.File

	mu        sync.Mutex
	segments  []*segment // by ascending serial; the last is appended to, if active
	active    *os.File   // nil if the next entry begins a segment
	serial    uint64     // of the latest segment
	next      uint64     // position
	acked     uint64
	sent      uint64  // up to here a Reader has returned Messages
	floor     uint64  // up to here Messages are given up or about to be: no Reader returns them
	told      uint64  // up to here Readers have told of what is damaged
	noted     uint64  // sent, as the marks have it
	turn      uint64  // of the marks
	templates []Entry // in effect, in the order of their first use
	octets    int64   // of all segments
	messages  int     // not acknowledged
	unsynced  bool    // the active segment was written to since Sync
	unlisted  bool    // a segment was made since Sync
	scratch   []byte
	closed    bool
}

// A segment is one file.
type segment struct {
	serial      uint64
	path        string
	first, last uint64 // positions of its Messages, without gaps; 0 if there are none
	end         int64  // of its entries; of an earlier life's, of the file
	unsafe      error  // why it could not be made safe from a power cut
}

func (s *segment) count(position uint64) {
	if s.first == 0 {
		s.first = position
	}
	s.last = position
}

// behind returns how many of its Messages are behind a position.
func (s *segment) behind(position uint64) int {
	if s.last <= position {
		return 0
	}
	return int(s.last - max(position, s.first-1))
}

// Instance returns who this exporter is, for ever.
func (b *Backlog) Instance() [16]byte { return b.instance }

// Next returns the position of the next Message.
func (b *Backlog) Next() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next
}

// Define makes a Template that Messages from here on need known. It does
// nothing for one that is, and replaces one of the same ID: that takes a new
// segment.
func (b *Backlog) Define(id uint16, options bool, record []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := Entry{Kind: Template, Options: options, Position: uint64(id), Octets: record}
	i := slices.IndexFunc(b.templates, func(t Entry) bool { return t.Position == e.Position })
	if i >= 0 && b.templates[i].Options == options && string(b.templates[i].Octets) == string(record) {
		return nil
	}
	e.Octets = slices.Clone(record)
	var err error
	switch { // a new segment begins with all of them
	case b.active == nil:
	case i >= 0:
		err = b.sealLocked()
	default:
		err = b.appendLocked(e)
	}
	if err != nil {
		return err
	}
	if i >= 0 {
		b.templates = slices.Delete(b.templates, i, i+1)
	}
	b.templates = append(b.templates, e)
	return nil
}

// Append appends Messages and Reports under the positions from Next on, all or
// none of them; those that they are given with do not count. It may exceed
// MaxOctets: ask Full before. A disk that is full is an error that matches
// syscall.ENOSPC, and leaves all as it was.
func (b *Backlog) Append(entries ...Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	if err := b.rollLocked(); err != nil {
		return err
	}
	for i := range entries {
		entries[i].Position = b.next + uint64(i)
	}
	if err := b.appendLocked(entries...); err != nil {
		return err
	}
	for _, e := range entries {
		b.lastLocked().count(e.Position)
	}
	b.next += uint64(len(entries))
	b.messages += len(entries)
	return nil
}

func (b *Backlog) lastLocked() *segment { return b.segments[len(b.segments)-1] }

// rollLocked makes sure that there is a segment with room.
func (b *Backlog) rollLocked() error {
	if b.closed {
		return fmt.Errorf("backlog: %w", ErrClosed)
	}
	if b.active != nil {
		if s := b.lastLocked(); s.end < b.cfg.Segment && s.behind(0) < maxMessages {
			return nil
		}
		if err := b.sealLocked(); err != nil {
			return err
		}
	}
	b.serial++
	s := &segment{serial: b.serial, path: filepath.Join(b.dir, fmt.Sprintf("%016x%s", b.serial, segmentSuffix))}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("backlog: %w", err)
	}
	header := appendHeader(nil, b.instance)
	for _, t := range b.templates {
		header = appendEntry(header, t)
	}
	if _, err := f.WriteAt(header, 0); err != nil {
		return errors.Join(fmt.Errorf("backlog: %w", err), f.Close(), os.Remove(s.path))
	}
	s.end = int64(len(header))
	b.octets += s.end
	b.active, b.segments, b.unlisted = f, append(b.segments, s), true
	return nil
}

// sealLocked ends the active segment.
func (b *Backlog) sealLocked() error {
	f := b.active
	b.active = nil
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		b.lastLocked().unsafe = err
		return fmt.Errorf("backlog: %w", err)
	}
	return nil
}

// appendLocked writes entries behind the last whole one, over whatever an
// earlier try left there.
func (b *Backlog) appendLocked(entries ...Entry) error {
	s := b.lastLocked()
	b.scratch = b.scratch[:0]
	for _, e := range entries {
		b.scratch = appendEntry(b.scratch, e)
	}
	if _, err := b.active.WriteAt(b.scratch, s.end); err != nil {
		return fmt.Errorf("backlog: %w", err)
	}
	s.end += int64(len(b.scratch))
	b.octets += int64(len(b.scratch))
	b.unsynced = true
	return nil
}

// Full reports whether there is no room for more.
func (b *Backlog) Full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.octets >= b.cfg.MaxOctets
}

// Sync returns when all that was appended is safe from a power cut. An error
// comes again until all that it is of is acknowledged or given up.
func (b *Backlog) Sync() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unsynced && b.active != nil {
		if err := b.active.Sync(); err != nil {
			b.lastLocked().unsafe = err
			_ = b.active.Close() // what is written from here on goes into another
			b.active = nil
			b.free()
		}
	}
	for _, s := range b.segments {
		if s.unsafe != nil {
			return fmt.Errorf("backlog: %s is not safe until it is acknowledged: %w", s.path, s.unsafe)
		}
	}
	if b.unlisted {
		if err := durable.SyncDir(b.dir); err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
	}
	b.unsynced, b.unlisted = false, false
	return nil
}

// Acknowledge lets go of all Messages up to a position. It reports whether it
// is news.
func (b *Backlog) Acknowledge(position uint64) (news bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	position = min(position, b.sent)
	if position <= b.acked || b.closed {
		return false, nil
	}
	b.acked = position
	err = b.writeMarksLocked()
	if b.active != nil && b.lastLocked().last <= b.acked && b.lastLocked().end >= b.cfg.Segment/4 {
		err = errors.Join(err, b.sealLocked()) // it goes at once
	}
	b.free()
	return true, err
}

// free removes the segments of which all is acknowledged, and counts what is
// left.
func (b *Backlog) free() {
	keep := b.segments[:0]
	for i, s := range b.segments {
		if s.last > b.acked || b.active != nil && i == len(b.segments)-1 {
			keep = append(keep, s)
			continue
		}
		b.remove(s)
	}
	clear(b.segments[len(keep):])
	b.segments = keep
	b.messages = 0
	for _, s := range b.segments {
		b.messages += s.behind(b.acked)
	}
}

// remove deletes a segment's file. One that can't be is read again, and sent
// again, by the next life.
func (b *Backlog) remove(s *segment) {
	b.octets -= s.end
	if err := os.Remove(s.path); err != nil {
		b.cfg.Log.Warn("a file of the spool that is done with can't be removed", "error", err)
	}
}

// Sending notes, where kill -9 leaves it, that all that Readers have returned
// may have been sent: then a report of one that is given up is exact. It is to
// be called before anything of it is sent.
func (b *Backlog) Sending() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == b.noted {
		return nil
	}
	b.noted = b.sent
	return b.writeMarksLocked()
}

// hand marks a Message that a Reader is about to return, and reports whether
// it may: it may not be on its way and be told to have never been.
func (b *Backlog) hand(position uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if position <= b.floor {
		return false
	}
	b.sent = max(b.sent, position)
	return true
}

// LastSent returns up to which position Readers have returned Messages, in
// this life or one before.
func (b *Backlog) LastSent() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent
}

// Acknowledged returns up to which position Messages are acknowledged.
func (b *Backlog) Acknowledged() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.acked
}

// Stats say what a Backlog holds.
type Stats struct {
	Messages int   // not acknowledged
	Octets   int64 // of the files
	Segments int
	Position uint64 // of the latest Message
	Acked    uint64
}

// Stats returns a snapshot.
func (b *Backlog) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{b.messages, b.octets, len(b.segments), b.next - 1, b.acked}
}

// Close lets another process open the directory. What is not acknowledged
// stays there.
func (b *Backlog) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	var err error
	if b.active != nil {
		err = b.sealLocked()
	}
	return errors.Join(err, b.release())
}

func (b *Backlog) release() error {
	var errs []error
	if b.marks != nil {
		errs = append(errs, b.marks.Close())
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Close())
	}
	return errors.Join(errs...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
