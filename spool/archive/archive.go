// Package archive keeps what a spool lets go: settled accounting records as
// JSON Lines and CSV, and the journal, from which the pipeline comes to the
// same records again. Files are compressed with zstd; a manifest chains them, so
// that one that is removed, reordered or changed shows.
//
// # Crash argument
//
// The files of a Segment are written, synced and renamed into place, then the
// directory is synced, then the Segment's line is appended to the manifest and
// synced: from then on it is in the archive. Only after that the spool is told,
// which lets go of the records and entries of the Segment. A crash before the
// line leaves files that Open removes; one after it leaves a spool that is told
// again by Open, once Open has synced the line itself: it may have found one
// that is in memory alone. So nothing is archived twice, and nothing goes that
// is not.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tollbridge/internal/durable"
	"tollbridge/spool"
)

// Config sets up an Archive.
type Config struct {
	Dir      string
	Spool    *spool.Spool
	Messages Messages
	Interval time.Duration // between Segments
	Keep     time.Duration // files older than this go; 0 keeps all
	Octets   int64         // and the oldest of more than this; 0 is no limit
	Log      *slog.Logger  // nil discards
}

// An Archive takes in what a spool has done with.
type Archive struct {
	cfg      Config
	manifest *os.File
	whole    int64 // octets of the manifest

	segments []Segment
	step     func(string) // tests stop here; nil for none

	mu     sync.Mutex
	last   uint64 // journal position archived up to
	octets int64  // of the files
	err    error  // why the latest attempt failed
}

// Open opens the archive in Config.Dir, making it if there is none, and
// mends what a crash left.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Archive{cfg: cfg}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	var err error
	if a.segments, a.whole, err = Read(cfg.Dir); err != nil {
		return nil, err
	}
	if a.manifest, err = os.OpenFile(filepath.Join(cfg.Dir, manifestName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.manifest.Close())
	}
	return a, nil
}

func (a *Archive) open(ctx context.Context) error {
	if err := errors.Join(a.confirm(), a.sweep(), durable.SyncDir(a.cfg.Dir)); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	var ids []spool.Range
	begun := false
	for _, s := range a.segments {
		ids = append(ids, s.IDs...)
		if s.Kind == Journal {
			a.last, begun = s.Last, true
		}
	}
	if !begun {
		if _, err := a.cfg.Spool.OpeningAt(ctx, time.Unix(0, 0)); err != nil { // the journal's beginning is gone
			if a.last, err = a.cfg.Spool.KeepOpening(ctx); err != nil {
				return err
			}
		}
	}
	a.measure()
	a.cfg.Spool.Outbox().KeepForArchive()
	return a.cfg.Spool.Archived(ids, a.head())
}

// Close closes the manifest.
func (a *Archive) Close() error { return a.manifest.Close() }

// Last returns the journal position up to which entries are in the archive.
func (a *Archive) Last() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Octets returns how large the archive's files are.
func (a *Archive) Octets() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.octets
}

// measure looks how large the files are.
func (a *Archive) measure() {
	var n int64
	for _, s := range Kept(a.segments) {
		n += s.octets()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.octets = n
}

// Err returns why the latest attempt to write failed, nil if it did not.
func (a *Archive) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Run archives every Config.Interval until ctx ends, and once more then. A
// failure is logged, and tried again.
func (a *Archive) Run(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.Interval)
	defer tick.Stop()
	for done := false; ; {
		err := a.Work(context.WithoutCancel(ctx))
		a.mu.Lock()
		before := a.err
		a.err = err
		a.mu.Unlock()
		switch {
		case err != nil && before == nil:
			a.cfg.Log.Error("the archive can't be written: the spool keeps what belongs into it", "error", err)
		case err == nil && before != nil:
			a.cfg.Log.Info("the archive is written again")
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
	}
}

// Work archives what there is now: settled records, the journal up to the
// latest checkpoint, and lets go of what is old.
func (a *Archive) Work(ctx context.Context) error {
	for more := true; more; {
		var err error
		if more, err = a.archiveRecords(ctx); err != nil {
			return fmt.Errorf("archive: settled records: %w", err)
		}
	}
	if err := a.archiveJournal(ctx); err != nil {
		return fmt.Errorf("archive: journal: %w", err)
	}
	if err := a.expire(time.Now()); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

// at is where tests cut the power.
func (a *Archive) at(step string) {
	if a.step != nil {
		a.step(step)
	}
}

// expire lets the oldest files go that are older or more than is kept. What is
// kept of the journal stays without a gap.
func (a *Archive) expire(now time.Time) error {
	defer a.measure()
	kept := Kept(a.segments)
	var octets int64
	for _, s := range kept {
		octets += s.octets()
	}
	var gone []uint64
	var names []string
	for _, s := range kept {
		old := a.cfg.Keep > 0 && now.Sub(s.Written) > a.cfg.Keep
		if !old && (a.cfg.Octets == 0 || octets <= a.cfg.Octets) {
			break
		}
		gone = append(gone, s.Number)
		for _, f := range s.Files {
			octets -= f.Octets
			names = append(names, f.Name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := a.add(Segment{Kind: Expired, Expires: gone}); err != nil {
		return err
	}
	a.at("expired")
	var errs []error
	for _, n := range names {
		if err := os.Remove(filepath.Join(a.cfg.Dir, n)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, a.cfg.Spool.Archived(nil, a.head()))...)
}
