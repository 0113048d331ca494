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
// again by Open. So nothing is archived twice, and nothing goes that is not.
package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"tollbridge/asm/acct"
	"tollbridge/internal/durable"
	"tollbridge/spool"
)

// Messages writes the Messages of Transport Sessions as files that can be read
// alone. It belongs to one goroutine.
type Messages interface {
	// Append appends the Message of an EntryMessage to the file of its session,
	// which an empty one begins anew, and says where it lies. It returns false
	// for one that is no Message of IPFIX: then the file is as it was.
	Append(file *bytes.Buffer, e acct.Entry) (Place, bool)
}

// A Place is where a Message lies in a file, and what was done to it there: a
// checksum record (RFC 5655, Section 8.1.1) was added at its end, and its
// sequence number was raised by those before it.
type Place struct {
	Offset int    `json:"offset,omitempty"`
	Octets int    `json:"octets,omitempty"` // what was added included
	Added  int    `json:"added,omitempty"`
	Raised uint32 `json:"raised,omitempty"`
}

// restore makes a Message of a file again what it was when it came.
func (p Place) restore(msg []byte) ([]byte, error) {
	if p.Added == 0 && p.Raised == 0 {
		return msg, nil
	}
	const header = 16 // RFC 7011, Section 3.1
	n := len(msg) - p.Added
	if p.Added < 0 || n < header || n > math.MaxUint16 {
		return nil, ErrBroken
	}
	binary.BigEndian.PutUint16(msg[2:], uint16(n))
	binary.BigEndian.PutUint32(msg[8:], binary.BigEndian.Uint32(msg[8:])-p.Raised)
	return msg[:n], nil
}

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
	if err := errors.Join(a.manifest.Truncate(a.whole), a.sweep(), durable.SyncDir(a.cfg.Dir)); err != nil {
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

// mostRecords of a Segment.
const mostRecords = 100_000

// A Record is a line of a Segment's settled records.
type Record struct {
	ID        uint64    `json:"id"`
	State     string    `json:"state"`
	SessionID string    `json:"session_id"`
	Number    uint32    `json:"number"`
	Type      string    `json:"type"`
	User      string    `json:"user"`
	Start     time.Time `json:"interval_start"`
	End       time.Time `json:"interval_end"`
	Event     time.Time `json:"event"`
	acct.Usage
	Increment acct.Count `json:"increment"`
	Result    uint32     `json:"result"`
	Peer      string     `json:"peer"`
	Answered  time.Time  `json:"answered"`
	Content   []byte     `json:"content"` // acct.Record, as it was frozen
}

var recordColumns = []string{"id", "state", "session_id", "number", "type", "user", "interval_start", "interval_end", "event",
	"input_octets", "output_octets", "input_packets", "output_packets", "increment_octets", "increment_packets", "result", "peer", "answered"}

func (r *Record) cells() []string {
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	t := func(v time.Time) string { return v.UTC().Format("2006-01-02T15:04:05.999Z") }
	return []string{n(r.ID), r.State, r.SessionID, n(uint64(r.Number)), r.Type, r.User, t(r.Start), t(r.End), t(r.Event),
		n(r.InputOctets), n(r.OutputOctets), n(r.InputPackets), n(r.OutputPackets), n(r.Increment.Octets), n(r.Increment.Packets), n(uint64(r.Result)), r.Peer, t(r.Answered)}
}

// archiveRecords makes a Segment of settled records and reports whether there
// are more.
func (a *Archive) archiveRecords(ctx context.Context) (more bool, err error) {
	list, ids, err := a.cfg.Spool.ToArchive(ctx, mostRecords)
	if err != nil || len(list) == 0 {
		return false, err
	}
	s := Segment{Kind: CDRs, Records: len(list), IDs: ids}
	lines, err := a.create("cdr.jsonl.zst")
	if err != nil {
		return false, err
	}
	defer lines.abandon()
	cells, err := a.create("cdr.csv.zst")
	if err != nil {
		return false, err
	}
	defer cells.abandon()
	e, c := json.NewEncoder(lines), csv.NewWriter(cells)
	if err := c.Write(recordColumns); err != nil {
		return false, err
	}
	for _, l := range list {
		r := &l.Record
		content, err := r.AppendBinary(nil)
		if err != nil {
			return false, err
		}
		line := Record{
			ID: l.ID, State: l.State.String(), SessionID: r.SessionID, Number: r.Number, Type: r.Type.String(), User: r.User,
			Start: r.Start, End: r.End, Event: r.Event, Usage: r.Usage, Increment: r.Increment(),
			Result: l.Result, Peer: l.Peer, Answered: l.At, Content: content,
		}
		s.Octets += line.Increment.Octets
		if err := errors.Join(e.Encode(&line), c.Write(line.cells())); err != nil {
			return false, err
		}
	}
	if c.Flush(); c.Error() != nil {
		return false, c.Error()
	}
	if err := a.finish(&s, lines, cells); err != nil {
		return false, err
	}
	return len(list) == mostRecords, a.cfg.Spool.Archived(ids, a.head())
}

// An Entry is a line of a Segment's journal entries. The octets of an IPFIX
// Message lie in File, at its Place; those of all others in Data.
type Entry struct {
	Position uint64 `json:"position"`
	Kind     uint8  `json:"kind"`
	What     string `json:"what"` // the kind, for people
	Time     int64  `json:"time"` // Unix nanoseconds
	Session  uint64 `json:"session,omitempty"`
	Data     []byte `json:"data,omitempty"`
	File     string `json:"file,omitempty"`
	Place
}

// partOctets is how much of the Messages is held in memory before it is
// written, as a file for each Transport Session.
const partOctets = 32 << 20

// archiveJournal makes a Segment of the entries up to the latest checkpoint.
// It begins with what is needed to read them alone, an opening.
func (a *Archive) archiveJournal(ctx context.Context) error {
	from := a.Last()
	until, err := a.cfg.Spool.KeepOpening(ctx)
	if err != nil || until <= from {
		return err
	}
	s := Segment{Kind: Journal, First: from + 1, Last: until}
	var files []*file
	defer func() {
		for _, f := range files {
			f.abandon()
		}
	}()
	if from > 0 {
		data, err := a.cfg.Spool.OpeningData(ctx, from)
		if err != nil {
			return err
		}
		f, err := a.createPlain("opening.jsonl.zst")
		if err != nil {
			return err
		}
		files = append(files, f)
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	entries, err := a.create("entries.jsonl.zst")
	if err != nil {
		return err
	}
	files = append(files, entries)
	lines := json.NewEncoder(entries)

	parts := make(map[uint64]*bytes.Buffer)
	held, part := 0, 1
	name := func(session uint64) string {
		return a.fileName(fmt.Sprintf("session-%d-%d.ipfix.zst", session, part))
	}
	flush := func() error {
		for session, b := range parts {
			f, err := a.create(fmt.Sprintf("session-%d-%d.ipfix.zst", session, part))
			if err != nil {
				return err
			}
			files = append(files, f)
			_, err = b.WriteTo(f)
			*b = bytes.Buffer{} // whoever still knows it holds no memory for it
			if err != nil {
				return err
			}
			if err := f.close(); err != nil { // its encoder's memory is wanted back
				return err
			}
		}
		clear(parts)
		held, part = 0, part+1
		return nil
	}
	reader := a.cfg.Spool.Journal().Reader(from)
	for at := from; at < until; {
		batch, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range batch {
			if at = e.Position; at > until {
				break
			}
			line := Entry{Position: e.Position, Kind: uint8(e.Kind), What: e.Kind.String(), Time: e.Time, Session: e.Session}
			line.Data = e.Data
			if e.Kind == acct.EntryMessage {
				session, _ := e.Stream()
				b := parts[session]
				if b == nil {
					b = new(bytes.Buffer)
				}
				if place, ok := a.cfg.Messages.Append(b, e); ok {
					parts[session] = b
					line.File, line.Place, line.Data = name(session), place, nil
					held += place.Octets
					s.Messages++
					s.Octets += uint64(len(e.Data))
				}
			}
			if err := lines.Encode(&line); err != nil {
				return err
			}
			s.Records++
		}
		if held >= partOctets {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := a.finish(&s, files...); err != nil {
		return err
	}
	a.mu.Lock()
	a.last = until
	a.mu.Unlock()
	return a.cfg.Spool.Archived(nil, a.head())
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
		errs = append(errs, os.Remove(filepath.Join(a.cfg.Dir, n)))
	}
	return errors.Join(append(errs, a.cfg.Spool.Archived(nil, a.head()))...)
}

// A file is one of a Segment that is being written.
type file struct {
	name string // in place
	f    *os.File
	z    *zstd.Encoder // nil for one that is compressed already
	sum  io.Writer
	hash interface{ Sum([]byte) []byte }
	n    int64
	done bool
}

const unfinished = ".part" // is added to a file's name until it is whole

func (a *Archive) create(what string) (*file, error) {
	f, err := a.createPlain(what)
	if err != nil {
		return nil, err
	}
	f.z, err = zstd.NewWriter(f.sum, zstd.WithEncoderConcurrency(1))
	return f, err
}

func (a *Archive) createPlain(what string) (*file, error) {
	name := filepath.Join(a.cfg.Dir, a.fileName(what))
	f, err := os.OpenFile(name+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	out := &file{name: name, f: f, hash: h}
	out.sum = io.MultiWriter(f, h, (*counter)(&out.n))
	return out, nil
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// Write implements io.Writer.
func (f *file) Write(b []byte) (int, error) {
	if f.z != nil {
		return f.z.Write(b)
	}
	return f.sum.Write(b)
}

// close makes the file durable under its unfinished name.
func (f *file) close() error {
	if f.done {
		return nil
	}
	f.done = true
	var err error
	if f.z != nil {
		err = f.z.Close()
	}
	return errors.Join(err, f.f.Sync(), f.f.Close())
}

// abandon removes a file that was not finished.
func (f *file) abandon() {
	_ = f.close()
	_ = os.Remove(f.name + unfinished) // not there once it is in place
}

// finish puts the files into place and s into the manifest.
func (a *Archive) finish(s *Segment, files ...*file) error {
	for _, f := range files {
		if err := f.close(); err != nil {
			return err
		}
		s.Files = append(s.Files, File{filepath.Base(f.name), f.n, hex.EncodeToString(f.hash.Sum(nil))})
	}
	a.at("written")
	for _, f := range files {
		if err := os.Rename(f.name+unfinished, f.name); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(a.cfg.Dir); err != nil {
		return err
	}
	a.at("in place")
	if err := a.add(*s); err != nil {
		return err
	}
	a.at("in the manifest")
	return nil
}
