package backlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"tollbridge/internal/durable"
)

// Open opens the backlog in dir, which it makes if there is none. Errors match
// ErrLocked, or are of the file system.
func Open(dir string, cfg Config) (*Backlog, error) {
	if cfg.MaxOctets == 0 {
		cfg.MaxOctets = 1 << 30
	}
	if cfg.Segment == 0 {
		cfg.Segment = min(4<<20, cfg.MaxOctets/8)
	}
	if cfg.MaxOctets < minOctets || cfg.Segment < 1 || cfg.Segment > cfg.MaxOctets/2 {
		return nil, fmt.Errorf("backlog: Config: %d octets in files of %d: at least %d are needed, and two files", cfg.MaxOctets, cfg.Segment, minOctets)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backlog{cfg: cfg, dir: dir}
	if err := b.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("backlog: %s: %w", dir, err), b.release())
	}
	return b, nil
}

// minOctets has room for a few of the longest Messages.
const minOctets = 512 << 10

func (b *Backlog) open() error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	var err error
	if b.lock, err = os.OpenFile(filepath.Join(b.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(b.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return ErrLocked
	}
	if err := b.openInstance(); err != nil {
		return err
	}
	if b.marks, err = os.OpenFile(filepath.Join(b.dir, "marks"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	b.readMarks()
	if err := b.scan(); err != nil {
		return err
	}
	b.next = max(b.next, b.acked, b.sent)
	if b.next > 0 {
		b.next += leap
	}
	b.next++
	b.free()
	return nil
}

// openInstance reads who this exporter is, or decides it.
func (b *Backlog) openInstance() error {
	path := filepath.Join(b.dir, "instance")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		_, _ = rand.Read(b.instance[:]) // it never fails
		data := binary.BigEndian.AppendUint32(b.instance[:], checksum(b.instance[:]))
		return durable.WriteFile(path, data)
	}
	if err != nil {
		return err
	}
	if len(data) != 20 || binary.BigEndian.Uint32(data[16:]) != checksum(data[:16]) {
		return fmt.Errorf("%s is damaged: move the directory away, what it holds can't be sent as whose it is", path)
	}
	copy(b.instance[:], data)
	return nil
}

// scan reads which segments there are, and what is in them.
func (b *Backlog) scan() error {
	files, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), segmentSuffix)
		if !ok {
			continue
		}
		s := &segment{path: filepath.Join(b.dir, f.Name())}
		if _, err := fmt.Sscanf(name, "%x", &s.serial); err != nil {
			return fmt.Errorf("%s: is no segment's name", f.Name())
		}
		if err := b.scanSegment(s); err != nil {
			return err
		}
		b.segments = append(b.segments, s)
		b.octets += s.end
		b.serial = max(b.serial, s.serial)
		b.next = max(b.next, s.last)
	}
	if err := durable.SyncDir(b.dir); err != nil {
		return err
	}
	slices.SortFunc(b.segments, func(x, y *segment) int { return int(int64(x.serial - y.serial)) })
	b.closeGaps()
	return nil
}

// closeGaps counts what is missing between two segments of one life as what the
// earlier one has at its end.
func (b *Backlog) closeGaps() {
	var before *segment
	for _, s := range b.segments {
		if s.last == 0 {
			continue
		}
		if before != nil && s.first > before.last && s.first-before.last <= leap {
			before.last = s.first - 1
		}
		before = s
	}
}

// scanSegment fills in s. It makes its Messages safe from a power cut, as who
// wrote them may not have come to that.
func (b *Backlog) scanSegment(s *segment) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.end = info.Size()
	r := reading{f: f, end: s.end, instance: b.instance}
	whole, damaged := int64(0), int64(0) // octets up to the last whole entry, and those of them that are in none
	for {
		e, ok, err := r.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		damaged += r.at - max(whole, int64(headerLength)) - int64(entryHeader+len(e.Octets))
		whole = r.at
		if e.Kind == Template {
			continue
		}
		if s.first == 0 {
			s.first = r.earliest(e.Position)
		}
		s.last = e.Position
	}
	if damaged > 0 {
		b.cfg.Log.Error("a file of the spool is damaged", "file", s.path, "octets", damaged)
	}
	if whole = max(whole, min(r.at, int64(headerLength))); whole < s.end {
		b.cfg.Log.Warn("a file of the spool ends in octets that are no whole entry, as after a crash", "file", s.path, "octets", s.end-whole)
	}
	return nil
}
