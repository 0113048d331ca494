// Package cdrfile delivers accounting records to a partner by files instead
// of Diameter: numbered CDR files in a directory, and acknowledgement files
// that the partner puts beside them.
//
// File number 42 for home.example is
//
//	home.example-00000042.csv    a header and a line for each record
//	home.example-00000042.json   Manifest: count, octets, digest; it comes last and says that the file is whole
//	home.example-00000042.ack    Acknowledgement: the partner's, written and renamed likewise
//
// A record is settled when its file is acknowledged, never before, and then
// the three files move to the directory "done". Files are settled in order of
// number: volumes are cumulative, so that a session's record must not be
// acknowledged while it is open whether the one before is refused. A failing
// outbox holds later acknowledgements up likewise. Everything that a restart needs
// is in the directory: a record that stands in a file there is not put into
// another. Files appear by rename after fsync, so that a crash leaves a whole
// file or none.
package cdrfile

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/durable"
)

// An Outbox keeps the records that are to be delivered.
type Outbox interface {
	// PendingOf returns up to max unsettled records with an ID above after
	// whose Realm of reports true. All of those up to ID through were looked
	// at, and there may be more of them.
	PendingOf(ctx context.Context, after uint64, max int, of func(realm []byte) bool) (records []acct.Delivery, through uint64, more bool, err error)
	// Settle makes the fate of records durable.
	Settle(ctx context.Context, settlements []acct.Settlement) error
}

// A Config is one partner.
type Config struct {
	Realm      string        // Destination-Realm of the records; required
	Dir        string        // where the files are; made if it is not there; required
	Outbox     Outbox        // required
	Every      time.Duration // a file is begun so often, if there are records; 0 means 15m
	Look       time.Duration // for acknowledgements; 0 means 10s
	MaxRecords int           // of one file; 0 means 100000
	Log        *slog.Logger  // nil discards
}

// A Manifest says what is in a file.
type Manifest struct {
	Realm    string     `json:"realm"`
	Sequence uint64     `json:"sequence"`
	File     string     `json:"file"`
	Created  time.Time  `json:"created"`
	Records  int        `json:"records"`
	Usage    acct.Usage `json:"usage"` // the sum over the lines, cumulative ones included
	SHA256   string     `json:"sha256"`
}

// An Acknowledgement is what a partner says of a file. Records and SHA256 must
// be those of the Manifest, which shows that the partner has read it whole.
type Acknowledgement struct {
	Sequence uint64     `json:"sequence"`
	Records  int        `json:"records"`
	SHA256   string     `json:"sha256"`
	Accepted bool       `json:"accepted"`
	Reason   string     `json:"reason,omitempty"`   // of a file that is not accepted
	Rejected []Rejected `json:"rejected,omitempty"` // single records of one that is
}

// A Rejected record is not accepted though its file is.
type Rejected struct {
	SessionID string `json:"session_id"`
	Number    uint32 `json:"number"`
	Reason    string `json:"reason"`
}

// columns are those of a file. Its first names the record here.
var columns = []string{"id", "session_id", "number", "type", "multi_session_id", "user", "input_octets", "output_octets",
	"input_packets", "output_packets", "start", "end", "event", "session_seconds"}

// An Exporter writes files for one partner.
type Exporter struct {
	cfg   Config
	next  uint64          // sequence number
	bare  uint64          // number of the file that has no manifest yet; 0 for none
	open  map[uint64]bool // records in files that wait for their acknowledgement
	waits uint64          // number of the file that acknowledgements of later ones wait for, once that is told
}

// New returns an Exporter that goes on where the directory says.
func New(cfg Config) (*Exporter, error) {
	if cfg.Realm == "" || cfg.Dir == "" || cfg.Outbox == nil {
		return nil, errors.New("cdrfile: Config.Realm, Dir and Outbox are required")
	}
	if cfg.Every == 0 {
		cfg.Every = 15 * time.Minute
	}
	if cfg.Look == 0 {
		cfg.Look = 10 * time.Second
	}
	if cfg.MaxRecords == 0 {
		cfg.MaxRecords = 100_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exporter{cfg: cfg, next: 1, open: make(map[uint64]bool)}
	if err := os.MkdirAll(e.done(), 0o700); err != nil {
		return nil, fmt.Errorf("cdrfile: %w", err)
	}
	return e, e.resume()
}

func (e *Exporter) done() string { return filepath.Join(e.cfg.Dir, "done") }

// name is that of a file of the partner's.
func (e *Exporter) name(sequence uint64, suffix string) string {
	return filepath.Join(e.cfg.Dir, fmt.Sprintf("%s-%08d%s", e.cfg.Realm, sequence, suffix))
}

// sequenceOf returns the number of a data file.
func (e *Exporter) sequenceOf(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(filepath.Base(name), e.cfg.Realm+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, ".csv"), 10, 64)
	return n, err == nil && strings.HasSuffix(rest, ".csv")
}

