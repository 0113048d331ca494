package archive

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"

	"tollbridge/asm/acct"
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
	w := &entriesWriter{a: a, segment: Segment{Kind: Journal, First: from + 1, Last: until}, parts: make(map[uint64]*bytes.Buffer), part: 1}
	defer w.abandon()
	if from > 0 {
		if err := w.opening(ctx, from); err != nil {
			return err
		}
	}
	if err := w.begin(); err != nil {
		return err
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
			if err := w.put(e); err != nil {
				return err
			}
		}
		if w.held >= partOctets {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := a.finish(&w.segment, w.files...); err != nil {
		return err
	}
	a.mu.Lock()
	a.last = until
	a.mu.Unlock()
	return a.cfg.Spool.Archived(nil, a.head())
}

// An entriesWriter writes the files of a Segment of the journal.
type entriesWriter struct {
	a       *Archive
	segment Segment
	files   []*file
	lines   *json.Encoder            // of the entries' file
	parts   map[uint64]*bytes.Buffer // by Transport Session, Messages not written yet
	held    int                      // octets of those
	part    int                      // number of the next ones' files
}

// abandon removes what was not finished.
func (w *entriesWriter) abandon() {
	for _, f := range w.files {
		f.abandon()
	}
}

// opening writes the one at a position of the journal.
func (w *entriesWriter) opening(ctx context.Context, position uint64) error {
	data, err := w.a.cfg.Spool.OpeningData(ctx, position)
	if err != nil {
		return err
	}
	f, err := w.a.createPlain("opening.jsonl.zst")
	if err != nil {
		return err
	}
	w.files = append(w.files, f)
	_, err = f.Write(data)
	return err
}

// begin begins the entries' file.
func (w *entriesWriter) begin() error {
	f, err := w.a.create("entries.jsonl.zst")
	if err != nil {
		return err
	}
	w.files, w.lines = append(w.files, f), json.NewEncoder(f)
	return nil
}

// put writes an entry's line, and takes in the Message that it may be.
func (w *entriesWriter) put(e acct.Entry) error {
	line := Entry{Position: e.Position, Kind: uint8(e.Kind), What: e.Kind.String(), Time: e.Time, Session: e.Session, Data: e.Data}
	if e.Kind == acct.EntryMessage {
		session, _ := e.Stream()
		b := w.parts[session]
		if b == nil {
			b = new(bytes.Buffer)
		}
		if place, ok := w.a.cfg.Messages.Append(b, e); ok {
			w.parts[session] = b
			line.File, line.Place, line.Data = w.a.fileName(w.partName(session)), place, nil
			w.held += place.Octets
			w.segment.Messages++
			w.segment.Octets += uint64(len(e.Data))
		}
	}
	w.segment.Records++
	return w.lines.Encode(&line)
}

func (w *entriesWriter) partName(session uint64) string {
	return fmt.Sprintf("session-%d-%d.ipfix.zst", session, w.part)
}

// flush writes the Messages that it holds, a file for each Transport Session.
func (w *entriesWriter) flush() error {
	for session, b := range w.parts {
		f, err := w.a.create(w.partName(session))
		if err != nil {
			return err
		}
		w.files = append(w.files, f)
		_, err = b.WriteTo(f)
		*b = bytes.Buffer{} // whoever still knows it holds no memory for it
		if err != nil {
			return err
		}
		if err := f.close(); err != nil { // its encoder's memory is wanted back
			return err
		}
	}
	clear(w.parts)
	w.held, w.part = 0, w.part+1
	return nil
}

// ReadJournal visits what the archive in dir has of the journal, in order: at
// first the opening that its oldest Segment begins with (zero if that is the
// journal's beginning), then each entry.
func ReadJournal(dir string, begin func(spool.Opening) error, visit func(acct.Entry) error) error {
	segments, _, err := Read(dir)
	if err != nil {
		return err
	}
	begun := false
	for _, s := range Kept(segments) {
		if s.Kind != Journal {
			continue
		}
		if !begun {
			o, err := readOpening(dir, &s)
			if err == nil {
				err = begin(o)
			}
			if err != nil {
				return fmt.Errorf("archive: segment %d: %w", s.Number, err)
			}
			begun = true
		}
		if err := readEntries(dir, &s, visit); err != nil {
			return fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
	}
	return nil
}

// ReadJournalAt is ReadJournal of the one Segment that has a position of the
// journal. The error matches acct.ErrNoEntry where none that is kept has it.
func ReadJournalAt(dir string, position uint64, begin func(spool.Opening) error, visit func(acct.Entry) error) error {
	segments, _, err := Read(dir)
	if err != nil {
		return err
	}
	for _, s := range Kept(segments) {
		if s.Kind != Journal || position < s.First || position > s.Last {
			continue
		}
		o, err := readOpening(dir, &s)
		if err == nil {
			err = begin(o)
		}
		if err == nil {
			err = readEntries(dir, &s, visit)
		}
		if err != nil {
			return fmt.Errorf("archive: segment %d: %w", s.Number, err)
		}
		return nil
	}
	return fmt.Errorf("archive: position %d of the journal is in no segment of %s: %w", position, dir, acct.ErrNoEntry)
}

func readOpening(dir string, s *Segment) (spool.Opening, error) {
	name := s.file("opening.jsonl.zst")
	if name == "" {
		return spool.Opening{Checkpoint: acct.Checkpoint{NextSuspended: 1}}, nil
	}
	f, err := openFile(dir, name)
	if err != nil {
		return spool.Opening{}, err
	}
	defer f.Close()
	return spool.ReadOpening(f)
}

func readEntries(dir string, s *Segment, visit func(acct.Entry) error) error {
	in, err := openFile(dir, s.file("entries.jsonl.zst"))
	if err != nil {
		return err
	}
	defer in.Close()
	messages := make(map[string]*messageFile)
	defer func() {
		for _, m := range messages {
			_ = m.Close()
		}
	}()
	d := json.NewDecoder(bufio.NewReader(in))
	for {
		var l Entry
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		e := acct.Entry{Position: l.Position, Kind: acct.EntryKind(l.Kind), Time: l.Time, Session: l.Session, Data: l.Data}
		if l.File != "" {
			m := messages[l.File]
			if m == nil {
				f, err := openFile(dir, filepath.Base(l.File))
				if err != nil {
					return err
				}
				m = &messageFile{ReadCloser: f}
				messages[l.File] = m
			}
			if e.Data, err = m.message(l.Place); err != nil {
				return fmt.Errorf("entry %d, %s at %d: %w", l.Position, l.File, l.Offset, err)
			}
		}
		if err := visit(e); err != nil {
			return err
		}
	}
}

// A messageFile gives the Messages of a file in their order.
type messageFile struct {
	io.ReadCloser
	at int
}

// message returns the Message at p as it came.
func (m *messageFile) message(p Place) ([]byte, error) {
	if p.Offset < m.at || p.Octets < 0 || p.Octets > 1<<16 {
		return nil, ErrBroken
	}
	if _, err := io.CopyN(io.Discard, m, int64(p.Offset-m.at)); err != nil {
		return nil, err
	}
	b := make([]byte, p.Octets)
	if _, err := io.ReadFull(m, b); err != nil {
		return nil, err
	}
	m.at = p.Offset + p.Octets
	return p.restore(b)
}
