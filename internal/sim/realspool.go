package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// A realSpool is a disk with the real spool on it, journal segments and SQLite. A
// crash copies its files as they are, with the torn beginning of a transaction
// behind a write-ahead log, and of a group behind the journal, and goes on with
// the copy.
type realSpool struct {
	*spool.Spool
	dir     string // of all copies
	copies  int
	written []acct.Entry
	stop    func() // the journal's committer
}

func newRealSpool(w *world, dir string) *realSpool {
	s := &realSpool{dir: dir}
	s.open()
	return s
}

// must ends a run for a fault of the machine that it is simulated on.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("sim: the real spool: %v", err))
	}
}

func (s *realSpool) path() string { return filepath.Join(s.dir, strconv.Itoa(s.copies)) }

func (s *realSpool) open() {
	var err error
	s.Spool, err = spool.Open(s.path(), spool.Config{MaxDelay: time.Microsecond, GroupSize: 2 << 10, Segment: 32 << 10, Recent: 8 << 10})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	journal := s.Journal()
	go func() { ended <- journal.Run(ctx) }()
	s.stop = func() { cancel(); must(<-ended) }
}

func (s *realSpool) close() {
	s.stop()
	must(s.Spool.Close())
}

func (s *realSpool) crash(rng randomness) {
	// What was being written may have been committed without anybody's
	// knowing.
	if n := len(s.written); n > 0 {
		s.written = s.written[:rng.IntN(n+1)]
		must(s.sync())
	}
	from := s.path()
	s.copies++
	must(os.MkdirAll(filepath.Join(s.path(), "journal"), 0o700))
	segments, err := filepath.Glob(filepath.Join(from, "journal", "*.segment")) // in the order of their making
	must(err)
	latest := segments[len(segments)-1]
	for _, file := range append(segments, filepath.Join(from, "journal", "lease"), filepath.Join(from, "state.db"), filepath.Join(from, "state.db-wal")) {
		octets, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(err)
		if file == latest { // what was being written lies over room that was taken before, at the next sector
			octets = bytes.TrimRight(octets, "\x00")
			octets = append(octets, make([]byte, -len(octets)&511)...)
		}
		if (file == latest || strings.HasSuffix(file, "-wal")) && rng.IntN(2) == 0 {
			for range rng.IntN(5000) {
				octets = append(octets, byte(rng.Uint32()))
			}
		}
		name, err := filepath.Rel(from, file)
		must(err)
		must(os.WriteFile(filepath.Join(s.path(), name), octets, 0o600))
	}
	s.close()
	must(os.RemoveAll(from))
	s.open()
}

func (s *realSpool) write(group []acct.Entry) { s.written = append(s.written, group...) }

func (s *realSpool) sync() error {
	for _, e := range s.written {
		position, err := s.Journal().Append(e.Kind, e.Time, e.Session, e.Data)
		if err != nil {
			return err
		}
		if position != e.Position {
			return fmt.Errorf("entry %d got position %d", e.Position, position)
		}
	}
	s.written = nil
	return s.Journal().Wait(context.Background(), s.Journal().Appended())
}

func (s *realSpool) entries(after uint64, max int) ([]acct.Entry, error) {
	if s.Journal().Durable() <= after {
		return nil, nil
	}
	list, err := s.Journal().Reader(after).Next(context.Background())
	return list[:min(max, len(list))], err
}

func (s *realSpool) Read(ctx context.Context, position uint64) (acct.Entry, error) {
	return s.Journal().Read(ctx, position)
}

func (s *realSpool) Trim(ctx context.Context, below uint64) error {
	return s.Journal().Trim(ctx, below)
}

func (s *realSpool) last() uint64 { return s.Journal().Appended() }

func (s *realSpool) Pending(ctx context.Context, after uint64, max int) ([]acct.Delivery, error) {
	return s.Outbox().Pending(ctx, after, max)
}

func (s *realSpool) MarkSent(ctx context.Context, ids []uint64) error {
	return s.Outbox().MarkSent(ctx, ids)
}

func (s *realSpool) Settle(ctx context.Context, list []acct.Settlement) error {
	return s.Outbox().Settle(ctx, list)
}

func (s *realSpool) Wake() <-chan struct{} { return s.Outbox().Wake() }

func (s *realSpool) quarantined() []uint64 {
	state := acct.Quarantined
	list, err := s.List(context.Background(), spool.Filter{State: &state})
	must(err)
	var ids []uint64
	for _, l := range list {
		ids = append(ids, l.ID)
	}
	return ids
}

func (s *realSpool) requeue(ctx context.Context, ids []uint64) error {
	_, err := s.Outbox().Requeue(ctx, ids)
	return err
}

func (s *realSpool) contents() map[cdrKey][]byte {
	list, err := s.List(context.Background(), spool.Filter{})
	must(err)
	all := map[cdrKey][]byte{}
	for i := range list {
		r := &list[i].Record
		content, err := r.AppendBinary(nil)
		must(err)
		all[cdrKey{r.SessionID, r.Number}] = content
	}
	return all
}

func (s *realSpool) books() (sums, error) {
	b, err := s.Audit(context.Background())
	if err != nil {
		return sums{}, err
	}
	all, err := s.List(context.Background(), spool.Filter{})
	if err != nil {
		return sums{}, err
	}
	covered := 0
	for _, l := range all {
		if l.State == acct.Covered {
			covered++
		}
	}
	var errs []error
	for _, p := range b.Problems {
		errs = append(errs, errors.New(p))
	}
	rows := map[acct.LedgerKey]amounts{}
	for _, r := range b.Rows {
		key := acct.LedgerKey{Exporter: r.Exporter, Domain: r.Domain, Interval: r.Interval.Unix()}
		rows[key] = amounts{r.Received, r.Mirrored, r.Accounted, r.Duplicate, r.Suspended, r.Rejected}
	}
	total := sums{rows: rows, records: len(all), covered: covered}
	for _, s := range []*spool.Sums{&b.Total, &b.Credits, &b.Debits} {
		for _, c := range [...]struct {
			to  *acct.Count
			add acct.Count
		}{
			{&total.received, s.Received}, {&total.mirrored, s.Mirrored}, {&total.accounted, s.Accounted},
			{&total.duplicate, s.Duplicate}, {&total.suspended, s.Suspended}, {&total.rejected, s.Rejected},
			{&total.open, s.Open}, {&total.pending, s.Pending}, {&total.acknowledged, s.Acknowledged}, {&total.quarantined, s.Quarantined},
		} {
			*c.to = c.to.Plus(c.add)
		}
	}
	return total, errors.Join(errs...)
}
