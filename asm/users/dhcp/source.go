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
	info   os.FileInfo // of what was read; nil before the first
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

// Run follows the file until ctx ends. A file that can't be read changes
// nothing; that is logged once. Only an error of the Journal is one of Run.
func (s *Source) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Poll)
	defer ticker.Stop()
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
		s.format, s.info, s.offset, s.found = nil, nil, 0, nil // and from the beginning
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
// was written anew or rotated, and is read from its beginning.
func (s *Source) read() error {
	f, err := os.Open(s.cfg.File)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	anew := s.info == nil || !os.SameFile(s.info, info) || info.Size() < s.offset
	switch {
	case anew:
		s.format, s.info, s.offset = nil, nil, 0
		if err := s.readBeside(); err != nil {
			return err
		}
	case info.Size() == s.info.Size() && info.ModTime().Equal(s.info.ModTime()):
		return nil
	}
	if err := s.readFrom(f, info.ModTime()); err != nil {
		return err
	}
	s.info = info
	if anew && len(s.leases) > 0 {
		s.latest()
	}
	return nil
}

// latest keeps the latest of each lease that was found: what was before it has
// been told.
func (s *Source) latest() {
	seen := map[netip.Prefix]bool{}
	kept := s.found[:0]
	for _, l := range slices.Backward(slices.Clone(s.found)) {
		if !seen[l.Prefix] {
			seen[l.Prefix] = true
			kept = append(kept, l)
		}
	}
	slices.Reverse(kept)
	s.found = kept
}

// readBeside reads what Kea's lease file cleanup has taken from the file, and
// what it makes of it: FILE.completed when it has just ended, else FILE.2, its
// result of before, and FILE.1, what it works on.
func (s *Source) readBeside() error {
	names := []string{".2", ".1"}
	if _, err := os.Stat(s.cfg.File + ".completed"); err == nil {
		names = []string{".completed"}
	}
	for _, suffix := range names {
		f, err := os.Open(s.cfg.File + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = s.readFrom(f, info.ModTime())
		}
		f.Close()
		if err != nil {
			return err
		}
		s.format, s.offset = nil, 0
	}
	return nil
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
