// Package dhcp takes user bindings from the lease files of DHCP servers: Kea's
// CSV files and the lease files of ISC dhcpd, of DHCPv4 and DHCPv6.
package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tollbridge/asm/users"
)

// SourceName is the name of this source of bindings.
const SourceName = "dhcp"

// A Journal makes events durable, in the order in which they are appended.
type Journal interface {
	// Append hands an event on and returns its position.
	Append(users.Event) (uint64, error)
	// Wait returns nil when a position is durable.
	Wait(ctx context.Context, position uint64) error
}

// A Config says which file to follow.
type Config struct {
	Journal Journal          // required
	File    string           // that the server writes; required
	User    []Identity       // the first that a lease has is the user; none means hwAddress, then duid
	Poll    time.Duration    // between two looks; 0 means 5s
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // nil means time.Now
}

// A Source follows a lease file. A lease is a session that begins with its
// first transaction, is continued by each renewal, and ends when it expires,
// is released, or goes to another client.
type Source struct {
	cfg Config

	// Of Run alone.
	format format
	file   *os.File    // open, so that what a rotation takes away can be read to its end; nil before the first
	info   os.FileInfo // of file when it was read
	offset int64       // of what was not
	leases map[netip.Prefix]known
	last   uint64    // position of the latest event
	now    time.Time // of this look
	found  []found   // at this look
	failed error     // of the Journal

	mu      sync.Mutex
	stats   Stats
	problem string
}

// A format reads whole leases off the front of what a file has.
type format interface {
	parse(b []byte, lease func(Lease), bad func(error)) (consumed int)
}

// A found lease is one that was read.
type found struct {
	Lease
	modified time.Time // no earlier than what it tells of
}

// known is what was said of a prefix's lease.
type known struct {
	id         string
	user       string
	start, end int64 // Unix seconds; end is 0 for never
	active     bool
}

// Stats says how a Source gets on.
type Stats struct {
	Leases    int    // active by the file
	Events    uint64 // that were journaled
	Malformed uint64 // lines or declarations that could not be read
	Nameless  uint64 // leases that have none of Config.User
	Failing   bool   // the file could not be read at the latest look
}

// New returns a Source that follows nothing yet: see Run.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Journal == nil:
		return nil, errors.New("dhcp: Config.Journal is required")
	case cfg.File == "":
		return nil, errors.New("dhcp: Config.File is required")
	}
	if len(cfg.User) == 0 {
		cfg.User = []Identity{HWAddress, DUID}
	}
	if cfg.Poll == 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Source{cfg: cfg, leases: map[netip.Prefix]known{}}, nil
}

// File returns the name of the file.
func (s *Source) File() string { return s.cfg.File }

// Stats returns a snapshot. Any goroutine may call it.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run follows the file until ctx ends, once. A file that can't be read changes
// nothing; that is logged once. Only an error of the Journal is one of Run.
func (s *Source) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Poll)
	defer ticker.Stop()
	defer s.open(nil)
	for {
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("dhcp: %s: %w", s.cfg.File, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look reads what is new, and waits until it is durable.
func (s *Source) look(ctx context.Context) error {
	s.now = s.cfg.Now()
	before := s.last
	err := s.read()
	if s.tell(err); err != nil {
		s.open(nil) // and from the beginning
	}
	for _, l := range s.found {
		s.lease(l.Lease, l.modified)
	}
	s.found = nil
	if s.failed != nil {
		return s.failed
	}
	if s.last == before {
		return nil
	}
	return s.cfg.Journal.Wait(ctx, s.last)
}

// read reads what the server has appended. A file that is another, or shorter,
// was written anew or rotated: what the one before had at its end is read, and
// the new one from its beginning.
func (s *Source) read() error {
	info, err := os.Stat(s.cfg.File)
	if s.file != nil {
		if err := s.readOn(); err != nil {
			return err
		}
		if err == nil && info.Size() >= s.offset && os.SameFile(s.info, info) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	f, err := os.Open(s.cfg.File)
	if err != nil {
		return err
	}
	s.open(f)
	before := len(s.found)
	if err = s.readBeside(); err == nil {
		err = s.readOn()
	}
	switch {
	case err != nil:
		s.found = s.found[:before]
	case len(s.leases) > 0:
		s.found = append(s.found[:before], latest(s.found[before:])...)
	}
	return err
}

// open makes f the file that is read, from its beginning.
func (s *Source) open(f *os.File) {
	if s.file != nil {
		s.file.Close() //nolint:errcheck // it was only read
	}
	s.file, s.info, s.offset, s.format = f, nil, 0, nil
}

// readOn reads what is new in the open file.
func (s *Source) readOn() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if s.info == nil || info.Size() != s.info.Size() || !info.ModTime().Equal(s.info.ModTime()) {
		if err := s.readFrom(s.file, info.ModTime()); err != nil {
			return err
		}
	}
	s.info = info
	return nil
}

// latest returns the latest of each lease: what was before it has been told.
func latest(all []found) []found {
	seen := map[netip.Prefix]bool{}
	var kept []found
	for _, l := range slices.Backward(all) {
		if !seen[l.Prefix] {
			seen[l.Prefix] = true
			kept = append(kept, l)
		}
	}
	slices.Reverse(kept)
	return kept
}

// readBeside reads what Kea's lease file cleanup has taken from the file, and
// what it makes of it: FILE.completed when it has just ended, else FILE.2, its
// result of before, and FILE.1, what it works on. If it went on meanwhile, what
// was read may be neither of before nor of after, and is read again.
func (s *Source) readBeside() error {
	const attempts = 10
	found := len(s.found)
	for range attempts {
		before := s.beside()
		names := []string{".2", ".1"}
		if before[".completed"] != nil {
			names = []string{".completed"}
		}
		s.found = s.found[:found]
		for _, suffix := range names {
			if err := s.readWhole(s.cfg.File + suffix); err != nil {
				return err
			}
		}
		if maps.EqualFunc(before, s.beside(), os.SameFile) {
			return nil
		}
	}
	return fmt.Errorf("%s: its cleanup changes the files beside it faster than they are read", s.cfg.File)
}

// beside returns what there is beside the file, by what its name ends in.
func (s *Source) beside() map[string]os.FileInfo {
	files := map[string]os.FileInfo{}
	for _, suffix := range []string{".completed", ".2", ".1"} {
		if info, err := os.Stat(s.cfg.File + suffix); err == nil {
			files[suffix] = info
		}
	}
	return files
}

// readWhole reads a file beside the one that is followed, if it is there.
func (s *Source) readWhole(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = s.readFrom(f, info.ModTime())
	}
	s.format, s.offset = nil, 0
	return err
}

// maxFile is the most octets that are read at once.
const maxFile = 1 << 30

// readFrom finds the leases behind offset.
func (s *Source) readFrom(f *os.File, modified time.Time) error {
	b, err := io.ReadAll(io.NewSectionReader(f, s.offset, maxFile))
	if err != nil {
		return err
	}
	if s.format == nil {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return nil // not even the first line is whole
		}
		s.format = iscFile{}
		if strings.HasPrefix(string(b[:end]), "address,") {
			s.format = new(keaFile)
		}
	}
	s.offset += int64(s.format.parse(b, func(l Lease) { s.found = append(s.found, found{l, modified}) }, s.malformed))
	return nil
}

