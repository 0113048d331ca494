package archive

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

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

// ReadRecords visits the settled accounting records that the archive in dir
// has, Segment by Segment, and returns which of the outbox they are.
func ReadRecords(dir string, visit func(Record) error) ([]spool.Range, error) {
	segments, _, err := Read(dir)
	if err != nil {
		return nil, err
	}
	var ids []spool.Range
	for _, s := range Kept(segments) {
		if s.Kind != CDRs {
			continue
		}
		if err := readRecords(dir, &s, visit); err != nil {
			return nil, fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
		ids = append(ids, s.IDs...)
	}
	return ids, nil
}

func readRecords(dir string, s *Segment, visit func(Record) error) error {
	in, err := openFile(dir, s.file("cdr.jsonl.zst"))
	if err != nil {
		return err
	}
	defer in.Close()
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var r Record
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := visit(r); err != nil {
			return err
		}
	}
}