// resume reads what a former Exporter left in the directory.
func (e *Exporter) resume() error {
	for _, dir := range []string{e.cfg.Dir, e.done()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("cdrfile: %w", err)
		}
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), ".tmp") && strings.HasPrefix(entry.Name(), e.cfg.Realm+"-") {
				if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
					return fmt.Errorf("cdrfile: %w", err)
				}
				continue
			}
			n, ok := e.sequenceOf(entry.Name())
			if !ok {
				continue
			}
			e.next = max(e.next, n+1)
			if dir != e.cfg.Dir {
				continue
			}
			m, records, err := e.read(n)
			if err != nil {
				return err
			}
			for _, r := range records {
				e.open[r.id] = true
			}
			// Without it the crash came between the two files.
			if _, err := os.Stat(e.name(n, ".json")); errors.Is(err, fs.ErrNotExist) {
				if err := e.put(e.name(n, ".json"), manifestJSON(m)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Run writes files and takes acknowledgements until ctx ends. What fails, such
// as a full disk, is logged and tried again.
func (e *Exporter) Run(ctx context.Context) error {
	look := time.NewTicker(e.cfg.Look)
	defer look.Stop()
	due := time.Time{}
	for {
		err := e.Settle(ctx)
		if now := time.Now(); err == nil && !now.Before(due) {
			if err = e.Export(ctx, now); err == nil {
				due = now.Add(e.cfg.Every)
			}
		}
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.Error("CDR files stand still", "realm", e.cfg.Realm, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// Export writes what is pending and in no file yet.
func (e *Exporter) Export(ctx context.Context, now time.Time) error {
	if err := e.finish(now); err != nil {
		return err
	}
	ours := func(realm []byte) bool { return strings.EqualFold(string(realm), e.cfg.Realm) }
	for after, more := uint64(0), true; more; {
		var batch []acct.Delivery
		for more && len(batch) < e.cfg.MaxRecords {
			list, through, rest, err := e.cfg.Outbox.PendingOf(ctx, after, e.cfg.MaxRecords-len(batch), ours)
			if err != nil {
				return fmt.Errorf("cdrfile: read outbox: %w", err)
			}
			for _, d := range list {
				after = d.ID
				if !e.open[d.ID] {
					batch = append(batch, d)
				}
			}
			after, more = max(after, through), rest || len(list) > 0
		}
		if len(batch) == 0 {
			return nil
		}
		if err := e.write(batch, now); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file of batch.
func (e *Exporter) write(batch []acct.Delivery, now time.Time) error {
	var b strings.Builder
	w := csv.NewWriter(&b)
	w.Write(columns) //nolint:errcheck // a Builder takes all
	for i := range batch {
		r := &batch[i].Record
		w.Write([]string{ //nolint:errcheck // likewise
			strconv.FormatUint(batch[i].ID, 10), r.SessionID, strconv.FormatUint(uint64(r.Number), 10), r.Type.String(), r.MultiSessionID, r.User,
			strconv.FormatUint(r.Usage.InputOctets, 10), strconv.FormatUint(r.Usage.OutputOctets, 10),
			strconv.FormatUint(r.Usage.InputPackets, 10), strconv.FormatUint(r.Usage.OutputPackets, 10),
			stamp(r.Start), stamp(r.End), stamp(r.Event), strconv.FormatFloat(r.SessionTime.Seconds(), 'f', -1, 64),
		})
	}
	w.Flush()
	n := e.next
	if err := e.put(e.name(n, ".csv"), []byte(b.String())); err != nil {
		return err
	}
	// From here on the file is there, whatever fails.
	e.next++
	e.bare = n
	for i := range batch {
		e.open[batch[i].ID] = true
	}
	return e.finish(now)
}

// finish writes the manifest of the latest file, if it has none yet.
func (e *Exporter) finish(now time.Time) error {
	if e.bare == 0 {
		return nil
	}
	m, _, err := e.read(e.bare)
	if err != nil {
		return err
	}
	m.Created = now.UTC()
	if err := e.put(e.name(e.bare, ".json"), manifestJSON(m)); err != nil {
		return err
	}
	e.bare = 0
	e.cfg.Log.Info("CDR file is written", "realm", e.cfg.Realm, "file", m.File, "records", m.Records)
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// put writes a file whole or not at all, durably.
func (e *Exporter) put(name string, content []byte) error {
	if err := durable.WriteFile(name, content); err != nil {
		return fmt.Errorf("cdrfile: write %s: %w", name, err)
	}
	return nil
}

func manifestJSON(m Manifest) []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("cdrfile: internal error: " + err.Error())
	}
	return append(b, '\n')
}

// A line is what settling needs of a file's.
type line struct {
	id      uint64
	session string
	number  uint32
}

// read reads a data file and says what is in it.
func (e *Exporter) read(n uint64) (m Manifest, lines []line, err error) {
	name := e.name(n, ".csv")
	f, err := os.Open(name)
	if err != nil {
		return m, nil, fmt.Errorf("cdrfile: %w", err)
	}
	defer f.Close()
	digest := sha256.New()
	r := csv.NewReader(io.TeeReader(f, digest))
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 || !slices.Equal(rows[0], columns) {
		return m, nil, fmt.Errorf("cdrfile: %s is not a file that was written here (%v): move it away, and the records are written again", name, err)
	}
	m = Manifest{Realm: e.cfg.Realm, Sequence: n, File: filepath.Base(name), Records: len(rows) - 1}
	for _, row := range rows[1:] {
		number := func(i int) uint64 {
			v, e := strconv.ParseUint(row[i], 10, 64)
			err = errors.Join(err, e)
			return v
		}
		lines = append(lines, line{number(0), row[1], uint32(number(2))})
		m.Usage = m.Usage.Plus(acct.Usage{InputOctets: number(6), OutputOctets: number(7), InputPackets: number(8), OutputPackets: number(9)})
	}
	if err != nil {
		return m, nil, fmt.Errorf("cdrfile: %s: %w", name, err)
	}
	m.SHA256 = hex.EncodeToString(digest.Sum(nil))
	return m, lines, nil
}

// Settle takes the acknowledgements that have come, in order of file.
func (e *Exporter) Settle(ctx context.Context) error {
	acks, err := e.numbers(".ack")
	if err != nil {
		return err
	}
	files, err := e.numbers(".csv")
	if err != nil {
		return err
	}
	for _, n := range acks {
		if !slices.Contains(files, n) {
			if err := e.stray(n); err != nil {
				return err
			}
		}
	}
	for _, n := range files {
		settled := false
		if slices.Contains(acks, n) {
			if settled, err = e.settle(ctx, n); err != nil {
				return err
			}
		}
		if !settled {
			if later := slices.Max(append(acks, 0)); later > n && e.waits != n {
				e.waits = n
				e.cfg.Log.Warn("acknowledgements wait for that of an earlier CDR file", "realm", e.cfg.Realm, "file", filepath.Base(e.name(n, ".csv")))
			}
			return nil
		}
	}
	return nil
}

// numbers returns the numbers of the files in the directory that have a suffix,
// in order.
func (e *Exporter) numbers(suffix string) (list []uint64, err error) {
	found, err := filepath.Glob(filepath.Join(e.cfg.Dir, e.cfg.Realm+"-*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("cdrfile: %w", err)
	}
	for _, name := range found {
		if n, ok := e.sequenceOf(strings.TrimSuffix(name, suffix) + ".csv"); ok {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// stray takes the acknowledgement of a file that is not there.
func (e *Exporter) stray(n uint64) error {
	if _, err := os.Stat(filepath.Join(e.done(), filepath.Base(e.name(n, ".csv")))); err == nil {
		return e.retire(n) // a crash came while they were moved
	}
	e.cfg.Log.Warn("an acknowledgement has no CDR file", "file", e.name(n, ".ack"))
	return nil
}

// settle takes the acknowledgement of file n, and reports whether it did. One
// that does not fit the file is logged and left where it is, for people.
func (e *Exporter) settle(ctx context.Context, n uint64) (bool, error) {
	name := e.name(n, ".ack")
	m, lines, err := e.read(n)
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("cdrfile: %w", err)
	}
	var ack Acknowledgement
	if err := json.Unmarshal(b, &ack); err != nil {
		e.cfg.Log.Warn("an acknowledgement can't be read", "file", name, "error", err)
		return false, nil
	}
	if ack.Sequence != n || ack.Records != m.Records || ack.SHA256 != m.SHA256 {
		e.cfg.Log.Warn("an acknowledgement does not fit its CDR file", "file", name, "records", ack.Records, "want", m.Records)
		return false, nil
	}
	rejected := map[line]string{}
	for _, r := range ack.Rejected {
		rejected[line{0, r.SessionID, r.Number}] = r.Reason
	}
	settlements := make([]acct.Settlement, len(lines))
	for i, l := range lines {
		s := acct.Settlement{ID: l.id, State: acct.Acknowledged, Peer: "file " + m.File, At: time.Now()}
		if reason, no := rejected[line{0, l.session, l.number}]; no || !ack.Accepted {
			s.State, s.Reason = acct.Quarantined, reason
			if s.Reason == "" {
				s.Reason = "the partner has not accepted the file: " + ack.Reason
			}
		}
		settlements[i] = s
	}
	if err := e.cfg.Outbox.Settle(ctx, settlements); err != nil {
		return false, fmt.Errorf("cdrfile: settle: %w", err)
	}
	if err := e.retire(n); err != nil {
		return false, err
	}
	for _, l := range lines {
		delete(e.open, l.id)
	}
	e.cfg.Log.Info("CDR file is acknowledged", "realm", e.cfg.Realm, "file", m.File, "records", m.Records, "rejected", len(ack.Rejected), "accepted", ack.Accepted)
	return true, nil
}

// retire moves a file that is settled, and what belongs to it, to "done". The
// acknowledgement goes last: while it is there, a crash is made up for.
func (e *Exporter) retire(n uint64) error {
	for _, suffix := range []string{".csv", ".json", ".ack"} {
		from := e.name(n, suffix)
		if err := os.Rename(from, filepath.Join(e.done(), filepath.Base(from))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cdrfile: %w", err)
		}
	}
	if err := errors.Join(durable.SyncDir(e.cfg.Dir), durable.SyncDir(e.done())); err != nil {
		return fmt.Errorf("cdrfile: %w", err)
	}
	return nil
}