// late is for how long after its end a lease is still told of: its flows may
// be late.
const late = 24 * time.Hour

// lease tells what a lease changes.
func (s *Source) lease(l Lease, modified time.Time) {
	before, was := s.leases[l.Prefix]
	now := known{id: l.id(), user: strings.Clone(l.user(s.cfg.User)), start: l.Start.Unix(), active: l.Active}
	if !l.End.IsZero() {
		now.end = l.End.Unix()
	}
	if was && now == before {
		return
	}
	if was && before.active && before.id != now.id {
		s.event(users.Event{Kind: users.End, ID: before.id, At: before.until(l.Start)})
	}
	switch {
	case l.Active && now.user == "":
		s.count(func(stats *Stats) { stats.Nameless++ })
	case l.Active && (l.End.IsZero() || l.End.After(s.now.Add(-late))):
		s.event(s.update(&l, now.user))
	case !l.Active && (was && before.active && before.id == now.id || !was && !l.End.Before(s.now.Add(-late))):
		at := l.End
		if at.IsZero() || at.After(modified) {
			at = modified
		}
		s.event(users.Event{Kind: users.End, ID: now.id, At: before.until(at)})
	}
	s.leases[l.Prefix] = now
	s.count(func(stats *Stats) {
		if was && before.active {
			stats.Leases--
		}
		if l.Active {
			stats.Leases++
		}
	})
}

// until returns a moment, or the lease's end if that is earlier.
func (k known) until(at time.Time) time.Time {
	if k.end > 0 && at.Unix() > k.end {
		return time.Unix(k.end, 0)
	}
	return at
}

// update returns what an active lease says. A Begin would begin a session anew
// that goes on.
func (s *Source) update(l *Lease, user string) users.Event {
	e := users.Event{
		Kind: users.Update, ID: l.id(), At: l.Start, Since: l.Start,
		Prefixes: []netip.Prefix{l.Prefix}, User: user,
		Options: users.Options{Attributes: l.attributes()},
	}
	if !l.End.IsZero() {
		e.Timeout = max(l.End.Sub(l.Start), time.Millisecond)
	}
	return e
}

// event journals an event.
func (s *Source) event(e users.Event) {
	if s.failed != nil {
		return
	}
	e.Source = SourceName
	e, err := e.Normalize()
	if err != nil {
		s.malformed(err)
		return
	}
	if s.last, s.failed = s.cfg.Journal.Append(e); s.failed == nil {
		s.count(func(stats *Stats) { stats.Events++ })
	}
}

func (s *Source) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// malformed counts what could not be read. The first is told.
func (s *Source) malformed(err error) {
	var news bool
	s.count(func(stats *Stats) {
		news = stats.Malformed == 0
		stats.Malformed++
	})
	if news {
		s.cfg.Log.Warn("lease file has what can't be read; further ones are counted only", "file", s.cfg.File, "error", err)
	}
}

// tell says that the file can't be read, or can again, unless it was said last.
func (s *Source) tell(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	s.count(func(stats *Stats) { stats.Failing = err != nil })
	if problem == s.problem {
		return
	}
	s.problem = problem
	if err != nil {
		s.cfg.Log.Error("lease file can't be read; its leases count until they expire", "file", s.cfg.File, "error", err)
		return
	}
	s.cfg.Log.Info("lease file is read again", "file", s.cfg.File)
}
